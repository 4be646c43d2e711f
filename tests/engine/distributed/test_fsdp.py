"""Sharded training computes what a training with whole models does, and saves what it saves."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mmtimesformer.checkpoints import read_file
from mmtimesformer.engine.distributed.fsdp import FSDPModelWrapper, weights_of

ROOT = Path(__file__).parents[3]


def torchrun(folder: Path, *jobs: str, processes: int = 2) -> None:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    ended = subprocess.run(
        [
            sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node',
            str(processes), str(ROOT / 'tests/engine/distributed/sharded_trainings.py'),
            str(folder), *jobs,
        ],
        env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]


def seen_by(folder: Path, job: str, processes: int = 2) -> list[dict[str, Any]]:
    return [torch.load(folder / f'{job}.{rank}.pt') for rank in range(processes)]


def losses(folder: Path, job: str, processes: int = 2) -> torch.Tensor:
    """The mean of the processes' losses, which is the loss of the whole batch."""
    return torch.tensor([seen['losses'] for seen in seen_by(folder, job, processes)]).mean(0)


def saved(folder: Path, job: str, name: str = 'epoch_2.pth') -> dict[str, Any]:
    return read_file(folder / job / name).checkpoint


def shares(folder: Path, job: str) -> dict[str, list[str]]:
    """The folders of shares of a job, and their files."""
    return {
        path.name.rsplit('.', 2)[0]: sorted(file.name for file in path.iterdir())
        for path in (folder / job).glob('*.shares')
    }


def assert_close(one: Any, other: Any, error: float, where: str = '') -> None:
    """Compare all tensors of two trees, which must be of the same form."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_close(one[key], other[key], error, f'{where}.{key}')
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (first, second) in enumerate(zip(one, other, strict=True)):
            assert_close(first, second, error, f'{where}[{i}]')
    elif isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=error, msg=lambda text: where + text)
    else:
        assert one == other, where


def begun(source: Path, work_dir: Path, *names: str) -> Path:
    """Make a folder in which a training of another one resumes from its checkpoints."""
    work_dir.mkdir()
    for name in names:
        shutil.copy(source / name, work_dir)
    for name in names:
        for shares in source.glob(f'{name}.*.shares'):
            shutil.copytree(shares, work_dir / shares.name)
    return work_dir


PARTS = 'state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'


def assert_same_training(one: dict[str, Any], other: dict[str, Any], error: float) -> None:
    for part in PARTS:
        assert_close(one[part], other[part], error, part)


LEVELS = 'pointwise', 'projections', 'mlp', 'block'
SCHEMES = 'divided_space_time', 'joint_space_time', 'space_only'


def with_one(folder: Path) -> Path:
    """Train in this process, for two epochs of four steps."""
    from tests.engine.distributed import sharded_trainings

    torch.save(sharded_trainings.train(folder / 'one', launcher='none'), folder / 'one.0.pt')
    return folder


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training in one process, and two in two."""
    folder = with_one(tmp_path_factory.mktemp('sharded'))
    torchrun(folder, 'sharded', 'broken', 'shares', 'shares_broken')
    return folder


