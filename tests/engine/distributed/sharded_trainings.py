"""Trainings of a tiny TimeSformer in several processes, for torchrun: FOLDER JOB [JOB ...].

Each job trains in a folder of its name and leaves what each process saw in ``FOLDER/JOB.RANK.pt``.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import Dataset

from mmtimesformer.cli import RunStopped
from mmtimesformer.engine.hooks.non_finite_steps import NonFiniteStepHook, NonFiniteStepsError
from mmtimesformer.engine.runner import Runner
from mmtimesformer.models import TimeSformer

SHARDED = {'type': 'mmtimesformer.FSDPModelWrapper'}
SHARES = {**SHARDED, 'checkpoints': 'sharded'}
BATCH = 4  # videos of all processes together


class Clips(Dataset):
    """Sixteen clips of noise in two classes."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Any]:
        noise = torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(index))
        return {'inputs': noise, 'data_samples': BaseDataElement(label=index % 2)}


class Classifier(BaseModel):
    """A tiny TimeSformer that learns time as well, and a classifier."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.backbone = TimeSformer(
            num_frames=3, img_size=24, patch_size=8, embed_dims=28, num_layers=3,
            num_heads=4, temporal_init='random', **{'drop_path_rate': 0.0, **changes},
        )  # fmt: skip
        self.cls_head = nn.ModuleDict({'fc_cls': nn.Linear(28, 2)})
        self.spoiled: Callable[[], bool] = lambda: False

    def forward(self, inputs: list[Tensor], data_samples: list[Any], mode: str = 'tensor') -> Any:
        scores = self.cls_head['fc_cls'](self.backbone(torch.stack(list(inputs))))
        if mode == 'predict':
            return [BaseDataElement(guess=float(score)) for score in scores[:, 0]]
        loss = F.cross_entropy(scores, torch.tensor([sample.label for sample in data_samples]))
        return {'loss': loss * float('nan') if self.training and self.spoiled() else loss}


class Look(Hook):
    """Note what a process holds, at rest and while the second block runs."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {'losses': []}

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == 0:
            model = getattr(runner.model, 'module', runner.model)
            model.backbone.blocks[1].mlp.register_forward_pre_hook(self._in_block(model))

    def _in_block(self, model: nn.Module) -> Callable[..., None]:
        def note(*_: Any) -> None:
            together = [
                name for name, parameter in model.named_parameters()
                if not isinstance(parameter, DTensor)
            ]  # fmt: skip
            self.seen['together'] = sorted(
                {'.'.join(n.split('.')[1:3]) for n in together if 'blocks' in n}
            )

        return note

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.seen['losses'].append(outputs['loss'].item())

    def after_train(self, runner: Any) -> None:
        optimizer = runner.optim_wrapper.optimizer
        parameters = [p for group in optimizer.param_groups for p in group['params']]
        states = [s for state in optimizer.state.values() for s in state.values() if s.ndim]
        averages = [
            p for hook in runner.hooks if hasattr(hook, 'ema_model')
            for p in hook.ema_model.parameters()
        ]  # fmt: skip
        self.seen['weights'] = sum(p.numel() for p in parameters)
        for name, held in (('parameters', parameters), ('states', states), ('averages', averages)):
            self.seen[name] = sum(own(p).numel() for p in held)


def own(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class Break(Hook):
    """End a training before a step, as a crash would."""

    priority = 'HIGHEST'

    def __init__(self, step: int) -> None:
        self.step = step

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == self.step:
            raise InterruptedError


class FullDisk(Hook):
    """Let the disk of the second process be full after a step, until the one after it."""

    priority = 'HIGHEST'

    def __init__(self, step: int) -> None:
        self.step = step
        self.save = torch.save

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, 'No space left on device')

        now = dist.get_rank() == 1 and runner.iter + 1 == self.step
        torch.save = full if now else self.save


