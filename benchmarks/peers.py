"""Us and the peers, in turn, in one process: python benchmarks/peers.py [options].

All systems carry the same weights, and their logits are compared before anything is timed. Then
each round runs every system once, and what is printed are medians, over rounds, of the ratio to
ours *within* a round: what disturbs a machine disturbs neighbours alike. Peak memory is measured
apart, each system in a process of its own.

    python benchmarks/peers.py --quick                 # a few minutes
    python benchmarks/peers.py --schemes joint_space_time --rows eval train
    python benchmarks/peers.py --rows --memory         # levels of with_cp alone
    python benchmarks/peers.py --from benchmarks/results/peers.json   # the table again

On CUDA the same script waits for the device before it reads a clock, reads peak memory from the
allocator, and can compile ours (``--compile``).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmtimesformer import TimeSformer
from mmtimesformer.checkpoints import convert_state_dict
from mmtimesformer.models.cpu_matmul import float32_by_onednn

ROOT = Path(__file__).resolve().parent
SCHEMES = ('divided_space_time', 'joint_space_time', 'space_only')
ROWS = {  # name: videos, crops of each, whether it trains
    'eval': (1, 1, False),
    'eval3': (1, 3, False),
    'train': (2, 1, True),
}
VIDEOS_ON_CUDA = [8, 32, 64]
PRECISIONS = ('fp32', 'bf16')
GRADIENTS = 1e-4  # largest difference of a gradient, relative to the largest of its parameter
CLASSES = 400


@dataclass(frozen=True)
class Size:
    """A clip and the model for it."""

    num_frames: int = 8
    img_size: int = 224
    num_layers: int = 12
    embed_dims: int = 768
    num_heads: int = 12

    def __str__(self) -> str:
        return f'{self.num_frames}x{self.img_size}, {self.num_layers} layers'


SIZES = {  # long clips and large pictures at reduced depth: what a layer costs is the question
    '8x224': Size(),
    '16x448': Size(16, 448, num_layers=2),
    '96x224': Size(96, 224, num_layers=2),
}
LEVELS = (False, 'pointwise', 'projections', 'mlp', 'block')


class Ours(nn.Module):
    """The backbone with a linear classifier."""

    def __init__(self, size: Size, scheme: str, **options: Any) -> None:
        super().__init__()
        self.backbone = TimeSformer(**vars(size), attention_type=scheme, **options)
        self.head = nn.Linear(size.embed_dims, CLASSES)

    def forward(self, video: Tensor) -> Tensor:
        return self.head(self.backbone(video))


class MMAction2(nn.Module):
    """MMAction2's TimeSformer with the same classifier."""

    def __init__(self, size: Size, scheme: str) -> None:
        super().__init__()
        from mmaction.models import TimeSformer as Backbone
        from mmaction.utils import register_all_modules

        register_all_modules(init_default_scope=True)
        self.backbone = Backbone(
            num_frames=size.num_frames,
            img_size=size.img_size,
            patch_size=16,
            embed_dims=size.embed_dims,
            num_transformer_layers=size.num_layers,
            num_heads=size.num_heads,
            attention_type=scheme,
        )
        self.cls_head = nn.ModuleDict({'fc_cls': nn.Linear(size.embed_dims, CLASSES)})

    def forward(self, video: Tensor) -> Tensor:
        return self.cls_head['fc_cls'](self.backbone(video))


class HuggingFace(nn.Module):
    """Transformers' TimesformerForVideoClassification."""

    def __init__(self, size: Size, scheme: str) -> None:
        super().__init__()
        from transformers import TimesformerConfig, TimesformerForVideoClassification

        self.model = TimesformerForVideoClassification(
            TimesformerConfig(
                image_size=size.img_size,
                num_frames=size.num_frames,
                hidden_size=size.embed_dims,
                num_hidden_layers=size.num_layers,
                num_attention_heads=size.num_heads,
                intermediate_size=4 * size.embed_dims,
                attention_type=scheme,
                num_labels=CLASSES,
            )
        )

    def forward(self, video: Tensor) -> Tensor:
        return self.model(video.transpose(1, 2)).logits


#: Peer → how to build it, and the format in which it takes our weights.
SYSTEMS: dict[str, tuple[Callable[[Size, str], nn.Module], str]] = {
    'ours': (Ours, 'mmtimesformer'),
    'mmaction2': (MMAction2, 'mmaction2'),
    'huggingface': (HuggingFace, 'huggingface'),
}


