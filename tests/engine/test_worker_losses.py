"""A data-loading process that dies is replaced, and the training is the one without its death."""

import multiprocessing
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from mmtimesformer.checkpoints.pickles import load_torch
from mmtimesformer.engine.letters import EndOfRun
from mmtimesformer.engine.stop_signals import StartWorker
from mmtimesformer.engine.worker_losses import WatchedBatches
from tests.engine.conftest import At, Noise, Train, assert_equal, whole_state

pytestmark = pytest.mark.filterwarnings('ignore:This process .* is multi-threaded')


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> list[WatchedBatches]:
    """What was watched, the newest last."""
    seen: list[WatchedBatches] = []
    enter = WatchedBatches.__enter__

    def note(self: WatchedBatches) -> WatchedBatches:
        seen.append(self)
        return enter(self)

    monkeypatch.setattr(WatchedBatches, '__enter__', note)
    return seen


@pytest.mark.parametrize('persistent', [False, True])
def test_the_epoch_goes_on_where_it_was(
    train: Train,
    tmp_path: Path,
    watched: list[WatchedBatches],
    persistent: bool,
    capsys: pytest.CaptureFixture,
) -> None:
    train(work_dir=tmp_path / 'whole')
    capsys.readouterr()
    train(At(6, lambda _: watched[-1].workers[0].kill()), workers=2, persistent=persistent)
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'work')))
    said = capsys.readouterr().out
    assert 'replaced, for one died (SIGKILL, as when memory is out). The epoch goes on' in said


def test_one_that_dies_with_a_lock_in_its_hand_makes_nobody_wait(
    train: Train, tmp_path: Path, watched: list[WatchedBatches]
) -> None:
    """It is the lock under which torch would look which processes are there."""
    train(work_dir=tmp_path / 'whole')

    def take_lock_and_die(_runner: Any) -> None:
        assert watched[-1].batches._workers_done_event._cond.acquire()
        watched[-1].workers[0].kill()

    train(At(6, take_lock_and_die), workers=2)
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'work')))


def test_a_worker_out_of_memory_is_replaced_too(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    train(work_dir=tmp_path / 'whole')
    flag = tmp_path / 'was out of memory'
    read = Noise.__getitem__

    def greedy(self: Noise, index: int) -> Any:
        if index == 9 and not flag.exists():
            flag.touch()
            raise MemoryError
        return read(self, index)

    monkeypatch.setattr(Noise, '__getitem__', greedy)
    train(workers=2)
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'work')))
    assert 'Data-loading processes are replaced' in capsys.readouterr().out


def test_one_that_always_dies_ends_the_run_with_a_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(work_dir=tmp_path / 'whole')
    sampler = train(
        work_dir=tmp_path / 'other', train_cfg={'max_epochs': 1}
    ).train_dataloader.sampler
    last = list(sampler)[-1]  # of the first epoch
    read = Noise.__getitem__

    def deadly(self: Noise, index: int) -> Any:
        if index == last:
            raise MemoryError
        return read(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(Noise, '__getitem__', deadly)
        with pytest.raises(ChildProcessError, match='died 3 times .*num_workers lower.*--resume'):
            train(workers=1, train_cfg={'max_worker_losses': 2})
    assert load_torch(tmp_path / 'work/mid_epoch.pth')['meta']['position']['step'] == 5
    train(resume=True)
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'work')))


def test_a_failing_data_set_is_no_lost_worker(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Noise, index: int) -> Any:
        raise RuntimeError('DataLoader or not, this is a defect')

    monkeypatch.setattr(Noise, '__getitem__', failing)
    with pytest.raises(RuntimeError, match='this is a defect'):
        train(workers=1)


def test_workers_outlive_the_signal_that_stops_the_run(
    train: Train,
    tmp_path: Path,
    watched: list[WatchedBatches],
    capsys: pytest.CaptureFixture,
) -> None:
    """Slurm and torchrun send it to every process; a dead worker would lose the step."""

    def stop_all() -> None:
        for process in [*(worker.pid for worker in watched[-1].workers), os.getpid()]:
            subprocess.run(['kill', '-TERM', str(process)], check=True)  # not from the parent

    train(work_dir=tmp_path / 'whole', optim={'accumulative_counts': 3})
    with pytest.raises(EndOfRun, match='epoch 1, step 9;'):
        train(At(6, lambda _: stop_all()), workers=2, optim={'accumulative_counts': 3})
    assert 'are replaced' not in capsys.readouterr().out
    train(resume=True, optim={'accumulative_counts': 3})
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'work')))


def test_workers_go_when_their_parent_tells_them_or_is_gone(tmp_path: Path) -> None:
    processes = multiprocessing.get_context('fork')
    start = StartWorker(None)

    def work() -> None:
        start(0)
        time.sleep(60)

    worker = processes.Process(target=work)
    worker.start()
    time.sleep(0.3)
    worker.terminate()
    worker.join(5)
    assert worker.exitcode == 0

    ear, mouth = processes.Pipe(duplex=False)

    def parent() -> None:
        worker = processes.Process(target=work)
        worker.start()
        time.sleep(0.3)
        mouth.send(worker.pid)
        time.sleep(60)

    grandparent = processes.Process(target=parent)
    grandparent.start()
    orphan = ear.recv()
    grandparent.kill()
    grandparent.join()
    for _ in range(50):
        state = Path(f'/proc/{orphan}/stat')
        if not state.exists() or ' Z ' in state.read_text():
            return
        time.sleep(0.1)
    pytest.fail('the orphan lives')