def train(
    work_dir: Path,
    *hooks: Hook,
    wrapper: dict[str, Any] | None = None,
    optim: dict[str, Any] | None = None,
    checkpoint: dict[str, Any] | None = None,
    launcher: str = 'pytorch',
    spoiled: Callable[[], bool] | None = None,
    resume: bool = False,
    **model: Any,
) -> dict[str, Any]:
    """Train for two epochs of four steps; return what this process saw."""
    look = Look()
    classifier = Classifier(**model)
    if spoiled:
        classifier.spoiled = spoiled
    processes = 1 if launcher == 'none' else int(os.environ['WORLD_SIZE'])
    runner = Runner(
        model=classifier,
        work_dir=str(work_dir),
        launcher=launcher,
        train_dataloader={
            'dataset': Clips(),
            'sampler': {'type': 'DefaultSampler', 'shuffle': True},
            'batch_size': BATCH // processes,
            'num_workers': 0,
        },
        train_cfg={'by_epoch': True, 'max_epochs': 2},
        optim_wrapper={
            'constructor': 'mmtimesformer.LayerDecay',
            'paramwise_cfg': {'decay_rate': 0.75},
            # The keys' biases have no gradient but rounding, and AdamW would make steps of that.
            'optimizer': {'type': 'AdamW', 'lr': 0.003, 'weight_decay': 0.05, 'eps': 1e-5},
            'clip_grad': {'max_norm': 1.0},
            **(optim or {}),
        },
        param_scheduler=[{'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 5}],
        default_hooks={
            'checkpoint': {'type': 'CheckpointHook', 'interval': 1, **(checkpoint or {})},
            'logger': {'type': 'LoggerHook', 'interval': 1},
        },
        custom_hooks=[*hooks, look, {'type': 'EMAHook', 'momentum': 0.1}],
        resume=resume,
        randomness={'seed': 3},
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}_{processes}',
        log_level='WARNING',
        cfg={'model_wrapper_cfg': dict(wrapper)} if wrapper else {},
    )
    runner.train()
    look.seen['left_out'] = runner.message_hub.get_info('left_out', 0)
    look.seen['norms'] = runner.message_hub.get_scalar('train/grad_norm')._log_history.tolist()
    return look.seen


class Spike(Hook):
    """Ruin the weights in one step."""

    priority = 'LOWEST'

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == 5:
            for group in runner.optim_wrapper.optimizer.param_groups:
                group['lr'] = 1e9


def diverged(work_dir: Path, *hooks: Hook, **how: Any) -> dict[str, Any]:
    """Train until the training diverges; return the error of each process."""
    often = {'interval': 1, 'by_epoch': False, 'max_keep_ckpts': 1}
    try:
        train(work_dir, *hooks, checkpoint=often, **how)
    except NonFiniteStepsError as error:
        return {'error': str(error)}
    raise AssertionError('it did not diverge')


class DiskFullAtTheEnd(Hook):
    """Let the disk of the second process be full at the end, and ask it alone to stop then."""

    priority = 'HIGHEST'

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, 'No space left on device')

        if dist.get_rank() == 1 and runner.iter + 1 == runner.max_iters:
            self.save, torch.save = torch.save, full
            threading.Timer(3, os.kill, (os.getpid(), signal.SIGTERM)).start()


def stopped_while_retrying(work_dir: Path, **how: Any) -> dict[str, Any]:
    """Train until a stop while the last checkpoint is retried; return the error of each process."""
    hook = DiskFullAtTheEnd()
    try:
        train(work_dir, hook, **how)
    except RunStopped as end:
        return {'error': str(end), 'code': end.code}
    finally:
        torch.save = getattr(hook, 'save', torch.save)
    raise AssertionError('it was not stopped')


def spoiled_from_fifth_step(folder: Path) -> bool:
    """Whether the second process was asked four times."""
    if dist.get_rank() == 0:
        return False
    calls = folder / 'steps'
    output = calls.read_text() if calls.exists() else ''
    calls.write_text(output + '.')
    return len(output) >= 4


def broken(work_dir: Path, step: int, **how: Any) -> dict[str, Any]:
    """Train, but be stopped before a step, and resume."""
    try:
        train(work_dir, Break(step), **how)
    except InterruptedError:
        return train(work_dir, resume=True, **how)
    raise AssertionError('it was not broken off')


ACCUMULATED = {'accumulative_counts': 3}
EVERY_STEP = {'interval': 1, 'by_epoch': False}
BF16 = {'type': 'mmtimesformer.Bfloat16OptimWrapper'}

