"""Commands that run while a test looks on, and disturbs them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

from mmtimesformer.checkpoints import load_torch

ROOT = Path(__file__).resolve().parents[2]


def start(*command: object, **environment: str) -> subprocess.Popen:
    """Start a command in a process group of its own; its output can be read."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    return subprocess.Popen(
        [str(word) for word in command],
        env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(words: str, process: subprocess.Popen) -> None:
    """Read the output of a process, up to a line with these words."""
    assert process.stdout is not None
    lines = []
    while words not in (line := process.stdout.readline()):
        lines.append(line)
        assert line, ''.join(lines)


def finish(process: subprocess.Popen, timeout: float = 300) -> tuple[int, str]:
    """Wait for the end of a process; return its exit code and the rest of its output.

    A process that does not end in time is killed, with its process group, and its output is shown.
    """
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
        raise AssertionError(f'still running after {timeout:.0f} s: {output}') from None
    return process.returncode, output


def children(process: int) -> list[int]:
    """List the processes that a process started."""
    tasks = Path(f'/proc/{process}/task').glob('*/children')
    return [int(child) for task in tasks for child in task.read_text().split()]


def assert_as_undisturbed(checkpoint: Path, config: Path, work_dir: Path, *options: object) -> None:
    """Train undisturbed in two processes; in the end its weights are those of the checkpoint."""
    code, output = finish(
        start(
            'bash', ROOT / 'tools/dist_train.sh', config, 2, '--work-dir', work_dir, *options,
            PYTHON=sys.executable,
        )
    )  # fmt: skip
    assert code == 0, output
    one, other = (
        load_torch(path)['state_dict'] for path in (work_dir / checkpoint.name, checkpoint)
    )
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
