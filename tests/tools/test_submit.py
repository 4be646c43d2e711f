"""tools/submit.py hands a training to submitit, whose local executor is the cluster here."""

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmtimesformer.engine.launch.submitit_job import Training
from tests.tools.running import assert_as_undisturbed, children, finish, start, wait_for


def test_machines_meet_on_the_first_one_and_a_second_start_resumes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv('SLURM_RESTART_COUNT', raising=False)
    job = SimpleNamespace(num_nodes=2, raw_job_id='41', hostnames=['first', 'second'], node=1)
    training = Training(['train.py', 'config.py'], processes=8)
    words = ' '.join(training.arguments(job))
    assert '--nnodes 2 --rdzv-backend c10d --rdzv-id 41.0 --rdzv-endpoint first:20041' in words
    assert '--rdzv-conf is_host=0 --nproc-per-node 8' in words
    assert words.endswith('train.py config.py --launcher pytorch')
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')  # by Slurm itself, which asks nobody
    assert training.arguments(job)[-3:] == ['--resume', '--launcher', 'pytorch']
    named = Training(['train.py', 'config.py', '--resume=a.pth'], processes=8)
    assert '--resume' not in named.arguments(job)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--nodes', '2', '--cluster', 'local'], '--cluster local is one machine'),
        (['--gpus-per-node', '0'], '--gpus-per-node 0 must be at least 1'),
        (['--slurm', 'account'], 'argument --slurm: account must be KEY=VALUE'),
        (['--hours', '0.01'], 'is all of --hours'),
        (['--max-restarts', '2'], 'add -- --resume'),
        (['--', '--no-such-option'], 'unrecognized arguments: --no-such-option'),
    ],
)
def test_mistakes_are_reported_before_the_job_waits(
    tools: Path,
    tiny_config: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, 'path', [str(tools), *sys.path])
    import submit

    monkeypatch.setattr(submit.importlib.util, 'find_spec', lambda name: object())
    try:
        code: Any = submit.main([str(tiny_config), *options])
    except SystemExit as end:
        code = end.code
    assert code in (1, 2)
    assert message in capsys.readouterr().err


def test_without_submitit_the_letter_says_what_to_install(
    tools: Path,
    tiny_config: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, 'path', [str(tools), *sys.path])
    import submit

    monkeypatch.setattr(submit.importlib.util, 'find_spec', lambda name: None)
    assert submit.main([str(tiny_config)]) == 1
    assert "pip install 'mmtimesformer[slurm]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_job_whose_time_is_over_is_started_again_and_ends_as_the_undisturbed_one(
    tools: Path, tiny_config: Path, tmp_path: Path
) -> None:
    pytest.importorskip('submitit')
    how = [
        '--seed', '5', '--no-validate', '--cfg-options', 'train_cfg.max_epochs=60',
        'default_hooks.checkpoint.interval=100',
    ]  # fmt: skip
    job = start(
        sys.executable, tools / 'submit.py', tiny_config, '--cluster', 'local', '--no-gpus',
        '--gpus-per-node', 2, '--logs', tmp_path / 'jobs', '--', '--work-dir', tmp_path / 'work',
        *how,
    )  # fmt: skip
    wait_for('its log is', job)
    (log,) = wait_until(lambda: list((tmp_path / 'jobs').glob('*_log.out')))
    wait_until(lambda: 'Epoch(train)  [5]' in log.read_text())
    (controller,) = children(job.pid)
    (task,) = children(controller)  # what submitit warns, of time or preemption
    os.kill(task, signal.SIGUSR1)
    code, output = finish(job)
    assert code == 0, output + log.read_text()
    assert 'done' in output
    logged = log.read_text()
    assert logged.count('$ ') == 2
    assert 'all is saved' in Path(str(log).replace('.out', '.err')).read_text() + logged
    assert_as_undisturbed(tmp_path / 'work/epoch_60.pth', tiny_config, tmp_path / 'whole', *how)


def wait_until(condition: Any, seconds: float = 120) -> Any:
    given_up = time.monotonic() + seconds
    while not (met := condition()):
        assert time.monotonic() < given_up
        time.sleep(0.2)
    return met
