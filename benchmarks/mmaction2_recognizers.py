"""Build and train every recognizer of MMAction2's wheel for one step, with and without our fixes.

    python benchmarks/mmaction2_recognizers.py                     # all configs, half an hour
    python benchmarks/mmaction2_recognizers.py --representatives   # one of each family
    python benchmarks/mmaction2_recognizers.py --configs slowfast/ tsm/
    python benchmarks/mmaction2_recognizers.py --table 'reference=A.json' '1.2.0=B.json'

Each config is run twice on a made video: as MMAction2 is, and after ``import mmtimesformer``. A run
reads the config, builds the model, reads two videos by the config's own training pipeline, takes
one step of its own optimizer, and reads a checkpoint as MMEngine's Runner writes it. Each runs in a
process of its own with a limit of memory and time. No weights are downloaded.

So that a small machine can do it, frames are 64 pixels (112 for C3D, 70 for patches of 14), deep
transformers have 6 layers, models above 100 M parameters step by plain SGD, and mixed precision is
off on a CPU. Configs without a training section (weights of other systems) use their test pipeline
with one view, and SGD. Each row lists the changes.

Another stack is measured by putting it first: ``PYTHONPATH=folder_of_pip_install_target``.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import re
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
STAGES = ('import', 'config', 'build', 'data', 'step', 'load')
PACKAGES = ('torch', 'numpy', 'mmengine', 'mmaction2', 'mmcv-lite', 'mmtimesformer')
WAYS = ('plain', 'with')  # MMAction2 alone; after ``import mmtimesformer``
SIZE, LAYERS, SGD_FROM = 64, 6, 100e6
MEMORY = 3 * 2**30  # bytes of one run
# The argument of a backbone that has the size of its frames.
SIZE_KEYS = {
    'MViT': 'spatial_size',
    'TimeSformer': 'img_size',
    'UniFormer': 'img_size',
    'UniFormerV2': 'input_resolution',
    'VisionTransformer': 'img_size',
}
# The widest models with fewer layers: what was changed, and the value of ``arch``.
LARGE = {
    'MViT': (
        '12 of 48 layers',
        {'embed_dims': 144, 'num_layers': 12, 'num_heads': 2, 'downscale_indices': [2, 5, 9]},
    ),
    'SwinTransformer3D': (
        '8 of 24 layers',
        {'embed_dims': 192, 'depths': [2, 2, 2, 2], 'num_heads': [6, 12, 24, 48]},
    ),
}
SENTENCES = {  # an error: what it means
    r"No module named 'mmaction\.models\.localizers\.drn'": 'the wheel lacks `localizers.drn`',
    r'Weights only load failed': 'a checkpoint of the Runner cannot be read (`weights_only`)',
    r'out of bounds for uint8': '`ColorJitter` under NumPy 2',
    r'tin_shift': "needs mmcv's compiled operators, which mmcv-lite lacks",
    r'(\S+) needs (\w+), not installed': r'`\1` needs \2, not installed',
    r'\(2,5\) \(2,1,400\)': 'its blending has 400 classes and its head 174, a fault of the config',
}
OPTIONAL = {  # a package that a registry name needs
    'mmcls': 'mmpretrain',
    'mmpretrain': 'mmpretrain',
    'timm': 'timm',
    'torchvision': 'torchvision',
    'PytorchVideoWrapper': 'pytorchvideo',
    'ImgAug': 'imgaug',
}


@dataclass
class Run:
    """How far one config came.

    Attributes:
        stage: the stage that failed, or ``'ok'``.
        reason: its error in one line.
        changes: what was changed in the config to make it small.
        seconds: wall time.
        parameters: of the model.
    """

    stage: str = 'import'
    reason: str = ''
    changes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    parameters: int = 0


def configs_folder() -> Path:
    """Return the folder of recognizer configs in the installed MMAction2, which is not imported."""
    spec = importlib.util.find_spec('mmaction')
    if spec is None or spec.origin is None:
        raise SystemExit('error: mmaction2 is not installed; install mmtimesformer[mmaction]')
    return Path(spec.origin).parent / '.mim' / 'configs' / 'recognition'


def names_of_configs(folder: Path) -> list[str]:
    """Return the path of each config below the folder, as ``family/name``."""
    return sorted(str(path.relative_to(folder).with_suffix('')) for path in folder.rglob('*.py'))


def representatives(names: Iterable[str]) -> list[str]:
    """Return the first config of each family."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(name.partition('/')[0], name)
    return list(first.values())


