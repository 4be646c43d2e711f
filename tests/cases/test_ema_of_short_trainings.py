"""W17: the moving average of a short training is of its end, and a slow one is warned about."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import HOOKS, MODELS
from torch import nn

from mmtimesformer.cli import RunStopped
from tests.cases.test_resume_with_changes import stop
from tests.engine import conftest
from tests.engine.conftest import Train, assert_equal, whole_state

train = conftest.train
SCHEDULE = Path(__file__).resolve().parents[2] / 'configs/_base_/schedules/adamw_20e_finetune.py'
STEPS = 260  # 97 clips in batches of 8, 20 epochs


def average_of(steps: int, **settings: Any) -> float:
    """Return the share of the first weights in the average after so many steps."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    average = MODELS.build({'type': 'ExponentialMovingAverage', **settings, 'model': model})
    average.update_parameters(model)
    nn.init.zeros_(model.weight)  # from the second step on
    for _ in range(steps - 1):
        average.update_parameters(model)
    return float(average.module.weight)


def settings_of_schedule() -> dict[str, Any]:
    (hook,) = Config.fromfile(SCHEDULE).custom_hooks
    return dict(HOOKS.build(hook).ema_cfg)


def test_nothing_of_the_start_is_left_in_the_average_of_97_clips_in_20_epochs() -> None:
    assert average_of(STEPS, momentum=0.002) > 0.59  # as it was
    assert average_of(STEPS, **settings_of_schedule()) < 1e-6


@pytest.mark.parametrize('steps', [2, 13, 60])
def test_nor_in_that_of_fewer_clips(steps: int) -> None:
    assert average_of(steps, **settings_of_schedule()) < 0.1


def test_in_a_long_training_it_averages_over_as_many_steps_as_before() -> None:
    average = MODELS.build({**settings_of_schedule(), 'model': nn.Linear(1, 1)})
    ones = torch.ones(1)
    for steps, momentum in ((10, 0.5), (90, 0.1), (5000, 0.002), (10**6, 0.002)):
        average.steps.fill_(steps)
        moved = torch.zeros(1)
        average.avg_func(moved, ones, steps)
        assert float(moved) == pytest.approx(momentum, rel=0.01)


EMA = {'type': 'EMAHook', 'ema_type': 'MomentumAnnealingEMA', 'momentum': 0.002, 'gamma': 10}


@pytest.mark.parametrize('step', [2, 9, 12])
def test_a_resumed_average_that_warms_up_is_the_one_that_never_stopped(
    train: Train, tmp_path: Path, step: int
) -> None:
    hook: Any = EMA
    train(hook, ema=False, work_dir=tmp_path / 'whole')
    stop(train, step, hook, ema=False)
    train(hook, ema=False, resume=True)
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'work')))


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'momentum': 0.002}, 'about 500 steps, and this training has 18: 96 % of'),
        ({'momentum': 0.1}, '15 % of the final average'),
        ({'momentum': 0.2}, None),
        ({'momentum': 0.2, 'interval': 2}, 'has 9: 13 %'),
        ({'momentum': 0.2, 'begin_iter': 8}, 'has 10: 11 %'),
        ({'momentum': 0.2, 'begin_epoch': 3}, 'has 6: 26 %'),
        ({'momentum': 0.002, 'ema_type': 'MomentumAnnealingEMA', 'gamma': 10}, None),
        ({'ema_type': 'StochasticWeightAverage'}, None),
    ],
)
def test_an_average_that_would_still_be_the_start_is_warned_about_before_it_begins(
    train: Train, settings: dict[str, Any], words: str | None, capsys: pytest.CaptureFixture
) -> None:
    hook: Any = {'type': 'EMAHook', **settings}
    with pytest.raises(RunStopped):  # before the first step is done
        train(hook, conftest.At(0, _end), ema=False)
    output = capsys.readouterr().out
    assert ('EMAHook: momentum' in output) == (words is not None)
    assert words is None or words in output


def _end(_runner: Any) -> None:
    raise RunStopped('enough', 0)


def test_the_base_class_is_still_the_one_that_does_not_warm_up() -> None:
    average = MODELS.build(
        {'type': 'ExponentialMovingAverage', 'model': nn.Linear(1, 1), 'momentum': 0.002}
    )
    assert type(average) is ExponentialMovingAverage
