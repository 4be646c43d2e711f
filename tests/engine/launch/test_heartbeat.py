"""Machines miss one that falls silent, and no other."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from torch.distributed import HashStore, Store

from mmtimesformer.engine.launch import torchrun
from mmtimesformer.engine.launch.heartbeat import Heartbeat

SECONDS = 1.0


class Machine:
    """A machine with its own view of a store, which can be cut off."""

    def __init__(self, store: Store) -> None:
        self.store, self.cut = store, False
        self.reported: list[tuple[str, bool]] = []
        self.heartbeat = Heartbeat(
            lambda: self, lambda *args: self.reported.append(args[:2]), SECONDS
        )

    def __getattr__(self, name: str) -> Callable[..., object]:
        while self.cut:  # as a network that does not answer
            time.sleep(0.05)
        return getattr(self.store, name)


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    store = HashStore()
    both = [Machine(store), Machine(store)]
    time.sleep(SECONDS)
    yield both
    for machine in both:
        machine.cut = False
        machine.heartbeat.stop()


def test_one_that_is_cut_off_is_missed_and_misses_the_others(machines: list[Machine]) -> None:
    time.sleep(1.5 * SECONDS)
    assert [machine.reported for machine in machines] == [[], []]
    machines[1].cut = True
    time.sleep(2 * SECONDS)
    ((sentence, cut_off),) = machines[0].reported
    assert sentence.startswith('machine ')
    assert 'has not been heard of for 1 s' in sentence
    assert not cut_off
    ((sentence, cut_off),) = machines[1].reported
    assert sentence.startswith('the machine of the rendezvous')
    assert cut_off


def test_after_one_is_missed_the_next_one_is_too(machines: list[Machine]) -> None:
    others = [Machine(machines[0].store) for _ in range(3)]
    time.sleep(SECONDS)
    try:
        machines[1].cut = others[0].cut = True
        time.sleep(2 * SECONDS)
        ((sentence, _),) = machines[0].reported
        assert sentence.count('machine ') == 2 and 'have not been heard of' in sentence
        replacement = Machine(machines[0].store)
        others.append(replacement)
        time.sleep(SECONDS)
        others[1].cut = True
        time.sleep(2 * SECONDS)
        for machine in (machines[0], others[2], replacement):
            sentence, cut_off = machine.reported[-1]
            assert sentence.count('machine ') == 1 and not cut_off
        assert [len(machine.reported) for machine in (machines[0], others[2], replacement)] == [
            2,
            2,
            1,
        ]
    finally:
        for machine in others:
            machine.cut = False
            machine.heartbeat.stop()


def test_one_that_took_leave_is_not_missed(machines: list[Machine]) -> None:
    machines[1].heartbeat.stop()
    time.sleep(2 * SECONDS)
    assert machines[0].reported == []


def test_only_processes_that_met_with_the_missed_machine_are_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that were started again while it was silent have met without it."""
    process = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
    monkeypatch.setattr(torchrun, '_children', lambda: [process.pid])
    lost: dict[int, str] = {}
    try:
        torchrun._end_waiting(lost, 'machine 2 is gone', False, 30.0)
        assert process.poll() is None and not lost and not capsys.readouterr().err
        time.sleep(0.3)
        torchrun._end_waiting(lost, 'machine 2 is gone', False, 0.2)
        assert process.wait(10) == -9
        assert lost == {process.pid: 'machine 2 is gone'}
        assert (
            'machine 2 is gone; the processes on this machine are ended' in capsys.readouterr().err
        )
    finally:
        process.kill()
