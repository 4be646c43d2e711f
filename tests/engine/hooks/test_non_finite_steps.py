"""Steps with NaN or infinite losses or gradients are skipped and counted; too many end the run."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import Tensor

from mmtimesformer.checkpoints.torch_checkpoints import load_torch
from mmtimesformer.cli import RunStopped
from mmtimesformer.engine.hooks.non_finite_steps import (
    NonFiniteStepHook,
    NonFiniteStepsError,
    are_finite,
)
from tests.engine.conftest import At, Guess, Scaled, Train, assert_equal, whole_state


def ask_to_stop(_runner: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class Spoil(torch.autograd.Function):
    """The identity forward; multiplies the gradient by a given number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: float) -> Tensor:
        ctx.gradient = gradient
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient * ctx.gradient, None


class Spoiled(Guess):
    """A model whose loss or gradient is non-finite at some steps (counted in batches)."""

    def __init__(self, what: str, steps: set[int]) -> None:
        super().__init__()
        self.what, self.steps, self.batch = what, steps, 0

    def forward(self, inputs: Any, data_samples: Any, mode: str = 'tensor') -> Any:
        losses = super().forward(inputs, data_samples, mode)
        if mode == 'loss':
            if self.batch in self.steps:
                losses['loss'] = {
                    'nan loss': lambda loss: loss * torch.nan,
                    'infinite loss': lambda loss: loss + torch.inf,  # its gradient is finite
                    'nan gradient': lambda loss: Spoil.apply(loss, torch.nan),
                    'infinite gradient': lambda loss: Spoil.apply(loss, torch.inf),
                }[self.what](losses['loss'])
            self.batch += 1
        return losses


class Weights(At):
    """Copy the weights and the optimizer's state before a step."""

    def __init__(self, step: int) -> None:
        self.seen: dict[str, Any] = {}

        def copy(runner: Any) -> None:
            self.seen = {
                'model': {k: v.clone() for k, v in runner.model.state_dict().items()},
                'state': [
                    {k: v.clone() for k, v in state.items()}
                    for state in runner.optim_wrapper.optimizer.state.values()
                ],
            }

        super().__init__(step, copy)


@pytest.mark.parametrize('wrapper', [OptimWrapper, Scaled])
@pytest.mark.parametrize('clip', [True, False])
@pytest.mark.parametrize('what', ['nan loss', 'infinite loss', 'nan gradient', 'infinite gradient'])
def test_a_skipped_step_changes_nothing_and_is_logged(
    train: Train,
    tmp_path: Path,
    what: str,
    clip: bool,
    wrapper: type,
    capsys: pytest.CaptureFixture,
) -> None:
    before, after, end = Weights(8), Weights(9), Weights(17)
    optim = {'type': wrapper} if clip else {'type': wrapper, 'clip_grad': None}
    runner = train(before, after, end, model=Spoiled(what, {8}), optim=optim)
    assert_equal(before.seen, after.seen)
    assert len(before.seen['state']) == 4
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())
    assert not torch.equal(
        after.seen['model']['layers.0.weight'], end.seen['model']['layers.0.weight']
    )
    (logged,) = (line for line in capsys.readouterr().out.splitlines() if 'is skipped' in line)
    kind = what.split()[1]
    assert f'epoch 2, step 9 is skipped: {"the" if kind == "loss" else "a"} {kind} is NaN' in logged
    assert '(1 in a row, 1 in total)' in logged
    indices = list(runner.train_dataloader.sampler)  # of the last epoch; this was in the second
    runner.train_dataloader.sampler.set_epoch(1)
    indices = list(runner.train_dataloader.sampler)[8:12]
    assert logged.endswith('Its videos: ' + ', '.join(f'videos/{i}.mp4' for i in indices))
    hub = load_torch(tmp_path / 'work/epoch_3.pth')['message_hub']['runtime_info']
    assert (hub['left_out'], hub['left_out_in_row']) == (1, 0)


def test_a_step_is_skipped_under_bfloat16_as_well(
    train: Train, capsys: pytest.CaptureFixture
) -> None:
    runner = train(
        model=Spoiled('nan loss', {8}), optim={'type': 'mmtimesformer.Bfloat16OptimWrapper'}
    )
    assert '(1 in a row, 1 in total)' in capsys.readouterr().out
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())


def test_a_scaled_loss_that_is_never_finite_ends_the_run(train: Train) -> None:
    """The scaler itself would halve its scale forever."""
    with pytest.raises(NonFiniteStepsError, match='for 5 steps in a row'):
        train(
            NonFiniteStepHook(max_in_row=5),
            model=Spoiled('infinite gradient', set(range(18))),
            optim={'type': Scaled},
        )


def test_an_accumulated_step_is_skipped_as_a_whole(
    train: Train, capsys: pytest.CaptureFixture
) -> None:
    """Batches 8 to 11 make one step; only the videos of the non-finite one are logged."""
    before, after = Weights(8), Weights(12)
    runner = train(before, after, model=Spoiled('nan loss', {9}), optim={'accumulative_counts': 4})
    assert_equal(before.seen, after.seen)
    (logged,) = (line for line in capsys.readouterr().out.splitlines() if 'is skipped' in line)
    assert logged.count('.mp4') == 4
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())


def test_too_many_skipped_steps_in_a_row_end_the_run_with_an_error(
    train: Train, tmp_path: Path
) -> None:
    """Two in a row, a finite one, three in a row."""
    spoiled = {6, 7, 9, 10, 11}
    with pytest.raises(NonFiniteStepsError) as error:
        train(NonFiniteStepHook(max_in_row=3), model=Spoiled('nan loss', spoiled))
    message = str(error.value)
    assert 'is NaN or infinite for 3 steps in a row, the last one epoch 2, step 12;' in message
    assert 'optim_wrapper.optimizer.lr' in message
    assert 'clip_grad' not in message  # is set
    saved = load_torch(tmp_path / 'work/epoch_1.pth')
    assert all(value.isfinite().all() for value in saved['state_dict'].values())


def test_a_resumed_run_continues_the_count(train: Train, tmp_path: Path) -> None:
    """Nothing is saved while steps are skipped, except a file that only its name resumes."""
    spoiled = set(range(6, 18))
    with pytest.raises(RunStopped):
        train(At(8, ask_to_stop), model=Spoiled('nan loss', spoiled))
    with pytest.raises(
        NonFiniteStepsError, match='for 5 steps in a row, the last one epoch 2, step 11'
    ):
        train(
            NonFiniteStepHook(max_in_row=5),
            model=Spoiled('nan loss', set(range(18))),
            resume=True,
            load_from=str(tmp_path / 'work/while_skipping.pth'),
        )


def test_the_check_changes_no_bit(train: Train, tmp_path: Path, monkeypatch: Any) -> None:
    train(work_dir=tmp_path / 'watched')
    monkeypatch.setattr(NonFiniteStepHook, 'before_train', lambda *_: None)
    train(work_dir=tmp_path / 'alone')
    one, other = (whole_state(tmp_path / name / 'epoch_3.pth') for name in ('watched', 'alone'))
    assert_equal(one, other)


def test_one_non_finite_number_is_found() -> None:
    fine = [
        torch.ones(3, 5),
        torch.zeros(0),
        torch.tensor(1e-30),
        torch.ones(2, dtype=torch.bfloat16),
    ]
    assert are_finite([])
    assert are_finite(fine)
    assert are_finite([*fine, torch.eye(3).to_sparse()])
    for bad in (torch.nan, torch.inf, -torch.inf):
        assert not are_finite([*fine, torch.tensor([0.0, bad])])
