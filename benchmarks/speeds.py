"""What each value of the switch `speed` gains: python benchmarks/speeds.py.

MMAction2 and Hugging Face in fp32 and under autocast in bf16, our exact backbone and our faster
ones take turns on one clip, with the same random weights. Printed are medians, with the quartiles
of the ratios to the faster peer, the cosine of logits against the exact ones, and before them the
rates of the model's own matrix products.

    python benchmarks/speeds.py --threads 2 --speeds bf16 int8 compiled+bf16 compiled+int8
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peers import SCHEMES, Size, build, machine, quartiles, timed
from torch import nn

from mmtimesformer.config.speed import EXACT, Speed, add_speed
from mmtimesformer.inference.int8 import Int8Linear
from mmtimesformer.inference.speed import prepare
from mmtimesformer.models.cpu_matmul import float32_by_onednn

CPU = torch.device('cpu')
LAYERS = ((768, 2304), (768, 768), (768, 3072), (3072, 768))  # of TimeSformer-B
TOKENS = 1568


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Compare the speeds of a backbone.')
    add_speed(parser, '--speeds', several=True)
    parser.add_argument('--schemes', nargs='+', choices=SCHEMES, default=[SCHEMES[0]])
    parser.add_argument('--peers', nargs='*', default=['mmaction2', 'huggingface'])
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--layers', type=int, default=12)
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--compile-peers', action='store_true', help='in bf16, too')
    parser.add_argument('--out', type=Path, help='folder of speeds.md')
    return parser.parse_args(argv)


def products() -> str:
    """Return a table of the rates of TimeSformer-B's linear layers, in GFLOP/s of CPU time."""
    lines = ['| layer | fp32 | bf16 | int8 product | int8 layer |', '|---|---|---|---|---|']
    for inputs, outputs in LAYERS:
        layer = nn.Linear(inputs, outputs)
        tokens = torch.randn(TOKENS, inputs)
        short, weight, bias = (x.bfloat16() for x in (tokens, layer.weight, layer.bias))
        codes = torch.randint(-127, 128, (TOKENS, inputs), dtype=torch.int8)
        rounded = Int8Linear(layer)
        work = 2 * TOKENS * inputs * outputs / 1e9
        rates = [
            work * torch.get_num_threads() / min(timed(one, CPU)[1] for _ in range(7))
            for one in (
                lambda layer=layer, x=tokens: layer(x),
                lambda x=short, w=weight, b=bias: F.linear(x, w, b),
                lambda x=codes, w=rounded.codes: torch._int_mm(x, w.t()),
                lambda layer=rounded, x=tokens: layer(x),
            )
        ]
        lines.append(f'| {inputs} → {outputs} | ' + ' | '.join(f'{x:.0f}' for x in rates) + ' |')
    return '\n'.join(lines)


def faster(model: nn.Module, speed: str) -> nn.Module:
    """Return a model like ours at a speed."""
    other = copy.copy(model)
    other._modules = dict(model._modules)
    prepare(other, Speed.parse(speed), CPU)
    return other


def compare(scheme: str, args: argparse.Namespace) -> str:
    """Return a table of one attention scheme."""
    size = Size(num_layers=args.layers)
    peers = [peer for peer in args.peers if not (peer == 'huggingface' and scheme == 'space_only')]
    models: dict[str, Any] = {}
    for peer in peers:
        models[f'{peer} fp32'] = models[f'{peer} bf16'] = model = build(peer, size, scheme).eval()
        if args.compile_peers:
            models[f'{peer} bf16, compiled'] = torch.compile(model, options={'freezing': True})
    models[EXACT] = exact = build('ours', size, scheme).eval()
    models |= {speed: faster(exact, speed) for speed in args.speeds if speed != EXACT}
    clip = torch.randn(1, 3, size.num_frames, size.img_size, size.img_size)

    def run(name: str) -> Any:
        if not name.startswith(tuple(peers)):
            with float32_by_onednn():
                return models[name](clip)
        with torch.autocast('cpu', torch.bfloat16, enabled=' bf16' in name):
            return models[name](clip)

    start, logits = {}, {}
    for name in models:
        begin = time.perf_counter()
        logits[name] = run(name)
        start[name] = time.perf_counter() - begin
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(args.rounds):
        for name in models:
            times[name].append(timed(lambda name=name: run(name), CPU)[0])
    kinds = [kind for kind in (' fp32', ' bf16', ', compiled') if any(map(ends(kind), models))]
    heads = [f'the faster peer{kind} divided by it' for kind in kinds]
    lines = [
        f'| | seconds | {" | ".join(heads)} | cosine of logits | first call |',
        '|---|' + '---|' * (len(kinds) + 3),
    ]
    for name, found in times.items():
        cells = [name, f'{statistics.median(found):.3f}']
        for kind in kinds:
            rivals = [times[peer] for peer in filter(ends(kind), models)]
            best = min(rivals, key=statistics.median)
            low, median, high = quartiles([a / b for a, b in zip(best, found, strict=True)])
            cells.append(f'{median:.2f} ({low:.2f} to {high:.2f})')
        cosine = F.cosine_similarity(logits[name].double(), logits[EXACT].double()).item()
        cells += [f'{cosine:.6f}', f'{start[name]:.0f} s']
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def ends(kind: str) -> Callable[[str], bool]:
    """Return whether a name is that of a peer of a kind."""
    return lambda name: name.endswith(kind)


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    about = machine() | {'instructions': torch.backends.cpu.get_cpu_capability()}
    parts = ['# The switch speed', ', '.join(f'{key} {value}' for key, value in about.items())]
    with torch.inference_mode():
        with float32_by_onednn():
            parts.append(f'{TOKENS} tokens, {args.threads} threads, GFLOP/s:\n\n{products()}')
        for scheme in args.schemes:
            print(parts[-1], flush=True)
            parts.append(f'{scheme}, one clip of 8 x 224 x 224:\n\n{compare(scheme, args)}')
    print(parts[-1])
    if args.out:
        (args.out / 'speeds.md').write_text('\n\n'.join(parts) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
