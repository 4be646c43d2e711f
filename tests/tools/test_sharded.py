"""Sharded trainings as commands: what they save is read by every tool, and nothing hangs."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mmtimesformer.checkpoints import load_torch, read_file
from tests.tools.running import children, finish, start, wait_for
from tests.tools.test_survival import assert_same_training, config

__all__ = ['config']  # four epochs of two steps with drop path, workers, and an average

SHARDED = 'model_wrapper_cfg.type=mmtimesformer.FSDPModelWrapper'
WAYS = {'whole': [SHARDED], 'shares': [SHARDED, 'model_wrapper_cfg.checkpoints=sharded']}


def train(tools: Path, config: Path, work_dir: Path, *options: object, processes: int = 2) -> Any:
    return start(
        'bash', tools / 'dist_train.sh', config, processes, '--work-dir', work_dir, '--seed', '5',
        '--deterministic', *options, PYTHON=sys.executable,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('way', WAYS)
def test_what_is_saved_is_read_by_the_tools(
    tools: Path, config: Path, tmp_path: Path, way: str
) -> None:
    whole, sharded = tmp_path / 'whole', tmp_path / 'sharded'
    for work_dir, options in ((whole, []), (sharded, ['--cfg-options', *WAYS[way]])):
        code, output = finish(train(tools, config, work_dir, *options))
        assert code == 0, output
    assert list(sharded.glob('best_acc_top1_epoch_*.pth'))
    # After a validation of the average, whose weights the model had meanwhile.
    one, other = (read_file(folder / 'epoch_4.pth').checkpoint for folder in (whole, sharded))
    assert bool(list(sharded.glob('best_acc_top1_epoch_*.shares'))) == (way == 'shares')
    assert list(one['state_dict']) == list(other['state_dict'])
    for name, tensor in one['state_dict'].items():
        torch.testing.assert_close(other['state_dict'][name], tensor, rtol=0, atol=1e-5)

    code, output = finish(
        start(sys.executable, tools / 'test.py', config, sharded / 'epoch_4.pth',
              '--work-dir', tmp_path / 'test', '--cfg-options', SHARDED)
    )  # fmt: skip
    assert code == 0 and 'acc/top1' in output, output
    code, output = finish(
        start(sys.executable, tools / 'convert_checkpoint.py', sharded / 'epoch_4.pth',
              tmp_path / 'official.pyth', '--to', 'official')
    )  # fmt: skip
    assert code == 0, output
    assert (
        'model.blocks.0.temporal_fc.weight' in load_torch(tmp_path / 'official.pyth')['model_state']
    )


@pytest.mark.slow
@pytest.mark.parametrize('way', WAYS)
def test_a_killed_process_or_a_signal_ends_the_job_which_goes_on_exactly(
    tools: Path, config: Path, tmp_path: Path, way: str
) -> None:
    whole = tmp_path / 'whole'
    how = ['--cfg-options', 'train_cfg.max_epochs=20', *WAYS[way]]
    code, output = finish(train(tools, config, whole, *how))
    assert code == 0, output
    for number, ends_with, words in (
        (signal.SIGKILL, 1, 'was killed by SIGKILL'),
        (signal.SIGUSR1, 75, 'all is saved'),
    ):
        work_dir = tmp_path / number.name
        process = train(tools, config, work_dir, *how)
        wait_for('Epoch(train)  [5]', process)
        began = time.monotonic()
        os.kill(children(process.pid)[-1], number)
        code, output = finish(process)
        assert code == ends_with, output
        assert words in output, output
        assert time.monotonic() - began < 60
        code, output = finish(train(tools, config, work_dir, *how, '--resume'))
        assert code == 0, output
        assert_same_training(whole / 'epoch_20.pth', work_dir / 'epoch_20.pth')
        named = sorted(path.name.rsplit('.', 2)[0] for path in work_dir.glob('*.shares'))
        there = sorted(path.name for path in work_dir.glob('*.pth'))
        assert named == (there if way == 'shares' else [])
    assert load_torch(tmp_path / 'SIGKILL/epoch_20.pth')['meta']['epoch'] == 20


@pytest.mark.slow
def test_what_does_not_go_together_is_reported_before_any_data_is_read(
    tools: Path, config: Path, tmp_path: Path
) -> None:
    for options, words in (
        ([SHARDED, 'model_wrapper_cfg.shards=3'], 'shards=3 does not divide the 2 processes'),
        ([SHARDED, 'compile=True'], "does not work with 'compile'"),
    ):
        code, output = finish(train(tools, config, tmp_path / 'work', '--cfg-options', *options))
        assert code == 1
        assert words in output, output
        assert 'Epoch(train)' not in output
