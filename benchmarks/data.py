"""From a file to a clip, MMAction2's pipeline and ours: python benchmarks/data.py [options].

Videos of 10 seconds are made first: textures that turn, zoom and pass before one another, two
scenes, noise as of a camera. Then every candidate reads a training clip of 8 frames, 32 apart, in
turn, on one core; a round is once each, and what is printed are medians, over rounds, of ratios
*within* a round. CPU time is counted, of all threads of the process.

    python benchmarks/data.py --quick                # a few minutes
    python benchmarks/data.py --out benchmarks/results

Before anything is timed, pixels are compared: our frames with those of decoding everything in
order, bit for bit; with decord as the reader, our clip with MMAction2's, bit for bit; the readers
with each other, to within the rounding of colours.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from mmaction.registry import TRANSFORMS
from mmaction.utils import register_all_modules

import mmtimesformer
from mmtimesformer.datasets import RepeatClips, Video
from mmtimesformer.datasets.preparation.transcoding import PRESETS, Transcode, transcode_video
from mmtimesformer.engine.loops.resumable_loop import seed_all

SECONDS, FPS = 10, 30
SIZES = {'340x256': (340, 256), '1280x720': (1280, 720)}
GOPS = (250, 30, 12)
ROUNDING = 4  # of 255, by which readers may differ in a colour

SAMPLE = dict(type='SampleFrames', clip_len=8, frame_interval=32, num_clips=1)
AUGMENT = [
    dict(type='Resize', scale=(-1, 256)),
    dict(type='RandomResizedCrop'),
    dict(type='Resize', scale=(224, 224), keep_ratio=False),
    dict(type='Flip', flip_ratio=0.5),
]
MMACTION2 = [
    dict(type='DecordInit'),
    SAMPLE,
    dict(type='DecordDecode'),
    *AUGMENT,
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]


def ours(reader: str = 'auto') -> list[dict[str, Any]]:
    """Our pipeline: other reading and formatting, the same clips and augmentation."""
    return [
        dict(type='mmtimesformer.VideoInit', reader=reader),
        SAMPLE,
        dict(type='mmtimesformer.VideoDecode'),
        *AUGMENT,
        dict(type='mmtimesformer.FormatClips'),
        dict(type='PackActionInputs'),
    ]


@dataclass(frozen=True)
class File:
    """A video, and what it cost.

    Attributes:
        path: Where it is.
        name: What it is called in the table.
        source: The video that it was made from, if any.
        storage: Its bytes, relative to its source.
        psnr: Decibels to its source.
    """

    path: Path
    name: str
    source: 'File | None' = None
    storage: float = 1.0
    psnr: float | None = None


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw a coloured texture whose contrast falls with fineness as in photographs."""
    fineness = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    fineness[0, 0] = 1
    grey = rng.standard_normal((height, width))
    planes = []
    for _ in range(3):
        noise = 0.8 * grey + 0.35 * rng.standard_normal((height, width))
        plane = np.fft.irfft2(np.fft.rfft2(noise) / fineness**1.1, (height, width))
        planes.append(128 + 48 * (plane - plane.mean()) / plane.std())
    return np.stack(planes, axis=-1).clip(0, 255).astype(np.float32)


