"""A signal that asks to stop ends the training after the step, with its state saved."""

import os
import signal
from pathlib import Path

import pytest
from mmengine.hooks import Hook

from mmtimesformer.cli import STOPPED, RunStopped
from mmtimesformer.engine.distributed.stop_signals import StopSignals
from tests.engine.conftest import At, Train


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGUSR1'])
def test_the_step_is_finished_and_all_is_saved(train: Train, tmp_path: Path, name: str) -> None:
    with pytest.raises(RunStopped) as end:
        train(At(8, lambda _: os.kill(os.getpid(), getattr(signal, name))))
    assert end.value.code == STOPPED
    assert str(end.value).startswith(f'stopped by {name} after epoch 1, step 9; all is saved 0.')
    assert str(end.value).endswith('the same command with --resume continues')
    assert (tmp_path / 'work/last_checkpoint').read_text() == f'{tmp_path}/work/mid_epoch.pth'


def test_the_next_regular_checkpoint_removes_the_mid_epoch_one(
    train: Train, tmp_path: Path
) -> None:
    with pytest.raises(RunStopped):
        train(At(8, lambda _: os.kill(os.getpid(), signal.SIGTERM)))
    train(resume=True)
    assert sorted(path.name for path in tmp_path.glob('work/*.pth')) == [
        'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'
    ]  # fmt: skip


def test_without_a_checkpoint_hook_the_message_warns_that_nothing_is_saved(train: Train) -> None:
    class Forget(Hook):
        def before_train(self, runner: object) -> None:
            runner._hooks = [  # type: ignore[attr-defined]
                hook
                for hook in runner._hooks  # type: ignore[attr-defined]
                if type(hook).__name__ != 'AtomicCheckpointHook'
            ]

    with pytest.raises(RunStopped, match='nothing is saved, for the config has no CheckpointHook'):
        train(Forget(), At(8, lambda _: os.kill(os.getpid(), signal.SIGTERM)))


def test_the_signal_handlers_are_restored_after_the_training(train: Train) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    train()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_the_first_of_several_signals_is_kept() -> None:
    with StopSignals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received is not None and signals.received[0] == 'SIGUSR1'
