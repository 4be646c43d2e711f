"""Whole trainings, as commands, that are killed, stopped and started again."""

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


@pytest.fixture
def config(tiny_config: Path) -> Path:
    """Four epochs of two steps with drop path, random crops in time, workers, and an average."""
    tiny_config.write_text(
        tiny_config.read_text()
        .replace('drop_path_rate=0.0', 'drop_path_rate=0.2')
        .replace('batch_size=2, num_workers=0', 'batch_size=2, num_workers=1')
        .replace('max_epochs=1, val_interval=1', 'max_epochs=4, val_interval=2')
        + "custom_hooks = [dict(type='EMAHook', momentum=0.1)]\n"
    )
    return tiny_config


def weights(path: Path) -> dict[str, Any]:
    saved = read_file(path).checkpoint
    return {**saved['state_dict'], **{f'ema.{k}': v for k, v in saved['ema_state_dict'].items()}}


def assert_same_training(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_a_signal_ends_the_command_with_its_code_and_all_saved(
    tools: Path, config: Path, tmp_path: Path
) -> None:
    """To the whole process group, loaders included, as a cluster sends it."""
    work_dir = tmp_path / 'work'
    process = start(
        sys.executable, tools / 'train.py', config, '--work-dir', work_dir, '--no-validate',
        '--cfg-options', 'train_cfg.max_epochs=10000', 'default_hooks.checkpoint.interval=10000',
    )  # fmt: skip
    wait_for('Epoch(train)', process)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGTERM)
    code, output = finish(process)
    assert code == 75, output
    assert time.monotonic() - began < 30
    assert 'stopped by SIGTERM after epoch' in output and 'with --resume continues' in output
    assert 'Traceback' not in output
    assert not (work_dir / 'failure.txt').exists()
    assert (work_dir / 'last_checkpoint').read_text().endswith('mid_epoch.pth')


def run_to_the_end(*command: object, kill_after: list[float], **environment: str) -> list[int]:
    """Start a command again and again, killing it so many seconds after its first step.

    Returns:
        The exit codes.
    """
    codes = []
    for seconds in [*kill_after, None]:
        process = start(*command, '--resume', **environment)
        if seconds is not None:
            wait_for('Epoch(train)', process)
            time.sleep(seconds)
            os.killpg(process.pid, signal.SIGKILL)
        code, output = finish(process)
        codes.append(code)
        assert code in (0, -signal.SIGKILL), output
    return codes


@pytest.mark.slow
def test_a_training_killed_again_and_again_is_the_one_that_never_was(
    tools: Path, config: Path, tmp_path: Path
) -> None:
    how = [
        '--seed', '5', '--deterministic', '--cfg-options', 'train_cfg.max_epochs=60',
        'default_hooks.checkpoint.by_epoch=False', 'default_hooks.checkpoint.interval=3',
        'default_hooks.checkpoint.max_keep_ckpts=1', 'train_cfg.val_interval=10',
    ]  # fmt: skip
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    train = sys.executable, tools / 'train.py', config
    code, output = finish(start(*train, '--work-dir', whole, *how))
    assert code == 0, output
    codes = run_to_the_end(
        *train, '--work-dir', killed, *how, kill_after=[0, 0.1, 0.25, 0.5, 0.8, 1.2]
    )
    assert codes == [-signal.SIGKILL] * 6 + [0]
    assert_same_training(whole / 'iter_120.pth', killed / 'iter_120.pth')


@pytest.mark.slow
@pytest.mark.parametrize('whom', ['all', 'one of them'])
def test_two_processes_stop_at_the_same_step_and_go_on_exactly(
    tools: Path, config: Path, tmp_path: Path, whom: str
) -> None:
    how = ['--seed', '5', '--deterministic', '--cfg-options', 'train_cfg.max_epochs=60']
    train = 'bash', tools / 'dist_train.sh', config, 2
    whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
    code, output = finish(start(*train, '--work-dir', whole, *how, PYTHON=sys.executable))
    assert code == 0, output

    process = start(*train, '--work-dir', stopped, *how, PYTHON=sys.executable)
    wait_for('Epoch(train)  [5]', process)
    if whom == 'all':
        process.send_signal(signal.SIGTERM)
    else:
        os.kill(children(process.pid)[-1], signal.SIGUSR1)
    code, output = finish(process)
    assert code == 75, output
    assert output.count('all is saved') >= 1, output
    saved = load_torch(stopped / 'mid_epoch.pth')['meta']
    assert 4 <= saved['epoch'] < 60
    code, output = finish(
        start(*train, '--work-dir', stopped, *how, '--resume', PYTHON=sys.executable)
    )
    assert code == 0, output
    assert_same_training(whole / 'epoch_60.pth', stopped / 'epoch_60.pth')


