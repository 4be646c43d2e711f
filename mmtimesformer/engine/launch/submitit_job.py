"""A training as a job of submitit, which goes on where it was each time it is started again."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

from mmtimesformer.cli import STOPPED
from mmtimesformer.engine.launch.torchrun import exit_code_of
from mmtimesformer.terminal import echo

# What submitit sends before a job's time is over. Its own choice, SIGUSR2, ends a process that
# does not know it, and Slurm sends it to all of them.
WARNING = 'USR1'


class Training:
    """What each machine of a job does: start torchrun, which starts the training's processes.

    It is pickled when the job is submitted, called once on each machine, and asked for its
    successor when the job's time is over.

    Args:
        command: ``tools/train.py``, the config, and the options of the training.
        processes: How many of them a machine has.
        max_restarts: How often lost processes are started again within the job.
        again: Whether an earlier job has begun the training.
    """

    def __init__(
        self, command: list[str], processes: int, max_restarts: int = 0, again: bool = False
    ) -> None:
        self.command, self.processes, self.max_restarts = command, processes, max_restarts
        self.again = again
        self.process: subprocess.Popen | None = None

    def __call__(self) -> str:
        """Train; return how it ended.

        Raises:
            RuntimeError: It failed; the job's log says why.
        """
        import submitit

        started = self.arguments(submitit.JobEnvironment())
        echo('$', *started, flush=True)
        self.process = subprocess.Popen(started)
        code = self.process.wait()
        if code == STOPPED:
            return 'stopped; all is saved'
        if code:
            raise RuntimeError(f'the training ended with code {code}; the log of the job says why')
        return 'done'

    def arguments(self, job: Any) -> list[str]:
        """Return the command line for this machine.

        The machines meet on the first one, at a port made from the number of the job.
        """
        meeting = ['--standalone']
        if job.num_nodes > 1:
            number = int(job.raw_job_id)
            meeting = [
                '--nnodes', str(job.num_nodes), '--rdzv-backend', 'c10d',
                '--rdzv-id', f'{number}.{os.environ.get("SLURM_RESTART_COUNT", 0)}',
                '--rdzv-endpoint', f'{job.hostnames[0]}:{20000 + number % 20000}',
                '--rdzv-conf', f'is_host={int(job.node == 0)}',
            ]  # fmt: skip
        again = self.again or int(os.environ.get('SLURM_RESTART_COUNT', 0)) > 0
        resume = again and not any(word.startswith('--resume') for word in self.command)
        return [
            sys.executable, '-m', 'mmtimesformer.engine.launch.torchrun', *meeting,
            '--nproc-per-node', str(self.processes), '--max-restarts', str(self.max_restarts),
            *self.command, *(['--resume'] if resume else []), '--launcher', 'pytorch',
        ]  # fmt: skip

    def checkpoint(self) -> Any:
        """Stop the training with all saved, and return the job that goes on with it."""
        import submitit

        if self.process is not None:  # else the signal came before it was started
            self.process.send_signal(signal.SIGUSR1)
            # Not `wait`, which `__call__` is within: this runs in a signal's handler.
            while self.process.returncode is None and exit_code_of(self.process.pid) is None:
                time.sleep(0.1)
        again = Training(self.command, self.processes, self.max_restarts, again=True)
        return submitit.helpers.DelayedSubmission(again)
