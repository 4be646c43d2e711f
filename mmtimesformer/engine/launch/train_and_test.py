"""What ``tools/train.py`` and ``tools/test.py`` do, once their command line is read."""

import gc
import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process

from mmtimesformer.cli import RunStopped, require_file
from mmtimesformer.config.command_line import check_order, check_output
from mmtimesformer.config.find import find_config
from mmtimesformer.config.sharded_training import is_sharded
from mmtimesformer.config.validate import check_config, check_options
from mmtimesformer.engine.checkpointing.resume import latest_checkpoint
from mmtimesformer.engine.optim import amp as precision
from mmtimesformer.engine.runner import Runner
from mmtimesformer.non_finite import NonFiniteError
from mmtimesformer.terminal import echo, safe_lines


def train(args: Namespace) -> None:
    """Train as the config says, with the changes of the command line."""
    cfg = read_config(args.config, args.cfg_options, args.work_dir)
    cfg.launcher = args.launcher
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        precision.train_in(args.amp, cfg)
    elif isinstance(cfg.get('optim_wrapper'), dict):
        precision.check_wrapper(cfg.optim_wrapper)
    if args.auto_scale_lr:
        _know_base_batch(cfg, '--auto-scale-lr').enable = True
    if args.accumulate:
        _know_base_batch(cfg, '--accumulate').accumulate = True
    _set_start(cfg, args.resume)
    _set_randomness(cfg, args.seed, args.diff_rank_seed, args.deterministic)
    _run(cfg, 'train', tuple(args.cfg_options or ()))


def test(args: Namespace) -> None:
    """Test a checkpoint as the config says, with the changes of the command line."""
    check_order(args.config, args.checkpoint)
    cfg = read_config(args.config, args.cfg_options, args.work_dir)
    cfg.launcher = args.launcher
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if is_sharded(cfg.get('model_wrapper_cfg')):  # without gradients and optimiser there is room
        cfg.model_wrapper_cfg = None
    if cfg.get('test_dataloader') is None:
        raise ValueError(f'config {args.config} has no test_dataloader; add one, or name another')
    if args.amp:
        precision.test_in(args.amp, cfg)
    if args.dump:
        _dump_results(cfg, args.dump)
    if args.show and sys.platform == 'linux' and not {'DISPLAY', 'WAYLAND_DISPLAY'} & {*os.environ}:
        raise ValueError('--show opens windows, and this machine has no screen; use --show-dir')
    if args.show_dir:
        check_output(args.show_dir, '--show-dir', folder=True)
    if args.show or args.show_dir:
        pictures = {
            'type': 'mmtimesformer.PredictionImagesHook',
            'out_dir': args.show_dir,
            'interval': args.interval,
            'show': args.show,
            'wait_time': args.wait_time,
        }
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), pictures]
    _run(cfg, 'test')


def read_config(
    name_or_path: str, options: dict[str, Any] | None = None, work_dir: str | None = None
) -> Config:
    """Read a config and merge options into it.

    ``work_dir`` is the argument, else the config's, else ``work_dirs/`` and the config's name.
    """
    path = find_config(name_or_path)
    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        raise ValueError(f'config {path} cannot be read: {error}') from error
    if options:
        check_options(cfg, options)
        _merge(cfg, options)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / path.stem)
    return cfg


def _merge(cfg: Config, options: dict[str, Any]) -> None:
    """Merge options one by one, so that an error names the option."""
    for key, value in options.items():
        try:
            cfg.merge_from_dict({key: value})
        except Exception as error:  # noqa: PERF203 (options are few)
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            reason = str(text).partition(' of list [')[0].partition('. You may set')[0]
            if isinstance(error, TypeError) and 'list indices' in reason:
                reason = 'a part of a list is named by its number, from 0'
            raise ValueError(
                f'--cfg-options {key}={value}: {reason}; correct the name or the value'
            ) from error


