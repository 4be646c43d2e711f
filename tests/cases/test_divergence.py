"""W5: when a training diverges, the last good checkpoint survives and is named with a remedy.

A spike is one step with a learning rate of 1e9: its own loss is finite, and its weights are ruined.
"""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmtimesformer.checkpoints import load_torch
from mmtimesformer.cli import STOPPED, RunStopped
from mmtimesformer.engine.hooks.non_finite_steps import NonFiniteStepHook, NonFiniteStepsError
from tests.engine import conftest
from tests.engine.conftest import At, Guess, Scaled, Train

train = conftest.train


class Brittle(Guess):
    """A model whose loss is NaN once its weights are larger than ``limit``, or at given batches."""

    def __init__(self, limit: float = 5.0, batches: set[int] | None = None) -> None:
        super().__init__()
        self.limit, self.batches, self.batch = limit, batches or set(), 0

    def forward(self, inputs: Any, data_samples: Any, mode: str = 'tensor') -> Any:
        broken = any(bool(p.detach().abs().max() > self.limit) for p in self.parameters())
        out = super().forward(inputs, data_samples, mode)
        if mode == 'loss':
            broken = broken or self.batch in self.batches
            self.batch += 1
            return {'loss': out['loss'] * torch.nan} if broken else out
        for sample in out:
            sample.pred_score = torch.tensor([torch.nan if broken else 0.5])
        return out


def spike(step: int, lr: float = 100.0) -> At:
    """Ruin the weights in one step; not so much that their size alone shows it."""

    def action(runner: Any) -> None:
        for group in runner.optim_wrapper.optimizer.param_groups:
            group['lr'] = lr

    hook = At(step, action)
    hook.priority = 'LOWEST'
    return hook


def saved(work_dir: Path) -> list[str]:
    return sorted(path.name for path in work_dir.glob('*.pth'))


def largest(checkpoint: Path) -> float:
    tensors = load_torch(checkpoint)['state_dict'].values()
    return max(float(tensor.abs().max()) for tensor in tensors if isinstance(tensor, Tensor))


LONG = {'max_epochs': 8}  # of six steps


@pytest.mark.parametrize('step', [11, 12, 13], ids=['last of an epoch', 'first', 'second'])
@pytest.mark.parametrize('keep', [1, 2, -1])
def test_the_last_good_checkpoint_survives_a_spike_and_is_named(
    train: Train, tmp_path: Path, step: int, keep: int
) -> None:
    with pytest.raises(NonFiniteStepsError) as error:
        train(spike(step), model=Brittle(), train_cfg=LONG, checkpoint={'max_keep_ckpts': keep})
    # The spike's own step is finite: of step 12 it follows epoch_2.pth.
    noted = tmp_path / 'work' / ('epoch_1.pth' if step == 11 else 'epoch_2.pth')
    assert (tmp_path / 'work/last_checkpoint').read_text() == str(noted)
    assert largest(noted) < 5
    assert f'The last good checkpoint is {noted}' in str(error.value)
    assert 'the last checkpoint is good' not in str(error.value)
    assert f'--resume {noted} --cfg-options optim_wrapper.optimizer.lr=0.001' in str(error.value)
    assert not {'epoch_3.pth', 'epoch_4.pth', 'epoch_5.pth'} & {*saved(tmp_path / 'work')}
    runner = train(model=Brittle(), train_cfg=LONG, resume=True)
    assert runner.epoch == 8
    assert largest(tmp_path / 'work/epoch_8.pth') < 5


def test_a_checkpoint_saved_between_spike_and_first_skipped_step_is_not_taken_for_good(
    train: Train, tmp_path: Path
) -> None:
    with pytest.raises(
        NonFiniteStepsError, match=r'epoch_2\.pth: newer, but no finite step followed'
    ):
        train(spike(11), model=Brittle(), train_cfg=LONG, checkpoint={'max_keep_ckpts': 1})
    assert largest(tmp_path / 'work/epoch_2.pth') > 5
    assert (tmp_path / 'work/last_checkpoint').read_text() == f'{tmp_path}/work/epoch_1.pth'


