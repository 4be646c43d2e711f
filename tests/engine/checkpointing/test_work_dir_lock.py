"""One training at a time in a folder; the operating system gives the lock back."""

import errno
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from mmtimesformer.engine.checkpointing import work_dir_lock
from mmtimesformer.engine.checkpointing.work_dir_lock import only_one_training
from tests.engine.conftest import Train

pytestmark = pytest.mark.filterwarnings('ignore:This process .* is multi-threaded')


def hold(work_dir: Path, results: Connection) -> None:
    with only_one_training(work_dir, pytest.fail):
        child = os.fork()  # as a data-loading process, which outlives its parent a little
        if child == 0:
            time.sleep(30)
            os._exit(0)
        results.send(child)
        time.sleep(30)


def test_a_second_training_fails_with_the_name_of_the_first_and_a_killed_one_holds_nothing(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    processes = multiprocessing.get_context('fork')
    receiver, sender = processes.Pipe(duplex=False)
    first = processes.Process(target=hold, args=(work_dir, sender))
    first.start()
    assert receiver.poll(30)
    child = receiver.recv()
    monkeypatch.setattr(work_dir_lock, 'PATIENCE', 0.3)
    with pytest.raises(OSError, match=rf'work is in use: process {first.pid} on \S+, since .*202'):
        train()
    assert not list(work_dir.glob('*.pth'))
    first.kill()
    first.join()
    train()
    assert (work_dir / 'epoch_3.pth').is_file()
    os.kill(child, 9)


def test_a_training_waits_for_one_that_is_just_ending(tmp_path: Path) -> None:
    processes = multiprocessing.get_context('fork')
    receiver, sender = processes.Pipe(duplex=False)
    first = processes.Process(target=hold, args=(tmp_path, sender))
    first.start()
    assert receiver.poll(30)
    os.kill(receiver.recv(), 9)
    began = time.monotonic()
    processes.Process(target=lambda: (time.sleep(0.5), os.kill(first.pid, 9))).start()
    with only_one_training(tmp_path, pytest.fail):
        assert 0.4 < time.monotonic() - began < 5
    first.join()


def test_a_disk_without_locks_is_warned_of_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr('fcntl.flock', no_locks)
    output: list[str] = []
    with only_one_training(tmp_path, output.append):
        pass
    assert 'cannot be locked' in output[0] and 'make sure that no other training' in output[0]
