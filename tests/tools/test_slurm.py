"""The Slurm scripts, with scripts in the place of Slurm that start what it would start, here."""

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.running import assert_as_undisturbed, children, finish, start

# srun starts the command once for each machine and ends with the highest exit code.
FAKES = {
    'srun': r"""
        echo srun "$@" >> "$SAID"
        while [[ $1 == -* ]]; do
            case $1 in --nodes=*) nodes=${1#*=} ;; esac
            shift
        done
        running=() highest=0
        for ((node = 0; node < nodes; node++)); do
            SLURM_NODEID=$node SLURM_NNODES=$nodes SLURM_JOB_ID=${SLURM_JOB_ID:-$JOB} \
                SLURM_JOB_NODELIST=machines "$@" &
            running+=($!)
        done
        echo "${running[@]}" > "$STEPS"
        for process in "${running[@]}"; do
            code=0; wait "$process" || code=$?
            if ((code > highest)); then highest=$code; fi
        done
        exit "$highest" """,
    # sbatch runs what it is given, as often as scontrol queues it again.
    'sbatch': r"""
        echo sbatch "${@:1:$#-1}" >> "$SAID"
        for ((count = 0; count < 3; count++)); do
            rm -f "$REQUEUED"; code=0
            SLURM_RESTART_COUNT=$count SLURM_JOB_ID=$JOB sh -c "${@: -1}" || code=$?
            [ -e "$REQUEUED" ] || exit "$code"
        done """,
    'scontrol': r"""
        case $1 in
            show) echo localhost; echo localhost ;;
            requeue) [ "$2" = "$JOB" ] && touch "$REQUEUED" && echo "queued $2 again" ;;
        esac """,
    'squeue': 'echo "${STATE:-RUNNING}"',
}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment with such a Slurm; what it was called with is in the file ``SAID``."""
    folder = tmp_path / 'slurm'
    folder.mkdir()
    for name, text in FAKES.items():
        script = folder / name
        script.write_text(f'#!/usr/bin/env bash\n{text}\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {
        'PATH': f'{folder}:{os.environ["PATH"]}',
        'JOB': str(os.getpid()),  # the port is made from it
        'PYTHON': sys.executable,
        **{name: str(folder / name.lower()) for name in ('SAID', 'STEPS', 'REQUEUED')},
    }


def echo_python(slurm: dict[str, str]) -> str:
    """A Python that prints its arguments and its machine."""
    script = Path(slurm['SAID']).parent / 'python'
    script.write_text(  # the machines write at once: each its line in one piece
        '#!/usr/bin/env bash\nline=$(printf "%s|" "$SLURM_NODEID" "$@"); echo "$line"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


def test_slurm_starts_one_torchrun_on_each_machine(tools: Path, slurm: dict[str, str]) -> None:
    code, output = finish(
        start(
            'bash', tools / 'slurm_train.sh', 'video', 'a-job', 'a config.py', '--seed', 1,
            **{**slurm, 'PYTHON': echo_python(slurm)}, GPUS='16', SRUN_ARGS='--time=1 --quiet',
        )
    )  # fmt: skip
    assert code == 0, output
    assert (
        Path(slurm['SAID'])
        .read_text()
        .startswith(
            'srun --partition=video --job-name=a-job --nodes=2 --ntasks-per-node=1 --gres=gpu:8 '
            '--cpus-per-task=40 --time=1 --quiet --wait=60 bash -c'
        )
    )
    job = slurm['JOB']
    assert sorted(output.splitlines()) == [
        '|'.join([
            str(node), '-m', 'mmtimesformer.engine.launch.torchrun',
            '--nnodes', '2', '--nproc-per-node',
            '8', '--max-restarts', '0', '--rdzv-backend', 'c10d', '--rdzv-id', f'{job}.0',
            '--rdzv-endpoint', f'localhost:{20000 + int(job) % 20000}',
            '--rdzv-conf', f'is_host={int(node == 0)}', f'{tools}/train.py', 'a config.py',
            '--seed', '1', '--launcher', 'pytorch', '',
        ])
        for node in (0, 1)
    ]  # fmt: skip


def test_a_test_runs_on_each_machine_too(tools: Path, slurm: dict[str, str]) -> None:
    code, output = finish(
        start(
            'bash', tools / 'slurm_test.sh', 'video', 'a-job', 'config.py', 'a b.pth', '--amp',
            **{**slurm, 'PYTHON': echo_python(slurm)}, GPUS='2', GRES='',
        )
    )  # fmt: skip
    assert code == 0, output
    assert '--nodes=1 --ntasks-per-node=1 --cpus-per-task=10 ' in Path(slurm['SAID']).read_text()
    assert output.endswith(f'|{tools}/test.py|config.py|a b.pth|--amp|--launcher|pytorch|\n')


@pytest.mark.parametrize(
    ('code', 'state', 'again'),
    [
        (75, 'RUNNING', True),  # it has saved
        (138, 'RUNNING', True),  # SIGUSR1 before there was anything to save
        (143, 'RUNNING', True),
        (75, 'COMPLETING', False),  # cancelled, or queued again by Slurm itself
        (1, 'RUNNING', False),
        (0, 'RUNNING', False),
    ],
)
def test_a_job_that_was_asked_to_stop_is_queued_again(
    tools: Path, slurm: dict[str, str], tmp_path: Path, code: int, state: str, again: bool
) -> None:
    python = tmp_path / 'python'
    python.write_text(f'#!/bin/sh\n[ "$SLURM_RESTART_COUNT" = 0 ] && exit {code}; exit 0\n')
    python.chmod(0o755)
    ended, output = finish(
        start(
            'bash', tools / 'slurm_train.sh', 'video', 'job', "it's a config.py", '--resume',
            **{**slurm, 'PYTHON': str(python)}, BATCH='1', STATE=state, GPUS='2', GRES='',
            SRUN_ARGS='--time=4:00:00',
        )
    )  # fmt: skip
    calls = Path(slurm['SAID']).read_text()
    assert '--requeue --signal=USR1@120 --open-mode=append --time=4:00:00' in calls
    assert len(re.findall('^srun', calls, re.MULTILINE)) == 1 + again, output
    assert ended == (0 if again else code)


@pytest.mark.parametrize(
    ('environment', 'options', 'message'),
    [
        ({'GPUS': '12'}, [], 'GPUS=12 is not a multiple of GPUS_PER_NODE=8'),
        ({'BATCH': '1'}, [], 'add --resume'),
        ({'MAX_RESTARTS': '2'}, ['--seed', '1'], 'add --resume'),
    ],
)
def test_mistakes_are_reported_before_slurm_is_asked(
    tools: Path,
    slurm: dict[str, str],
    environment: dict[str, str],
    options: list[str],
    message: str,
) -> None:
    command = 'bash', tools / 'slurm_train.sh', 'video', 'job', 'config.py', *options
    code, output = finish(start(*command, **slurm, **environment))
    assert code == 2
    assert message in output
    assert not Path(slurm['SAID']).exists()


@pytest.mark.parametrize('name', ['dist_train', 'dist_test', 'slurm_train', 'slurm_test'])
def test_a_script_without_arguments_says_how_it_is_used(tools: Path, name: str) -> None:
    code, output = finish(start('bash', tools / f'{name}.sh'))
    assert code == 2
    assert output.startswith('usage: ')
    subprocess.run(['bash', '-n', tools / f'{name}.sh'], check=True)


@pytest.mark.slow
def test_a_job_on_two_machines_stops_and_goes_on_to_its_end(
    tools: Path, tiny_config: Path, tmp_path: Path, slurm: dict[str, str]
) -> None:
    """SIGUSR1 to every process of the job, as Slurm sends it before the time is over."""
    work_dir = tmp_path / 'work'
    how = [
        '--seed', '5', '--deterministic', '--no-validate', '--cfg-options',
        'train_cfg.max_epochs=60', 'default_hooks.checkpoint.interval=100',
    ]  # fmt: skip
    process = start(
        'bash', tools / 'slurm_train.sh', 'video', 'job', tiny_config, '--work-dir', work_dir,
        '--resume', *how, **slurm, BATCH='1', GPUS='2', GPUS_PER_NODE='1', GRES='',
    )  # fmt: skip
    assert process.stdout is not None
    while 'Epoch(train)  [5]' not in (line := process.stdout.readline()):
        assert line
    for step in Path(slurm['STEPS']).read_text().split():
        for one in [*children(int(step)), int(step)]:
            os.kill(one, signal.SIGUSR1)
    code, output = finish(process)
    assert code == 0, output
    assert f'queued {slurm["JOB"]} again' in output
    assert 'all is saved' in output
    assert_as_undisturbed(work_dir / 'epoch_60.pth', tiny_config, tmp_path / 'whole', *how)
