import math
from typing import Any

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS

from mmtimesformer.engine import WarmupCosineLR


def optimizer_of(*rates: float) -> torch.optim.Optimizer:
    groups = [{'params': [torch.nn.Parameter(torch.zeros(1))], 'lr': rate} for rate in rates]
    return torch.optim.SGD(groups, lr=1.0)


def build(optimizer: torch.optim.Optimizer, **changes: Any) -> WarmupCosineLR:
    settings = {'warmup': 3, 'start_factor': 0.1, 'end': 12, 'by_epoch': False, **changes}
    return WarmupCosineLR(optimizer, **settings)


def run(scheduler: WarmupCosineLR, steps: int) -> list[list[float]]:
    """The rates of each group at each of some steps."""
    found = []
    for _ in range(steps):
        found.append([group['lr'] for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def factor(step: float) -> float:
    def cosine(step: float) -> float:
        return (math.cos(math.pi * step / 12) + 1) / 2

    return 0.1 + (cosine(3) - 0.1) * step / 3 if step < 3 else cosine(step)


def test_each_group_follows_the_line_and_then_the_cosine() -> None:
    found = run(build(optimizer_of(0.5, 0.02)), 12)
    assert found == [
        pytest.approx([0.5 * factor(step), 0.02 * factor(step)], rel=1e-12) for step in range(12)
    ]


def test_epochs_become_iterations() -> None:
    settings = {'warmup': 1, 'start_factor': 0.1, 'begin': 0, 'end': 4}
    scheduler = PARAM_SCHEDULERS.build(
        {
            'type': 'mmtimesformer.WarmupCosineLR', 'optimizer': optimizer_of(1.0),
            'convert_to_iter_based': True, 'epoch_length': 3, **settings,
        }
    )  # fmt: skip
    assert not scheduler.by_epoch
    assert [rate for (rate,) in run(scheduler, 12)] == pytest.approx([factor(s) for s in range(12)])


def test_a_schedule_may_begin_later() -> None:
    found = run(build(optimizer_of(1.0), begin=2, end=14), 14)
    assert [rate for (rate,) in found[2:]] == pytest.approx([factor(step) for step in range(12)])


def test_a_resumed_schedule_continues() -> None:
    whole = run(build(optimizer_of(1.0)), 12)
    first = build(optimizer_of(1.0))
    run(first, 5)
    state, rate = first.state_dict(), first.optimizer.param_groups[0]['lr']
    optimizer = optimizer_of(1.0)
    second = build(optimizer)
    second.load_state_dict(state)
    optimizer.param_groups[0]['lr'] = rate
    assert run(second, 7) == [pytest.approx(rates) for rates in whole[5:]]


def test_a_rate_that_was_changed_from_outside_stays_changed() -> None:
    scheduler = build(optimizer_of(1.0))
    run(scheduler, 4)
    scheduler.optimizer.param_groups[0]['lr'] *= 0.01
    assert run(scheduler, 1)[0][0] == pytest.approx(0.01 * factor(4))


def test_no_warm_up_is_the_cosine_of_mmengine() -> None:
    from mmengine.optim import CosineAnnealingLR

    theirs = CosineAnnealingLR(optimizer_of(1.0), T_max=12, by_epoch=False)
    ours = build(optimizer_of(1.0), warmup=0)
    assert run(ours, 12) == [pytest.approx(rates) for rates in run(theirs, 12)]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'start_factor': 0}, 'start_factor=0 is not above 0'),
        ({'start_factor': 1.5}, 'start_factor=1.5 is not above 0'),
        ({'warmup': 12}, 'warmup=12 is not from 0 to below the length of the schedule, 12'),
        ({'warmup': -1}, 'warmup=-1 is not'),
    ],
)
def test_values_out_of_range_are_errors(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(optimizer_of(1.0), **changes)


def test_only_epochs_become_iterations() -> None:
    with pytest.raises(ValueError, match='remove param_scheduler.convert_to_iter_based'):
        WarmupCosineLR.build_iter_from_epoch(
            optimizer_of(1.0), warmup=1, start_factor=0.1, end=4, by_epoch=False, epoch_length=3
        )
