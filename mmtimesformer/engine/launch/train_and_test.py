"""Train and test as ``tools/train.py`` and ``tools/test.py`` do, from their parsed options."""

import os
import sys
import traceback
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process

from mmtimesformer.checkpoints.download import fetch
from mmtimesformer.checkpoints.metadata import need_temperature
from mmtimesformer.checkpoints.preprocessing import Stated
from mmtimesformer.checkpoints.readers import read_file
from mmtimesformer.cli import RunStopped, require_file
from mmtimesformer.config.command_line import check_order, check_output
from mmtimesformer.config.find import read_config
from mmtimesformer.config.label_checks import with_temperature
from mmtimesformer.config.sharded_training import is_sharded
from mmtimesformer.config.validate import check_config
from mmtimesformer.engine.distributed.process_group import leave_process_group, lost_connection
from mmtimesformer.engine.hooks.prepare_model import Prepare, PrepareModelHook
from mmtimesformer.engine.optim import amp as precision
from mmtimesformer.engine.runner import EvalRunner, Runner
from mmtimesformer.fileio.atomic import write_text_atomically
from mmtimesformer.non_finite import NonFiniteError
from mmtimesformer.terminal import echo, safe_lines


def train(args: Namespace) -> None:
    """Train from a config, with the changes of the command line."""
    cfg = _read_config(args)
    cfg.launcher = args.launcher
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        precision.train_in(args.amp, cfg)
    elif isinstance(cfg.get('optim_wrapper'), dict):
        precision.check_wrapper(cfg.optim_wrapper)
    if args.auto_scale_lr:
        _base_batch_settings(cfg, '--auto-scale-lr').enable = True
    if args.accumulate:
        _base_batch_settings(cfg, '--accumulate').accumulate = True
    _set_start(cfg, args.resume)
    given = {'diff_rank_seed': args.diff_rank_seed, 'deterministic': args.deterministic}
    given = {name: True for name, is_given in given.items() if is_given}
    seed = {} if args.seed is None else {'seed': args.seed}
    cfg.randomness = {'seed': None, **(cfg.get('randomness') or {}), **seed, **given}
    _run(cfg, 'train', tuple(args.cfg_options or ()))


def test(args: Namespace, prepare: Prepare | None = None) -> None:
    """Test a checkpoint with a config, with the changes of the command line.

    ``prepare`` makes the model run at ``args.speed``, once its weights are loaded.
    """
    check_order(args.config, args.checkpoint)
    cfg = _read_config(args)
    cfg.launcher = args.launcher
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if is_sharded(cfg.get('model_wrapper_cfg')):  # it fits without gradients and optimizer
        cfg.model_wrapper_cfg = None
    if args.calibrated:
        _calibrate(cfg, args.checkpoint)
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
    if prepare:
        cfg.speed = args.speed
    _run(cfg, 'test', preprocessing=args.preprocessing, prepare=prepare)


def _compare_preprocessing(cfg: Config, checkpoint: str, choice: str | None) -> None:
    """Use the preprocessing of the checkpoint or of the config where they differ, as chosen.

    Raises:
        ValueError: They differ, and nothing was chosen: the scores would be of other pixels or
            frames than in training, without any sign of it.
    """
    if choice == 'config' or not isinstance(cfg.get('model'), dict):
        return
    stated = Stated.by(read_file(fetch(checkpoint)).extras, checkpoint)
    found = stated.differences(cfg)
    if not found:
        return
    if choice is None:
        raise ValueError(
            f'the preprocessing of checkpoint {checkpoint} and of the config differ: '
            f'{"; ".join(found)}. Choose by --preprocessing checkpoint or --preprocessing config'
        )
    dataset = cfg.test_dataloader.dataset
    pipeline = stated.apply_to(cfg.model, dataset.get('pipeline') or cfg.get('test_pipeline') or ())
    dataset.pipeline = cfg.test_pipeline = pipeline
    left = stated.differences(cfg)
    echo(f"The checkpoint's preprocessing is used: {'; '.join(x for x in found if x not in left)}")