def make_data(folder: Path) -> None:
    """Write a video of 96 frames, the same as a folder of JPG files, and their lists."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    frames = [
        cv2.blur(rng.integers(0, 256, (96, 128, 3), dtype=np.uint8), (5, 5)) for _ in '.' * 96
    ]
    code = cv2.VideoWriter.fourcc(*'mp4v')
    writer = cv2.VideoWriter(str(folder / 'video.mp4'), code, 24, (128, 96))
    for frame in frames:
        writer.write(frame)
    writer.release()
    (folder / 'videos.txt').write_text('video.mp4 0\nvideo.mp4 1\n')
    (folder / 'frames.txt').write_text('frames 96 0\nframes 96 1\n')
    (folder / 'frames').mkdir()
    for i, frame in enumerate(frames, 1):
        for template in ('img_{:05}.jpg', '{:05}.jpg'):
            cv2.imwrite(str(folder / 'frames' / template.format(i)), frame)


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Give every dict inside a config."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from walk(value)


def missing_package(types: Iterable[str]) -> str:
    """Return the first package that these registry names need and that is not installed."""
    for name in types:
        package = OPTIONAL.get(name.partition('.')[0] if '.' in name else name)
        if package and importlib.util.find_spec(package) is None:
            return package
    return ''


def drop_weights(model: dict[str, Any]) -> None:
    """Remove every address of published weights."""
    for part in walk(model):
        if part.get('pretrained'):
            part['pretrained'] = None
        if isinstance(part.get('init_cfg'), dict) and part['init_cfg'].get('type') == 'Pretrained':
            del part['init_cfg']


def size_of(backbone: dict[str, Any]) -> int:
    """Return the size of frames that a backbone allows and a small machine can train."""
    if backbone['type'] == 'C3D':
        return 112  # its first linear layer has the size of these features
    return SIZE if backbone.get('patch_size', 16) != 14 else 70


def shrink_model(backbone: dict[str, Any], size: int, changes: list[str]) -> None:
    """Set the size of frames, and at most six layers where a backbone has one number of layers."""
    if backbone.get('arch') == 'large':
        change, backbone['arch'] = LARGE[backbone['type']]
        changes.append(change)
    key = SIZE_KEYS.get(backbone['type'])
    if key is None:
        return
    backbone[key] = size
    for key in ('layers', 'depth', 'depths'):
        depth = backbone.get(key)
        if isinstance(depth, int) and depth > 2 * LAYERS:
            backbone[key] = LAYERS
            changes.append(f'{LAYERS} of {depth} layers')
            if 'return_list' in backbone:
                backbone['return_list'] = list(range(LAYERS))[-backbone['n_layers'] :]


def shrink_pipeline(pipeline: list[Any], size: int) -> list[Any]:
    """Return a pipeline of one view whose frames have this size."""
    small = []
    for given in pipeline:
        step = dict(given)
        kind = step['type']
        if kind == 'Resize' and step['scale'][0] == step['scale'][1]:
            step['scale'] = (size, size)
        elif kind == 'RandomCrop':
            step['size'] = size
        elif kind in ('ThreeCrop', 'TenCrop', 'CenterCrop'):
            step.update(type='CenterCrop', crop_size=size)
        elif step.pop('test_mode', False) and step.get('clip_len', 1) > 1:
            step['num_clips'] = 1
        small.append(step)
    return small


def data_set_of(cfg: Any, run: Run) -> dict[str, Any]:
    """Return the config's innermost training data set, on the made videos, with small frames."""
    loader = cfg.get('train_dataloader')
    if loader is None:
        run.changes.append('no training section: its test pipeline, one view, SGD')
        loader = cfg.test_dataloader
    found = [part for part in walk(loader['dataset']) if 'ann_file' in part]
    if not found:
        raise ValueError('the training data set of this config has no ann_file')
    data_set = dict(found[0])
    for key in ('test_mode', 'delimiter'):
        data_set.pop(key, None)
    pipeline = [step for step in data_set['pipeline'] if not missing_package([step['type']])]
    for step in data_set['pipeline']:
        if package := missing_package([step['type']]):
            run.changes.append(f'without {step["type"]}, which needs {package}')
    data_set['pipeline'] = shrink_pipeline(pipeline, size_of(cfg.model.backbone))
    folder = str(Path.cwd())
    is_frames = data_set['type'] == 'RawframeDataset'
    data_set['ann_file'] = f'{folder}/{"frames" if is_frames else "videos"}.txt'
    data_set['data_prefix'] = {'img' if is_frames else 'video': folder}
    return data_set


