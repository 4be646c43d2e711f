"""Clips from files and from shards, in turn in one process: python benchmarks/shards.py [options].

Videos of 10 seconds at 340 x 256 (moving textures with noise, H.264) are written to a folder, and
packed into shards. Then every candidate reads a batch of 8 training clips, 8 frames, 32 apart, in
turn; a round is once each, in random order, and what is printed are ratios *within* a round: the
median, and between which values the middle half lies. All lies in the page cache, so that what is
compared is the work of finding and handing over the bytes. The store is one that answers after 50
milliseconds, as distant ones do; with one batch at a time, and so without the others that
data-loading processes would have on their way.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import fsspec
import numpy as np
import torch
from fsspec.implementations.memory import MemoryFileSystem
from mmaction.utils import register_all_modules

from mmtimesformer.datasets.preparation.packing import (
    list_entries,
    list_labelled,
    plan_tar_shards,
    write_tar_shard,
)
from mmtimesformer.datasets.tar_shards.dataset import TarShardVideoDataset
from mmtimesformer.datasets.tar_shards.index import format_index
from mmtimesformer.datasets.video_dataset import VideoDataset
from mmtimesformer.engine.loops.resumable_loop import seed_all

BATCH, FRAMES, LATENCY = 8, 300, 0.05
PIPELINE = [
    dict(type='mmtimesformer.VideoInit'),
    dict(type='SampleFrames', clip_len=8, frame_interval=32, num_clips=1),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='Resize', scale=(-1, 256)),
    dict(type='RandomResizedCrop'),
    dict(type='Resize', scale=(224, 224), keep_ratio=False),
    dict(type='Flip', flip_ratio=0.5),
    dict(type='mmtimesformer.FormatClips'),
    dict(type='PackActionInputs'),
]


class Distant(MemoryFileSystem):
    """A store whose every answer takes its time."""

    protocol = 'distant'

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        time.sleep(LATENCY)
        return super().cat_file(path.removeprefix('distant:/'), start, end, **kwargs)


class Alone(TarShardVideoDataset):
    """One that fetches a video when it is asked for, and none ahead."""

    def read_ahead(self, indices: Sequence[int]) -> None:
        return


def write(path: Path, seed: int) -> None:
    """Encode ten seconds of a texture that moves, with noise as of a camera."""
    rng = np.random.default_rng(seed)
    ground = cv2.GaussianBlur(rng.integers(0, 255, (512, 1024, 3), dtype=np.uint8), (0, 0), 3)
    ground = cv2.normalize(ground, None, 0, 255, cv2.NORM_MINMAX)
    with av.open(str(path), 'w') as container:
        stream: Any = container.add_stream('libx264', rate=30, options={'preset': 'veryfast'})
        stream.width, stream.height, stream.pix_fmt = 340, 256, 'yuv420p'
        for i in range(FRAMES):
            picture = ground[i // 2 : i // 2 + 256, 2 * i : 2 * i + 340].astype(np.float32)
            picture += 3 * rng.standard_normal(picture.shape, dtype=np.float32)
            picture = np.ascontiguousarray(picture.clip(0, 255).astype(np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        container.mux(stream.encode())


def make(folder: Path, count: int) -> dict[str, Any]:
    """Write the videos, pack them, and open all of it in each way."""
    for i in range(count):
        write(folder / f'{i}.mp4', i)
    (folder / 'list.txt').write_text(''.join(f'{i}.mp4 0\n' for i in range(count)))
    shards = plan_tar_shards(list_labelled(folder / 'list.txt'), folder, folder / 'out', 10**7, 60)
    for shard in shards:
        write_tar_shard(shard)
    index = folder / 'out/index.tsv'
    index.write_text(''.join(f'{line}\n' for line in format_index(list_entries(shards)[0])))
    fsspec.filesystem('memory').put(f'{folder}/out/', '/out', recursive=True)
    fsspec.register_implementation('distant', Distant)
    return {
        'files': VideoDataset(str(folder / 'list.txt'), PIPELINE, {'video': str(folder)}),
        'shards on the disk': TarShardVideoDataset(str(index), PIPELINE),
        'shards in a store, 50 ms': TarShardVideoDataset('distant://out/index.tsv', PIPELINE),
        'the same without read-ahead': Alone('distant://out/index.tsv', PIPELINE),
    }


def read(dataset: Any, indices: Sequence[int], seed: int) -> tuple[float, float, torch.Tensor]:
    """Read a batch: seconds of the clock, seconds of CPU, the pixels."""
    wall, cpu = time.perf_counter(), time.process_time()
    if hasattr(dataset, 'read_ahead'):
        dataset.read_ahead(indices)
    clips = []
    for index in indices:
        seed_all(seed, index)
        clips.append(dataset[index]['inputs'])
    return time.perf_counter() - wall, time.process_time() - cpu, torch.stack(clips)


def main(argv: list[str] | None = None) -> int:
    """Compare pixels, then time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--videos', type=int, default=32)
    parser.add_argument('--rounds', type=int, default=60)
    args = parser.parse_args(argv)
    register_all_modules(init_default_scope=True)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as temporary:
        datasets = make(Path(temporary), args.videos)
        size = sum(path.stat().st_size for path in Path(temporary).glob('*.mp4')) / args.videos
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in datasets}
        for number in range(args.rounds + 1):
            indices = rng.sample(range(args.videos), BATCH)
            pixels = None
            for name in rng.sample(list(datasets), len(datasets)):
                *taken, clips = read(datasets[name], indices, number)
                assert pixels is None or torch.equal(clips, pixels), f'{name}: other pixels'
                pixels = clips
                if number:  # the first one fills the caches
                    times[name].append((taken[0], taken[1]))
    print(
        f'{args.videos} videos of {size / 1e6:.2f} MB, {args.rounds} rounds, {os.cpu_count()} CPUs'
    )
    print(f'{"":30}{"ms a clip":>10}{"clock, to files":>22}{"CPU, to files":>22}')
    for name, taken in times.items():
        cells = f'{name:30}{1e3 * statistics.median(t for t, _ in taken) / BATCH:10.1f}'
        for kind in (0, 1):
            ratios = [t[kind] / f[kind] for t, f in zip(taken, times['files'], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            cells += f'{middle:10.3f} ({low:.3f}-{high:.3f})'
        print(cells)
    return 0


if __name__ == '__main__':
    sys.exit(main())