def film(width: int, height: int) -> Iterator[np.ndarray]:
    """Film two scenes by a hand-held camera that pans and zooms, with three things passing."""
    rng = np.random.default_rng(0)
    frames = SECONDS * FPS
    for _ in range(2):
        ground = texture(rng, int(1.6 * height), int(1.6 * width))
        things = [texture(rng, int(0.7 * height), int(0.7 * height)) for _ in range(3)]
        phases = rng.uniform(-1, 1, (3, 2))
        side = things[0].shape[0]
        mask = cv2.ellipse(
            np.zeros((side, side), np.float32),
            (side // 2, side // 2), (int(0.4 * side), int(0.28 * side)), 0, 0, 360, 1, -1,
        )  # fmt: skip
        for t in np.arange(frames // 2) / FPS:
            zoom = 1 + 0.08 * np.sin(0.7 * t)
            left = width * (0.3 + 0.25 * np.sin(0.5 * t)) + height / 320 * np.sin(7 * t)
            top = height * (0.3 + 0.25 * np.cos(0.4 * t)) + height / 320 * np.cos(9 * t)
            view = np.array([[zoom, 0, -left * zoom], [0, zoom, -top * zoom]])
            picture = cv2.warpAffine(ground, view, (width, height), borderMode=cv2.BORDER_REFLECT)
            for thing, (one, two) in zip(things, phases, strict=True):
                scale, angle = (
                    0.6 + 0.2 * np.sin(1.1 * t + 3 * one),
                    0.8 * np.sin(1.3 * t + 4 * two),
                )
                turn = scale * np.array(
                    [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
                )
                centre = np.array([
                    width * (0.5 + 0.4 * np.sin((0.9 + 0.3 * one) * t + 3 * two)),
                    height * (0.5 + 0.3 * np.cos((1.1 + 0.3 * two) * t + 3 * one)),
                ])  # fmt: skip
                place = np.column_stack([turn, centre - turn.sum(axis=1) * side / 2])
                cover = cv2.warpAffine(mask, place, (width, height))[..., None]
                picture += cover * (cv2.warpAffine(thing, place, (width, height)) - picture)
            picture += 2.5 * rng.standard_normal((height, width, 1), dtype=np.float32)
            yield picture.clip(0, 255).astype(np.uint8)


def write(path: Path, size: str, gop: int) -> None:
    """Encode the film as a camera or a video site would: x264's defaults."""
    width, height = SIZES[size]
    with av.open(str(path), 'w') as container:
        stream: Any = container.add_stream(
            'libx264', rate=FPS, options={'g': str(gop), 'crf': '23', 'preset': 'medium'}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        for picture in film(width, height):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        container.mux(stream.encode())


def make_files(folder: Path, quick: bool) -> list[File]:
    """Make the videos that are not there, and what the presets make of them."""
    plan = [('340x256', gop) for gop in (GOPS[:1] if quick else GOPS)]
    if not quick:
        plan.append(('1280x720', 250))
    files = []
    for size, gop in plan:
        path = folder / f'{size}_gop{gop}.mp4'
        if not path.exists():
            write(path, size, gop)
        files.append(File(path, f'{size}, GOP {gop}'))
    made = [transcode(files[0], name) for name in PRESETS]
    if not quick:
        made.append(transcode(files[-1], 'balanced'))
    return files + made


def transcode(source: File, preset: str) -> File:
    """Encode a video again as tools/data/transcode.py does."""
    target = source.path.with_name(f'{source.path.stem}_{preset}.mp4')
    job = Transcode(source.path, target, target.with_suffix('.part'), PRESETS[preset], timed=False)
    done = transcode_video(job)
    name = f'{source.name}, preset {preset}'
    return File(target, name, source, done.after / done.before, done.psnr)


def candidates() -> dict[str, tuple[int, Callable[[dict[str, Any]], Any]]]:
    """Return what is compared: how many clips it gives, and the way to them."""
    plain = [TRANSFORMS.build(step) for step in MMACTION2]
    own = [TRANSFORMS.build(step) for step in ours()]
    return {
        'MMAction2': (1, partial(run, plain)),
        'one clip': (1, partial(run, own)),
        '2 clips per decode': (2, RepeatClips(2, own)),
        '4 clips per decode': (4, RepeatClips(4, own)),
    }


def run(steps: list[Callable[..., Any]], results: dict[str, Any]) -> Any:
    """Apply a pipeline."""
    for step in steps:
        results = step(results)
    return results


def annotation(path: Path) -> dict[str, Any]:
    """Describe a video as a data set does."""
    return dict(filename=str(path), label=0, start_index=0, modality='RGB')


def check_pixels(file: File) -> str:
    """See that pixels are what they must be.

    Returns:
        How far the two readers are from each other.

    Raises:
        RuntimeError: They are not.
    """
    wanted = [7, 39, 71, 103, 135, 167, 199, 231, 240, 241]
    with av.open(str(file.path)) as container:
        everything = [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]
    pyav, decord = (Video(file.path, reader).frames(wanted) for reader in ('pyav', 'decord'))
    if not all(np.array_equal(everything[i], frame) for i, frame in zip(wanted, pyav, strict=True)):
        raise RuntimeError(f'{file.name}: frames differ from those of decoding everything')
    apart = np.abs(np.stack(pyav).astype(int) - np.stack(decord))
    if apart.max() > ROUNDING:
        raise RuntimeError(f'{file.name}: PyAV and decord differ by {apart.max()} of 255')
    clips = []
    for pipeline in (MMACTION2, ours('decord')):
        seed_all(0)
        clips.append(run([TRANSFORMS.build(step) for step in pipeline], annotation(file.path)))
    if not torch.equal(clips[0]['inputs'], clips[1]['inputs']):
        raise RuntimeError(f'{file.name}: the clip differs from that of MMAction2')
    return f'{apart.max()} at most, {apart.mean():.2f} in the mean'


def seconds_per_clip(
    way: tuple[int, Callable[[dict[str, Any]], Any]], path: Path, seed: int
) -> float:
    """Measure the CPU time of reading clips, for each of them."""
    clips, read = way
    seed_all(seed)
    start = time.process_time()
    read(annotation(path))
    return (time.process_time() - start) / clips


def compare(files: list[File], rounds: int) -> list[dict[str, Any]]:
    """Time every candidate on every file, in turn.

    A file that was transcoded is compared with what MMAction2 does with the file it came from.
    """
    ways = candidates()
    lanes = [(file, name) for file in files for name in ways]
    for file, name in lanes:  # warm-up
        seconds_per_clip(ways[name], file.path, 0)
    times: dict[tuple[File, str], list[float]] = {lane: [] for lane in lanes}
    for i in range(rounds):
        for file, name in lanes if i % 2 else reversed(lanes):
            times[file, name].append(seconds_per_clip(ways[name], file.path, i))
    rows = []
    for file, name in lanes:
        base = times[file.source or file, 'MMAction2']
        ratios = [before / now for before, now in zip(base, times[file, name], strict=True)]
        rows.append({
            'file': file.name, 'storage': round(file.storage, 2),
            'psnr': file.psnr and round(file.psnr, 1), 'way': name,
            'ms_per_clip': round(1e3 * statistics.median(times[file, name]), 2),
            'ratio': quartiles(ratios), 'rounds': rounds,
        })  # fmt: skip
    return rows


def quartiles(values: list[float]) -> list[float]:
    """Return the lower quartile, the median and the upper quartile."""
    return [round(value, 3) for value in statistics.quantiles(values, n=4, method='inclusive')]


def machine() -> dict[str, str]:
    """Describe the machine and the versions."""
    import decord
    import mmaction

    names = [
        line.partition(':')[2].strip()
        for line in Path('/proc/cpuinfo').read_text().splitlines()
        if line.startswith('model name')
    ]
    return {
        'date': date.today().isoformat(),
        'cpu': f'{len(names)} x {names[0]}' if names else platform.processor(),
        'python': platform.python_version(),
        'mmtimesformer': mmtimesformer.__version__,
        'mmaction2': mmaction.__version__,
        'av': av.__version__,
        'decord': decord.__version__,
        'opencv': cv2.__version__,
    }


def as_table(rows: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """Write results as Markdown."""
    lines = [
        '# From a file to a clip',
        '',
        ', '.join(f'{key} {value}' for key, value in about.items()) + '.',
        '',
        f'A training clip of 8 frames, 32 apart, of {SECONDS} s of H.264 at {FPS} frames a second,',
        'on one core: CPU time, and how many clips are read in the time of one of MMAction2',
        '(decord), in the same round: median (quartiles). What a preset of tools/data/transcode.py',
        'has written is compared with MMAction2 on its source; storage and signal-to-noise ratio',
        'are relative to that. "One clip" has the pixels of decoding everything, bit for bit.',
        '',
        '| file | storage | PSNR | way | ms a clip | clips/s and core | against MMAction2 |',
        '|---|---|---|---|---|---|---|',
    ]
    for row in rows:
        low, median, high = row['ratio']
        first = row['way'] == 'MMAction2'
        cells = [
            row['file'] if first else '',
            f'{row["storage"]:.2f}' if first else '',
            f'{row["psnr"]:.1f} dB' if first and row['psnr'] else '',
            row['way'], f'{row["ms_per_clip"]:.1f}', f'{1e3 / row["ms_per_clip"]:.0f}',
            f'**{median:.2f}** ({low:.2f} to {high:.2f})',
        ]  # fmt: skip
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--quick', action='store_true', help='one source, 9 rounds')
    parser.add_argument('--videos', type=Path, help='folder in which the videos are kept')
    parser.add_argument('--out', type=Path, help='folder of data.md and data.json')
    args = parser.parse_args(argv)
    if args.quick:
        args.rounds = 9
    return args


def main(argv: list[str] | None = None) -> int:
    """Make the videos, compare pixels, time, and write the table."""
    args = parse_args(argv)
    register_all_modules(init_default_scope=True)
    cv2.setNumThreads(0)  # as in a data-loading process of the shipped configs
    torch.set_num_threads(1)
    about: dict[str, Any] = machine()
    print(about, flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.videos or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        files = make_files(folder, args.quick)
        about['colours of PyAV and decord, of 255'] = '; '.join(
            sorted({check_pixels(file) for file in files})
        )
        rows = compare(files, args.rounds)
    print(as_table(rows, about))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / 'data.md').write_text(as_table(rows, about))
        (args.out / 'data.json').write_text(json.dumps([about, *rows], indent=1) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
