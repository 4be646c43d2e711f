"""W20: a signal that asks to stop ends every wait within a second or two, with exit code 75."""

import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mmengine.hooks import Hook

from mmtimesformer.checkpoints import load_torch
from mmtimesformer.cli import INTERRUPTED, STOPPED, RunStopped, run_tool
from mmtimesformer.engine.checkpointing.work_dir_lock import only_one_training
from mmtimesformer.engine.distributed.stop_signals import StopSignals
from tests.engine import conftest
from tests.engine.conftest import At, Noise, Train, assert_equal, whole_state

train = conftest.train


@contextlib.contextmanager
def signal_after(seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def full_disk(monkeypatch: pytest.MonkeyPatch, name: str, number: int = signal.SIGTERM) -> Any:
    """Let no checkpoint be written from now on; a second after ``name`` failed comes a signal."""
    write, timers = Path.write_bytes, []

    def write_bytes(path: Path, content: bytes) -> int:
        if '.pth' not in path.name:
            return write(path, content)
        if name in path.name and not timers:
            timers.append(threading.Timer(1.0, os.kill, (os.getpid(), number)))
            timers[0].start()
        raise OSError(errno.ENOSPC, 'No space left on device', str(path))

    return lambda _runner: monkeypatch.setattr(Path, 'write_bytes', write_bytes)


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGUSR1'])
def test_a_stop_while_the_last_checkpoint_is_retried_is_handled(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    begin = time.monotonic()
    with pytest.raises(RunStopped) as end:
        train(At(14, full_disk(monkeypatch, 'epoch_3', getattr(signal, name))))
    assert time.monotonic() - begin < 8
    assert end.value.code == STOPPED
    message = str(end.value)
    assert message.startswith(
        f'stopped by {name} while the last checkpoint of a training that is done'
    )
    assert f'could not be written to {tmp_path}/work, and is lost; make room' in message
    assert (
        f'--resume resumes from {tmp_path}/work/epoch_2.pth, and repeats the steps after' in message
    )
    assert (tmp_path / 'work/last_checkpoint').read_text().endswith('epoch_2.pth')
    monkeypatch.undo()
    assert train(resume=True).epoch == 3
    assert (tmp_path / 'work/epoch_3.pth').is_file()


def test_a_stop_with_nothing_saved_says_so(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunStopped, match='resumes from the beginning, as nothing was saved'):
        train(At(0, full_disk(monkeypatch, 'epoch_3')))


def test_ctrl_c_while_it_is_retried_ends_at_once(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    # Tests that a shell starts in the background inherit that SIGINT is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    begin = time.monotonic()
    fill = At(14, full_disk(monkeypatch, 'epoch_3', signal.SIGINT))
    try:
        code = run_tool(lambda: train(fill), resume_hint='--resume continues')
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, time.monotonic() - begin < 8) == (INTERRUPTED, True)
    assert 'interrupted; --resume continues' in capsys.readouterr().err


class Store(Noise):
    """Videos in a store that cannot be reached for a while: once, when it is armed."""

    armed = False

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __getitem__(self, index: int) -> dict[str, Any]:
        if Store.armed and not self.flag.exists():
            self.flag.touch()
            with contextlib.suppress(Exception):  # as readers do, of a bad video
                time.sleep(30)
        return super().__getitem__(index)


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Arm the store, and ask to stop once it is waited for."""

    def action(flag: Path) -> None:
        monkeypatch.setattr(Store, 'armed', True)
        threading.Thread(target=stop_when, args=(flag,), daemon=True).start()

    return action


def stop_when(flag: Path) -> None:
    while not flag.exists():
        time.sleep(0.05)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('accumulate', [1, 4])
def test_a_stop_while_data_is_waited_for_saves_and_resumes_exactly(
    train: Train, tmp_path: Path, arm: Any, workers: int, accumulate: int
) -> None:
    how: dict[str, Any] = {'optim': {'accumulative_counts': accumulate}, 'workers': workers}
    train(work_dir=tmp_path / 'whole', **how)
    flag = tmp_path / 'flag'

    class Arm(Hook):
        def before_train_epoch(self, runner: Any) -> None:
            if runner.epoch == 1:
                arm(flag)

    begin = time.monotonic()
    with pytest.raises(RunStopped, match='stopped by SIGTERM .*; all is saved') as end:
        train(Arm(), dataset=Store(flag), **how)
    assert end.value.code == STOPPED
    assert time.monotonic() - begin < 15
    train(resume=True, **how)
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'work')))


def test_a_stop_while_a_validation_waits_for_data_is_made_up_for(
    train: Train, tmp_path: Path, arm: Any
) -> None:
    """The averaged weights, which stand in the model then, are not saved as its own."""
    how: dict[str, Any] = {'val_interval': 1, 'checkpoint': {'save_best': 'auto'}}
    train(work_dir=tmp_path / 'whole', **how)
    flag = tmp_path / 'flag'

    class Arm(Hook):
        def before_val_epoch(self, runner: Any) -> None:
            if runner.epoch == 2:
                arm(flag)

    with pytest.raises(RunStopped, match='after epoch 2, step 12; all is saved'):
        train(Arm(), dataset=Store(flag), **how)
    assert load_torch(tmp_path / 'work/mid_epoch.pth')['meta']['position']['owes_validation']
    train(resume=True, **how)
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'work')))


def test_a_stop_while_another_training_is_waited_for_ends_with_the_code(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(*_: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, 'taken')

    monkeypatch.setattr('fcntl.flock', taken)
    begin = time.monotonic()
    with signal_after(1.0), pytest.raises(RunStopped, match='another one is in') as end:
        train()
    assert end.value.code == STOPPED
    assert time.monotonic() - begin < 4
    assert not list((tmp_path / 'work').glob('*.pth'))


def test_the_lock_is_not_waited_for_when_a_stop_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(*_: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, 'taken')

    monkeypatch.setattr('fcntl.flock', taken)
    with (
        pytest.raises(InterruptedError, match='stop requested'),
        only_one_training(tmp_path, print, lambda: True),
    ):
        pass


def test_only_a_wait_is_interrupted() -> None:
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert signals.received is not None