def batch_of(cfg: Any, run: Run) -> Any:
    """Read two videos by the config's pipeline; images for a model of both are noise."""
    import torch
    from mmaction.registry import DATASETS
    from mmengine.dataset import pseudo_collate

    if 'test_dataloader' not in cfg:
        return noise_batch(cfg.model.backbone, run)
    data_set = DATASETS.build(data_set_of(cfg, run))
    samples = [data_set[0], data_set[1]]
    if isinstance(samples[0], list):  # repeated augmentation
        samples = [samples[0][0], samples[1][0]]
    batch = pseudo_collate(samples)
    if cfg.model.type != 'RecognizerOmni':
        return batch
    run.changes.append('images of noise')
    image = torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8)
    return batch, {'inputs': [image, image], 'data_samples': labelled_samples()}


def noise_batch(backbone: dict[str, Any], run: Run) -> dict[str, Any]:
    """Return two clips of noise, for a config that has a model and no data."""
    import torch

    run.changes.append('no data sections: clips of noise, SGD')
    shape = (1, 3, backbone['t_size'], size_of(backbone), size_of(backbone))
    clips = [torch.randint(0, 256, shape, dtype=torch.uint8) for _ in range(2)]
    return {'inputs': clips, 'data_samples': labelled_samples()}


def labelled_samples() -> list[Any]:
    """Return two samples with the labels 0 and 1."""
    from mmaction.structures import ActionDataSample

    samples = [ActionDataSample(), ActionDataSample()]
    for label, sample in enumerate(samples):
        setter = getattr(sample, 'set_gt_labels', None) or sample.set_gt_label
        setter(label)
    return samples


def optimizer_of(cfg: Any, model: Any, run: Run) -> Any:
    """Return the config's own optimizer wrapper where this machine can hold it, otherwise SGD."""
    from mmengine.optim import build_optim_wrapper

    run.parameters = sum(weight.numel() for weight in model.parameters())
    own = dict(cfg.get('optim_wrapper') or {})
    if not own or run.parameters > SGD_FROM:
        if own:
            run.changes.append('SGD')
        own = {'optimizer': {'type': 'SGD', 'lr': 1e-3}}
    if own.get('type') == 'AmpOptimWrapper':
        run.changes.append('no mixed precision')
    own.update(type='OptimWrapper')
    own.pop('loss_scale', None)
    return build_optim_wrapper(model, own)


def read_checkpoint_of_runner(model: Any) -> None:
    """Write what MMEngine's Runner writes and load it: weights of the head, and loss curves."""
    import torch
    from mmengine.logging import HistoryBuffer
    from mmengine.runner import load_checkpoint

    curves = {'log_scalars': {'train/loss': HistoryBuffer([1.0, 0.5], [1, 1])}}
    weights = model.cls_head.state_dict(prefix='cls_head.')
    file = Path(f'{os.getpid()}.pth')
    torch.save({'meta': {'epoch': 1}, 'state_dict': weights, 'message_hub': curves}, file)
    try:
        load_checkpoint(model, str(file), map_location='cpu')
    finally:
        file.unlink()