@pytest.mark.parametrize('optim', [{}, {'type': Scaled}, {'accumulative_counts': 2}])
def test_weights_a_thousand_times_as_large_are_not_saved_at_all(
    train: Train, tmp_path: Path, optim: dict[str, Any]
) -> None:
    """Also where no loss is NaN: then nothing would ever be skipped."""
    with pytest.raises(NonFiniteStepsError, match='more than 1000 times as large as at the start'):
        train(spike(11, 1e9), model=Guess(), train_cfg=LONG, optim=optim)
    assert saved(tmp_path / 'work') == ['epoch_1.pth']


@pytest.mark.parametrize('what', ['weights', 'average', 'moments'])
def test_a_state_that_is_not_finite_is_not_saved(train: Train, tmp_path: Path, what: str) -> None:
    def spoil(runner: Any) -> None:
        optimizer = runner.optim_wrapper.optimizer
        average = next(hook for hook in runner.hooks if hasattr(hook, 'ema_model')).ema_model
        tensor = {
            'weights': next(runner.model.parameters()),
            'average': next(average.module.parameters()),
            'moments': next(iter(optimizer.state.values()))['exp_avg_sq'],
        }[what]
        tensor.data.view(-1)[0] = torch.inf

    class SpoilLater(Hook):  # after the step, or its loss would show it
        def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
            if runner.iter == 11:
                spoil(runner)

    with pytest.raises(
        NonFiniteStepsError, match=r'are not finite .* so epoch_2\.pth is not saved'
    ):
        train(SpoilLater(), train_cfg=LONG)
    assert saved(tmp_path / 'work') == ['epoch_1.pth']


def test_no_best_checkpoint_comes_from_a_ruined_model(train: Train, tmp_path: Path) -> None:
    """The validation right after the spike has NaN scores, those after it are of skipped steps."""
    how = {'val_interval': 1, 'checkpoint': {'save_best': 'mean_acc', 'max_keep_ckpts': 1}}
    with pytest.raises(NonFiniteStepsError):
        train(spike(11), model=Brittle(), ema=False, train_cfg={**LONG, 'val_interval': 1}, **how)
    (best,) = (tmp_path / 'work').glob('best*')
    assert largest(best) < 5


def test_a_score_that_is_infinite_is_never_the_best(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.3, float('inf'), float('nan')])
    monkeypatch.setattr(
        conftest.MeanGuess, 'compute_metrics', lambda *_: {'mean_acc': next(scores)}
    )
    train(val_interval=1, checkpoint={'save_best': 'mean_acc'})
    assert [path.name for path in (tmp_path / 'work').glob('best*')] == [
        'best_mean_acc_epoch_1.pth'
    ]


