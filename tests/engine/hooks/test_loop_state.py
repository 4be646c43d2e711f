"""A checkpoint within an accumulated step has the mean of the gradients of all processes."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from torch import Tensor

from mmtimesformer.checkpoints.torch_checkpoints import load_torch
from tests.engine.conftest import Train


class CopyGradients(Hook):
    """Copy the gradients of this process after the first batch, before it saves."""

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}

    def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
        if runner.iter == 0:
            self.gradients = {
                name: parameter.grad.clone() for name, parameter in runner.model.named_parameters()
            }


def train_one_of_two(train: Train, folder: Path, rank: int, results: Any) -> None:
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    copy = CopyGradients()
    train(
        copy,
        work_dir=folder / 'work',
        train_cfg={'max_epochs': 1},
        optim={'accumulative_counts': 2},
        checkpoint={'by_epoch': False, 'interval': 1},
    )
    results.put({name: gradient.tolist() for name, gradient in copy.gradients.items()})
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings('ignore:.*multi-threaded.*fork:DeprecationWarning')
def test_gradients_saved_within_a_step_are_averaged_over_processes(
    train: Train, tmp_path: Path
) -> None:
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    processes = [
        context.Process(target=train_one_of_two, args=(train, tmp_path, rank, results))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    one, other = (results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    saved = load_torch(tmp_path / 'work/iter_1.pth')['gradients']
    assert saved.keys() == one.keys()
    for name, gradient in saved.items():
        first, second = torch.tensor(one[name]), torch.tensor(other[name])
        assert not torch.equal(first, second)
        torch.testing.assert_close(gradient, (first + second) / 2)
    assert 'gradients' not in load_torch(tmp_path / 'work/iter_2.pth')
