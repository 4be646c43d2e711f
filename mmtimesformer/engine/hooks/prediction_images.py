"""Draw the input frames of each tested video; the file name has prediction and label."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend
from torch import Tensor

from mmtimesformer.compat.data_samples import (
    is_multi_label,
    is_regression,
    labels_of,
    scores_of,
    targets_of,
)
from mmtimesformer.fileio.file_names import short_file_name
from mmtimesformer.registry import HOOKS

FRAMES_SHOWN = 16
LONGEST = 60  # bytes of the predicted classes, and of the true ones, in a file's name


@HOOKS.register_module()
class PredictionImagesHook(Hook):
    """Draw tested clips as a sheet, time from left to right and one row per view (crop or clip).

    A file is named ``vis_image/<index>_<video>_said_<class>_<score>_truth_<class>_0.png``, so a
    listing of the folder is a list of the predictions. The name of a multi-label video has all its
    labels and all classes with a probability of at least 0.5, joined by ``+``.

    Args:
        out_dir: Folder for the images; ``None`` for none.
        interval: Draw one of so many samples.
        show: Open a window with each image of rank 0.
        wait_time: Seconds before a window closes.
    """

    def __init__(
        self,
        out_dir: str | None = None,
        interval: int = 1,
        show: bool = False,
        wait_time: float = 2.0,
    ) -> None:
        if interval < 1:
            raise ValueError(f'interval={interval} is not a positive number; set --interval')
        self.backend = LocalVisBackend(save_dir=out_dir) if out_dir else None
        self.interval = interval
        self.show = show
        self.wait_time = wait_time
        self.seen = 0

    def before_test_epoch(self, runner: Runner) -> None:
        self.seen = 0

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Draw one of ``interval`` samples; each rank draws its own."""
        dataset = runner.test_dataloader.dataset
        head = (runner.cfg.get('model') or {}).get('cls_head') or {}
        # A logit of 0 is a probability of 0.5
        threshold = 0.0 if head.get('average_clips') in ('score', 'sum') else 0.5
        for video, sample in zip(data_batch['inputs'], outputs, strict=True):
            # A sampler gives samples to the ranks in turn, and repeats some to fill up
            index = self.seen * runner.world_size + runner.rank
            self.seen += 1
            if index >= len(dataset) or index % self.interval:
                continue
            video_name = _word(Path(dataset.get_data_info(index).get('filename', '')).stem, 80)
            name = f'{index:06d}_{video_name}_{outcome(sample, dataset.metainfo, threshold)}'
            name = short_file_name(name, 240)
            sheet = contact_sheet(video)
            if self.backend:
                self.backend.add_image(name, sheet)
            if self.show:
                runner.visualizer.show(sheet, win_name=name, wait_time=self.wait_time)


def outcome(sample: Any, metainfo: Mapping[str, Any], threshold: float = 0.5) -> str:
    """Return predicted classes, their scores and the labels as a part of a file name.

    ``threshold`` is the least score of a predicted class of a multi-label video.
    """
    names = metainfo.get('classes') or ()

    def word(label: int) -> str:
        known = 0 <= label < len(names)
        return _word(str(names[label]), 50) if known else str(label)

    scores = scores_of(sample)
    if is_regression(sample):
        numbers = [f'{word(i)}_{float(value):.4g}' for i, value in enumerate(scores)]
        truth = [f'{float(value):.4g}' for value in targets_of(sample)]
        return f'said_{_joined(numbers)}_truth_{_joined(truth)}'
    order = scores.argsort(descending=True, stable=True).tolist()
    several = is_multi_label(sample)
    guesses = [i for i in order if scores[i] >= threshold] if several else order[:1]
    predicted = [f'{word(i)}_{float(scores[i]):.2f}' for i in guesses]
    labels = [word(label) for label in labels_of(sample)]
    return f'said_{_joined(predicted)}_truth_{_joined(labels)}'


def _joined(words: list[str]) -> str:
    """Join class names for a file name of at most 255 bytes; count those left out."""
    shown: list[str] = []
    for number, word in enumerate(words):
        if shown and len('+'.join([*shown, word]).encode()) > LONGEST:
            return '+'.join(shown) + f'+{len(words) - number}-more'
        shown.append(word)
    return '+'.join(shown) or 'none'


def _word(name: str, most: int) -> str:
    """Return a name as a part of a file name, at most so many bytes: word characters, . and -."""
    return short_file_name(re.sub(r'[^\w.-]+', '-', name), most) or '-'


def contact_sheet(video: Tensor) -> np.ndarray:
    """Put the frames of a decoded video side by side, its views one below the other.

    Long clips are reduced to :data:`FRAMES_SHOWN` evenly spaced frames.

    Shape:
        - video: ``(views) c t H W`` of 8-bit colours -> ``(views H) (t W) c``
    """
    if video.ndim == 4:
        video = video[None]
    frames = video.shape[2]
    kept = torch.linspace(0, frames - 1, min(frames, FRAMES_SHOWN)).round().long()
    sheet = rearrange(video[:, :, kept], 'views c t H W -> (views H) (t W) c')
    return sheet.contiguous().cpu().numpy()
