"""Write a generated data set once: pairs of videos, annotation files, class names, manifest.

:mod:`.moving_shapes` and :mod:`.moving_figures` draw the videos.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mmtimesformer.terminal import track

try:
    import fcntl
except ModuleNotFoundError:  # Windows: whoever makes the data set there makes it alone
    fcntl = None  # type: ignore[assignment]

SPLITS = ('train', 'val')

#: All-intra at a constant quantiser: a frame is encoded from its own picture alone. Nothing before
#: it can be seen in it (a shape leaves no trail), and it can be decoded without the others.
ENCODER = {'g': '1', 'qp': '23', 'preset': 'veryfast', 'threads': '1'}

Draw = Callable[[str, int], Mapping[str, np.ndarray]]


def make_once(
    out: Path, recipe: Mapping[str, Any], name: str, write: Callable[[Path], None]
) -> bool:
    """Write a generated data set and its ``manifest.json``, unless it is there already.

    Args:
        out: Folder of the data set.
        recipe: All that decides its content.
        name: Name of the data set, for messages.
        write: Writes all but the manifest into an empty folder.

    Returns:
        Whether it was written; False when it was there.

    Raises:
        FileExistsError: ``out`` holds something else, which is left alone.
    """
    if holds(out, recipe):
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    with _taking_turns(out.parent):
        if holds(out, recipe):  # by the one we waited for
            return False
        if out.exists() and not (out / 'manifest.json').is_file() and any(out.iterdir()):
            raise FileExistsError(
                f'{out} is not empty and has no manifest.json of {name}, so it is left '
                'alone; name another folder, or remove it'
            )
        partial, outdated = (out.with_name(f'.{out.name}.{end}') for end in ('partial', 'outdated'))
        for leftover in (partial, outdated):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir()
        write(partial)
        (partial / 'manifest.json').write_text(json.dumps(recipe, indent=2) + '\n')
        if out.exists():
            out.rename(outdated)
        partial.rename(out)
        shutil.rmtree(outdated, ignore_errors=True)
    return True


def holds(out: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether ``out`` has a manifest that equals a recipe, and every listed video."""
    try:
        if json.loads((out / 'manifest.json').read_text()) != recipe:
            return False
        return all(
            (out / f'videos_{split}' / line.split()[0]).is_file()
            for split in SPLITS
            for line in (out / f'{split}.txt').read_text().splitlines()
        )
    except (OSError, ValueError, RecursionError, IndexError):
        return False


def write_pairs(
    folder: Path,
    name: str,
    classes: Sequence[str],
    pairs: Mapping[str, int],
    draw: Draw,
    num_workers: int,
) -> None:
    """Write everything but the manifest into an empty folder.

    Args:
        folder: Of the data set.
        name: Of the data set, for the progress bar.
        classes: Class names, in the order of their labels.
        pairs: Number of pairs of videos by split.
        draw: Returns the two clips of a pair by class name, for its split and number.
        num_workers: Threads.
    """
    jobs = [(split, number) for split in SPLITS for number in range(pairs[split])]
    for split in SPLITS:
        (folder / f'videos_{split}').mkdir()

    def write(job: tuple[str, int]) -> list[str]:
        split, number = job
        lines = []
        for label, frames in draw(split, number).items():
            video = f'{number:05d}_{label.replace(" ", "_")}.mp4'
            write_video(folder / f'videos_{split}' / video, frames)
            lines.append(f'{video} {classes.index(label)}\n')
        return lines

    lines: dict[str, list[str]] = {split: [] for split in SPLITS}
    pool = ThreadPoolExecutor(num_workers)
    try:
        written = track(pool.map(write, jobs), name, total=len(jobs))
        for (split, _), pair in zip(jobs, written, strict=True):
            lines[split] += pair
    finally:
        pool.shutdown(cancel_futures=True)
    for split in SPLITS:
        (folder / f'{split}.txt').write_text(''.join(lines[split]))
    (folder / 'classes.txt').write_text('\n'.join(classes) + '\n')


def write_video(path: Path, frames: np.ndarray, fps: int = 10) -> None:
    """Write frames, ``t H W 3`` of uint8, as mp4 of keyframes alone (:data:`ENCODER`)."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'generated videos are written with PyAV, which is not installed; run: pip install av'
        ) from error
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=fps, options=ENCODER)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = 'yuv420p'
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format='rgb24')
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


@contextmanager
def _taking_turns(folder: Path) -> Iterator[None]:
    """Keep other processes out; a killed process leaves no lock behind."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
