"""What a training on many GPUs will need: python benchmarks/scaling_plan.py [your own figures].

    python benchmarks/scaling_plan.py                       # the tables of docs/scaling.md
    python benchmarks/scaling_plan.py --clips 200 --network 3 --core-clips 147 --gpus 8 32

Nothing is measured here. Parameters and multiply-adds are counted from the models; what GPUs and
networks achieve you say, or this file assumes it. The arithmetic is all below, in :func:`plan`.
"""

import argparse
import sys
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from mmtimesformer import TimeSformer

LARGE = dict(embed_dims=1024, num_layers=24, num_heads=16)
HUGE = dict(embed_dims=1280, num_layers=32, num_heads=16, patch_size=14)
BACKWARD = 2 / 3  # of a step's arithmetic


@dataclass(frozen=True)
class Work:
    """What is trained, on what.

    Attributes:
        name: For the table.
        model: Arguments of the backbone.
        batch: Clips of a step on each GPU.
        videos: In the training set, each giving one clip in an epoch.
        clip_bytes: Read from storage for a clip.
        core_cost: Times the decoding of a clip of Kinetics: frames that are decoded, or seeks.
    """

    name: str
    model: dict[str, int]
    batch: int
    videos: int
    clip_bytes: float
    core_cost: float = 1.0


# 135 GB of 240 thousand videos, whole; a HowTo100M clip of 96 frames, 32 apart, spans 100 of about
# 390 seconds of 17.5 MB, and ten times the frames of a video of Kinetics.
KINETICS = dict(videos=240_000, clip_bytes=135e9 / 240_000)
WORKS = [
    Work('B, 8x224, Kinetics-400', {}, 8, **KINETICS),
    Work('ViT-L, 8x224, Kinetics-400', LARGE, 8, **KINETICS),
    Work('ViT-H, 8x224, Kinetics-400', HUGE, 8, **KINETICS),
    Work('B, 8x224, HowTo100M', {}, 8, 85_000, 17.5e6 * 10 / 390, 1.2),
    Work('B, 96x224, HowTo100M', dict(num_frames=96), 1, 85_000, 17.5e6 * 102 / 390, 10.0),
]


@dataclass(frozen=True)
class Machines:
    """What they achieve; of this only ``core_clips`` was measured, on another machine than theirs.

    Attributes:
        clips: Of TimeSformer-B, 8 x 224 x 224, that one GPU trains in a second: 390 in bf16 on an
            H200. Larger models take longer by their arithmetic.
        gpus_per_node: That share a machine and its network.
        link: Within a machine, in GB a second and GPU.
        network: Between machines, in GB a second and machine: 50 is one port of 400 Gbit/s.
        core_clips: Clips a second that one core prepares: 16 of untouched files, 57 with four clips
            of each decoding, 147 if they are transcoded as well.
        clips_per_video: Of each reading and decoding.
        gradient_bytes: Of each parameter: 4, or 2 where gradients travel in bf16.
    """

    clips: float = 390.0
    gpus_per_node: int = 8
    link: float = 300.0
    network: float = 50.0
    core_clips: float = 57.0
    clips_per_video: int = 4
    gradient_bytes: int = 4


@dataclass(frozen=True)
class Plan:
    """What follows, for so many GPUs; times in seconds, rates in bytes a second."""

    clips_per_step: int
    compute: float
    all_reduce: float
    step: float
    sent: float  # bytes by each GPU, in a step
    cores_per_gpu: float
    storage: float  # of all machines together
    epoch: float