def run_config(path: Path, run: Run) -> None:
    """Take one training step of a config; ``run`` has the stage that was reached."""
    import torch
    from mmengine.config import Config
    from mmengine.registry import DefaultScope

    torch.manual_seed(0)
    run.stage = 'config'
    cfg = Config.fromfile(path)
    DefaultScope.get_instance('recognizers', scope_name='mmaction')
    drop_weights(cfg.model)
    shrink_model(cfg.model.backbone, size_of(cfg.model.backbone), run.changes)
    if package := missing_package([cfg.model.backbone.type]):
        raise ModuleNotFoundError(f'{cfg.model.backbone.type} needs {package}, not installed')
    run.stage = 'build'
    from mmaction.registry import MODELS

    model = MODELS.build(cfg.model)
    optimizer = optimizer_of(cfg, model, run)
    run.stage = 'data'
    batch = batch_of(cfg, run)
    run.stage = 'step'
    model.train()
    losses = model.train_step(batch, optimizer)
    if not all(math.isfinite(value) for value in losses.values()):
        raise ValueError(f'the loss is not finite: {losses}')
    run.stage = 'load'
    read_checkpoint_of_runner(model)
    run.stage = 'ok'


def one_line(error: BaseException) -> str:
    """Return an error in one line without paths, such as ``KeyError: 'x'``."""
    text = ' '.join(re.sub(r'\x1b\[\d+m', '', str(error)).split())
    for folder in (configs_folder().parents[3], Path.cwd(), Path.home()):
        text = text.replace(str(folder), '…')
    return f'{type(error).__name__}: {text}'[:300]


def guarded(call: Callable[[Run], None], pipe: Connection) -> None:
    """Call a function within the limit of memory, and send its ``Run``."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    run, start = Run(), time.monotonic()
    try:
        call(run)
    except (Exception, SystemExit) as error:
        run.reason = one_line(error)
    run.seconds = round(time.monotonic() - start, 1)
    pipe.send(asdict(run))


def in_a_process(call: Callable[[Run], None], limit: float) -> dict[str, Any]:
    """Call a function in a fork of this process, for at most ``limit`` seconds."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context('fork').Process(target=guarded, args=(call, theirs))
    worker.start()
    theirs.close()
    try:
        if ours.poll(limit):
            result: dict[str, Any] = ours.recv()
            return result
        return asdict(Run('time', f'not done after {limit:.0f} seconds'))
    except EOFError:
        worker.join()
        return asdict(Run('crash', f'the process ended with exit code {worker.exitcode}'))
    finally:
        worker.kill()
        worker.join()


def run_all(names: list[str], way: str, limit: float) -> dict[str, Any]:
    """Run each config in a fork of one process that has imported the packages once."""
    warnings.simplefilter('ignore')
    import torch

    torch.set_num_threads(1)
    failed = ''
    try:
        if way == 'with':
            importlib.import_module('mmtimesformer')
        importlib.import_module('mmaction.utils').register_all_modules(init_default_scope=True)
    except (Exception, SystemExit) as error:
        failed = one_line(error)
    results: dict[str, Any] = {}
    for name in names:
        path = configs_folder() / f'{name}.py'
        found = asdict(Run('import', failed))
        if not failed:
            found = in_a_process(partial(run_config, path), limit)
        results[name] = found
        print(f'{way:5} {name}: {found["stage"]} {found["reason"]}', file=sys.stderr, flush=True)
    return results


def measure(names: list[str], way: str, limit: float) -> dict[str, Any]:
    """Run all configs one way, in a new interpreter, so that no import of ours is left over."""
    receive, send = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context('spawn')
    worker = context.Process(target=send_all, args=(names, way, limit, send))
    worker.start()
    send.close()
    try:
        results: dict[str, Any] = receive.recv()
    except EOFError:
        raise SystemExit(f'error: the runs of {way} ended early') from None
    worker.join()
    return results


