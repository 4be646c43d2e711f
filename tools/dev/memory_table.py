"""Compute the GPU memory of training, and write the tables of docs/choose.md.

A training step (forward, backward) runs on fake tensors, which have shapes but no data, and the
bytes of all tensors that exist at the same time are counted. Nothing is measured on a GPU.

    python tools/dev/memory_table.py --compute   # minutes; writes benchmarks/results/memory.json
    python tools/dev/memory_table.py             # write the tables, with the metafiles' scores
    python tools/dev/memory_table.py --check     # exit code 1 if a table is out of date
"""

import json
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from zoo_table import models

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import ToolParser, parse
from mmtimesformer.config.find import find_config, read_config
from mmtimesformer.fileio.atomic import write_json_atomically
from mmtimesformer.models import TimeSformer

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / 'benchmarks' / 'results' / 'memory.json'
PAGE = ROOT / 'docs' / 'choose.md'
SHARE = 0.9  # of a GPU's memory; the rest is for CUDA itself and for gaps between tensors
GPUS = (8, 12, 16, 24, 40, 80)  # GB
LEVELS = ('False', 'mlp', 'block')  # of with_cp
MOST = 64  # clips in a step
# Title → the config whose backbone and optimizer are computed.
ROWS = {
    'B, divided, 8 x 224': 'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb',
    'B, joint, 8 x 224': 'timesformer_jointST_8xb8-8x32x1-15e_kinetics400-rgb',
    'B, space-only, 8 x 224': 'timesformer_spaceOnly_8xb8-8x32x1-15e_kinetics400-rgb',
    'HR: B, divided, 16 x 448': 'timesformer_divST-HR_8xb1-16x16x1-15e_kinetics400-rgb_official',
    'L: B, divided, 64 x 224': 'timesformer_divST-L_8xb1-u64-15e_sthv2-rgb_official',
    'L: B, divided, 96 x 224': 'timesformer_divST-L_8xb1-96x4x1-15e_kinetics400-rgb_official',
    'ViT-L/16, divided, 8 x 224': 'timesformer-vit-large-p16_divST_8xb8-8x32x1-15e_kinetics400-rgb',
    'ViT-H/14, divided, 8 x 224': 'timesformer-vit-huge-p14_divST_8xb8-8x32x1-15e_kinetics400-rgb',
}


class LiveBytes(TorchDispatchMode):
    """Count the bytes of the tensors that exist at the same time.

    Attributes:
        peak: The largest sum.
    """

    def __init__(self, *known: torch.Tensor) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return out

    def _add(self, storage: Any) -> None:
        if storage._cdata in self.known:
            return
        self.known.add(storage._cdata)
        self.now += storage.nbytes()
        weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())

    def _remove(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def peak_of_step(backbone: dict[str, Any], batch: int, bf16: bool = True) -> int:
    """Return by how many bytes a training step exceeds weights, gradients and the clips."""
    with torch.device('meta'):
        model = TimeSformer(**backbone).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device='cpu')
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        size = backbone.get('img_size', 224)
        clips = torch.empty(batch, 3, backbone['num_frames'], size, size)
        weights = list(model.parameters())
        live = LiveBytes(clips, *weights, *(p.grad for p in weights if p.grad is not None))
        with live:
            with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
                features = model(clips)
            features.float().logsumexp(-1).sum().backward()
    return live.peak


def compute(name: str) -> dict[str, Any]:
    """Return the bytes of weights, gradients and optimizer state, and of a step at each level.

    A step has the bytes of 1 clip and of :data:`MOST`. The peak is the largest of several moments,
    each linear in the number of clips, so that the line between both is never below it.
    """
    cfg = read_config(str(find_config(name)))
    backbone = {k: v for k, v in cfg.model.backbone.items() if k not in ('type', 'init_cfg')}
    with torch.device('meta'):
        parameters = sum(p.numel() for p in TimeSformer(**backbone).parameters())
    optimizer = cfg.optim_wrapper.optimizer.type
    found: dict[str, Any] = {
        'optimizer': optimizer,
        'state': parameters * (16 if 'Adam' in optimizer else 12),
    }
    for level in LEVELS:
        options = {**backbone, 'with_cp': False if level == 'False' else level}
        found[level] = [peak_of_step(options, clips) for clips in (1, MOST)]
    return found


