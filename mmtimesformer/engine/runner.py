"""MMEngine's Runner with exact resuming, checkpoints of any format, FSDP and runs on CPUs."""

import atexit
import copy
import logging
import math
import os
import warnings
import weakref
from collections.abc import Iterator, Sequence, Sized
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine import hooks as mmengine_hooks
from mmengine.config import Config as MMEngineConfig
from mmengine.device import get_device
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import BaseOptimWrapper, OptimWrapper
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import BaseLoop, CheckpointLoader
from mmengine.runner import Runner as MMEngineRunner
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

from mmtimesformer.cli import STOPPED, RunStopped
from mmtimesformer.compat.upstream import overrides, require_attributes
from mmtimesformer.config.components import replaced
from mmtimesformer.config.sharded_training import is_sharded
from mmtimesformer.engine.checkpointing.resume import (
    corruption_of,
    latest_valid_checkpoint,
    read_valid_checkpoint,
)
from mmtimesformer.engine.checkpointing.resumed_settings import (
    Moment,
    Settings,
    can_be_compared,
    check_optimizer,
    reconcile,
)
from mmtimesformer.engine.checkpointing.safe_loading import Checkpoint, MapLocation, for_runner
from mmtimesformer.engine.checkpointing.work_dir_lock import only_one_training
from mmtimesformer.engine.class_balance import note_on_imbalance, set_list_statistics
from mmtimesformer.engine.distributed.collectives import broadcast_from_rank0, raise_on_all_ranks
from mmtimesformer.engine.distributed.fsdp import FSDPModelWrapper, parameters_of
from mmtimesformer.engine.distributed.process_group import leave_process_group
from mmtimesformer.engine.distributed.sharded_checkpoint import read_own_shards
from mmtimesformer.engine.distributed.stop_signals import StopSignals
from mmtimesformer.engine.hooks.adapt_checkpoint import AdaptCheckpointHook
from mmtimesformer.engine.hooks.eval_protocol import EvalProtocolHook
from mmtimesformer.engine.hooks.log_write_errors import (
    tolerate_log_write_errors,
    tolerate_visualizer_write_errors,
)
from mmtimesformer.engine.hooks.loop_state import LoopStateHook
from mmtimesformer.engine.hooks.non_finite_scores import NonFiniteScoresHook
from mmtimesformer.engine.hooks.non_finite_steps import NonFiniteStepHook
from mmtimesformer.engine.hooks.restart_workers import RestartWorkersHook
from mmtimesformer.engine.hooks.sharded_checkpoint_hook import (
    SaveShardedHook,
    ScatterCheckpointHook,
)
from mmtimesformer.engine.hooks.stop_on_signal import StartWorker, StopOnSignalHook
from mmtimesformer.engine.hooks.unreadable_videos import UnreadableVideosHook
from mmtimesformer.engine.loops.clips_per_video import with_clips_per_video
from mmtimesformer.engine.loops.resumable_loop import ResumableEpochLoop
from mmtimesformer.engine.optim.amp import keep_scores_in_float32
from mmtimesformer.engine.optim.weight_average import note_on_average
from mmtimesformer.models.cpu_matmul import float32_by_onednn
from mmtimesformer.terminal import safe_lines

require_attributes(
    MMEngineRunner, '_has_loaded', '_load_from', '_resume', '_test_loop', '_train_dataloader',
    '_train_loop', '_val_loop', used_by=__name__,
)  # fmt: skip
require_attributes(OptimWrapper, '_accumulative_counts', used_by=__name__)

Config = dict[str, Any]

# What MMEngine logs or warns of in every run, and no user can change.
LOGGED_NOISE = (
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    'paramwise_options',  # a line for each parameter
)
# Long messages that MMEngine's Runner logs before every run; they stay in the log file.
PAGES = ('System environment:', 'Config:', 'Hooks will be executed in the following order')
WARNED_NOISE = (
    'Setting (OMP|MKL)_NUM_THREADS',
    '`broadcast_buffers` is deprecated',
    'Detected call of `scheduler.step',  # on resuming after the last step of an epoch
)


