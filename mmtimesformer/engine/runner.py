"""MMEngine's Runner, which also works on CPUs in several processes and after a folder was moved."""

import logging
import math
import os
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner as MMEngineRunner
from torch import nn

from mmtimesformer.engine.precision import keep_scores_in_float32
from mmtimesformer.engine.pretrained import FitCheckpoint
from mmtimesformer.engine.protocol import NameProtocol

# What MMEngine says on every run and no user can change: in its log, and as Python's warnings.
LOGGED_NOISE = (
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    'paramwise_options',  # a line for each parameter
)
WARNED_NOISE = ('Setting (OMP|MKL)_NUM_THREADS', '`broadcast_buffers` is deprecated')


class Runner(MMEngineRunner):
    """Trains and tests from a config; use it as MMEngine's ``Runner``.

    Beyond that one, it

    - joins processes by gloo where there is no GPU, and wraps the model without GPU numbers;
    - loads checkpoints of other systems, and refuses one that does not fit the model;
    - resumes from a ``work_dir`` that was moved or copied;
    - names the protocol with every score;
    - accumulates gradients up to a config's total batch where there are fewer GPUs, if asked;
    - counts accumulated gradients when it scales the learning rate, and says what it did;
    - writes environment, config and hooks to the log file and not to the terminal.
    """

    _resume: bool
    _load_from: str | None

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Join the processes of the run; MMEngine's own way asks for a GPU.

        ``mp_cfg.sharing_strategy`` says how data-loading processes hand tensors over, see
        :func:`torch.multiprocessing.set_sharing_strategy`.
        """
        for noise in WARNED_NOISE:
            warnings.filterwarnings('ignore', noise)
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
        mp_cfg = dict(env_cfg.get('mp_cfg') or {})
        if strategy := mp_cfg.pop('sharing_strategy', None):
            torch.multiprocessing.set_sharing_strategy(strategy)
        super().setup_env({**env_cfg, 'mp_cfg': mp_cfg})

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Keep the terminal for progress: what fills a page goes to the log file alone."""
        logger = super().build_logger(*args, **kwargs)
        files = [handler.baseFilename for handler in logger.handlers if _writes_file(handler)]
        if files:
            for handler in logger.handlers:
                if not _writes_file(handler):
                    handler.addFilter(_is_for_terminal)
            logger.info(f'Environment, config and hooks are in {files[0]}')
        return logger

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Share the model between processes, without GPU numbers where it lies on a CPU."""
        if self.distributed and get_device() == 'cpu':
            shared = model_wrapper_cfg or {
                'type': 'MMDistributedDataParallel',
                'find_unused_parameters': self.cfg.get('find_unused_parameters', False),
            }
            model_wrapper_cfg = {'device_ids': None, **shared}
        return super().wrap_model(model_wrapper_cfg, model)

    def test(self) -> dict[str, float]:
        """Test; under mixed precision the class scores stay in float32."""
        if self.cfg.test_cfg.get('fp16'):
            keep_scores_in_float32(self.model)
        return super().test()

    def register_hooks(self, default_hooks: Any = None, custom_hooks: Any = None) -> None:
        """Register the hooks of the config, and those of ours that are not among them."""
        super().register_hooks(default_hooks, custom_hooks)
        for ours in (FitCheckpoint, NameProtocol):
            if not any(isinstance(hook, ours) for hook in self.hooks):
                self.register_hook(ours())

    def load_or_resume(self) -> None:
        """Find the newest checkpoint by its name beside ``last_checkpoint``, wherever that lies."""
        if self._resume and self._load_from is None and not self._has_loaded:
            newest = latest_checkpoint(self.work_dir)
            self._load_from, self._resume = newest, newest is not None
            self.logger.info(
                f'Resumes from {newest}.'
                if newest
                else f'Nothing to resume in {self.work_dir}; starts from the beginning.'
            )
        super().load_or_resume()

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
                f'One step sees {base} videos: {self.world_size} processes x {videos} videos x '
                f'{counts} accumulated batches.'
            )
        return super().build_optim_wrapper(optim_wrapper)

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
                    f'{math.prod(parts)} videos (processes x videos x accumulated batches = '
                    f'{" x ".join(map(str, parts))}), auto_scale_lr.base_batch_size={base}.'
                )


def latest_checkpoint(work_dir: str | os.PathLike[str]) -> str | None:
    """Return the checkpoint that a run in ``work_dir`` saved last, or ``None`` for none.

    MMEngine notes its absolute path in ``last_checkpoint``. A folder that was moved or copied has a
    file of that name beside the note, which is meant then; the noted path is the second choice.

    Raises:
        FileNotFoundError: A checkpoint is noted, and is at neither place.
    """
    note = Path(work_dir) / 'last_checkpoint'
    if not note.is_file():
        return None
    noted = Path(note.read_text().strip())
    beside = note.parent / noted.name
    for path in (beside, noted):
        if path.is_file():
            return str(path)
    raise FileNotFoundError(
        f'{note} names {noted}, which is neither there nor at {beside}; '
        'give the checkpoint itself: --resume PATH'
    )


def _writes_file(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.FileHandler)


def _is_for_terminal(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    page = record.levelno <= logging.INFO and message.count('\n') > 1
    return not page and not message.startswith(LOGGED_NOISE)
