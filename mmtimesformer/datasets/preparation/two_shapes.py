"""*Two Shapes*: the multi-label form of *Moving Shapes*, two moving shapes in each video.

Each shape moves in one of the ways of :data:`.moving_shapes.MOTIONS`, drawn uniformly from all
pairs of two different ones. The labels of a video are the axes of its motions (horizontal,
vertical, orbit, size), so a video has one label or two; or, with ``directions``, the two motions.
Everything else is as in Moving Shapes.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmtimesformer.datasets.preparation.generated_videos import write_video
from mmtimesformer.datasets.preparation.moving_shapes import (
    CLASSES,
    HEIGHT,
    MOTIONS,
    WIDTH,
    draw_clip,
    draw_scene,
)
from mmtimesformer.fileio.atomic import write_lines_atomically
from mmtimesformer.terminal import track


def make_two_shapes(
    out: Path,
    num_videos: int = 2000,
    seed: int = 0,
    directions: bool = False,
    num_workers: int = 2,
) -> Path:
    """Write videos and ``labels.csv``, of ``path,label`` with labels separated by ``;``.

    Args:
        out: Folder of the data set; new.
        num_videos: Number of videos.
        seed: Each video has its own stream, drawn from the seed and its number.
        directions: Whether labels are motions instead of their axes.
        num_workers: Threads.

    Returns:
        The CSV file.

    Raises:
        FileExistsError: ``out`` is there and not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f'{out} is not empty; name another folder, or remove it')
    (out / 'videos').mkdir(parents=True)

    def write(number: int) -> str:
        frames, motions = draw_two_shapes(seed, number)
        name = f'videos/{number:05d}.mp4'
        write_video(out / name, frames)
        labels = motions if directions else {MOTIONS[motion][0] for motion in motions}
        return f'{name},{";".join(sorted(labels))}'

    with ThreadPoolExecutor(num_workers) as pool:
        lines = list(track(pool.map(write, range(num_videos)), 'Two Shapes', total=num_videos))
    write_lines_atomically(out / 'labels.csv', ['path,label', *lines])
    return out / 'labels.csv'


def draw_two_shapes(seed: int, number: int) -> tuple[np.ndarray, list[str]]:
    """Draw a clip and its labels.

    Returns:
        The clip, ``(NUM_FRAMES, HEIGHT, WIDTH, 3)`` of uint8, and two different motions.
    """
    rng = np.random.default_rng([seed, number])
    motions = [str(name) for name in rng.choice(CLASSES, 2, replace=False)]
    behind, before = draw_scene(rng), draw_scene(rng)
    frames = draw_clip(behind, motions[0])
    black = np.zeros((HEIGHT, WIDTH, 3))
    white = replace(before, background=black, colour=np.full(3, 255.0))
    cover = draw_clip(white, motions[1]) / 255
    both = frames * (1 - cover) + before.colour * cover
    return both.round().astype(np.uint8), sorted(motions)
