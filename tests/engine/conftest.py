"""A training of a few numbers, which takes a second and draws random numbers everywhere."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmtimesformer.checkpoints.torch_checkpoints import load_torch
from mmtimesformer.engine.runner import Runner

SAMPLES = 22
SCHEDULERS: list[dict[str, Any]] = [
    {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 9},
    {'type': 'MultiStepLR', 'milestones': [2], 'gamma': 0.5},
]


class Noise(Dataset):
    """Samples cut at random, by all three kinds of random numbers."""

    metainfo = {'classes': ('a', 'b')}

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, Any]:
        drawn = random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002
        inputs = torch.tensor(drawn) + index / SAMPLES
        return {'inputs': inputs, 'data_samples': BaseDataElement(label=index % 2)}

    def get_data_info(self, index: int) -> dict[str, str]:
        return {'filename': f'videos/{index}.mp4'}


class Guess(BaseModel):
    """A model with dropout, so that a step draws random numbers as well."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.3), nn.GELU(), nn.Linear(16, 1))

    def forward(self, inputs: list[Tensor], data_samples: list[Any], mode: str = 'tensor') -> Any:
        guesses = self.layers(torch.stack(list(inputs)))[:, 0]
        if mode == 'predict':
            return [BaseDataElement(guess=float(guess)) for guess in guesses]
        labels = torch.tensor([sample.label for sample in data_samples])
        return {'loss': (guesses - labels).square().mean()}


class MeanGuess(BaseMetric):
    """The mean of all guesses, as if it were an accuracy."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [sample['guess'] for sample in data_samples]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return {'mean_acc': float(np.mean(results))}


class Scaled(AmpOptimWrapper):
    """MMEngine's wrapper for float16, whose scaler of the loss works on CPUs too, in bfloat16."""

    def __init__(self, **arguments: Any) -> None:
        OptimWrapper.__init__(self, **arguments)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=64.0, growth_interval=4)
        self._scale_update_param = None
        self.cast_dtype = torch.bfloat16


class At(Hook):
    """Do something before the given step is trained, once."""

    priority = 'HIGHEST'

    def __init__(self, step: int, action: Callable[[Any], object]) -> None:
        self.step, self.action = step, action

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == self.step:
            self.action(runner)


Train = Callable[..., Runner]


@pytest.fixture
def train(tmp_path: Path) -> Iterator[Train]:
    """Train in ``tmp_path / 'work'``, or in ``work_dir``; return the Runner when it is done.

    An epoch has 6 steps of 4 samples, the last of 2; there are 3 epochs.
    """
    scopes = dict(DefaultScope._instance_dict)
    count = 0

    def run(
        *hooks: Hook,
        work_dir: Path = tmp_path / 'work',
        workers: int = 0,
        persistent: bool = False,
        seed: int | None = 3,
        ema: bool = True,
        val_interval: int | None = None,
        model: nn.Module | None = None,
        train_cfg: dict[str, Any] | None = None,
        sampler: dict[str, Any] | None = None,
        checkpoint: dict[str, Any] | None = None,
        optim: dict[str, Any] | None = None,
        dataset: Dataset | None = None,
        batch_size: int = 4,
        schedulers: list[dict[str, Any]] | None = None,
        **arguments: Any,
    ) -> Runner:
        nonlocal count
        count += 1
        loader = {
            'dataset': dataset or Noise(),
            'sampler': sampler or {'type': 'DefaultSampler', 'shuffle': True},
            'batch_size': batch_size,
            'num_workers': workers,
            'prefetch_factor': 1 if workers else None,
            'persistent_workers': persistent,
        }
        loop = {**({'val_interval': val_interval} if val_interval else {}), **(train_cfg or {})}
        validation: dict[str, Any] = {}
        if val_interval:
            validation = {
                'val_dataloader': {**loader, 'num_workers': 0, 'persistent_workers': False}
                | {'prefetch_factor': None},
                'val_cfg': {},
                'val_evaluator': Evaluator(MeanGuess()),
            }
            validation['val_dataloader']['sampler'] = {'type': 'DefaultSampler', 'shuffle': False}
        runner = Runner(
            model=model or Guess(),
            work_dir=str(work_dir),
            train_dataloader=loader,
            train_cfg=loop if 'type' in loop else {'by_epoch': True, 'max_epochs': 3, **loop},
            optim_wrapper={
                'optimizer': {'type': 'AdamW', 'lr': 0.01},
                'clip_grad': {'max_norm': 1.0},
                **(optim or {}),
            },
            param_scheduler=SCHEDULERS if schedulers is None else schedulers,
            default_hooks={
                'checkpoint': {'type': 'CheckpointHook', 'interval': 1, **(checkpoint or {})},
                'logger': {'type': 'LoggerHook', 'interval': 1},
            },
            custom_hooks=[*hooks, *([{'type': 'EMAHook', 'momentum': 0.1}] if ema else [])],
            randomness={'seed': seed},
            experiment_name=f'{tmp_path.name}_{count}',
            cfg={},
            **validation,
            **arguments,
        )
        runner.train()
        return runner

    yield run
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()


def whole_state(checkpoint: Path) -> dict[str, Any]:
    """The entries of a checkpoint that decide how a training continues, and the losses so far."""
    saved = load_torch(checkpoint)
    scalars = saved['message_hub']['log_scalars']
    return {
        'weights': saved['state_dict'],
        'average': saved.get('ema_state_dict'),
        'optimizer': saved['optimizer'],
        'schedulers': saved['param_schedulers'],
        'losses': scalars['train/loss'].log_history.tolist(),
        'gradients': saved.get('gradients'),
        'done': (saved['meta']['epoch'], saved['meta']['iter'], saved['meta']['position']),
    }


def assert_equal(one: Any, other: Any, where: str = '') -> None:
    """Compare to the last bit."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f'{where}.{key}')
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (first, second) in enumerate(zip(one, other, strict=True)):
            assert_equal(first, second, f'{where}[{i}]')
    elif isinstance(one, Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where
