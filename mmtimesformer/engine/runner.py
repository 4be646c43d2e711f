"""MMEngine's Runner, which also works on CPUs in several processes and after a folder was moved."""

import copy
import inspect
import logging
import math
import os
import warnings
from collections.abc import Iterator, Sized
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.device import get_device
from mmengine.hooks import EMAHook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import BaseLoop
from mmengine.runner import Runner as MMEngineRunner
from torch import nn
from torch.utils.data import DataLoader

from mmtimesformer.cli import STOPPED, RunStopped
from mmtimesformer.config.component_arguments import OURS
from mmtimesformer.config.sharded_training import is_sharded
from mmtimesformer.engine.checkpointing.resume import corruption_of, latest_valid_checkpoint
from mmtimesformer.engine.checkpointing.resumed_settings import (
    Moment,
    Settings,
    can_be_compared,
    check_optimizer,
    reconcile,
)
from mmtimesformer.engine.checkpointing.safe_loading import for_runner
from mmtimesformer.engine.checkpointing.work_dir_lock import only_one_training
from mmtimesformer.engine.distributed.collectives import broadcast_from_rank0, raise_on_all_ranks
from mmtimesformer.engine.distributed.fsdp import FSDPModelWrapper
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
    own_checkpoint,
    parts_to_save,
)
from mmtimesformer.engine.hooks.stop_on_signal import StartWorker, StopOnSignalHook
from mmtimesformer.engine.hooks.unreadable_videos import UnreadableVideosHook
from mmtimesformer.engine.loops.clips_per_video import with_clips_per_video
from mmtimesformer.engine.loops.resumable_loop import ResumableEpochLoop
from mmtimesformer.engine.optim.amp import keep_scores_in_float32
from mmtimesformer.engine.optim.weight_average import note_on_average
from mmtimesformer.terminal import safe_lines

# What MMEngine says on every run and no user can change: in its log, and as Python's warnings.
LOGGED_NOISE = (
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    'paramwise_options',  # a line for each parameter
)
# Pages that MMEngine's Runner logs before every run; they are in the log file.
PAGES = ('System environment:', 'Config:', 'Hooks will be executed in the following order')
WARNED_NOISE = (
    'Setting (OMP|MKL)_NUM_THREADS',
    '`broadcast_buffers` is deprecated',
    'Detected call of `scheduler.step',  # on resuming after the last step of an epoch
)


