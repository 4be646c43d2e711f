"""A resumed training equals the training that never stopped, to the last bit."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader, IterableDataset

from mmtimesformer.checkpoints.torch_checkpoints import load_torch
from mmtimesformer.cli import STOPPED, RunStopped
from mmtimesformer.engine.loops.dataloader_recovery import end_workers, loader_like
from mmtimesformer.engine.loops.resumable_loop import ResumableEpochLoop, _Seeded
from tests.engine.conftest import At, Guess, Scaled, Train, assert_equal, whole_state


def ask_to_stop(_runner: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def stop_and_resume(train: Train, step: int, **how: Any) -> None:
    with pytest.raises(RunStopped) as end:
        train(At(step, ask_to_stop), **how)
    assert end.value.code == STOPPED
    train(resume=True, **how)


@pytest.mark.parametrize(
    ('step', 'workers'),
    [(0, 0), (3, 0), (3, 2), (5, 0), (12, 0), (12, 2), (17, 0)],  # of three epochs of six steps
)
def test_a_resumed_training_is_the_one_that_never_stopped(
    train: Train, tmp_path: Path, step: int, workers: int
) -> None:
    train(work_dir=tmp_path / 'whole')
    stop_and_resume(train, step, workers=workers)
    whole, resumed = (tmp_path / name / 'epoch_3.pth' for name in ('whole', 'work'))
    assert_equal(whole_state(whole), whole_state(resumed))
    assert not (tmp_path / 'work/mid_epoch.pth').exists()


@pytest.mark.parametrize('wrapper', ['mmtimesformer.Bfloat16OptimWrapper', Scaled])
def test_so_is_one_in_mixed_precision_in_another_folder(
    train: Train, tmp_path: Path, wrapper: Any
) -> None:
    how = {'workers': 2, 'optim': {'type': wrapper}}
    train(work_dir=tmp_path / 'whole', **how)
    with pytest.raises(RunStopped):
        train(At(9, ask_to_stop), work_dir=tmp_path / 'first', **how)
    (tmp_path / 'first').rename(tmp_path / 'second')
    train(work_dir=tmp_path / 'second', resume=True, **how)
    whole, resumed = (whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'second'))
    assert_equal(whole, resumed)
    if wrapper is Scaled:
        assert whole['optimizer']['loss_scaler']['scale'] == 64 * 2 ** (18 // 4)


def test_several_stops_with_a_random_seed_change_nothing(train: Train, tmp_path: Path) -> None:
    """The checkpoint has the seed, also one that was drawn."""
    for step in (2, 9, 15):
        with pytest.raises(RunStopped):
            train(At(step, ask_to_stop), resume=True, seed=None)
    train(resume=True, seed=None)
    stopped = whole_state(tmp_path / 'work/epoch_3.pth')
    seed = load_torch(tmp_path / 'work/epoch_3.pth')['meta']['seed']
    train(work_dir=tmp_path / 'whole', seed=seed)
    assert_equal(whole_state(tmp_path / 'whole/epoch_3.pth'), stopped)


def test_an_accumulated_step_is_finished_or_its_gradients_are_saved(
    train: Train, tmp_path: Path
) -> None:
    """A signal waits for the whole step; a save by iterations keeps its gradients."""
    how = {'optim': {'accumulative_counts': 4}}
    train(work_dir=tmp_path / 'whole', **how)
    with pytest.raises(RunStopped, match='epoch 1, step 8;'):
        train(At(6, ask_to_stop), **how)
    train(resume=True, **how)
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'work')))

    often = {'checkpoint': {'interval': 5, 'by_epoch': False}, **how}
    train(work_dir=tmp_path / 'often', **often)
    (tmp_path / 'moved').mkdir()
    saved = Path(shutil.copy(tmp_path / 'often/iter_10.pth', tmp_path / 'moved'))
    assert load_torch(saved)['gradients'].keys() == dict(Guess().named_parameters()).keys()
    train(work_dir=tmp_path / 'moved', resume=True, **often)
    last = [whole_state(tmp_path / name / 'iter_18.pth') for name in ('often', 'moved')]
    assert_equal(*last)
    assert_equal(last[0]['weights'], whole_state(tmp_path / 'whole/epoch_3.pth')['weights'])


def test_a_moved_folder_resumes_from_its_own_checkpoint(train: Train, tmp_path: Path) -> None:
    how = {'val_interval': 1, 'checkpoint': {'save_best': 'auto'}}
    train(work_dir=tmp_path / 'whole', **how)
    with pytest.raises(RunStopped):
        train(At(14, ask_to_stop), work_dir=tmp_path / 'first', **how)
    shutil.copytree(tmp_path / 'first', tmp_path / 'second')
    before = sorted(path.name for path in (tmp_path / 'first').iterdir())
    train(work_dir=tmp_path / 'second', resume=True, **how)
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'second')))
    assert sorted(path.name for path in (tmp_path / 'first').iterdir()) == before


def test_the_number_of_workers_changes_nothing(train: Train, tmp_path: Path) -> None:
    train(work_dir=tmp_path / 'none')
    train(work_dir=tmp_path / 'two', workers=2, persistent=True)
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('none', 'two')))


def test_an_index_given_twice_and_each_epoch_draw_other_random_numbers(train: Train) -> None:
    loop = train().train_loop
    reader = loader_like(loop.dataloader, _Seeded(loop.dataloader.dataset), loop._keys)

    def inputs(epoch: int, done: int = 0) -> list[list[float]]:
        loop._keys.start(3, epoch, done)
        return [row.tolist() for batch in reader for row in batch['inputs']]

    assert inputs(0) == inputs(0) != inputs(1)
    assert inputs(0, done=4) == inputs(0)[16:]
    loop._keys.batch_sampler.sampler.__class__ = _Twice
    twice = inputs(0)
    assert len(twice) == 2 * len({tuple(row) for row in twice[:22]}) == 2 * 22
    assert len({tuple(row) for row in twice}) == 44


class DrawsNumbers(Guess):
    """A model that draws a random number in each training step, as dropout does."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[float] = []

    def forward(self, inputs: Any, data_samples: Any, mode: str = 'tensor') -> Any:
        self.drawn.append(float(torch.rand(())))
        return super().forward(inputs, data_samples, mode)