def _run(cfg: Config, purpose: str, settings_given: tuple[str, ...] = ()) -> None:
    """Look, then run; a failure of the run leaves its stack trace in the work_dir."""
    import mmtimesformer.heads  # noqa: F401  (registers the head that configs and checks name)

    if cfg.get('load_from'):
        require_file(cfg.load_from, 'checkpoint', 'correct the path')
    notes = check_config(cfg, purpose)
    try:
        _build_and_run(cfg, notes, purpose, settings_given)
    except Exception as error:
        # Not for another's folder, nor for weights that are NaN: no code is wrong.
        if not isinstance(error, RunStopped | BlockingIOError | NonFiniteError):
            _keep_trace(Path(cfg.work_dir))
        traceback.clear_frames(error.__traceback__)  # which would keep the runner
        raise
    finally:
        _leave_process_group()


def _build_and_run(
    cfg: Config, notes: list[str], purpose: str, settings_given: tuple[str, ...]
) -> None:
    runner = Runner.from_cfg(cfg)
    runner.settings_given = settings_given
    for note in notes:
        runner.logger.warning(note)
    job: Callable[[], object] = runner.train if purpose == 'train' else runner.test
    job()


def _leave_process_group() -> None:
    """End the connection to the other processes, when nothing refers to the runner any more.

    NOTE: a model that is shared between processes keeps gloo's threads alive, beyond
    ``destroy_process_group``. One of them that lets go of its last tensor while Python ends aborts
    the process, and torchrun calls the whole run, which has long done its work, a failure.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()


def _keep_trace(work_dir: Path) -> None:
    if work_dir.is_dir() and is_main_process():
        path = work_dir / 'failure.txt'
        with suppress(OSError):  # of a full disk, which may be what the trace is about
            path.write_text(safe_lines(traceback.format_exc()), encoding='utf-8')
            echo(f'\nthe stack trace is in {path}', file=sys.stderr)


def _set_start(cfg: Config, resume: str | None) -> None:
    """Decide where training starts: ``None`` as the config says, ``'auto'``, or a checkpoint.

    With nothing to resume ``'auto'`` starts as the config says, from its ``load_from`` if it has
    one; so one command serves the first start and every restart.
    """
    if resume == 'auto':
        cfg.resume = latest_checkpoint(cfg.work_dir) is not None
        if cfg.resume:
            cfg.load_from = None
        else:
            echo(f'nothing to resume in {cfg.work_dir}; starts from the beginning')
    elif resume is not None:
        require_file(resume, 'checkpoint', 'correct the path')
        cfg.resume = True
        cfg.load_from = resume


def _know_base_batch(cfg: Config, option: str) -> Any:
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise ValueError(
            f'{option} needs to know for how many videos per step the learning rate was chosen; '
            'add auto_scale_lr = dict(base_batch_size=64) to the config, with your number'
        )
    return cfg.auto_scale_lr


def _set_randomness(
    cfg: Config, seed: int | None, diff_rank_seed: bool, deterministic: bool
) -> None:
    """Let the command line win over the config, key by key."""
    randomness = {'seed': None, **(cfg.get('randomness') or {})}
    if seed is not None:
        randomness['seed'] = seed
    if diff_rank_seed:
        randomness['diff_rank_seed'] = True
    if deterministic:
        randomness['deterministic'] = True
    cfg.randomness = randomness


def _dump_results(cfg: Config, path: str) -> None:
    if not path.endswith(('.pkl', '.pickle')):
        raise ValueError(f'--dump {path} must end in .pkl or .pickle, by which it is read again')
    check_output(path, '--dump')
    evaluator = cfg.get('test_evaluator') or []
    evaluators = list(evaluator) if isinstance(evaluator, (list, tuple)) else [evaluator]
    cfg.test_evaluator = [*evaluators, {'type': 'DumpResults', 'out_file_path': path}]
    views = {'type': 'mmtimesformer.ViewScoresHook'}
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), views]