def build(system: str, size: Size, scheme: str, **options: Any) -> nn.Module:
    """Build a system with the weights that all of them share."""
    torch.manual_seed(0)
    ours = Ours(size, scheme)
    for name, parameter in ours.named_parameters():  # nothing at zero, nothing at one
        std = 0.02 if parameter.ndim > 1 else 0.1
        torch.nn.init.normal_(parameter, mean=float('norm' in name and 'weight' in name), std=std)
    weights = {
        ('cls_head.fc_cls.' + name[5:] if name.startswith('head.') else name): value
        for name, value in ours.state_dict().items()
    }
    make, form = SYSTEMS[system]
    model = make(size, scheme, **options)
    if system == 'ours':
        model.load_state_dict(ours.state_dict())
        return model
    converted, _ = convert_state_dict(weights, form)
    target = model.model if system == 'huggingface' else model
    target.load_state_dict(converted)
    return model


def step(model: nn.Module, video: Tensor, crops: int, trains: bool) -> Tensor:
    """Run one step: logits averaged over crops, or a loss and its gradients."""
    if not trains:
        with torch.inference_mode():
            return model(video).unflatten(0, (-1, crops)).mean(1)
    model.zero_grad(set_to_none=True)
    loss = model(video).float().logsumexp(-1).sum()
    loss.backward()
    return loss.detach()


def timed(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Return the wall time (by the clock of a GPU) and the CPU time of the work, in seconds."""
    if device.type == 'cuda':
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        cpu = time.process_time()
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3, time.process_time() - cpu
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def autocast(precision: str, device: torch.device) -> Any:
    """Mixed precision as every system's users have it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == 'bf16')


@dataclass(frozen=True)
class Job:
    """A row of the table."""

    threads: int
    size: Size
    scheme: str
    row: str
    precision: str
    videos: int


def compare(job: Job, args: argparse.Namespace) -> dict[str, Any]:
    """Time every system on one row, in turn, and return medians and ratios to ours.

    What has no room on a GPU is left out, and named; if that is ours, so is all.
    """
    device = torch.device(args.device)
    _, crops, trains = ROWS[job.row]
    size, scheme = job.size, job.scheme
    # Hugging Face's space-only attention is another network: its logits differ.
    systems = [name for name in args.systems if (name, scheme) != ('huggingface', 'space_only')]
    models = {name: build(name, size, scheme).to(device) for name in systems}
    if args.compile:
        models['ours, compiled'] = torch.compile(build('ours', size, scheme).to(device))
    for model in models.values():
        model.train(trains)
    shape = (job.videos * crops, 3, size.num_frames, size.img_size, size.img_size)
    video = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device)
    check_equal(models, video[:1], trains)

    def once(name: str) -> Tensor:
        ours = name.startswith('ours') or args.same_matmul  # as our Runner and VideoClassifier do
        with float32_by_onednn() if ours else nullcontext(), autocast(job.precision, device):
            return step(models[name], video, crops, trains)

    warm = {name: warmed_up(partial(once, name), device) for name in models}
    result: dict[str, Any] = {
        **asdict(job), 'size': str(size), 'rounds': args.rounds, 'systems': {},
        'no_room': [name for name, (fits, _) in warm.items() if not fits],
    }  # fmt: skip
    fitting = [] if 'ours' in result['no_room'] else [name for name in models if warm[name][0]]
    rounds = [
        {name: timed(partial(once, name), device) for name in fitting} for _ in range(args.rounds)
    ]
    for name in fitting:
        result['systems'][name] = {'peak': warm[name][1]}
        for i, clock in enumerate(('wall', 'cpu')):
            ratios = [one[name][i] / one['ours'][i] for one in rounds]
            result['systems'][name][clock] = {
                'seconds': statistics.median(one[name][i] for one in rounds),
                'ratio': quartiles(ratios),
            }
    return result


def warmed_up(work: Callable[[], object], device: torch.device) -> tuple[bool, float | None]:
    """Do the work twice; return whether a GPU had room for it, and how much it took, in MiB."""
    if device.type != 'cuda':
        work()
        return True, None
    try:
        work()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return True, (torch.cuda.max_memory_allocated() - before) / 2**20
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return False, None


