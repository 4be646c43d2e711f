"""The Runner logs how it scales the learning rate, and finds what it saved."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper

from mmtimesformer.engine.checkpointing.resume import latest_checkpoint
from mmtimesformer.engine.runner import TRAINING_HOOKS, EvalRunner, Runner, _is_for_terminal
from tests.engine.conftest import Guess, Noise


class LogList(list):
    """A logger that keeps its messages."""

    info = list.append


def scale(
    processes: int, videos: int, accumulated: int, base: int, enable: bool = True
) -> tuple[float, str]:
    """Scale a rate of 0.005 and return it with the log."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.005)
    wrapper = OptimWrapper(optimizer, accumulative_counts=accumulated)
    runner = Runner.__new__(Runner)
    output = LogList()
    parts: dict[str, Any] = {
        '_world_size': processes,
        '_train_dataloader': {'batch_size': videos},
        'logger': output,
        'param_schedulers': None,
    }
    runner.__dict__.update(parts)
    runner.scale_lr(wrapper, {'enable': enable, 'base_batch_size': base})
    return optimizer.param_groups[0]['lr'], ' '.join(output)


@pytest.mark.parametrize(
    ('processes', 'videos', 'accumulated', 'lr'),
    [
        (8, 8, 1, 0.005),  # as published
        (1, 8, 8, 0.005),  # the same step on one GPU
        (1, 8, 1, 0.000625),
        (2, 4, 2, 0.00125),
        (16, 8, 1, 0.01),
    ],
)
def test_the_rate_follows_the_videos_that_one_step_sees(
    processes: int, videos: int, accumulated: int, lr: float
) -> None:
    scaled, output = scale(processes, videos, accumulated, base=64)
    assert scaled == pytest.approx(lr)
    assert f'lr 0.005 -> {lr:g}: one step sees {processes * videos * accumulated} videos' in output
    assert 'auto_scale_lr.base_batch_size=64' in output


def test_a_rate_is_left_alone_unless_asked() -> None:
    assert scale(1, 8, 1, base=64, enable=False) == (0.005, '')


def accumulate(processes: int, videos: int, base: int) -> tuple[int, str]:
    """Return how many batches are accumulated, and the log."""
    runner, output = Runner.__new__(Runner), LogList()
    parts: dict[str, Any] = {
        '_world_size': processes,
        '_train_dataloader': {'batch_size': videos},
        'logger': output,
        'model': torch.nn.Linear(1, 1),
        'cfg': Config({'auto_scale_lr': {'base_batch_size': base, 'accumulate': True}}),
    }
    runner.__dict__.update(parts)
    wrapper = runner.build_optim_wrapper({'optimizer': {'type': 'SGD', 'lr': 0.005}})
    return wrapper._accumulative_counts, ' '.join(output)


@pytest.mark.parametrize(
    ('processes', 'videos', 'counts'), [(8, 8, 1), (1, 8, 8), (2, 4, 8), (1, 1, 64)]
)
def test_gradients_are_accumulated_up_to_the_published_batch(
    processes: int, videos: int, counts: int
) -> None:
    accumulated, output = accumulate(processes, videos, base=64)
    assert accumulated == counts
    assert f'{videos} videos x {counts} accumulated batches' in output


@pytest.mark.parametrize(('processes', 'videos'), [(3, 8), (1, 5), (16, 8)])
def test_batches_that_do_not_make_up_the_published_one_are_refused(
    processes: int, videos: int
) -> None:
    with pytest.raises(ValueError, match=r'base_batch_size=64; set train_dataloader\.batch_size'):
        accumulate(processes, videos, base=64)


def test_nothing_saved_is_nothing_to_resume(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None


def test_the_file_beside_the_note_is_meant(tmp_path: Path) -> None:
    """A copied folder resumes from its own checkpoint, though the original is still there."""
    original, copy = tmp_path / 'original', tmp_path / 'copy'
    for folder in (original, copy):
        folder.mkdir()
        (folder / 'epoch_2.pth').touch()
        (folder / 'last_checkpoint').write_text(f'{original}/epoch_2.pth')
    assert latest_checkpoint(copy) == str(copy / 'epoch_2.pth')


def test_a_noted_checkpoint_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / 'elsewhere.pth').touch()
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    (work_dir / 'last_checkpoint').write_text(f'{tmp_path}/elsewhere.pth\n')
    assert latest_checkpoint(work_dir) == f'{tmp_path}/elsewhere.pth'


@pytest.mark.parametrize(
    ('level', 'message', 'shown'),
    [
        (20, 'Epoch(train) [1][2/2]', True),
        (20, 'Config:\nmodel = dict(\n)', False),
        (30, 'a warning\nof three\nlines', True),
        (30, '"FileClient" will be deprecated in future.', False),
    ],
)
def test_the_terminal_shows_progress_and_warnings(level: int, message: str, shown: bool) -> None:
    record = SimpleNamespace(levelno=level, getMessage=lambda: message)
    assert _is_for_terminal(record) is shown  # type: ignore[arg-type]


@pytest.mark.parametrize('kind', [Runner, EvalRunner])
def test_a_test_registers_no_hook_of_a_training(kind: type[Runner], tmp_path: Path) -> None:
    runner = kind(
        model=Guess(),
        work_dir=str(tmp_path),
        train_dataloader={'dataset': Noise(), 'sampler': {'type': 'DefaultSampler'}},
        train_cfg={'by_epoch': True, 'max_epochs': 1},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
        default_hooks={'sync_buffers': {'type': 'SyncBuffersHook'}},
        custom_hooks=[{'type': 'EMAHook'}, {'type': 'mmtimesformer.NonFiniteStepHook'}],
        experiment_name=tmp_path.name,
        cfg={},
    )
    of_trainings = [type(h).__name__ for h in runner.hooks if isinstance(h, TRAINING_HOOKS)]
    others = {type(hook).__name__ for hook in runner.hooks} - set(of_trainings)
    assert len(of_trainings) == (0 if kind is EvalRunner else len(TRAINING_HOOKS))
    assert {'AdaptCheckpointHook', 'RestartWorkersHook', 'UnreadableVideosHook'} <= others
