"""A training that stops early stops at the same epoch when it was interrupted before."""

from pathlib import Path
from typing import Any

import pytest

from tests.cases.test_resume_with_changes import stop
from tests.engine import conftest
from tests.engine.conftest import Train, assert_equal, whole_state

train = conftest.train
HOOK: Any = {
    'type': 'mmtimesformer.EarlyStoppingHook', 'monitor': 'mean_acc', 'rule': 'greater',
    'patience': 3, 'min_delta': 100,  # nothing is an improvement after the first validation
}  # fmt: skip


@pytest.mark.parametrize('step', [9, 14, 20])
def test_a_resumed_training_stops_where_an_uninterrupted_one_does(
    train: Train, tmp_path: Path, step: int
) -> None:
    how: dict[str, Any] = {
        'val_interval': 1,
        'train_cfg': {'max_epochs': 8},
        'checkpoint': {'save_best': 'mean_acc', 'rule': 'greater'},
    }
    whole = train(HOOK, work_dir=tmp_path / 'whole', **how)
    assert whole.epoch == 4  # the first is the best, three more do not improve
    assert list((tmp_path / 'whole').glob('best_*.pth'))
    stop(train, step, HOOK, **how)
    resumed = train(HOOK, resume=True, **how)
    assert resumed.epoch == 4
    assert_equal(*(whole_state(tmp_path / name / 'epoch_4.pth') for name in ('whole', 'work')))
    again = train(HOOK, resume=True, **how)
    assert again.epoch == 4