@pytest.fixture(scope='module')
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What takes longer, in two processes."""
    folder = with_one(tmp_path_factory.mktemp('more_sharded'))
    begun(folder / 'one', folder / 'from_one', 'epoch_1.pth')
    torchrun(
        folder, 'whole', 'sharded', 'from_one', 'accumulated', 'accumulated_whole',
        'accumulated_broken', 'shares_within', 'full_disk', 'spoiled', 'spiked', 'spiked_shares',
        'diverged_shares', 'stopped',
        'bf16', 'bf16_whole', 'bf16_blocks',
        *(f'recomputed_{level}' for level in LEVELS),
        *(f'{kind}_{scheme}' for scheme in SCHEMES for kind in ('whole', 'sharded')),
    )  # fmt: skip
    return folder


def test_two_processes_train_as_one_with_the_same_batch(folder: Path) -> None:
    torch.testing.assert_close(
        losses(folder, 'sharded'), losses(folder, 'one', 1), rtol=0, atol=1e-5
    )
    assert_same_training(saved(folder, 'sharded'), saved(folder, 'one'), 1e-5)
    for seen in seen_by(folder, 'sharded'):
        assert seen['norms'] == pytest.approx(seen_by(folder, 'one', 1)[0]['norms'], abs=1e-5)


def test_each_process_holds_its_share_and_one_block(folder: Path) -> None:
    held = seen_by(folder, 'sharded')
    whole = held[0]['weights']
    for name, copies in (('parameters', 1), ('states', 2), ('averages', 1)):
        assert sum(shard[name] for shard in held) == copies * whole, name
        for shard in held:  # the three embeddings are each one row, and are not cut
            assert shard[name] < 0.55 * copies * whole, name
    for shard in held:
        assert shard['together'] == ['blocks.1'], 'while it runs'
    assert seen_by(folder, 'one', 1)[0]['parameters'] == whole


def test_a_broken_training_resumes_to_the_last_bit(folder: Path) -> None:
    assert_same_training(saved(folder, 'broken'), saved(folder, 'sharded'), 0)
    assert saved(folder, 'broken', 'epoch_1.pth')['meta']['epoch'] == 1


def test_each_process_writes_its_share_and_all_of_them_are_the_whole(folder: Path) -> None:
    written = ['.metadata', '__0_0.distcp', '__1_0.distcp']
    assert shares(folder, 'shares') == {'epoch_2.pth': written}, 'the one before is gone'
    assert shares(folder, 'shares_broken') == {'epoch_1.pth': written, 'epoch_2.pth': written}
    whole = saved(folder, 'sharded')
    assert list(saved(folder, 'shares')) == list(whole)
    assert_same_training(saved(folder, 'shares'), whole, 0)
    assert_same_training(saved(folder, 'shares_broken'), whole, 0)


@pytest.mark.parametrize('source', ['broken', 'shares_broken'])
def test_a_sharded_training_resumes_in_one_process_from_the_newest_whole_checkpoint(
    folder: Path, source: str
) -> None:
    from tests.engine.distributed import sharded_trainings

    alone = f'alone_from_{source}'
    work_dir = shutil.copytree(folder / source, folder / alone)
    newest = next(work_dir.glob('epoch_2.pth.*.shares/__1_0.distcp'), work_dir / 'epoch_2.pth')
    newest.write_bytes(newest.read_bytes()[:-1000])
    seen = sharded_trainings.train(
        work_dir, launcher='none', resume=True, wrapper=sharded_trainings.SHARDED
    )
    assert len(seen['losses']) == 4
    assert_same_training(saved(folder, alone), saved(folder, 'one'), 1e-5)


@pytest.mark.slow
def test_losses_weights_and_states_are_those_of_two_whole_models(more: Path) -> None:
    torch.testing.assert_close(losses(more, 'sharded'), losses(more, 'whole'), rtol=0, atol=1e-5)
    assert_same_training(saved(more, 'sharded'), saved(more, 'whole'), 1e-5)
    for sharded, whole in zip(seen_by(more, 'sharded'), seen_by(more, 'whole'), strict=True):
        assert sharded['losses'] == pytest.approx(whole['losses'], abs=1e-5)
        assert sharded['norms'] == pytest.approx(whole['norms'], abs=1e-5)


@pytest.mark.slow
def test_a_training_of_one_process_resumes_in_two_shards(more: Path) -> None:
    assert seen_by(more, 'from_one')[0]['losses'] == pytest.approx(
        seen_by(more, 'sharded')[0]['losses'][4:], abs=1e-5
    )
    assert_same_training(saved(more, 'from_one'), saved(more, 'one'), 1e-5)


@pytest.mark.slow
def test_accumulated_steps_are_those_of_whole_models_and_resume_within(more: Path) -> None:
    name = 'iter_8.pth'
    whole = saved(more, 'accumulated_whole')
    assert_same_training(saved(more, 'accumulated', name), whole, 1e-5)
    within = saved(more, 'accumulated_broken', 'iter_5.pth')
    assert set(within['gradients']) == set(within['state_dict'])
    for broken in ('accumulated_broken', 'shares_within'):
        assert_same_training(saved(more, broken, name), saved(more, 'accumulated', name), 0)
    assert_close(saved(more, 'shares_within', 'iter_5.pth')['gradients'], within['gradients'], 0)


@pytest.mark.slow
def test_a_process_whose_disk_is_full_is_waited_for_by_all(more: Path) -> None:
    steps = sorted(path.name for path in (more / 'full_disk').glob('iter_*.pth'))
    assert steps == [f'iter_{n}.pth' for n in (1, 3, 4, 5, 6, 7, 8)]
    assert sorted(shares(more, 'full_disk')) == steps
    assert_same_training(
        saved(more, 'full_disk', 'iter_8.pth'), saved(more, 'sharded', 'epoch_2.pth'), 0
    )


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_is_left_out_by_all(more: Path) -> None:
    assert [seen['left_out'] for seen in seen_by(more, 'spoiled')] == [1, 1]
    assert all(tensor.isfinite().all() for tensor in saved(more, 'spoiled')['state_dict'].values())


@pytest.mark.slow
@pytest.mark.parametrize('job', ['spiked', 'spiked_shares', 'diverged_shares'])
def test_a_training_that_diverges_ends_in_all_processes_with_the_last_good_checkpoint(
    more: Path, job: str
) -> None:
    """The spike is in the sixth step; the second process alone has NaN losses from the fifth on."""
    one, other = (seen['error'] for seen in seen_by(more, job))
    assert one == other
    good = re.search(r'The last good checkpoint is (\S+?)[.;]? ', one)
    assert good is not None, one
    # One finite step followed it: the spike's own, or the fourth.
    assert Path(good[1]).name == ('iter_3.pth' if job == 'diverged_shares' else 'iter_5.pth')
    assert (more / job / 'last_checkpoint').read_text() == good[1]
    assert not (more / job / 'iter_6.pth').is_file()
    whole = read_file(good[1]).checkpoint
    assert all(tensor.isfinite().all() for tensor in whole['state_dict'].values())


@pytest.mark.slow
def test_a_stop_while_the_last_checkpoint_is_retried_ends_all_processes(more: Path) -> None:
    """The second process alone has a full disk, and alone gets the signal."""
    one, other = seen_by(more, 'stopped')
    assert (one['code'], other['code']) == (75, 75)
    assert 'stopped by SIGTERM while the last checkpoint' in other['error']
    assert 'stopped by a signal while the last checkpoint' in one['error']
    for seen in (one, other):
        resumes = f'resumes from {more / "stopped/epoch_1.pth"}, and repeats the steps after it'
        assert resumes in seen['error']


@pytest.mark.slow
def test_mixed_precision_is_that_of_whole_models(more: Path) -> None:
    torch.testing.assert_close(losses(more, 'bf16'), losses(more, 'bf16_whole'), rtol=0, atol=5e-3)
    exact = losses(more, 'sharded')
    in_blocks = losses(more, 'bf16_blocks')
    torch.testing.assert_close(in_blocks, exact, rtol=0, atol=0.05)
    assert not torch.equal(in_blocks, exact)
    for tensor in saved(more, 'bf16_blocks')['state_dict'].values():
        assert tensor.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize('level', LEVELS)
def test_what_is_recomputed_changes_no_number(more: Path, level: str) -> None:
    recomputed = saved(more, f'recomputed_{level}')
    assert_same_training(recomputed, saved(more, 'sharded'), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('scheme', SCHEMES)
def test_frozen_parts_and_drop_path_are_those_of_whole_models(more: Path, scheme: str) -> None:
    one, other = saved(more, f'whole_{scheme}'), saved(more, f'sharded_{scheme}')
    assert_same_training(one, other, 1e-5)


@pytest.mark.slow
def test_two_copies_in_four_processes_train_as_four_whole_ones(tmp_path: Path) -> None:
    torchrun(tmp_path, 'whole', 'copies', 'shares_copies', processes=4)
    assert_same_training(saved(tmp_path, 'copies'), saved(tmp_path, 'whole'), 1e-5)
    assert_same_training(saved(tmp_path, 'shares_copies'), saved(tmp_path, 'copies'), 0)
    held = seen_by(tmp_path, 'copies', 4)
    assert sum(shard['parameters'] for shard in held) == 2 * held[0]['weights']


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['sharded', 'shares_broken'])
def test_a_training_in_two_shards_resumes_in_four(tmp_path: Path, kind: str) -> None:
    torchrun(tmp_path, kind)
    job = 'from_sharded' if kind == 'sharded' else 'from_shares'
    begun(tmp_path / kind, tmp_path / job, 'epoch_1.pth')
    torchrun(tmp_path, job, processes=4)
    assert_same_training(saved(tmp_path, job), saved(tmp_path, kind), 1e-5)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'arguments, words',
    [
        ({'shards': 3}, 'shards=3 does not divide the 1 processes'),
        ({'block_dtype': 'int8'}, 'set model_wrapper_cfg.block_dtype to one of float32, bfloat16'),
        ({'checkpoints': 'cut'}, "checkpoints='cut' is not known; set .* one of full, sharded"),
    ],
)
def test_wrong_arguments_are_reported(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FSDPModelWrapper(nn.Linear(2, 2), **arguments)


def test_a_copy_of_the_weights_has_all_names_in_their_order() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)))
    model.register_parameter('scale', nn.Parameter(torch.ones(1)))
    model.register_buffer('mean', torch.zeros(3), persistent=False)
    copied = weights_of(model)
    for kind in (nn.Module.named_parameters, nn.Module.named_buffers):
        assert [name for name, _ in kind(copied)] == [name for name, _ in kind(model)]
    assert_close(dict(copied.state_dict()), dict(model.state_dict()), 0)
    copied.get_parameter('scale').data.zero_()
    assert model.scale.item() == 1