def _calibrate(cfg: Config, checkpoint: str) -> None:
    """Divide logits by the temperature that ``tools/calibrate.py`` stored in the checkpoint."""
    require_file(checkpoint, 'checkpoint', 'correct the path')
    temperature = need_temperature(read_file(fetch(checkpoint)).extras, checkpoint)
    cfg.model.cls_head = with_temperature(cfg.model.cls_head, temperature)
    echo(f'Scores are calibrated: temperature {temperature:g}, of {checkpoint}')


def _read_config(args: Namespace) -> Config:
    """Read the config; its ``work_dir`` is the option, else its own, else ``work_dirs/NAME``."""
    cfg = read_config(args.config, args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(cfg.filename).stem)
    return cfg


def _run(
    cfg: Config,
    purpose: str,
    settings_given: tuple[str, ...] = (),
    preprocessing: str | None = None,
    prepare: Prepare | None = None,
) -> None:
    """Check the config, then run; a failure writes its stack trace to the work_dir."""
    import mmtimesformer.heads  # noqa: F401  (registers the head that configs and checks name)

    if cfg.get('load_from') and cfg.get('resume') != 'auto':
        require_file(cfg.load_from, 'checkpoint', 'correct the path')
    notes = check_config(cfg, purpose)
    if purpose == 'test':
        _compare_preprocessing(cfg, cfg.load_from, preprocessing)
    try:
        _build_and_run(cfg, notes, purpose, settings_given, prepare)
    except Exception as error:
        # No trace for a folder in use or for NaN weights: the code is not at fault.
        if not isinstance(error, RunStopped | BlockingIOError | NonFiniteError):
            _write_trace(Path(cfg.work_dir))
        traceback.clear_frames(error.__traceback__)  # it refers to the runner
        if lost := lost_connection(error):
            raise ConnectionError(lost) from error
        raise
    finally:
        leave_process_group()


def _build_and_run(
    cfg: Config,
    notes: list[str],
    purpose: str,
    settings_given: tuple[str, ...],
    prepare: Prepare | None,
) -> None:
    runner = (Runner if purpose == 'train' else EvalRunner).from_cfg(cfg)
    runner.settings_given = settings_given
    for note in notes:
        runner.logger.warning(note)
    if purpose == 'train':
        runner.train()
    else:
        if prepare:
            runner.register_hook(PrepareModelHook(prepare))
        runner.test()


def _write_trace(work_dir: Path) -> None:
    if work_dir.is_dir() and is_main_process():
        path = work_dir / 'failure.txt'
        with suppress(OSError):  # the disk may be full
            write_text_atomically(path, safe_lines(traceback.format_exc()))
            echo(f'\nthe stack trace is in {path}', file=sys.stderr)


def _set_start(cfg: Config, resume: str | None) -> None:
    """Set where training starts: ``None`` as in the config, ``'auto'``, or a checkpoint.

    With ``'auto'`` the Runner looks for the newest checkpoint, and starts as in the config if
    there is none; so one command serves the first start and every restart.
    """
    if resume == 'auto':
        cfg.resume = resume
    elif resume is not None:
        require_file(resume, 'checkpoint', 'correct the path')
        cfg.resume = True
        cfg.load_from = resume


def _base_batch_settings(cfg: Config, option: str) -> ConfigDict:
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise ValueError(
            f'{option} needs the number of videos per step that the learning rate was chosen for; '
            'add auto_scale_lr = dict(base_batch_size=64) to the config, with your number'
        )
    return cfg.auto_scale_lr


def _dump_results(cfg: Config, path: str) -> None:
    if not path.endswith(('.pkl', '.pickle')):
        raise ValueError(
            f'--dump {path} must end in .pkl or .pickle, the formats that can be read again'
        )
    check_output(path, '--dump')
    evaluator = cfg.get('test_evaluator') or []
    evaluators = list(evaluator) if isinstance(evaluator, (list, tuple)) else [evaluator]
    cfg.test_evaluator = [*evaluators, {'type': 'DumpResults', 'out_file_path': path}]
    views = {'type': 'mmtimesformer.ViewScoresHook'}
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), views]