class Runner(MMEngineRunner):
    """Trains and tests from a config; use it as MMEngine's ``Runner``.

    Beyond that one, it

    - joins processes by gloo where there is no GPU, and wraps the model without GPU numbers;
    - loads checkpoints of other systems, and refuses one that does not fit the model;
    - resumes exactly, from the newest checkpoint that is whole, in a ``work_dir`` that may have
      been moved or copied, and lets no second training into it;
    - counts videos with NaN or infinite scores as wrong, names them, and ends with an error;
    - leaves out steps that are no number, and ends after too many of them;
    - trains models of which each process has a share, and saves them for any number of processes;
    - stops on SIGTERM, SIGUSR1 and SIGHUP after a step, with all saved;
    - names the protocol with every score;
    - accumulates gradients up to a config's total batch where there are fewer GPUs, if asked;
    - counts accumulated gradients when it scales the learning rate, and says what it did;
    - writes environment, config and hooks to the log file and not to the terminal.
    """

    _resume: bool
    _load_from: str | None
    _resumed: tuple[dict[str, Any], list[dict[str, Any]] | None]
    _scheduler_configs: Any = None
    settings_given: tuple[str, ...] = ()  # keys of --cfg-options, which win over a checkpoint's

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Join the processes of the run; MMEngine's own way asks for a GPU."""
        for noise in WARNED_NOISE:
            warnings.filterwarnings('ignore', noise)
        # Of a class that no video has: MMAction2 leaves it out of the mean average precision
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
        super().setup_env(env_cfg)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Keep the terminal for progress: what fills a page goes to the log file alone."""
        logger = super().build_logger(*args, **kwargs)
        files = [handler.baseFilename for handler in logger.handlers if _writes_file(handler)]
        if files:
            for handler in logger.handlers:
                if isinstance(handler, logging.FileHandler):
                    tolerate_log_write_errors(handler)
                else:
                    handler.addFilter(_is_for_terminal)
            logger.info(f'Environment, config and hooks are in {files[0]}')
        logger.addFilter(_without_escapes)  # once, however often it is built
        return logger

    @staticmethod
    def build_dataloader(dataloader: Any, *args: Any, **kwargs: Any) -> DataLoader:
        """Build it; ``clips_per_video`` takes several clips of each video that is decoded.

        Its processes leave signals to the run.
        """
        if isinstance(dataloader, dict) and 'clips_per_video' in dataloader:
            dataloader = with_clips_per_video(dataloader)
        loader = MMEngineRunner.build_dataloader(dataloader, *args, **kwargs)
        _check_batches(loader)
        if not isinstance(loader.worker_init_fn, StartWorker):
            loader.worker_init_fn = StartWorker(loader.worker_init_fn)
        return loader

    def build_visualizer(self, visualizer: Any = None) -> Any:
        """Build it, so that it may fail to write without ending the run."""
        built = super().build_visualizer(visualizer)
        tolerate_visualizer_write_errors(built, self.logger.warning)
        return built

    def build_train_loop(self, loop: Any) -> Any:
        """Build the loop; one by epochs is ours, which resumes exactly."""
        if isinstance(loop, dict) and loop.get('by_epoch'):
            loop = {'type': 'EpochBasedTrainLoop', **loop}
            del loop['by_epoch']
        return super().build_train_loop(_ours(loop))

    def train(self) -> nn.Module:
        """Train; alone in the ``work_dir``, and with an ear for signals that ask to stop."""
        with StopSignals() as signals, self._alone_in_work_dir(signals):
            return super().train()

    @contextmanager
    def _alone_in_work_dir(self, signals: StopSignals) -> Iterator[None]:
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
                        'the same command with --resume goes on',
                        STOPPED,
                    ) from error
                raise
            yield

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Share the model between processes, without GPU numbers where it lies on a CPU.

        One that is to be sharded gets its initial weights first, while it is whole.
        """
        if is_sharded(model_wrapper_cfg):
            if self.distributed:
                self.model = model
                super()._init_model_weights()
                return MODEL_WRAPPERS.build(model_wrapper_cfg, default_args={'module': model})
            self.logger.warning(
                'This process is alone, so the model stays whole; start several by '
                'tools/dist_train.sh CONFIG PROCESSES to give each a share.'
            )
        elif self.distributed and get_device() == 'cpu':
            shared = model_wrapper_cfg or {
                'type': 'MMDistributedDataParallel',
                'find_unused_parameters': self.cfg.get('find_unused_parameters', False),
            }
            model_wrapper_cfg = {'device_ids': None, **shared}
        return super().wrap_model(model_wrapper_cfg, model)

    def _init_model_weights(self) -> None:
        if not isinstance(self.model, FSDPModelWrapper):
            super()._init_model_weights()

    def test(self) -> dict[str, float]:
        """Test; under mixed precision the class scores stay in float32."""
        if self.cfg.test_cfg.get('fp16'):
            keep_scores_in_float32(self.model)
        return super().test()

    def register_hooks(self, default_hooks: Any = None, custom_hooks: Any = None) -> None:
        """Register the hooks of the config, and those of ours that are not among them."""
        default_hooks = {
            'checkpoint': {'type': 'CheckpointHook', 'interval': 1},
            **(default_hooks or {}),
        }
        super().register_hooks(
            {name: _ours(hook) for name, hook in default_hooks.items()},
            [_ours(hook) for hook in custom_hooks or ()],
        )
        for ours in (
            AdaptCheckpointHook, EvalProtocolHook, LoopStateHook, NonFiniteStepHook,
            StopOnSignalHook, UnreadableVideosHook, ScatterCheckpointHook, SaveShardedHook,
            RestartWorkersHook, NonFiniteScoresHook,
        ):  # fmt: skip
            if not any(isinstance(hook, ours) for hook in self.hooks):
                self.register_hook(ours())

    def load_or_resume(self) -> None:
        """Find the newest checkpoint by its name beside ``last_checkpoint``, wherever that lies.

        Raises:
            ValueError: The one to resume from is damaged.
        """
        if self._resume and self._load_from is not None and not self._has_loaded:
            self._check_whole(self._load_from)
        if self._resume and self._load_from is None and not self._has_loaded:
            newest = self._newest_checkpoint()
            self._load_from, self._resume = newest, newest is not None
            self.logger.info(
                f'Resumes from {newest}.'
                if newest
                else f'Nothing to resume in {self.work_dir}; starts from the beginning.'
            )
        super().load_or_resume()
        if isinstance(self._train_loop, BaseLoop):
            for hook in self.hooks:
                if isinstance(hook, EMAHook):
                    note = note_on_average(hook, self.max_iters, len(self.train_dataloader))
                    if note is not None:
                        self.logger.warning(note)

    def _check_whole(self, checkpoint: str) -> None:
        """Let the main process read all of a checkpoint that was named, and all fail with it."""
        damage = None
        if dist.is_main_process() and '://' not in checkpoint:
            path = Path(checkpoint).expanduser()
            damage = corruption_of(str(path)) if path.exists() else None
        if damage := broadcast_from_rank0(damage):
            raise ValueError(
                f'checkpoint {checkpoint} is damaged ({damage}); name an earlier one, or none: '
                '--resume alone takes the newest that is whole'
            )

    def _newest_checkpoint(self) -> str | None:
        """Let the main process look for all, and all fail if it finds only damaged ones."""
        found: str | Exception | None = None
        if dist.is_main_process():
            try:
                found = latest_valid_checkpoint(self.work_dir, self.logger.warning)
            except Exception as error:
                found = error
        found = broadcast_from_rank0(found)
        if isinstance(found, Exception):
            raise found
        return found

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: Any = 'default',
    ) -> None:
        """Resume; the state of a sharded model is read into main memory, not onto one card."""
        if map_location == 'default' and isinstance(self.model, FSDPModelWrapper):
            map_location = 'cpu'
        compared = resume_optimizer and resume_param_scheduler and can_be_compared(self)
        configured = Settings(self) if compared else None
        super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)
        if configured is not None:
            self._reconcile(configured)

    def _reconcile(self, configured: Settings) -> None:
        """Log what the checkpoint overrode; let what was given on the command line win."""
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
                given.append('auto_scale_lr')  # which asks for it
        configs = self._scheduler_configs or ()
        configs = configs if isinstance(configs, list | tuple) else [configs]
        converted = [
            isinstance(config, dict) and bool(config.get('convert_to_iter_based'))
            for config in configs
        ]
        moment = Moment(meta['epoch'], meta['iter'], steps_of_now, converted)
        reconcile(self, configured, schedulers, given, moment, self.logger.warning)

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """Build them, and remember which of them count epochs."""
        parts = scheduler if isinstance(scheduler, list | tuple) else [scheduler]
        if any(isinstance(part, dict) for part in parts):
            self._scheduler_configs = scheduler
        return super().build_param_scheduler(scheduler)

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> Any:
        """Load; where a sharded model was saved as shares, each process reads what it is to hold.

        What does not fit the model as it is, is read whole, like any other checkpoint.
        """
        model, own = self.model, None
        if isinstance(model, FSDPModelWrapper) and '://' not in str(filename):
            own = own_checkpoint(self, filename)
        if own is None:
            checkpoint = super().load_checkpoint(filename, *args, **kwargs)
            self._note_resumed(checkpoint)
            return checkpoint
        checkpoint = for_runner(own)
        self._note_resumed(checkpoint)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        model.get_submodule('module').load_state_dict(checkpoint['state_dict'])
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint

    def _note_resumed(self, checkpoint: dict[str, Any]) -> None:
        if self._resume:
            check_optimizer(self, checkpoint)
            schedulers = checkpoint.get('param_schedulers')
            states = copy.deepcopy(schedulers) if isinstance(schedulers, list) else None
            self._resumed = checkpoint['meta'], states

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Save, with the gradients of a step that is begun; a failure is one of all processes.

        What is sharded is brought together first, or written by all processes.

        Raises:
            OSError: It could not be written, by the main process for all, or by one its share.
        """
        gradients = self._accumulated_gradients()
        loop_state = next(hook for hook in self.hooks if isinstance(hook, LoopStateHook))
        self.parts_to_save = None
        if isinstance(self.model, FSDPModelWrapper):
            path = Path(out_dir).expanduser() / filename
            with_optimizer = kwargs.get('save_optimizer', True)
            self.parts_to_save = parts_to_save(self, path, gradients, with_optimizer)
        else:
            loop_state.gradients = gradients
        try:
            with raise_on_all_ranks():
                super().save_checkpoint(out_dir, filename, *args, **kwargs)
        finally:
            loop_state.gradients = self.parts_to_save = None

    def _accumulated_gradients(self) -> dict[str, torch.Tensor] | None:
        """Return the gradients of a step that waits for more batches, averaged over processes.

        NOTE: one process gets its own back, bit for bit. Several get the mean, which the step would
        have taken of them in the end, and differ by its rounding.
        """
        wrapper = self.optim_wrapper
        if not isinstance(wrapper, OptimWrapper) or wrapper.should_update():
            return None
        model: Any = getattr(self.model, 'module', self.model)
        gradients = {
            name: parameter.grad.detach().clone()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        if isinstance(self.model, FSDPModelWrapper):
            return gradients  # which are means already
        for gradient in gradients.values():
            dist.all_reduce(gradient, 'mean')
        return {name: gradient.cpu() for name, gradient in gradients.items()}

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """Build it; with ``auto_scale_lr.accumulate`` one step sees ``base_batch_size`` videos.

        Raises:
            ValueError: No whole number of batches makes that many videos.
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
        """What a batch counts."""
        several = self._train_dataloader.get('clips_per_video', 1) > 1
        return 'clips' if several else 'videos'

    def scale_lr(
        self, optim_wrapper: OptimWrapper, auto_scale_lr: dict[str, Any] | None = None
    ) -> None:
        """Scale the learning rate by the videos that one optimiser step sees.

        MMEngine counts processes and their batches. A step over ``k`` accumulated batches averages
        over ``k`` times as many videos, so ``k`` counts as well: 1 process x 8 videos x 8
        accumulated batches is the base batch 64, and nothing changes.
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


def _check_batches(loader: DataLoader) -> None:
    """Refuse a loader whose only batch is incomplete and left out."""
    if loader.batch_sampler is None or not isinstance(loader.sampler, Sized):
        return
    videos, size = len(loader.sampler), loader.batch_size
    if size is None or not loader.drop_last or videos == 0 or videos >= size:
        return
    stage = 'test' if getattr(loader.dataset, 'test_mode', False) else 'train'
    keys = f'{stage}_dataloader'
    if stage == 'test':
        keys = 'val_dataloader or test_dataloader'
    raise ValueError(
        f'the {videos} videos of a process are fewer than batch_size={size}, and drop_last leaves '
        f'an incomplete batch out, so there is no batch; in {keys} set batch_size to {videos} or '
        'less, or drop_last to False'
    )


def _ours(part: Any) -> Any:
    """Put our part in the place of MMEngine's where a config names MMEngine's without a prefix.

    A config in pure Python names the class itself.
    """
    kind = part.get('type') if isinstance(part, dict) else None
    if inspect.isclass(kind) and kind.__module__.startswith('mmengine.'):
        kind = kind.__name__
    if isinstance(kind, str) and kind in OURS:
        return {**part, 'type': OURS[kind]}
    return part


def _writes_file(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.FileHandler)


def _is_for_terminal(record: logging.LogRecord) -> bool:
    """Drop noise and MMEngine's long pages; any other message of several lines is shown."""
    message = record.getMessage()
    page = record.levelno <= logging.INFO and message.count('\n') > 1
    if page and message.lstrip('\n-').startswith(PAGES):
        return False
    return not message.startswith(LOGGED_NOISE)


def _without_escapes(record: logging.LogRecord) -> bool:
    """Write terminal escapes in a message, of names of videos and classes, as text."""
    record.msg, record.args = safe_lines(record.getMessage()), ()
    return True