def check_equal(models: dict[str, nn.Module], video: Tensor, trains: bool) -> None:
    """Check that all systems give the same scores before any is timed; without drop path.

    Raises:
        RuntimeError: Logits differ by more than 1e-4, or the gradients of the first parameter,
            which all later ones pass into, by more than ``GRADIENTS``.
    """
    logits, gradients = {}, {}
    for name, model in models.items():
        mode = model.training
        model.eval()
        with torch.set_grad_enabled(trains):
            logits[name] = model(video)
        if trains:
            logits[name].logsumexp(-1).sum().backward()
            gradients[name] = first_projection(model).grad.flatten()
            model.zero_grad(set_to_none=True)
        model.train(mode)
    for name in models:
        difference = (logits[name] - logits['ours']).abs().max().item()
        if difference > 1e-4:
            raise RuntimeError(f'{name} differs by {difference:.2g} from ours on the same weights')
        if trains:
            ours = gradients['ours']
            difference = ((gradients[name] - ours).abs().max() / ours.abs().max()).item()
            if difference > GRADIENTS:
                raise RuntimeError(f'gradients of {name} differ from ours by {difference:.2g}')


def first_projection(model: nn.Module) -> Any:
    """Return the weights that turn patches into tokens."""
    return next(p for p in model.parameters() if p.ndim == 4)


def quartiles(values: list[float]) -> list[float]:
    """Return the lower quartile, the median and the upper quartile."""
    return [round(value, 3) for value in statistics.quantiles(values, n=4, method='inclusive')]


def matmul_ceiling(device: torch.device) -> float:
    """Return the best rate of a large fp32 matrix product here, in GFLOP/s."""
    n = 2048
    a, b = (torch.randn(n, n, device=device) for _ in range(2))
    a @ b
    seconds = min(timed(lambda: a @ b, device)[0] for _ in range(7))
    return 2 * n**3 / seconds / 1e9


def peak_memory(size: Size, scheme: str, row: str, system: str, options: dict[str, Any]) -> float:
    """Return by how much a training step's peak exceeds the model at rest, in MiB.

    Measured in a process of its own, on one thread, in which the C library hands large blocks
    back at once: what it keeps for later is not what a step needs.
    """
    job = json.dumps(
        {'size': vars(size), 'scheme': scheme, 'row': row, 'system': system, 'options': options}
    )
    done = subprocess.run(
        [sys.executable, __file__, '--measure-memory', job],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, 'MALLOC_MMAP_THRESHOLD_': '65536'},
    )
    if done.returncode:
        raise RuntimeError(f'{system} failed: {done.stderr.strip().splitlines()[-1]}')
    return float(done.stdout.split()[-1])


def measure_memory(job: dict[str, Any]) -> None:
    """Print the growth of this process's peak memory over one step, in MiB."""
    torch.set_num_threads(1)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    size, (videos, crops, trains) = Size(**job['size']), ROWS[job['row']]
    model = build(job['system'], size, job['scheme'], **job['options']).train(trains).to(device)
    video = torch.randn(videos * crops, 3, size.num_frames, size.img_size, size.img_size)
    video = video.to(device)
    if trains:  # gradients are the model's own, not the step's
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
    if device.type == 'cuda':
        resident = torch.cuda.memory_allocated() / 2**20
    else:
        resident = memory_of_this_process('VmRSS')
    if trains:
        model(video).logsumexp(-1).sum().backward()
    else:
        step(model, video, crops, trains)
    if device.type == 'cuda':
        print(torch.cuda.max_memory_allocated() / 2**20 - resident)
    else:
        print(memory_of_this_process('VmHWM') - resident)


def memory_of_this_process(what: str) -> float:
    """Return ``VmRSS`` (now) or ``VmHWM`` (at its peak) in MiB.

    Of the process alone: ``getrusage`` would count what it was forked from.
    """
    lines = Path('/proc/self/status').read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f'{what}:'))
    return int(line.split()[1]) / 1024


def machine() -> dict[str, str]:
    """Describe the machine and the versions."""
    import mmaction
    import transformers

    names = [
        line.partition(':')[2].strip()
        for line in Path('/proc/cpuinfo').read_text().splitlines()
        if line.startswith('model name')
    ]
    return {
        'date': date.today().isoformat(),
        'cpu': f'{len(names)} x {names[0]}' if names else platform.processor(),
        'gpu': torch.cuda.get_device_name() if torch.cuda.is_available() else 'none',
        'python': platform.python_version(),
        'torch': torch.__version__,
        'mmaction2': mmaction.__version__,
        'transformers': transformers.__version__,
    }


