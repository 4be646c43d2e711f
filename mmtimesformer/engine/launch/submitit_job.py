"""A training as a job of submitit, which resumes each time the job is started again."""

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from mmtimesformer.cli import STOPPED
from mmtimesformer.engine.launch.torchrun import exit_code_of
from mmtimesformer.terminal import echo

if TYPE_CHECKING:
    import submitit

# What submitit sends before a job's time is over. Its default, SIGUSR2, ends a process without a
# handler, and Slurm sends it to all of them.
WARNING = 'USR1'


class Training:
    """Start torchrun on a machine of a job, which starts the training's processes.

    It is pickled when the job is submitted and called once on each machine. ``checkpoint`` is
    called when the job's time is over.

    Args:
        command: ``tools/train.py``, the config, and the options of the training.
        processes: How many of them a machine has.
        max_restarts: How often lost processes are started again within the job.
        again: Whether an earlier job started the training.
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
            RuntimeError: It failed; see the job's log.
        """
        import submitit

        started = self.arguments(submitit.JobEnvironment())
        echo('$', *started, flush=True)
        self.process = subprocess.Popen(started)
        code = self.process.wait()
        if code == STOPPED:
            return 'stopped after saving'
        if code:
            raise RuntimeError(f'the training ended with code {code}; see the log of the job')
        return 'done'

    def arguments(self, job: 'submitit.JobEnvironment') -> list[str]:
        """Return the command line for this machine.

        The rendezvous is on the first machine, at a port computed from the number of the job.
        """
        rendezvous = ['--standalone']
        if job.num_nodes > 1:
            number = int(job.raw_job_id)
            rendezvous = [
                '--nnodes', str(job.num_nodes), '--rdzv-backend', 'c10d',
                '--rdzv-id', f'{number}.{os.environ.get("SLURM_RESTART_COUNT", 0)}',
                '--rdzv-endpoint', f'{job.hostnames[0]}:{20000 + number % 20000}',
                '--rdzv-conf', f'is_host={int(job.node == 0)}',
            ]  # fmt: skip
        again = self.again or int(os.environ.get('SLURM_RESTART_COUNT', 0)) > 0
        resume = again and not any(word.startswith('--resume') for word in self.command)
        return [
            sys.executable, '-m', 'mmtimesformer.engine.launch.torchrun', *rendezvous,
            '--nproc-per-node', str(self.processes), '--max-restarts', str(self.max_restarts),
            *self.command, *(['--resume'] if resume else []), '--launcher', 'pytorch',
        ]  # fmt: skip

    def checkpoint(self) -> 'submitit.helpers.DelayedSubmission':
        """Stop the training, which saves, and return the job that resumes it."""
        import submitit

        if self.process is not None:  # else the signal came before the start
            self.process.send_signal(signal.SIGUSR1)
            # Not `wait`: this signal handler runs while `__call__` waits.
            while self.process.returncode is None and exit_code_of(self.process.pid) is None:
                time.sleep(0.1)
        again = Training(self.command, self.processes, self.max_restarts, again=True)
        return submitit.helpers.DelayedSubmission(again)
