"""Train on several clips of each decoded video: ``train_dataloader.clips_per_video = k``.

- **A batch** still has ``batch_size`` clips per process: ``k`` clips each of ``batch_size / k``
  videos. So memory, scaling of the learning rate and accumulation of gradients do not change.
- **The sampler** still gives each video once an epoch, to one process.
- **An epoch** has ``k`` clips of each video and ``k`` times as many steps, in about the time of one
  decoding. For as many steps and clips as before, divide epochs and milestones by ``k``.

Clips of one video are alike, so a batch has fewer independent samples. That matters where
``batch_size / k`` times the number of processes and accumulated batches is only a few videos.
"""

import logging
from functools import partial
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import FUNCTIONS

COLLATE = 'mmtimesformer.collate_clips'


def with_clips_per_video(dataloader: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a data loader without ``clips_per_video``, which yields such batches.

    Raises:
        ValueError: It is not a positive whole number, does not divide ``batch_size``, or the data
            set has no pipeline.
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
            f'batch_size={batch_size} is not divisible by clips_per_video={clips}; set '
            ' train_dataloader.batch_size to a multiple, or clips_per_video to a divisor'
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
        f'{clips} clips per video: a batch of {batch_size} clips has {batch_size // clips} '
        f'videos, and an epoch takes {clips} clips of each video, in {clips} times as many steps '
        f'(for as many steps as without, divide epochs and milestones by {clips}).',
        logger='current',
        level=logging.INFO,
    )
    return dataloader


def _repeated(dataset: object, clips: int) -> object:
    """Return the config of a data set whose pipelines return several clips."""
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


def _inner_collate(configured: object) -> dict[str, object]:
    """Return the collate function of the config as an argument of ours."""
    if configured is None:
        return {}
    if not isinstance(configured, dict):
        return {'collate': configured}
    arguments = dict(configured)
    kind = arguments.pop('type')
    function = FUNCTIONS.get(kind) if isinstance(kind, str) else kind
    return {'collate': partial(function, **arguments)}