def plan(work: Work, machines: Machines, gpus: int, parameters: float, relative: float) -> Plan:
    """Compute what a training needs.

    Gradients go round a ring of all GPUs: each sends and receives ``2 (n - 1) / n`` times their
    bytes. A ring crosses the border of a machine once, so that its network carries as much as one
    GPU sends; the slowest link sets the pace. They travel while the rest of the backward pass is
    computed, so that a step is longer only by what does not fit under it.

    Args:
        work: What is trained.
        machines: What they achieve.
        gpus: How many there are.
        parameters: Of the model.
        relative: Its arithmetic for a clip, of TimeSformer-B's for 8 x 224 x 224.
    """
    compute = work.batch * relative / machines.clips
    sent = 2 * (gpus - 1) / gpus * parameters * machines.gradient_bytes
    slowest = machines.link if gpus <= machines.gpus_per_node else machines.network
    all_reduce = sent / (min(slowest, machines.link) * 1e9)
    step = compute + max(0.0, all_reduce - compute * BACKWARD)
    clips = gpus * work.batch
    rate = clips / step
    return Plan(
        clips_per_step=clips,
        compute=compute,
        all_reduce=all_reduce,
        step=step,
        sent=sent,
        cores_per_gpu=rate / gpus * work.core_cost / machines.core_clips,
        storage=rate * work.clip_bytes / machines.clips_per_video,
        epoch=work.videos / rate,
    )


def count(model: dict[str, int]) -> tuple[int, int]:
    """Count parameters and multiply-adds of a clip, on the meta device, in a second."""
    with torch.device('meta'):
        backbone = TimeSformer(**model)
        clip = torch.empty(1, 3, model.get('num_frames', 8), 224, 224)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(clip)
    return sum(p.numel() for p in backbone.parameters()), counter.get_total_flops() // 2


def duration(seconds: float) -> str:
    """Write a time as people say it."""
    for unit, size in (('h', 3600), ('min', 60), ('s', 1)):
        if seconds >= size:
            return f'{seconds / size:.3g} {unit}'
    return f'{seconds * 1e3:.3g} ms'


def size(number: float) -> str:
    """Write a number of bytes."""
    for unit, one in (('TB', 1e12), ('GB', 1e9), ('MB', 1e6)):
        if number >= one:
            return f'{number / one:.3g} {unit}'
    return f'{number / 1e3:.3g} kB'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line: each figure of Machines, and the numbers of GPUs."""
    parser = argparse.ArgumentParser(description='Plan a training on many GPUs.')
    parser.add_argument('--gpus', type=int, nargs='+', default=[8, 64, 512])
    given = Machines()
    for name, value in vars(given).items():
        parser.add_argument(
            f'--{name.replace("_", "-")}', type=type(value), default=value, help=f'{value}'
        )
    parser.add_argument('--batch', type=int, help='clips of a step on each GPU, for all rows')
    args = parser.parse_args(argv)
    for name, value in vars(args).items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None and one <= 0:
                parser.error(f'--{name.replace("_", "-")} {one} must be above 0')
    return args


def main(argv: list[str] | None = None) -> int:
    """Print the tables."""
    args = parse_args(argv)
    machines = Machines(**{name: getattr(args, name) for name in vars(Machines())})
    works = [replace(work, batch=args.batch or work.batch) for work in WORKS]
    counts = {work.name: count(work.model) for work in works}
    _, base = count({})
    print('Estimated, not measured: ' + ', '.join(f'{k}={v}' for k, v in vars(machines).items()))
    print('\n| model | parameters | multiply-adds of a clip | gradients, fp32 | bf16 |')
    print('|---|---|---|---|---|')
    for work in works:
        parameters, multiply_adds = counts[work.name]
        print(
            f'| {work.name} | {parameters / 1e6:.0f}M | {multiply_adds / 1e9:,.0f}G '
            f'| {size(4 * parameters)} | {size(2 * parameters)} |'
        )
    print(
        '\n| | GPUs | clips of a step | computing | all-reduce | step | sent by a GPU, a step '
        '| cores per GPU | cores in all | read from storage | epoch |'
    )
    print('|---|---|---|---|---|---|---|---|---|---|---|')
    for work in works:
        for gpus in args.gpus:
            parameters, multiply_adds = counts[work.name]
            p = plan(work, machines, gpus, parameters, multiply_adds / base)
            print(
                f'| {work.name} | {gpus} | {p.clips_per_step} | {duration(p.compute)} '
                f'| {duration(p.all_reduce)} | {duration(p.step)} | {size(p.sent)} '
                f'| {p.cores_per_gpu:.1f} | {p.cores_per_gpu * gpus:,.0f} '
                f'| {size(p.storage)}/s | {duration(p.epoch)} |'
            )
    return 0


if __name__ == '__main__':
    sys.exit(main())
