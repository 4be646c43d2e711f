"""A DataLoader worker that dies is restarted, and the training equals one without a death."""

import errno
import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.structures import BaseDataElement
from torch.utils.data import DataLoader, get_worker_info

from mmtimesformer.checkpoints.torch_checkpoints import load_torch
from mmtimesformer.cli import RunStopped
from mmtimesformer.engine.hooks.restart_workers import RestartWorkersHook
from mmtimesformer.engine.hooks.stop_on_signal import StartWorker
from mmtimesformer.engine.loops.dataloader_recovery import WorkerWatchdog, end_workers
from tests.engine.conftest import At, Noise, Train, assert_equal, whole_state

pytestmark = pytest.mark.filterwarnings('ignore:This process .* is multi-threaded')


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> list[WorkerWatchdog]:
    """The watchdogs so far, the newest last."""
    seen: list[WorkerWatchdog] = []
    enter = WorkerWatchdog.__enter__

    def note(self: WorkerWatchdog) -> WorkerWatchdog:
        seen.append(self)
        return enter(self)

    monkeypatch.setattr(WorkerWatchdog, '__enter__', note)
    return seen


@pytest.mark.parametrize('persistent', [False, True])
def test_the_epoch_continues_at_the_same_step(
    train: Train,
    tmp_path: Path,
    watched: list[WorkerWatchdog],
    persistent: bool,
    capsys: pytest.CaptureFixture,
) -> None:
    train(work_dir=tmp_path / 'whole')
    capsys.readouterr()
    train(At(6, lambda _: watched[-1].workers[0].kill()), workers=2, persistent=persistent)
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'work')))
    output = capsys.readouterr().out
    assert 'restarted: one died (SIGKILL, probably out of memory). The epoch continues' in output


class KillIdle(Hook):
    """Kill a persistent worker before an epoch or a validation begins."""

    def __init__(self, watched: list[WorkerWatchdog]) -> None:
        self.watched, self.killed = watched, 0

    def before_train_epoch(self, runner: Any) -> None:
        if self.watched and self.watched[-1].workers:
            self.watched[-1].workers[0].kill()
            self.watched[-1].workers[0].join()
            self.killed += 1

    before_val = before_train_epoch


def test_a_worker_that_dies_between_two_epochs_costs_no_batch(
    train: Train, tmp_path: Path, watched: list[WorkerWatchdog]
) -> None:
    train(work_dir=tmp_path / 'whole')
    watched.clear()
    kill = KillIdle(watched)
    train(kill, workers=2, persistent=True)
    assert kill.killed == 2
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'work')))


