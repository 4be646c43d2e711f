"""One picture per tested video: the frames that the model saw, and in its name what it said."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from mmengine.hooks import Hook
from mmengine.visualization import LocalVisBackend
from torch import Tensor

from mmtimesformer.compat.data_samples import is_multi_label, labels_of, scores_of
from mmtimesformer.fileio.file_names import short_file_name
from mmtimesformer.registry import HOOKS

FRAMES_SHOWN = 16
LONGEST = 60  # bytes of the predicted classes, and of the true ones, in a file's name


@HOOKS.register_module()
class PredictionImagesHook(Hook):
    """Draws tested clips as a sheet, time from left to right and one row per view (crop or clip).

    A file is named ``vis_image/<index>_<video>_said_<class>_<score>_truth_<class>_0.png``, so a
    listing of the folder is a list of the predictions. Where a video has several labels, all true
    ones and all that are predicted with a probability of at least 0.5 are named, joined by ``+``.

    Args:
        out_dir: Folder for the pictures; ``None`` for none.
        interval: Every how many samples one is drawn.
        show: Open a window with each picture; the first process does, with its own samples.
        wait_time: How long a window stays, in seconds.
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

    def before_test_epoch(self, runner: Any) -> None:
        """Count samples from the first one again."""
        self.seen = 0

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Draw the samples whose turn it is; each process draws its own."""
        dataset = runner.test_dataloader.dataset
        head = (runner.cfg.get('model') or {}).get('cls_head') or {}
        # A logit of 0 is a probability of 0.5
        threshold = 0.0 if head.get('average_clips') in ('score', 'sum') else 0.5
        for video, sample in zip(data_batch['inputs'], outputs, strict=True):
            # Samplers deal samples out in turn, and repeat some so that all get equally many.
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


def outcome(sample: Any, metainfo: dict[str, Any], threshold: float = 0.5) -> str:
    """Say what was predicted, how surely, and what was true, in letters that fit a file name.

    Args:
        sample: With scores and truth.
        metainfo: Of the data set; ``classes`` are the names.
        threshold: Of several labels a video: those with at least this score are predicted.
    """
    names = metainfo.get('classes') or ()

    def word(label: int) -> str:
        known = 0 <= label < len(names)
        return _word(str(names[label]), 50) if known else str(label)

    scores = scores_of(sample)
    order = scores.argsort(descending=True, stable=True).tolist()
    several = is_multi_label(sample)
    guesses = [i for i in order if scores[i] >= threshold] if several else order[:1]
    said = [f'{word(i)}_{float(scores[i]):.2f}' for i in guesses]
    truth = [word(label) for label in labels_of(sample)]
    return f'said_{_joined(said)}_truth_{_joined(truth)}'


def _joined(words: list[str]) -> str:
    """Join the words of a file name, which may have 255 bytes; say how many more there are."""
    shown: list[str] = []
    for number, word in enumerate(words):
        if shown and len('+'.join([*shown, word]).encode()) > LONGEST:
            return '+'.join(shown) + f'+{len(words) - number}-more'
        shown.append(word)
    return '+'.join(shown) or 'none'


def _word(name: str, most: int) -> str:
    """Return a name as a part of a file name: letters, digits, ``_``, ``.`` and ``-``.

    Args:
        name: Of a class or a video.
        most: Bytes of the result; file systems allow 255 for the whole name.
    """
    return short_file_name(re.sub(r'[^\w.-]+', '-', name), most) or '-'


def contact_sheet(video: Tensor) -> np.ndarray:
    """Lay out the frames of a decoded video side by side, its views one below the other.

    Of long clips :data:`FRAMES_SHOWN` evenly spaced frames are kept.

    Shape:
        - video: ``(views) c t H W`` of 8-bit colours -> ``(views H) (t W) c``
    """
    if video.ndim == 4:
        video = video[None]
    frames = video.shape[2]
    kept = torch.linspace(0, frames - 1, min(frames, FRAMES_SHOWN)).round().long()
    sheet = rearrange(video[:, :, kept], 'views c t H W -> (views H) (t W) c')
    return sheet.contiguous().cpu().numpy()