def send_all(names: list[str], way: str, limit: float, pipe: Connection) -> None:
    """Work in a folder of its own with the made videos, and send all results."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_data(Path(folder))
        with Path('log.txt').open('w') as log, contextlib.redirect_stdout(log):
            results = run_all(names, way, limit)
        pipe.send(results)
        os.chdir(ROOT)


def versions() -> dict[str, str]:
    """Return the version of each package that matters."""
    found = {'python': platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def is_past(run: dict[str, Any], stage: str) -> bool:
    """Return whether a run came further than a stage."""
    return run['stage'] in (*STAGES[STAGES.index(stage) + 1 :], 'ok')


def table(found: dict[str, Any]) -> str:
    """Return the Markdown table of one stack: a row a family, and what fails with our fixes."""
    rows = found['configs']
    families = list(dict.fromkeys(name.partition('/')[0] for name in rows))
    lines = ['| family | configs | build | run, alone | run, with `mmtimesformer` | what fails |']
    lines.append('|' + '---|' * 6)
    for family in [*families, '**all**']:
        names = [name for name in rows if family in ('**all**', name.partition('/')[0])]
        built = sum(is_past(rows[name]['with'], 'build') for name in names)
        ran = [sum(rows[name][way]['stage'] == 'ok' for name in names) for way in WAYS]
        reasons = '' if family == '**all**' else reasons_of(found, names)
        lines.append(f'| {family} | {len(names)} | {built} | {ran[0]} | {ran[1]} | {reasons} |')
    return '\n'.join(lines) + '\n'


def summary(stacks: dict[str, dict[str, Any]]) -> str:
    """Return the Markdown table of several stacks: a row each."""
    lines = ['| stack | configs | run, alone | run, with `mmtimesformer` | why not, alone |']
    lines.append('|' + '---|' * 5)
    for stack, found in stacks.items():
        rows = found['configs'].values()
        ran = [sum(row[way]['stage'] == 'ok' for row in rows) for way in WAYS]
        reasons = dict.fromkeys(
            sentence(row['plain']) for row in rows if is_past(row['with'], 'load')
        )
        text = '; '.join(filter(None, reasons))
        lines.append(f'| {stack} | {len(rows)} | {ran[0]} | {ran[1]} | {text} |')
    return '\n'.join(lines) + '\n'


def reasons_of(found: dict[str, Any], names: list[str]) -> str:
    """Return why configs of a family fail, each reason once, and what our fixes repair."""
    rows = [found['configs'][name] for name in names]
    reasons = [sentence(row['with']) for row in rows]
    reasons += [
        f'alone: {sentence(row["plain"])}'
        for row in rows
        if row['plain']['stage'] not in ('ok', row['with']['stage'])
    ]
    return '; '.join(dict.fromkeys(filter(None, reasons)))


def sentence(run: dict[str, Any]) -> str:
    """Return the error of a run in words, or as it is."""
    for pattern, words in SENTENCES.items():
        if match := re.search(pattern, run['reason']):
            return match.expand(words)
    return run['reason'].replace('|', '/')


def write(found: dict[str, Any], out: Path) -> None:
    """Write the results as JSON."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + '\n')


def main() -> None:
    """Measure, or print the table of measured stacks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--configs', nargs='+', default=[''], help='parts of names to run')
    parser.add_argument('--representatives', action='store_true', help='one of each family')
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=WAYS)
    parser.add_argument('--limit', type=float, default=120, help='seconds of one run')
    parser.add_argument('--out', type=Path, default=ROOT / 'results' / 'mmaction2_recognizers.json')
    parser.add_argument(
        '--table', nargs='+', metavar='STACK=FILE', help='print the table, run nothing'
    )
    parser.add_argument('--merge', action='store_true', help='keep the other rows of --out')
    args = parser.parse_args()
    if args.table:
        files = dict(word.split('=', 1) for word in args.table)
        stacks = {stack: json.loads(Path(file).read_text()) for stack, file in files.items()}
        print(f'{summary(stacks)}\n{table(next(iter(stacks.values())))}')
        return
    names = names_of_configs(configs_folder())
    names = [name for name in names if any(part in name for part in args.configs)]
    names = representatives(names) if args.representatives else names
    by_way = {way: measure(names, way, args.limit) for way in args.ways}
    rows = json.loads(args.out.read_text())['configs'] if args.merge else {}
    for name in names:
        rows.setdefault(name, {}).update({way: by_way[way][name] for way in args.ways})
    write({'date': str(date.today()), 'versions': versions(), 'configs': rows}, args.out)


if __name__ == '__main__':
    main()