def test_a_worker_that_dies_holding_a_lock_does_not_block_the_training(
    train: Train,
    tmp_path: Path,
    watched: list[WorkerWatchdog],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Torch checks its workers under this lock.

    It does so when no batch comes, so the worker must die before its batch is ready.
    """
    train(work_dir=tmp_path / 'whole')
    read = Noise.__getitem__

    def slow(self: Noise, index: int) -> Any:
        time.sleep(0.05)
        return read(self, index)

    monkeypatch.setattr(Noise, '__getitem__', slow)

    def take_lock_and_die(_runner: Any) -> None:
        assert watched[-1].batches._workers_done_event._cond.acquire()
        watched[-1].workers[0].kill()

    train(At(6, take_lock_and_die), workers=2)
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'work')))


def python_is_out_of_memory() -> None:
    bytearray(1 << 60)


def numpy_is_out_of_memory() -> None:
    np.zeros(1 << 50)


def torch_is_out_of_memory() -> None:
    torch.zeros(1 << 50)


def system_is_out_of_memory() -> None:
    raise OSError(errno.ENOMEM, 'Cannot allocate memory')


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize(
    'take_memory',
    [
        python_is_out_of_memory,
        numpy_is_out_of_memory,
        torch_is_out_of_memory,
        system_is_out_of_memory,
    ],
)
def test_a_worker_out_of_memory_is_restarted_too(
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    take_memory: Callable[[], None],
    workers: int,
) -> None:
    """Each raises another error, and yet another one when it comes from a worker."""
    train(work_dir=tmp_path / 'whole')
    flag = tmp_path / 'was out of memory'
    read = Noise.__getitem__

    def greedy(self: Noise, index: int) -> Any:
        if index == 9 and not flag.exists():
            flag.touch()
            take_memory()
        return read(self, index)

    monkeypatch.setattr(Noise, '__getitem__', greedy)
    train(workers=workers)
    assert flag.exists()
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'work')))
    assert 'restarted: one died (out of memory)' in capsys.readouterr().out


def test_a_worker_that_always_dies_ends_the_run_with_a_checkpoint(
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
        with pytest.raises(ChildProcessError, match='died 3 times .*num_workers .*lower.*--resume'):
            train(workers=1, train_cfg={'max_worker_restarts': 2})
    assert load_torch(tmp_path / 'work/mid_epoch.pth')['meta']['position']['step'] == 5
    train(resume=True)
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'work')))


def test_an_error_of_the_data_set_is_not_taken_for_a_dead_worker(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Noise, index: int) -> Any:
        raise RuntimeError('DataLoader or not, this is a defect')

    monkeypatch.setattr(Noise, '__getitem__', failing)
    with pytest.raises(RuntimeError, match='this is a defect'):
        train(workers=1)


def test_workers_survive_the_signal_that_stops_the_run(
    train: Train,
    tmp_path: Path,
    watched: list[WorkerWatchdog],
    capsys: pytest.CaptureFixture,
) -> None:
    """Slurm and torchrun send it to every process; a dead worker would lose the step."""

    def stop_all() -> None:
        for process in [*(worker.pid for worker in watched[-1].workers), os.getpid()]:
            subprocess.run(['kill', '-TERM', str(process)], check=True)  # not from the parent

    train(work_dir=tmp_path / 'whole', optim={'accumulative_counts': 3})
    with pytest.raises(RunStopped, match='epoch 1, step 9;'):
        train(At(6, lambda _: stop_all()), workers=2, optim={'accumulative_counts': 3})
    assert 'are restarted' not in capsys.readouterr().out
    train(resume=True, optim={'accumulative_counts': 3})
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'work')))


def test_a_worker_that_is_starting_survives_it_too(
    train: Train,
    watched: list[WorkerWatchdog],
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before it has set its signal handling."""
    begin = StartWorker.__call__

    def begin_slowly(self: StartWorker, worker: int) -> None:
        time.sleep(worker)
        begin(self, worker)

    def stop_all(_runner: Any) -> None:
        for process in [*(worker.pid for worker in watched[-1].workers), os.getpid()]:
            subprocess.run(['kill', '-TERM', str(process)], check=True)

    monkeypatch.setattr(StartWorker, '__call__', begin_slowly)
    # At the end of the accumulated step, or before it where the run waits for the slow worker.
    with pytest.raises(RunStopped, match=r'epoch 1, step [789];'):
        train(At(6, stop_all), workers=2, optim={'accumulative_counts': 3})
    assert 'are restarted' not in capsys.readouterr().out


class KillLoader(Hook):
    """Kill a worker once a batch of a validation or test is done."""

    priority = 'LOWEST'

    def __init__(self, watched: list[WorkerWatchdog], times: int = 1) -> None:
        self.watched, self.times, self.seen = watched, times, 0

    def after_val_iter(self, runner: Any, batch_idx: int, *_: Any, **__: Any) -> None:
        self.seen += 1
        if self.times and self.watched[-1].workers:
            self.times -= 1
            self.watched[-1].workers[0].kill()

    after_test_iter = after_val_iter


def validate(train: Train, work_dir: Path, persistent: bool, *hooks: Hook) -> list[float]:
    """Train for an epoch, validate twice with two workers, and return the scores."""
    runner = train(*hooks, work_dir=work_dir, val_interval=1, train_cfg={'max_epochs': 1})
    loader = runner.val_dataloader
    runner.val_loop.dataloader = DataLoader(
        loader.dataset, 4, num_workers=2, prefetch_factor=1, persistent_workers=persistent,
        worker_init_fn=loader.worker_init_fn, collate_fn=loader.collate_fn,
    )  # fmt: skip
    scores = [runner.val_loop.run()['mean_acc'] for _ in range(2)]
    if persistent:
        end_workers(runner.val_dataloader._iterator)  # or they are waited for
    return scores


@pytest.mark.parametrize('persistent', [False, True])
def test_a_validation_continues_at_the_same_batch(
    train: Train,
    tmp_path: Path,
    watched: list[WorkerWatchdog],
    persistent: bool,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each sample is predicted once, and the next validation works as well."""
    label = BaseDataElement(label=0)
    read = lambda _, i: {'inputs': torch.full((3,), i / 22), 'data_samples': label}  # noqa: E731
    monkeypatch.setattr(Noise, '__getitem__', read)
    whole = validate(train, tmp_path / 'whole', persistent)
    capsys.readouterr()
    kill = KillLoader(watched, 2)
    assert validate(train, tmp_path / 'work', persistent, kill) == whole
    assert kill.seen == 3 * 6
    output = capsys.readouterr().out
    assert 'one died (SIGKILL, probably out of memory). Continues after batch ' in output
    assert 'of 6 (restart 1 of at most 10)' in output


def test_a_validation_begins_although_a_worker_died_since_the_last_one(
    train: Train, tmp_path: Path, watched: list[WorkerWatchdog]
) -> None:
    kill = KillIdle(watched)
    scores = validate(train, tmp_path / 'work', True, kill)
    assert len(scores) == 2
    assert kill.killed == 1


def test_a_validation_whose_workers_always_die_ends_with_an_error(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Noise.__getitem__

    def deadly(self: Noise, index: int) -> Any:
        if index == 9 and get_worker_info() is not None:
            raise MemoryError
        return read(self, index)

    monkeypatch.setattr(Noise, '__getitem__', deadly)
    with pytest.raises(ChildProcessError, match='died 3 times .*num_workers .*--resume'):
        validate(train, tmp_path / 'work', False, RestartWorkersHook(2))


def test_workers_end_when_their_parent_terminates_them_or_ends(tmp_path: Path) -> None:
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

    receiver, sender = processes.Pipe(duplex=False)

    def parent() -> None:
        worker = processes.Process(target=work)
        worker.start()
        time.sleep(0.3)
        sender.send(worker.pid)
        time.sleep(60)

    grandparent = processes.Process(target=parent)
    grandparent.start()
    orphan = receiver.recv()
    grandparent.kill()
    grandparent.join()
    for _ in range(50):
        state = Path(f'/proc/{orphan}/stat')
        if not state.exists() or ' Z ' in state.read_text():
            return
        time.sleep(0.1)
    pytest.fail('the orphan lives')