def levels_of_memory(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure peak memory of a training step of MMAction2's and of ours at each level.

    Times are interleaved, and of 4 layers: a level costs each block the same.
    """
    device = torch.device(args.device)
    size, scheme = Size(num_layers=4), SCHEMES[0]
    video = torch.randn(2, 3, size.num_frames, size.img_size, size.img_size).to(device)
    models = {'mmaction2': build('mmaction2', size, scheme).to(device).train()}
    for level in LEVELS:
        models[str(level)] = build('ours', size, scheme, with_cp=level).to(device).train()
    for model in models.values():
        step(model, video, 1, True)
    rounds = [
        {n: timed(partial(step, m, video, 1, True), device) for n, m in models.items()}
        for _ in range(args.rounds)
    ]
    rows = []
    for name in models:
        system = name if name == 'mmaction2' else 'ours'
        options = {} if name == 'mmaction2' else {'with_cp': False if name == 'False' else name}
        rows.append(
            {
                'system': system,
                'level': '' if name == 'mmaction2' else name,
                'peak': peak_memory(Size(), scheme, 'train', system, options),
                'time': quartiles([one[name][0] / one['False'][0] for one in rounds]),
            }
        )
        print(rows[-1], flush=True)
    return rows


def memory_table(rows: list[dict[str, Any]]) -> str:
    """Write levels of memory as Markdown."""
    peer = rows[0]['peak']
    lines = [
        '',
        '## Memory of a training step',
        '',
        'Growth of the peak over the model at rest, 2 clips, fp32, divided attention, 12 layers,',
        'in a process of its own; time of a step in times of ours without recomputation, median',
        '(quartiles), interleaved, 4 layers.',
        '',
        '| system | `with_cp` | peak | of MMAction2 | time |',
        '|---|---|---|---|---|',
    ]
    for row in rows:
        low, median, high = row['time']
        lines.append(
            f'| {row["system"]} | {row["level"]} | {row["peak"]:.0f} MiB | '
            f'÷ {peer / row["peak"]:.2f} | **{median:.2f}** ({low:.2f} to {high:.2f}) |'
        )
    return '\n'.join(lines) + '\n'


def as_table(results: list[dict[str, Any]]) -> str:
    """Write comparisons as Markdown."""
    lines = [
        'How many times as long a peer takes as we do, in the same round: median (quartiles) of',
        'wall time, and the median of CPU time. The ceiling is the best rate of a 2048-cubed fp32',
        'product before or after any of the rows, in as many threads.',
        '',
        '| clip | attention | row | videos | precision | threads | ours | clips/s | of ceiling '
        '| peer | wall | CPU | memory |',
        f'|{"---|" * 13}',
    ]
    ceilings: dict[int, float] = {}
    for result in results:
        threads = result['threads']
        ceilings[threads] = max(result['ceiling'], ceilings.get(threads, 0))
    for result in results:
        videos = result.get('videos', ROWS[result['row']][0])
        about = [
            result['size'], result['scheme'].replace('_', ' '), result['row'], videos,
            result['precision'], result['threads'],
        ]  # fmt: skip
        for name in result.get('no_room', ()):
            cells = [*about, '', '', '', name, 'no room', '', '']
            lines.append(f'| {" | ".join(map(str, cells))} |')
        if not result['systems']:
            continue
        ours = result['systems']['ours']['wall']['seconds']
        reached = result.get('rate')
        share = reached and reached / ceilings[result['threads']]
        for name, times in result['systems'].items():
            if name == 'ours':
                continue
            low, median, high = times['wall']['ratio']
            peak, our_peak = times.get('peak'), result['systems']['ours'].get('peak')
            cells = [
                *about, f'{ours:.3g} s', f'{videos * ROWS[result["row"]][1] / ours:.3g}',
                f'{100 * share:.0f} %' if share else '', name,
                f'**{median:.2f}** ({low:.2f} to {high:.2f})', f'{times["cpu"]["ratio"][1]:.2f}',
                f'{peak / our_peak:.2f}' if peak and our_peak else '',
            ]  # fmt: skip
            lines.append(f'| {" | ".join(map(str, cells))} |')
    return '\n'.join(lines) + '\n'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--systems', nargs='+', choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument('--schemes', nargs='+', choices=SCHEMES, default=list(SCHEMES))
    parser.add_argument('--sizes', nargs='+', choices=SIZES, default=['8x224'])
    parser.add_argument('--rows', nargs='*', choices=ROWS, default=list(ROWS))
    parser.add_argument('--precisions', nargs='+', choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument('--threads', nargs='+', type=int, default=[1, 2])
    parser.add_argument(
        '--videos', nargs='+', type=int, metavar='N',
        help='videos of a step, a row for each (default: 1, in training 2; on a GPU '
        f'{", ".join(map(str, VIDEOS_ON_CUDA))} as well)',
    )  # fmt: skip
    parser.add_argument('--layers', type=int, help='other than the size has')
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--quick', action='store_true', help='4 layers, fp32, one thread')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument(
        '--same-matmul',
        action='store_true',
        help='float32 by oneDNN for the peers too, see docs/performance.md',
    )
    parser.add_argument('--memory', action='store_true', help='levels of with_cp as well')
    parser.add_argument('--compile', action='store_true', help='ours through torch.compile as well')
    parser.add_argument(
        '--out', type=Path, help='folder of peers.md and peers.json, to which results are added'
    )
    parser.add_argument('--from', dest='source', type=Path, help='print the table of a peers.json')
    parser.add_argument('--measure-memory', help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if 'ours' not in args.systems:
        args.systems = ['ours', *args.systems]
    if args.quick:
        args.layers, args.precisions, args.threads = args.layers or 4, ['fp32'], [1]
    return args


def main(argv: list[str] | None = None) -> int:
    """Run what is asked for, print each row when it is done, and write the table."""
    args = parse_args(argv)
    if args.measure_memory:
        measure_memory(json.loads(args.measure_memory))
        return 0
    if args.source:
        print(report(json.loads(args.source.read_text())))
        return 0
    found: dict[str, Any] = {'machine': machine(), 'results': [], 'memory': []}
    print(found['machine'], flush=True)
    for job in jobs(args):
        torch.set_num_threads(job.threads)
        ceiling = matmul_ceiling(torch.device(args.device))
        result = compare(job, args)
        result['ceiling'] = max(ceiling, matmul_ceiling(torch.device(args.device)))
        result['rate'] = rate(result, job)
        found['results'].append(result)
        print('\n'.join(as_table([result]).partition('---|\n')[2].splitlines()), flush=True)
        save(found, args.out)
    if args.memory:
        torch.set_num_threads(max(args.threads))
        found['memory'] = levels_of_memory(args)
    print(save(found, args.out))
    return 0


def jobs(args: argparse.Namespace) -> list[Job]:
    """List what to compare; on a CPU without bfloat16 arithmetic, nothing in bfloat16."""
    precisions = args.precisions
    if args.device == 'cpu' and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        print('This CPU has no bfloat16 arithmetic; its rows are left out.')
        precisions = [precision for precision in precisions if precision != 'bf16']
    found = []
    for threads, size, scheme, row, precision in product(
        args.threads, args.sizes, args.schemes, args.rows, precisions
    ):
        more = VIDEOS_ON_CUDA if args.device == 'cuda' else []
        for videos in args.videos or [ROWS[row][0], *more]:
            layers = {'num_layers': args.layers} if args.layers else {}
            found.append(
                Job(threads, replace(SIZES[size], **layers), scheme, row, precision, videos)
            )
    return found


def save(found: dict[str, Any], folder: Path | None) -> str:
    """Return the report, and write it with what the folder holds already."""
    if folder is None:
        return report(found)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'peers.json'
    before = json.loads(path.read_text()) if path.exists() else {'results': [], 'memory': []}
    keys = ('size', 'scheme', 'row', 'precision', 'threads', 'videos')
    rows = {tuple(x.get(k) for k in keys): x for x in [*before['results'], *found['results']]}
    merged = {
        'machine': found['machine'],
        'results': list(rows.values()),
        'memory': found['memory'] or before['memory'],
    }
    path.write_text(json.dumps(merged, indent=1) + '\n')
    (folder / 'peers.md').write_text(report(merged))
    return report(merged)


def report(found: dict[str, Any]) -> str:
    """Write everything found as Markdown."""
    about = ', '.join(f'{key} {value}' for key, value in found['machine'].items())
    parts = ['# Us and the peers', '', f'{about}.', '', as_table(found['results'])]
    if found['memory']:
        parts.append(memory_table(found['memory']))
    return '\n'.join(parts)


def rate(result: dict[str, Any], job: Job) -> float | None:
    """Return the arithmetic of an fp32 forward pass of ours per second, in GFLOP/s."""
    from torch.utils.flop_counter import FlopCounterMode

    if job.precision != 'fp32' or job.row == 'train' or not result['systems']:
        return None
    size, scheme, (_, crops, _) = job.size, job.scheme, ROWS[job.row]
    with torch.device('meta'):
        model = Ours(size, scheme).eval()
        video = torch.empty(job.videos * crops, 3, size.num_frames, size.img_size, size.img_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(video)
    flops = counter.get_total_flops()
    if scheme == 'divided_space_time':  # the products of projections, which a CPU keeps
        flops -= 2 * size.embed_dims**2 * (size.embed_dims + 1) * size.num_layers
    return flops / result['systems']['ours']['wall']['seconds'] / 1e9


if __name__ == '__main__':
    sys.exit(main())
