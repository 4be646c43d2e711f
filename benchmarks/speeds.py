"""What each value of the switch `speed` gains: python benchmarks/speeds.py.

MMAction2 and Hugging Face in fp32, our exact backbone and our faster ones take turns on one clip,
with the same random weights. Printed are medians, with the quartiles of the ratios, the cosine of
logits against the exact ones, and before them the rates of the model's own matrix products.

    python benchmarks/speeds.py --threads 2 --speeds bf16 int8 compiled+bf16 compiled+int8
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from peers import SCHEMES, Size, build, machine, quartiles, timed
from torch import nn

from mmtimesformer.config.speed import EXACT, Speed, add_speed
from mmtimesformer.inference.int8 import Int8Linear
from mmtimesformer.inference.speed import prepare

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
    models: dict[str, Any] = {peer: build(peer, size, scheme).eval() for peer in peers}
    models[EXACT] = exact = build('ours', size, scheme).eval()
    models |= {speed: faster(exact, speed) for speed in args.speeds if speed != EXACT}
    clip = torch.randn(1, 3, size.num_frames, size.img_size, size.img_size)
    run: Callable[[str], Any] = lambda name: models[name](clip)  # noqa: E731
    start, logits = {}, {}
    for name in models:
        begin = time.perf_counter()
        logits[name] = run(name)
        start[name] = time.perf_counter() - begin
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for _ in range(args.rounds):
        for name in models:
            times[name].append(timed(lambda name=name: run(name), CPU))
    lines = [
        '| | seconds | CPU seconds | exact divided by it (quartiles) | the same in CPU time | '
        'cosine of logits | first call |',
        '|---|---|---|---|---|---|---|',
    ]
    for name, found in times.items():
        ratios = [
            quartiles([a[i] / b[i] for a, b in zip(times[EXACT], found, strict=True)])
            for i in (0, 1)
        ]
        wall, cpu = (statistics.median(one[i] for one in found) for i in (0, 1))
        cosine = F.cosine_similarity(logits[name].double(), logits[EXACT].double()).item()
        shown = ' | '.join(f'{r[1]:.2f} ({r[0]:.2f} to {r[2]:.2f})' for r in ratios)
        lines.append(
            f'| {name} | {wall:.2f} | {cpu:.2f} | {shown} | {cosine:.6f} | {start[name]:.0f} s |'
        )
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    print(machine() | {'instructions': torch.backends.cpu.get_cpu_capability()})
    with torch.inference_mode():
        print(f'\n{TOKENS} tokens, {args.threads} threads, GFLOP/s\n\n{products()}')
        for scheme in args.schemes:
            print(f'\n{scheme}, one clip of 8 x 224 x 224\n\n{compare(scheme, args)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
