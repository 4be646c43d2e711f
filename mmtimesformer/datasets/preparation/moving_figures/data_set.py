"""Write the Moving Figures data set: videos, annotation files and class names."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmtimesformer.datasets.preparation.generated_videos import (
    ENCODER,
    SPLITS,
    make_once,
    write_pairs,
)
from mmtimesformer.datasets.preparation.moving_figures.actions import CLASSES
from mmtimesformer.datasets.preparation.moving_figures.clips import (
    FPS,
    HEIGHT,
    NUM_FRAMES,
    WIDTH,
    draw_scene,
    play,
)

VERSION = 1  # of the drawing; another number makes every data set again
#: Neighbours in the annotation files, always of one scene.
PAIRS = tuple(zip(CLASSES[::2], CLASSES[1::2], strict=True))


@dataclass(frozen=True)
class Settings:
    """What the user decides about the data set.

    Attributes:
        num_train: Videos to train on; a multiple of 10, so that every class has equally many.
        num_val: Videos to validate and test on; likewise.
        seed: Each ten clips have a scene of their own, of this seed, the split and its number.
        width: Of the videos, in pixels; even.
        height: Likewise.
        num_frames: Length of a clip.
    """

    num_train: int = 400
    num_val: int = 100
    seed: int = 0
    width: int = WIDTH
    height: int = HEIGHT
    num_frames: int = NUM_FRAMES

    def __post_init__(self) -> None:
        for name in ('num_train', 'num_val'):
            number = getattr(self, name)
            if number < len(CLASSES) or number % len(CLASSES):
                nearest = max(1, round(number / len(CLASSES))) * len(CLASSES)
                raise ValueError(
                    f'{name}={number} is not a positive multiple of {len(CLASSES)}, the number of '
                    f'classes; set {name} to {nearest}, say'
                )
        for name in ('width', 'height'):
            size = getattr(self, name)
            if size < 16 or size % 2:
                raise ValueError(f'{name}={size} is not an even number from 16; set another {name}')
        if self.seed < 0:
            raise ValueError(f'seed={self.seed} is negative; set seed to 0 or more')
        if self.num_frames < 1:
            raise ValueError(f'num_frames={self.num_frames} is not positive; set num_frames to 24')

    def recipe(self) -> dict[str, Any]:
        """Return all that decides the content, as it is written into ``manifest.json``."""
        return {
            'moving_figures': VERSION,
            **asdict(self),
            'classes': list(CLASSES),
            'fps': FPS,
            'encoder': ENCODER,
        }


def make_moving_figures(
    out: str | Path, settings: Settings | None = None, num_workers: int = 2
) -> bool:
    """Write the data set, unless it is there already.

    ::

        out/
        ├── classes.txt      class names, one a line; the label is the line number from 0
        ├── train.txt        "video label" a line, as MMAction2's VideoDataset reads it
        ├── val.txt
        ├── videos_train/    00000_walking.mp4, 00000_running.mp4 (in the same scene), ...
        ├── videos_val/
        └── manifest.json    the settings

    Args:
        out: Folder of the data set.
        settings: Number and size of the videos, and seed.
        num_workers: Threads.

    Returns:
        Whether it was written; False when it was there.

    Raises:
        FileExistsError: ``out`` holds something else, which is left alone.
    """
    settings = settings or Settings()

    pairs = {'train': settings.num_train // 2, 'val': settings.num_val // 2}

    def draw(split: str, number: int) -> dict[str, np.ndarray]:
        return draw_pair(settings, split, number)

    def write(folder: Path) -> None:
        write_pairs(folder, 'Moving Figures', CLASSES, pairs, draw, num_workers)

    return make_once(Path(out), settings.recipe(), 'Moving Figures', write)


def draw_pair(settings: Settings, split: str, number: int) -> dict[str, np.ndarray]:
    """Return the clips of two classes in one scene, see :func:`.clips.draw_clip`.

    Each scene shows all classes, in consecutive pairs, so that no scene can be learned by heart as
    a sign of its class.

    Args:
        settings: Of the data set.
        split: ``'train'`` or ``'val'``.
        number: Of the pair within its split; consecutive pairs take turns at :data:`PAIRS`.
    """
    scene = draw_scene([settings.seed, SPLITS.index(split), number // len(PAIRS)])
    size = settings.num_frames, settings.width, settings.height
    return {label: play(scene, label, *size) for label in PAIRS[number % len(PAIRS)]}
