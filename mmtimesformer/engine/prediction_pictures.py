"""One picture per tested video: the frames that the model saw, and what it said."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from mmengine.hooks import Hook
from torch import Tensor

from mmtimesformer.engine.results import label_of, scores_of
from mmtimesformer.registry import HOOKS

FRAMES_SHOWN = 16


@HOOKS.register_module()
class PredictionPictures(Hook):
    """Draws tested clips as a sheet, time from left to right and one row per view (crop or clip).

    Args:
        out_dir: Folder for the pictures, ``<index>_<video>.png``; ``None`` for none.
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
        self.out_dir = Path(out_dir) if out_dir else None
        self.interval = interval
        self.show = show
        self.wait_time = wait_time
        self.seen = 0

    def before_test_epoch(self, runner: Any) -> None:
        """Count samples from the first one again."""
        self.seen = 0
        if self.out_dir:
            self.out_dir.mkdir(parents=True, exist_ok=True)

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Draw the samples whose turn it is; each process draws its own."""
        dataset = runner.test_dataloader.dataset
        for video, sample in zip(data_batch['inputs'], outputs, strict=True):
            # Samplers deal samples out in turn, and repeat some so that all get equally many.
            index = self.seen * runner.world_size + runner.rank
            self.seen += 1
            if index >= len(dataset) or index % self.interval:
                continue
            picture = captioned(contact_sheet(video), caption(sample, dataset.metainfo))
            name = f'{index:06d}_{Path(dataset.get_data_info(index).get("filename", "")).stem}'
            if self.out_dir:
                picture.save(self.out_dir / f'{name}.png')
            if self.show:
                runner.visualizer.show(np.asarray(picture), win_name=name, wait_time=self.wait_time)


def caption(sample: Any, metainfo: dict[str, Any]) -> str:
    """Say what was predicted, how surely, and what was true."""
    names = metainfo.get('classes') or ()

    def said(label: int) -> str:
        return str(names[label]) if 0 <= label < len(names) else str(label)

    scores = scores_of(sample)
    best = int(scores.argmax())
    return f'{said(best)} ({float(scores[best]):.2f}), truth: {said(label_of(sample))}'


def captioned(sheet: np.ndarray, text: str) -> Any:
    """Return the sheet as a picture with a line of text above it."""
    from PIL import Image, ImageDraw  # comes with MMEngine's matplotlib

    line = 20
    picture = Image.new('RGB', (sheet.shape[1], sheet.shape[0] + line))
    picture.paste(Image.fromarray(sheet), (0, line))
    ImageDraw.Draw(picture).text((4, 4), text, fill='white')
    return picture


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