def test_no_two_steps_of_a_training_draw_the_same_random_numbers(train: Train) -> None:
    """Else dropout would repeat its masks in every epoch."""
    model = DrawsNumbers()
    train(model=model)
    assert len(model.drawn) == 18
    assert len(set(model.drawn)) == 18


class _Twice(DefaultSampler):
    def __iter__(self) -> Any:
        return iter([*super().__iter__()] * 2)


def test_a_validation_that_was_interrupted_is_repeated_on_resume(
    train: Train, tmp_path: Path
) -> None:
    """Also where the model had its averaged weights during the validation."""
    how = {'val_interval': 1, 'checkpoint': {'save_best': 'auto'}}
    train(work_dir=tmp_path / 'whole', **how)

    class StopInValidation(Hook):
        def after_val_iter(self, runner: Any, batch_idx: int, *_: Any, **__: Any) -> None:
            if runner.epoch == 2 and batch_idx == 1:
                ask_to_stop(runner)

    with pytest.raises(RunStopped, match='epoch 2, step 12;'):
        train(StopInValidation(), **how)
    assert load_torch(tmp_path / 'work/mid_epoch.pth')['meta']['position']['owes_validation']
    train(resume=True, **how)
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'work')))
    scores = [
        load_torch(tmp_path / name / 'epoch_3.pth')['message_hub']['log_scalars']['val/mean_acc']
        for name in ('whole', 'work')
    ]
    assert len(scores[0].log_history) == 3
    assert scores[0].log_history.tolist() == scores[1].log_history.tolist()
    assert sorted(path.name for path in (tmp_path / 'work').glob('best*')) == sorted(
        path.name for path in (tmp_path / 'whole').glob('best*')
    )


def test_a_validation_that_was_done_is_not_due_in_a_checkpoint_after_it(
    train: Train, tmp_path: Path
) -> None:
    with pytest.raises(RunStopped):
        train(At(8, ask_to_stop), val_interval=1)
    position = load_torch(tmp_path / 'work/mid_epoch.pth')['meta']['position']
    assert (position['step'], position['owes_validation']) == (3, False)


def test_another_batch_size_resumes_at_the_same_sample_and_logs_it(
    train: Train, tmp_path: Path
) -> None:
    with pytest.raises(RunStopped):
        train(At(3, ask_to_stop))
    loop = train(work_dir=tmp_path / 'other', train_cfg={'max_epochs': 1}).train_loop
    logged: list[str] = []
    loop.runner.logger.warning = logged.append
    meta = load_torch(tmp_path / 'work/mid_epoch.pth')['meta']
    meta['position']['videos_per_step'] = 2
    loop.load_state_dict(meta['position'], meta['epoch'], meta['iter'])
    assert loop.step_in_epoch == 2  # 8 samples are done, 4 a step
    assert 'differs from an uninterrupted one' in logged[0]


def test_what_a_config_names_is_built(train: Train) -> None:
    runner = train(train_cfg={'max_epochs': 1})
    built = {
        name: type(runner.build_train_loop({'type': name, 'max_epochs': 1}))
        for name in ('EpochBasedTrainLoop', 'mmengine.EpochBasedTrainLoop')
    }
    assert list(built.values()) == [ResumableEpochLoop, EpochBasedTrainLoop]
    assert type(runner.train_loop) is ResumableEpochLoop


def test_training_by_iterations_is_left_to_mmengine(train: Train, tmp_path: Path) -> None:
    how: dict[str, Any] = {
        'train_cfg': {'type': 'IterBasedTrainLoop', 'max_iters': 9},
        'sampler': {'type': 'InfiniteSampler', 'shuffle': True},
        'checkpoint': {'by_epoch': False, 'interval': 4},
    }
    with pytest.raises(RunStopped, match='step 6'):
        train(At(5, ask_to_stop), **how)
    runner = train(resume=True, workers=2, persistent=True, **how)
    assert runner.iter == 9
    end_workers(runner.train_loop.dataloader_iterator._iterator)  # or they are waited for
    assert (tmp_path / 'work/iter_9.pth').is_file()


def test_a_stream_is_refused_with_the_key(train: Train) -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> Any:
            return iter(range(3))

        def __len__(self) -> int:
            return 3

    with pytest.raises(TypeError, match="set train_cfg.type='mmengine.EpochBasedTrainLoop'"):
        ResumableEpochLoop(train(), DataLoader(Stream()), max_epochs=1)