# Hooks that do nothing in a test.
TRAINING_HOOKS = (
    mmengine_hooks.CheckpointHook, mmengine_hooks.DistSamplerSeedHook, EMAHook, LoopStateHook,
    NonFiniteStepHook, mmengine_hooks.ParamSchedulerHook, SaveShardedHook, ScatterCheckpointHook,
    StopOnSignalHook, mmengine_hooks.SyncBuffersHook,
)  # fmt: skip
OUR_HOOKS = (
    AdaptCheckpointHook, EvalProtocolHook, LoopStateHook, NonFiniteStepHook, StopOnSignalHook,
    UnreadableVideosHook, ScatterCheckpointHook, SaveShardedHook, RestartWorkersHook,
    NonFiniteScoresHook,
)  # fmt: skip


class Runner(MMEngineRunner):
    """Trains and tests from a config; use it as MMEngine's ``Runner``.

    Beyond that one, it

    - trains on CPUs in several processes (gloo);
    - loads checkpoints of other systems, and refuses one that does not fit the model;
    - resumes exactly, from the newest valid checkpoint, in a ``work_dir`` that may have been moved
      or copied, and locks it against a second training;
    - counts videos with NaN or infinite scores as wrong, and skips steps with such gradients;
    - trains sharded models (FSDP), and saves them for any number of processes;
    - stops on SIGTERM, SIGUSR1 and SIGHUP after a step, and saves first;
    - logs the evaluation protocol with every score;
    - accumulates gradients up to a config's total batch, if asked, and counts them when it scales
      the learning rate;
    - writes environment, config and hooks to the log file and not to the terminal.

    Attributes:
        settings_given: Keys of ``--cfg-options``, which override the settings of a checkpoint.
    """

    only_tests = False
    settings_given: tuple[str, ...] = ()
    _hooks: list[Hook]
    _resume: bool | str
    _load_from: str | None
    _resumed: tuple[Checkpoint, list[Checkpoint] | None]  # meta, schedulers
    _scheduler_configs: Sequence[object] = ()
    _checked: Checkpoint | None = None  # a checkpoint that was read for its check
    _gathered: Checkpoint | None = None  # entries of the next checkpoint, of all processes

    @classmethod
    def from_cfg(cls, cfg: MMEngineConfig) -> 'Runner':
        """Build from a config; class weights and statistics of targets become numbers first."""
        cfg = copy.deepcopy(cfg)
        computed = set_list_statistics(cfg, for_training=not cls.only_tests)
        runner: Runner = super().from_cfg(cfg)
        if computed is not None:
            runner.logger.info(computed)
        return runner

    def setup_env(self, env_cfg: Config) -> None:
        """Initialize the process group; MMEngine's own code needs GPUs."""
        for noise in WARNED_NOISE:
            warnings.filterwarnings('ignore', noise)
        # Of a class without videos, which MMAction2 leaves out of the mean average precision
        accuracy = r'mmaction\.evaluation\.functional\.accuracy'
        warnings.filterwarnings('ignore', 'invalid value encountered', module=accuracy)
        if self.launcher == 'pytorch' and 'RANK' not in os.environ:
            raise ValueError(
                '--launcher pytorch was given, but this process was not started by torchrun; '
                'use tools/dist_train.sh CONFIG PROCESSES, or leave --launcher out'
            )
        on_cpu = self.distributed and get_device() == 'cpu'
        if on_cpu and not torch.distributed.is_initialized():
            if self.launcher != 'pytorch':
                raise ValueError(
                    f'--launcher {self.launcher} needs GPUs and this process sees none; '
                    'on CPUs start by torchrun, as tools/dist_train.sh and tools/slurm_train.sh do'
                )
            seconds = env_cfg.get('dist_cfg', {}).get('timeout', 1800)
            torch.distributed.init_process_group('gloo', timeout=timedelta(seconds=seconds))
            atexit.register(_leave_at_exit, weakref.ref(self))
        super().setup_env(env_cfg)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Log progress to the terminal, and long messages to the log file alone."""
        logger = super().build_logger(*args, **kwargs)
        files = [one for one in logger.handlers if isinstance(one, logging.FileHandler)]
        for file in files:
            tolerate_log_write_errors(file)
        if files:
            for handler in set(logger.handlers) - set(files):
                handler.addFilter(_is_for_terminal)
            logger.info(f'Environment, config and hooks are in {files[0].baseFilename}')
        logger.addFilter(_without_escapes)  # once, however often it is built
        return logger

    @staticmethod
    def build_dataloader(dataloader: DataLoader | Config, *args: Any, **kwargs: Any) -> DataLoader:
        """Build it; ``clips_per_video`` takes several clips of each video that is decoded.

        Its workers ignore stop signals, which are for the run.
        """
        if isinstance(dataloader, dict) and 'clips_per_video' in dataloader:
            dataloader = with_clips_per_video(dataloader)
        loader = MMEngineRunner.build_dataloader(dataloader, *args, **kwargs)
        _check_batches(loader)
        if not isinstance(loader.worker_init_fn, StartWorker):
            loader.worker_init_fn = StartWorker(loader.worker_init_fn)
        return loader

    def build_visualizer(self, visualizer: Visualizer | Config | None = None) -> Visualizer:
        """Build it; errors when it writes are logged and do not end the run."""
        built = super().build_visualizer(visualizer)
        tolerate_visualizer_write_errors(built, self.logger.warning)
        return built

    def build_train_loop(self, loop: BaseLoop | Config) -> BaseLoop:
        """Build the loop; an epoch-based one is ours, which resumes exactly."""
        if isinstance(loop, dict) and loop.get('by_epoch'):
            loop = {'type': 'EpochBasedTrainLoop', **loop}
            del loop['by_epoch']
        built = super().build_train_loop(replaced(loop))
        note = note_on_imbalance(built.dataloader, self._unwrapped)
        if note is not None:
            self.logger.warning(note)
        return built

    def train(self) -> nn.Module:
        """Train, with a lock on the ``work_dir``, until the end or a signal that asks to stop."""
        with StopSignals() as signals, self._lock_work_dir(signals), float32_by_onednn() as onednn:
            if onednn:
                self.logger.info('matrix products of float32 on the CPU: by oneDNN')
            return super().train()

    @contextmanager
    def _lock_work_dir(self, signals: StopSignals) -> Iterator[None]:
        with ExitStack() as held:
            try:
                with raise_on_all_ranks():
                    if dist.is_main_process():
                        lock = only_one_training(
                            self.work_dir,
                            self.logger.warning,
                            lambda: signals.received is not None,
                        )
                        held.enter_context(lock)
            except OSError as error:
                if broadcast_from_rank0(isinstance(error, InterruptedError)):
                    raise RunStopped(
                        f'stopped before the training began: another one is in {self.work_dir}; '
                        'to resume, give the same command with --resume',
                        STOPPED,
                    ) from error
                raise
            yield

    def wrap_model(self, model_wrapper_cfg: Config | None, model: nn.Module) -> nn.Module:
        """Wrap the model for several processes, without GPU numbers where it is on a CPU.

        A model that is to be sharded is initialized first.
        """
        if is_sharded(model_wrapper_cfg):
            if self.distributed:
                self.model = model
                super()._init_model_weights()
                return MODEL_WRAPPERS.build(model_wrapper_cfg, default_args={'module': model})
            self.logger.warning(
                'There is one process, so the model is not sharded; start several by '
                'tools/dist_train.sh CONFIG PROCESSES.'
            )
        elif self.distributed and get_device() == 'cpu':
            wrapper = model_wrapper_cfg or {
                'type': 'MMDistributedDataParallel',
                'find_unused_parameters': self.cfg.get('find_unused_parameters', False),
            }
            model_wrapper_cfg = {'device_ids': None, **wrapper}
        return super().wrap_model(model_wrapper_cfg, model)

    @overrides(MMEngineRunner)
    def _init_model_weights(self) -> None:
        if not isinstance(self.model, FSDPModelWrapper):
            super()._init_model_weights()

    def test(self) -> dict[str, float]:
        """Test; under mixed precision the class scores stay in float32."""
        if self.cfg.test_cfg.get('fp16'):
            keep_scores_in_float32(self.model)
        with float32_by_onednn():
            return super().test()

    def register_hooks(
        self, default_hooks: Config | None = None, custom_hooks: list[object] | None = None
    ) -> None:
        """Register the hooks of the config and ours; in a test only those that it uses."""
        saving = {'type': 'CheckpointHook', 'interval': 1}
        default_hooks = {'checkpoint': saving, **(default_hooks or {})}
        if self.only_tests:
            default_hooks |= dict.fromkeys(('checkpoint', 'param_scheduler', 'sampler_seed'))
        super().register_hooks(
            {name: replaced(hook) for name, hook in default_hooks.items()},
            [replaced(hook) for hook in custom_hooks or ()],
        )
        if self.only_tests:
            self._hooks = [hook for hook in self._hooks if not isinstance(hook, TRAINING_HOOKS)]
        for kind in OUR_HOOKS:
            is_used = not (self.only_tests and issubclass(kind, TRAINING_HOOKS))
            if is_used and not any(isinstance(hook, kind) for hook in self.hooks):
                self.register_hook(kind())

    def load_or_resume(self) -> None:
        """Load or resume, from the newest valid checkpoint in the ``work_dir`` or a named one.

        ``resume='auto'`` loads ``load_from`` where there is nothing to resume.

        Raises:
            ValueError: The checkpoint to resume from is damaged.
        """
        if self._resume and not self._has_loaded:
            if self._load_from is not None and self._resume != 'auto':
                self._check_named(self._load_from)
            else:
                newest = self._newest_checkpoint()
                self._resume, self._load_from = newest is not None, newest or self._load_from
                self.logger.info(
                    f'Resumes from {newest}.'
                    if newest
                    else f'Nothing to resume in {self.work_dir}; starts from '
                    f'{self._load_from or "the beginning"}.'
                )
        super().load_or_resume()
        averages = [hook for hook in self.hooks if isinstance(hook, EMAHook)]
        for hook in averages if isinstance(self._train_loop, BaseLoop) else ():
            if note := note_on_average(hook, self.max_iters, len(self.train_dataloader)):
                self.logger.warning(note)

    def _check_named(self, checkpoint: str) -> None:
        """Let the main process read all of a named checkpoint; all fail if it is damaged."""
        damage = None
        if dist.is_main_process() and '://' not in checkpoint:
            path = Path(checkpoint).expanduser()
            damage = self._corruption_of(str(path)) if path.exists() else None
        if damage := broadcast_from_rank0(damage):
            raise ValueError(
                f'checkpoint {checkpoint} is damaged ({damage}); name an earlier one, or none: '
                '--resume alone takes the newest valid one'
            )

    def _newest_checkpoint(self) -> str | None:
        """Let the main process find it; all fail if it finds only damaged ones."""
        found: str | Exception | None = None
        if dist.is_main_process():
            try:
                found = latest_valid_checkpoint(
                    self.work_dir, self.logger.warning, self._corruption_of
                )
            except Exception as error:
                found = error
        found = broadcast_from_rank0(found)
        if isinstance(found, Exception):
            raise found
        return found

    def _corruption_of(self, checkpoint: str) -> str | None:
        """Describe what is wrong with a checkpoint, or keep it for ``resume``: it is read once.

        A sharded model reads a part of it, so there all of it is checked first.
        """
        if isinstance(self.model, FSDPModelWrapper):
            return corruption_of(checkpoint)
        self._checked, damage = read_valid_checkpoint(checkpoint, get_device())
        return damage

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: MapLocation = 'default',
    ) -> None:
        """Resume; the state of a sharded model is read into main memory, not onto one GPU."""
        if map_location == 'default' and isinstance(self.model, FSDPModelWrapper):
            map_location = 'cpu'
        compared = resume_optimizer and resume_param_scheduler and can_be_compared(self)
        configured = Settings(self) if compared else None
        super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)
        if configured is not None:
            self._reconcile(configured)

    def _reconcile(self, configured: Settings) -> None:
        """Log settings that the checkpoint overrides; ``--cfg-options`` override those."""
        meta, schedulers = self._resumed
        given = list(self.settings_given)
        position = meta.get('position') or {}
        loop = self._train_loop
        steps_of_now = meta['iter']
        if isinstance(loop, ResumableEpochLoop):
            steps_of_now = meta['epoch'] * len(loop.dataloader) + loop.step_in_epoch
            videos = loop.state_dict(meta['epoch'], meta['iter'])['videos_per_step']
            scaled = (self.auto_scale_lr or {}).get('enable', False)
            if scaled and position.get('videos_per_step', videos) != videos:
                given.append('auto_scale_lr')  # which asks to scale again
        converted = [
            isinstance(config, dict) and bool(config.get('convert_to_iter_based'))
            for config in self._scheduler_configs
        ]
        moment = Moment(meta['epoch'], meta['iter'], steps_of_now, converted)
        reconcile(self, configured, schedulers, given, moment, self.logger.warning)

    def build_param_scheduler(self, scheduler: object) -> object:
        """Build them, and keep the configs, which show which of them count epochs."""
        parts = scheduler if isinstance(scheduler, list | tuple) else [scheduler]
        if any(isinstance(part, dict) for part in parts):
            self._scheduler_configs = parts
        return super().build_param_scheduler(scheduler)

    def load_checkpoint(
        self,
        filename: str,
        map_location: MapLocation = 'cpu',
        strict: bool = False,
        revise_keys: list[tuple[str, str]] | None = None,
    ) -> Checkpoint:
        """Load; of a sharded checkpoint, each process of a sharded model reads its own shards.

        A checkpoint that does not fit the sharded model as it is, is read in full.
        """
        checkpoint = self._read_checkpoint(filename, map_location)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        if self._resume:
            check_optimizer(self, checkpoint)
            schedulers = checkpoint.get('param_schedulers')
            states = copy.deepcopy(schedulers) if isinstance(schedulers, list) else None
            self._resumed = checkpoint['meta'], states
        keys = [(r'^module.', '')] if revise_keys is None else revise_keys
        checkpoint = _load_checkpoint_to_model(
            self._unwrapped, checkpoint, strict, revise_keys=keys
        )
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint

    def _read_checkpoint(self, filename: str, map_location: MapLocation) -> Checkpoint:
        checked, self._checked = self._checked, None
        if checked is not None:
            return checked
        if isinstance(self.model, FSDPModelWrapper) and '://' not in str(filename):
            parameters = parameters_of(self.optim_wrapper) if self._resume else None
            own = read_own_shards(filename, self.model.module.state_dict(), parameters)
            if own is not None:
                return for_runner(own)
        return CheckpointLoader.load_checkpoint(filename, map_location, logger='current')

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save, with the gradients of an unfinished step; if one process fails, all raise.

        A sharded model is gathered first, or all processes write their shards.

        Raises:
            OSError: The checkpoint, or a shard of it, could not be written.
        """
        gradients = self._accumulated_gradients()
        with_optimizer = kwargs.get('save_optimizer', True)
        self._gathered = {'gradients': gradients} if gradients and with_optimizer else {}
        if isinstance(self.model, FSDPModelWrapper):
            path = Path(out_dir).expanduser() / filename
            self._gathered = self.model.checkpoint_state(self, path, gradients, with_optimizer)
        try:
            with raise_on_all_ranks():
                super().save_checkpoint(out_dir, filename, *args, **kwargs)
        finally:
            self._gathered = None

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call a hook; what all processes gathered for a checkpoint goes in after the hooks.

        MMEngine calls ``before_save_checkpoint`` in the main process alone.
        """
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'before_save_checkpoint' and self._gathered is not None:
            kwargs['checkpoint'].update(self._gathered)

    @property
    def _unwrapped(self) -> nn.Module:
        return self.model.get_submodule('module') if is_model_wrapper(self.model) else self.model

    def _accumulated_gradients(self) -> dict[str, torch.Tensor] | None:
        """Return the gradients of a step that needs more batches, averaged over processes.

        NOTE: one process resumes with its own, bit for bit. Several resume with the mean, which the
        step would have computed at its end, and differ by its rounding.
        """
        wrapper = self.optim_wrapper
        if not isinstance(wrapper, OptimWrapper) or wrapper.should_update():
            return None
        gradients = {
            name: parameter.grad.detach().clone()
            for name, parameter in self._unwrapped.named_parameters()
            if parameter.grad is not None
        }
        if isinstance(self.model, FSDPModelWrapper):
            return gradients  # means already
        for gradient in gradients.values():
            dist.all_reduce(gradient, 'mean')
        return {name: gradient.cpu() for name, gradient in gradients.items()}

    def build_optim_wrapper(self, optim_wrapper: OptimWrapper | Config) -> BaseOptimWrapper:
        """Build it; with ``auto_scale_lr.accumulate`` one step sees ``base_batch_size`` videos.

        Raises:
            ValueError: That many videos are no whole number of batches.
        """
        settings = self.cfg.get('auto_scale_lr') or {}
        if settings.get('accumulate') and isinstance(optim_wrapper, dict):
            base, videos = settings['base_batch_size'], self._train_dataloader['batch_size']
            if base % (self.world_size * videos):
                raise ValueError(
                    f'--accumulate: {self.world_size} processes x {videos} videos do not divide '
                    f'auto_scale_lr.base_batch_size={base}; set train_dataloader.batch_size to a '
                    f'divisor of {base / self.world_size:g}, or take --auto-scale-lr instead'
                )
            counts = base // (self.world_size * videos)
            optim_wrapper = {**optim_wrapper, 'accumulative_counts': counts}
            self.logger.info(
                f'One step sees {base} {self._samples}: {self.world_size} processes x {videos} '
                f'{self._samples} x {counts} accumulated batches.'
            )
        return super().build_optim_wrapper(optim_wrapper)

    @property
    def _samples(self) -> str:
        """What a batch consists of."""
        several = self._train_dataloader.get('clips_per_video', 1) > 1
        return 'clips' if several else 'videos'

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: Config | None = None) -> None:
        """Scale the learning rate by the number of videos in one optimizer step.

        MMEngine counts processes and their batches. A step over ``k`` accumulated batches averages
        ``k`` times as many videos: 1 process x 8 videos x 8 accumulated batches is the base batch
        64, and nothing changes.
        """
        if auto_scale_lr is None or not auto_scale_lr.get('enable', False):
            return
        accumulated = getattr(optim_wrapper, '_accumulative_counts', 1)
        base = auto_scale_lr['base_batch_size']
        before = optim_wrapper.get_lr()
        super().scale_lr(optim_wrapper, {**auto_scale_lr, 'base_batch_size': base / accumulated})
        after = optim_wrapper.get_lr()
        parts = self.world_size, self._train_dataloader['batch_size'], accumulated
        for name in before:
            if name.rpartition('.')[2] == 'lr':
                self.logger.info(
                    f'{name} {before[name][0]:g} -> {after[name][0]:g}: one step sees '
                    f'{math.prod(parts)} {self._samples} '
                    f'(processes x {self._samples} x accumulated batches = '
                    f'{" x ".join(map(str, parts))}), auto_scale_lr.base_batch_size={base}.'
                )


def _leave_at_exit(runner: weakref.ref[Runner]) -> None:
    leave_process_group(runner())


def _check_batches(loader: DataLoader) -> None:
    """Refuse a loader whose only batch is incomplete and dropped."""
    if loader.batch_sampler is None or not isinstance(loader.sampler, Sized):
        return
    videos, size = len(loader.sampler), loader.batch_size
    if size is None or not loader.drop_last or videos == 0 or videos >= size:
        return
    is_test = getattr(loader.dataset, 'test_mode', False)
    keys = 'val_dataloader or test_dataloader' if is_test else 'train_dataloader'
    raise ValueError(
        f'the {videos} videos of a process are fewer than batch_size={size}, and drop_last drops '
        f'incomplete batches, so there is no batch; in {keys} set batch_size to {videos} or '
        'less, or drop_last to False'
    )


def _is_for_terminal(record: logging.LogRecord) -> bool:
    """Drop noise and MMEngine's long messages; other messages of several lines are shown."""
    message = record.getMessage()
    page = record.levelno <= logging.INFO and message.count('\n') > 1
    if page and message.lstrip('\n-').startswith(PAGES):
        return False
    return not message.startswith(LOGGED_NOISE)


def _without_escapes(record: logging.LogRecord) -> bool:
    """Write terminal escapes in a message, of names of videos and classes, as text."""
    record.msg, record.args = safe_lines(record.getMessage()), ()
    return True


class EvalRunner(Runner):
    """A Runner that only tests: it registers no hook of a training."""

    only_tests = True