SPOILED = """
import sys
from mmengine import dist
from tests.engine import conftest
from tests.engine.hooks.test_non_finite_steps import Spoiled
from mmtimesformer.engine.distributed.process_group import leave_process_group
from mmtimesformer.engine.runner import Runner

class One(Spoiled):
    def forward(self, *args, **kwargs):
        if dist.get_rank() == 0:
            self.steps = set()
        return super().forward(*args, **kwargs)

runner = Runner(
    model=One(sys.argv[2], {4, 7}), work_dir=sys.argv[1], launcher='pytorch', cfg={},
    train_dataloader=dict(
        dataset=conftest.Noise(), sampler=dict(type='DefaultSampler', shuffle=True),
        batch_size=2, num_workers=0),
    train_cfg=dict(by_epoch=True, max_epochs=2),
    optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01), accumulative_counts=int(sys.argv[3])),
    randomness=dict(seed=3))
runner.train()
state = [p.double().sum().item() for p in runner.model.parameters()]
everyone = dist.all_gather_object((state, runner.message_hub.get_info('left_out')))
assert everyone[0] == everyone[1], everyone
assert all(number == number for number in state), state
if dist.get_rank() == 0:
    print('left out', everyone[0][1])
del runner
leave_process_group()  # or a thread of gloo may abort the process while Python ends
"""


@pytest.mark.slow
@pytest.mark.parametrize('accumulated', [1, 3])
@pytest.mark.parametrize('what', ['nan loss', 'infinite loss', 'infinite gradient'])
def test_what_is_no_number_in_one_process_is_left_out_by_all(
    tmp_path: Path, what: str, accumulated: int
) -> None:
    (tmp_path / 'spoiled.py').write_text(SPOILED)
    code, output = finish(
        start(
            sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
            tmp_path / 'spoiled.py', tmp_path / 'work', what, accumulated,
        )
    )  # fmt: skip
    assert code == 0, output
    assert 'left out 2' in output
    assert output.count('.mp4') >= 2  # the videos of the other process are logged by this one


@pytest.mark.slow
def test_a_second_training_in_the_folder_logs_it_and_ends(
    tools: Path, config: Path, tmp_path: Path
) -> None:
    train = sys.executable, tools / 'train.py', config, '--work-dir', tmp_path / 'work'
    first = start(*train, '--no-validate', '--cfg-options', 'train_cfg.max_epochs=100000')
    wait_for('Epoch(train)', first)
    code, output = finish(start(*train))
    assert code == 1
    assert f'work is in use: process {first.pid} on ' in output
    assert 'give --work-dir another folder' in output
    assert not (tmp_path / 'work/failure.txt').exists()  # of a training that is well
    os.killpg(first.pid, signal.SIGKILL)
    finish(first)


def test_the_training_of_a_killed_demo_ends_with_it(tools: Path, tmp_path: Path) -> None:
    """A training is played by a process that sleeps."""
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools/sleep.py').write_text('import time\nprint("sleeps")\ntime.sleep(60)\n')
    (tmp_path / 'parent.py').write_text(
        f'import sys; sys.path.insert(0, {str(tools)!r})\n'
        'import pathlib, demo\n'
        f'demo.ROOT = pathlib.Path({str(tmp_path)!r})\n'
        'demo.call("tools/sleep.py")\n'
    )
    demo = start(sys.executable, '-u', tmp_path / 'parent.py')
    wait_for('$ python tools/sleep.py', demo)
    time.sleep(0.5)
    (child,) = children(demo.pid)
    demo.kill()
    demo.wait()
    given_up = time.monotonic() + 5
    while lives := Path(f'/proc/{child}').exists():
        if time.monotonic() > given_up:
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.1)
    finish(demo)
    assert not lives
