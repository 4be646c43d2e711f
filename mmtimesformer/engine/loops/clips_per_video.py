"""``train_dataloader.clips_per_video = k``: several clips of each video that is decoded.

The rules, so that everything else stays as it is:

- **A batch** is ``batch_size`` clips for each process, as without it: of ``batch_size / k`` videos,
  ``k`` of each, side by side. So what fits into memory still fits, and what counts batches (scaling
  the learning rate, accumulating gradients) is right as it is.
- **The sampler** is untouched and gives each video once an epoch, to one process.
- **An epoch** takes ``k`` clips of each video. It has ``k`` times as many steps as without, in
  about the time of one decoding. For a training of as many steps and clips as before, divide
  epochs and milestones by ``k``.

Clips of a video resemble each other more than those of different videos do, so ``batch_size`` clips
are fewer than that many independent samples. It shows where ``batch_size / k`` times the number of
processes (and of accumulated batches) is only a few videos.
"""

import logging
from functools import partial
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import FUNCTIONS

COLLATE = 'mmtimesformer.collate_clips'


def with_clips_per_video(dataloader: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a data loader that does what ``clips_per_video`` says.

    Raises:
        ValueError: It is no positive whole number, does not divide ``batch_size``, or the data set
            has no pipeline.
    """
    dataloader = dict(dataloader)
    clips = dataloader.pop('clips_per_video')
    if not isinstance(clips, int) or clips < 1:
        raise ValueError(
            f'clips_per_video={clips!r} is not a positive whole number; set '
            'train_dataloader.clips_per_video'
        )
    if clips == 1:
        return dataloader
    batch_size = dataloader['batch_size']
    if batch_size % clips:
        raise ValueError(
            f'batch_size={batch_size} clips are not made up of clips_per_video={clips} for each '
            'video; set train_dataloader.batch_size to a multiple, or clips_per_video to a divisor'
        )
    dataset = dataloader['dataset']
    if isinstance(dataset, dict) and dataset.get('test_mode'):
        raise ValueError(
            f'clips_per_video={clips} is for training; for more views of a test set num_clips of '
            'the transform that samples frames'
        )
    dataloader['dataset'] = _repeated(dataset, clips)
    if dataloader['dataset'] == dataset:
        raise ValueError(
            f'clips_per_video={clips} needs a data set with a pipeline; {dataset!r} has none'
        )
    dataloader['batch_size'] = batch_size // clips
    dataloader['collate_fn'] = {'type': COLLATE, **_inner_collate(dataloader.get('collate_fn'))}
    print_log(
        f'{clips} clips per video: a batch of {batch_size} clips is of {batch_size // clips} '
        f'videos, and an epoch takes {clips} clips of each video, in {clips} times as many steps '
        f'(for as many steps as without, divide epochs and milestones by {clips}).',
        logger='current',
        level=logging.INFO,
    )
    return dataloader


def _repeated(dataset: Any, clips: int) -> Any:
    """Return the config of a data set in which every pipeline gives several clips."""
    if not isinstance(dataset, dict):
        return dataset
    changed = type(dataset)(dataset)
    if dataset.get('pipeline'):
        repeat = {'type': 'mmtimesformer.RepeatClips', 'clips_per_video': clips}
        changed['pipeline'] = [{**repeat, 'transforms': dataset['pipeline']}]
    if 'dataset' in dataset:
        changed['dataset'] = _repeated(dataset['dataset'], clips)
    if 'datasets' in dataset:
        changed['datasets'] = [_repeated(part, clips) for part in dataset['datasets']]
    return changed


def _inner_collate(configured: Any) -> dict[str, Any]:
    """Return what collates the clips, as an argument, if the config says so."""
    if configured is None:
        return {}
    if not isinstance(configured, dict):
        return {'collate': configured}
    arguments = dict(configured)
    kind = arguments.pop('type')
    function = FUNCTIONS.get(kind) if isinstance(kind, str) else kind
    return {'collate': partial(function, **arguments)}