def compute_all() -> None:
    """Compute the rows that the file of results does not have yet."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in ROWS.values():
        if name not in results:
            results[name] = compute(name)
            write_json_atomically(RESULTS, results)


def bytes_of_clip(row: dict[str, Any], level: str) -> float:
    """Return what each further clip adds to a step."""
    one, most = row[level]
    return (most - one) / (MOST - 1)


def step_bytes(row: dict[str, Any], level: str, clips: int) -> float:
    """Return the bytes of weights, gradients, optimizer state and a step of so many clips."""
    return row['state'] + row[level][0] + (clips - 1) * bytes_of_clip(row, level)


def clips_that_fit(row: dict[str, Any], level: str, gigabytes: int) -> str:
    """Return the largest number of clips in a step on a GPU of so many GB, as text."""
    left = SHARE * gigabytes * 1e9 - step_bytes(row, level, 1)
    if left < 0:
        return '–'
    clips = 1 + int(left // bytes_of_clip(row, level))
    return str(clips) if clips <= MOST else f'{MOST}+'


def attention_table(results: dict[str, Any]) -> Iterator[str]:
    """Give the lines of the table of the three attention schemes."""
    entries = {model['Name']: model for model in models()}
    yield '| attention | multiply-adds | parameters | memory of a clip | top-1 | source |'
    yield '|---|---|---|---|---|---|'
    for title, name in list(ROWS.items())[:3]:
        about, row = entries[name]['Metadata'], results[name]
        yield _line(
            title.split(', ')[1], about['FLOPs'], about['Parameters'],
            f'{bytes_of_clip(row, "False") / 1e9:.2f} GB', *_score(entries[name]),
        )  # fmt: skip


def fit_table(results: dict[str, Any]) -> Iterator[str]:
    """Give the lines of the table of clips that fit on a GPU."""
    yield _line('model', *(f'{size} GB' for size in GPUS))
    yield '|---|' + '---|' * len(GPUS)
    for title, name in ROWS.items():
        cells = [
            '/'.join(clips_that_fit(results[name], level, size) for level in LEVELS)
            for size in GPUS
        ]
        yield _line(title, *cells)


def config_table(results: dict[str, Any]) -> Iterator[str]:
    """Give the lines of the table of configs by data set."""
    yield '| data set | clip | config | memory, GB | top-1 | source |'
    yield '|---|---|---|---|---|---|'
    for model in models():
        name, about = model['Name'], model['Metadata']
        row = results.get(ROWS.get(_row_of(about), ''))
        if row is None or name.endswith('_distill') or 'frames-rgb' in name:
            continue
        batch = int(about['Batch Size'])
        memory = ' / '.join(f'{step_bytes(row, level, batch) / 1e9:.1f}' for level in LEVELS)
        clip = f'{about["Frames"]} x {about["Resolution"].split("x")[0]}'
        page = f'../{model["Config"]}'
        yield _line(
            model['Results'][0]['Dataset'], clip, f'[{name}]({page})', memory, *_score(model)
        )


def _row_of(about: dict[str, Any]) -> str:
    """Return the start of the row for an entry of a metafile: model, attention and clip."""
    size = next((word for word in ('ViT-L/16', 'ViT-H/14') if word in about['Architecture']), 'B')
    attention = about['Architecture'].split(', ')[-1].split()[0].removesuffix('-time')
    scheme = {'divided': 'divided', 'joint': 'joint', 'space-only': 'space-only'}[attention]
    wanted = f'{size}, {scheme}, {about["Frames"]} x {about["Resolution"].split("x")[0]}'
    return next((title for title in ROWS if title.endswith(wanted)), '')


def _score(model: dict[str, Any]) -> tuple[str, str]:
    (result,) = model['Results']
    source = result['Source'].removesuffix(', not measured here')
    return str(result['Metrics'].get('Top 1 Accuracy', '')), source


def _line(*cells: str) -> str:
    return f'| {" | ".join(cells)} |'.replace('|  |', '| |')


TABLES = {'attention': attention_table, 'fit': fit_table, 'configs': config_table}


def write(check: bool) -> None:
    """Write the tables into the page.

    Raises:
        ValueError: With ``check``, a table is out of date; or the page has no mark for one.
    """
    results = json.loads(RESULTS.read_text())
    new = old = PAGE.read_text()
    for name, table in TABLES.items():
        begin = f'<!-- {name}: written by tools/dev/memory_table.py -->'
        end = f'<!-- end of {name} -->'
        before, found, rest = new.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f'{PAGE} has no marks; put {begin} and {end} where the table goes')
        body = '\n'.join(table(results))
        new = f'{before}{begin}\n\n{body}\n\n{end}{after}'
    if check and new != old:
        raise ValueError(f'a table of {PAGE} is out of date; run: python tools/dev/memory_table.py')
    PAGE.write_text(new)


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = ToolParser(__doc__)
    parser.add_argument('--check', action='store_true', help='compare only; write nothing')
    parser.add_argument('--compute', action='store_true', help='compute rows that are missing')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    return run_tool(lambda: compute_all() if args.compute else write(args.check), args.debug)


if __name__ == '__main__':
    sys.exit(main())