def test_saving_goes_on_when_steps_are_finite_again(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Three steps are skipped around the end of the second epoch."""
    seen: list[list[str]] = []
    look = At(14, lambda _: seen.append(saved(tmp_path / 'work')))
    train(look, model=Brittle(batches={10, 11, 12}), checkpoint={'max_keep_ckpts': 2})
    assert seen == [['epoch_1.pth', 'mid_epoch.pth']]
    assert saved(tmp_path / 'work') == ['epoch_1.pth', 'epoch_3.pth']
    assert 'epoch_2.pth is not saved: the last steps were skipped' in capsys.readouterr().out


def test_a_stop_while_steps_are_skipped_never_leads_back_to_a_ruined_state(
    train: Train, tmp_path: Path
) -> None:
    stop = At(15, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(RunStopped) as end:
        train(spike(11), stop, model=Brittle(), train_cfg=LONG)
    assert end.value.code == STOPPED
    assert 'the last steps were skipped' in str(end.value)
    assert f'in {tmp_path}/work/while_skipping.pth' in str(end.value)
    assert str(end.value).endswith(f'from {tmp_path}/work/epoch_1.pth, the last good checkpoint')
    assert 'mid_epoch.pth' not in saved(tmp_path / 'work')
    runner = train(model=Brittle(), train_cfg=LONG, resume=True)
    assert largest(tmp_path / 'work/epoch_8.pth') < 5
    assert runner.epoch == 8


def test_a_training_whose_last_steps_were_skipped_has_failed(train: Train, tmp_path: Path) -> None:
    with pytest.raises(
        NonFiniteStepsError, match=r'is over, but .* in its last 2 steps \(of 18, 2 were'
    ):
        train(model=Brittle(batches={16, 17}), checkpoint={'max_keep_ckpts': 1})
    assert saved(tmp_path / 'work') == ['epoch_1.pth', 'epoch_2.pth', 'while_skipping.pth']
    assert (tmp_path / 'work/last_checkpoint').read_text().endswith('epoch_2.pth')


def test_a_training_most_of_whose_steps_were_skipped_has_failed(train: Train) -> None:
    odd = {step for step in range(17) if step % 3}
    with pytest.raises(NonFiniteStepsError, match=r'11 of its 18 steps were skipped.*do not trust'):
        train(model=Brittle(batches=odd))


def test_a_few_skipped_steps_are_no_failure(train: Train, tmp_path: Path) -> None:
    train(model=Brittle(batches={3, 7, 8}))
    assert saved(tmp_path / 'work') == ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth']


def test_a_step_that_the_loss_scaler_alone_skips_does_not_stop_saving(
    train: Train, tmp_path: Path
) -> None:
    """float16's scaler does that every 2,000 steps, also in the last step of a training."""

    class Overflow(Guess):
        batch = 0

        def forward(self, inputs: Any, data_samples: Any, mode: str = 'tensor') -> Any:
            out = super().forward(inputs, data_samples, mode)
            if mode == 'loss' and self.batch in (5, 17):
                handle = self.layers[0].weight.register_hook(lambda g: g * torch.inf)
                out['loss'].register_hook(lambda g: g)
                self.handle = handle
            elif mode == 'loss' and hasattr(self, 'handle'):
                self.handle.remove()
            self.batch += mode == 'loss'
            return out

    runner = train(model=Overflow(), optim={'type': Scaled})
    assert runner.message_hub.get_info('left_out') == 2
    assert saved(tmp_path / 'work') == ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth']


def test_without_a_good_checkpoint_it_says_so(train: Train) -> None:
    with pytest.raises(NonFiniteStepsError, match='No checkpoint is known to be good. Start again'):
        train(NonFiniteStepHook(max_in_row=3), model=Brittle(batches=set(range(9))))


def test_the_history_goes_on_when_the_run_does(train: Train, tmp_path: Path) -> None:
    """A resumed training that diverges at once falls back to what was good before it."""
    train(train_cfg={'max_epochs': 5}, checkpoint={'max_keep_ckpts': 2})
    with pytest.raises(NonFiniteStepsError, match=r'The last good checkpoint is \S*epoch_4\.pth'):
        train(
            NonFiniteStepHook(max_in_row=3),
            model=Brittle(batches=set(range(99))),
            train_cfg=LONG,
            resume=True,
        )
    assert (tmp_path / 'work/last_checkpoint').read_text().endswith('epoch_4.pth')


def test_a_loss_that_explodes_speaks_for_no_checkpoint_and_is_warned_about(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A divergence that takes some steps: the last one saved in it is not the one to resume."""

    class Exploding(Guess):
        batch = 0

        def forward(self, inputs: Any, data_samples: Any, mode: str = 'tensor') -> Any:
            out = super().forward(inputs, data_samples, mode)
            self.batch += mode == 'loss'
            factor = {**dict.fromkeys(range(22, 27), 1e4)}.get(self.batch, 1.0)
            factor = torch.nan if self.batch >= 27 else factor
            return {'loss': out['loss'] * factor} if mode == 'loss' else out

    with pytest.raises(
        NonFiniteStepsError, match=r'is \S*epoch_3.pth; \S*epoch_4.pth: newer, but no'
    ):
        train(model=Exploding(), train_cfg=LONG, checkpoint={'max_keep_ckpts': 1})
    assert saved(tmp_path / 'work') == ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth', 'epoch_4.pth']
    output = capsys.readouterr().out
    assert output.count('10 times as large as usual') == 1
    assert 'epoch 5, step 26: the loss' in output


def test_samples_of_this_file_are_samples() -> None:
    """The scores that the guard reads are where MMAction2 puts them."""
    from mmtimesformer.engine.hooks.non_finite_steps import _are_finite_scores

    fine = BaseDataElement(pred_score=torch.tensor([0.1, 0.9]))
    bad = BaseDataElement(pred_score=torch.tensor([0.1, torch.nan]))
    old = BaseDataElement(pred_scores=BaseDataElement(item=torch.tensor([torch.inf])))
    assert _are_finite_scores([fine]) and _are_finite_scores(None) and _are_finite_scores([])
    assert not _are_finite_scores([fine, bad])
    assert not _are_finite_scores([old])
    assert not _are_finite_scores([BaseDataElement(pred_score=torch.ones(2), non_finite='NaN')])