JOBS: dict[str, Callable[[Path], dict[str, Any]]] = {
    'whole': lambda f: train(f / 'whole'),
    'sharded': lambda f: train(f / 'sharded', wrapper=SHARDED),
    'broken': lambda f: broken(f / 'broken', 4, wrapper=SHARDED),
    # A step of three batches, broken off after the second.
    'accumulated': lambda f: train(
        f / 'accumulated', wrapper=SHARDED, optim=ACCUMULATED, checkpoint=EVERY_STEP
    ),
    'accumulated_broken': lambda f: broken(
        f / 'accumulated_broken', 5, wrapper=SHARDED, optim=ACCUMULATED, checkpoint=EVERY_STEP
    ),
    'accumulated_whole': lambda f: train(f / 'accumulated_whole', optim=ACCUMULATED),
    'from_one': lambda f: train(f / 'from_one', wrapper=SHARDED, resume=True),
    'from_sharded': lambda f: train(f / 'from_sharded', wrapper=SHARDED, resume=True),
    'shares': lambda f: train(f / 'shares', wrapper=SHARES, checkpoint={'max_keep_ckpts': 1}),
    'shares_broken': lambda f: broken(f / 'shares_broken', 4, wrapper=SHARES),
    'shares_within': lambda f: broken(
        f / 'shares_within', 5, wrapper=SHARES, optim=ACCUMULATED, checkpoint=EVERY_STEP
    ),
    'shares_copies': lambda f: train(f / 'shares_copies', wrapper={**SHARES, 'shards': 2}),
    'from_shares': lambda f: train(f / 'from_shares', wrapper=SHARES, resume=True),
    'full_disk': lambda f: train(
        f / 'full_disk', FullDisk(2), wrapper=SHARES, checkpoint={'retry_interval': 1, **EVERY_STEP}
    ),
    'copies': lambda f: train(f / 'copies', wrapper={**SHARDED, 'shards': 2}),
    'bf16': lambda f: train(f / 'bf16', wrapper=SHARDED, optim=BF16),
    'bf16_whole': lambda f: train(f / 'bf16_whole', optim=BF16),
    'bf16_blocks': lambda f: train(
        f / 'bf16_blocks', wrapper={**SHARDED, 'block_dtype': 'bfloat16'}
    ),
    'spiked': lambda f: diverged(f / 'spiked', Spike(), wrapper=SHARDED),
    'spiked_shares': lambda f: diverged(f / 'spiked_shares', Spike(), wrapper=SHARES),
    'diverged_shares': lambda f: diverged(
        f / 'diverged_shares',
        NonFiniteStepHook(max_in_row=3),
        wrapper=SHARES,
        spoiled=lambda: spoiled_from_fifth_step(f),
    ),
    'stopped': lambda f: stopped_while_retrying(f / 'stopped', wrapper=SHARES),
    'spoiled': lambda f: train(
        f / 'spoiled', wrapper=SHARDED, spoiled=lambda: dist.get_rank() == 1 and once(f)
    ),
    **{
        f'recomputed_{level}': lambda f, level=level: train(
            f / f'recomputed_{level}', wrapper=SHARDED, with_cp=level
        )
        for level in ('pointwise', 'projections', 'mlp', 'block')
    },
    **{
        name: lambda f, name=name, scheme=scheme, wrapper=wrapper: train(
            f / name, wrapper=wrapper, attention_type=scheme, frozen_stages=1, drop_path_rate=0.3
        )
        for scheme in ('joint_space_time', 'space_only', 'divided_space_time')
        for name, wrapper in ((f'whole_{scheme}', None), (f'sharded_{scheme}', SHARDED))
    },
}


def once(folder: Path) -> bool:
    """Whether this is asked the third time."""
    calls = folder / 'calls'
    output = calls.read_text() if calls.exists() else ''
    calls.write_text(output + '.')
    return len(output) == 2


def main(folder: Path, *jobs: str) -> None:
    """Run jobs one after the other."""
    for job in jobs:
        seen = JOBS[job](folder)
        torch.save(seen, folder / f'{job}.{dist.get_rank()}.pt')
        dist.barrier()


if __name__ == '__main__':
    main(Path(sys.argv[1]), *sys.argv[2:])
