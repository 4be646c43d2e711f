"""torchrun, whose end tells a training that was stopped from one that failed.

    python -m mmtimesformer.engine.launch.torchrun --standalone --nproc-per-node 2 TOOL ...

takes torchrun's options and does what it does, but for the ends. torchrun by itself ends with 1
whatever its processes end with, kills them 30 seconds after SIGTERM, dies of SIGUSR1 and leaves
them behind, and with ``--max-restarts`` starts processes again that were asked to stop. Here

- SIGTERM, SIGUSR1 and SIGHUP (the terminal was closed; ``nohup`` lets it be ignored) go on to the
  processes, which have the time that they need to save;
- a training that was asked to stop, on whichever machine, ends with 75 and is not started again;
- one of its processes that is lost is named, with what it ended with;
- a machine that vanishes without a word is missed after half a minute, not half an hour;
- machines find the one where they meet by its address too;
- with ``--max-restarts`` processes that are started again cannot hang on what the lost ones left;
- the processes save and end when torchrun is killed.

The exit codes are those of :mod:`mmtimesformer.cli`; 128 and the number of a signal is a
job that ended by that signal, before it could save or without having anything to save.
"""

import ipaddress
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from mmtimesformer.cli import (
    DONE,
    FAILED,
    STOPPED,
    RunStopped,
    error_message,
    flush_output,
    print_error,
)
from mmtimesformer.engine.distributed.process_signals import (
    STOP_SIGNALS,
    die_with_parent,
    is_ignored,
)
from mmtimesformer.engine.launch.heartbeat import Heartbeat
from mmtimesformer.terminal import echo

OURS = 'MMTIMESFORMER_TORCHRUN'  # holds the number of this process, for those it starts
PROCESSES_SHOWN = 8


def main(argv: list[str] | None = None) -> int:
    """Run torchrun, and return the exit code."""
    # Here, for what it starts imports this file as well, and torch may be built without.
    from torch.distributed import DistError, run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    args = run.parse_args(argv)
    if sys.platform == 'linux' and hasattr(args, 'signals_to_handle'):  # torch 2.8 and later
        args.signals_to_handle = 'SIGINT,SIGQUIT'
        os.environ[OURS] = str(os.getpid())
        for number in STOP_SIGNALS:
            if not is_ignored(number):
                signal.signal(number, _hand_on)
        signal.signal(signal.SIGUSR2, _wait_for_all)
    heartbeat = None
    missed: dict[int, str] = {}  # processes here that were ended for it, and the sentence
    if args.rdzv_endpoint:
        _find_way(args)
        if sys.platform == 'linux' and args.rdzv_backend == 'c10d':
            heartbeat = Heartbeat(
                partial(_meet, args.rdzv_endpoint, args.rdzv_id), partial(_miss, missed)
            )
    if args.max_restarts > 0:
        # NOTE: else processes that are started again meet in the store of those before them, where
        # they may read an old address and wait for ever; seen in torch 2.13.
        os.environ.setdefault('TORCH_DISABLE_SHARE_RDZV_TCP_STORE', '1')
    try:
        run.run(args)
    except RunStopped as end:
        print_error(f'\n{end}')
        return end.code
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        if codes == {STOPPED}:
            return STOPPED
        ended = {failure.pid for failure in error.failures.values()}
        if ended <= set(missed):
            told = f'{missed[min(ended)]}; the run has ended, and goes on by the same command with '
            print_error(f'\nerror: {told}--resume')
        else:
            print_error(f'\nerror: {_tell(error.failures)}')
        return FAILED
    except (DistError, RendezvousError) as error:
        print_error(
            f'\nerror: the machines of this run do not reach each other any more, or never did '
            f'(they meet at {args.rdzv_endpoint}); {error_message(error)}. To resume, give the '
            'same command with --resume'
        )
        return FAILED
    except SignalException as end:
        print_error(f'\nended by {end.sigval.name}')
        return 128 + end.sigval
    finally:
        if heartbeat:
            heartbeat.stop()
        flush_output()
    return DONE


def _meet(endpoint: str, run: str) -> Any:
    """Connect to the store where machines have met, when they have."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    while not _children():
        time.sleep(1)
    host, _, port = endpoint.rpartition(':')
    store = TCPStore(host, int(port), is_master=False, timeout=timedelta(seconds=20))
    return PrefixStore(f'mmtimesformer {run}', store)


def _miss(missed: dict[int, str], sentence: str, cut_off: bool, silence: float) -> None:
    """End the processes here, which would wait for those of a machine that is gone.

    Those that were started since then have met without it.
    """
    waiting = [process for process in _children() if cut_off or _age(process) > silence]
    if waiting or cut_off:
        with suppress(OSError, ValueError):  # whoever listened may be gone, too
            told = f'\nerror: {sentence}; the processes on this machine are ended'
            echo(told, file=sys.stderr, flush=True)
    for process in waiting:
        missed[process] = sentence
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    if cut_off:  # torchrun asks there what to do now, and would wait for an answer
        time.sleep(5)
        os._exit(FAILED)


def _find_way(args: Any) -> None:
    """Tell torchrun whether this machine is where all meet, and under what address it is known.

    It compares names, and knows none of the addresses of a machine whose name stands for
    127.0.0.1. What can be listened to is here; the address that packets leave from is ours.
    """
    host, _, port = args.rdzv_endpoint.rpartition(':')
    try:
        family, _, _, _, place = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as towards:
            towards.connect(place)
            args.local_addr = args.local_addr or towards.getsockname()[0]
        # Of several torchruns on this machine, which meet within it, torchrun lets the first one.
        within = ipaddress.ip_address(place[0]).is_loopback
        if not within and 'is_host' not in args.rdzv_conf:
            socket.create_server(place[:2], family=family).close()
            args.rdzv_conf = ','.join(filter(None, [args.rdzv_conf, 'is_host=1']))
    except (OSError, ValueError):  # it is elsewhere, or torchrun has words for what is wrong
        return


def stop_with_torchrun() -> None:
    """Stop, with all saved, when the torchrun that started this process is killed."""
    if _started_by_ours():
        die_with_parent(os.getppid(), signal.SIGTERM)


def report_stop_to_torchrun(code: int) -> int:
    """Say that this process was asked to stop, so that it is not started again; return the code.

    Processes on another machine may be the only ones that heard the signal.
    """
    if code == STOPPED and _started_by_ours():
        for number in STOP_SIGNALS:  # all is saved; the code must arrive
            signal.signal(number, signal.SIG_IGN)
        os.kill(os.getppid(), signal.SIGUSR2)
    return code


def _started_by_ours() -> bool:
    return os.environ.get(OURS) == str(os.getppid())


def _hand_on(number: int, frame: FrameType | None) -> None:
    """Ask all processes to stop, and end when they have."""
    for process in _children():
        with suppress(ProcessLookupError):
            os.kill(process, number)
    _wait_for_all(number, frame)


def _wait_for_all(number: int, _frame: FrameType | None) -> None:
    """Wait until all processes have ended, which may take as long as it takes to save.

    Raises:
        RunStopped: They were stopped. If they came to their own end, torchrun goes on.
    """
    for other in (*STOP_SIGNALS, signal.SIGUSR2):
        signal.signal(other, signal.SIG_IGN)  # heard; SIGINT still ends all at once
    processes = _children()
    while None in (codes := [exit_code_of(process) for process in processes]):
        time.sleep(0.05)
    if STOPPED in codes:
        raise RunStopped(f'all {len(codes)} processes on this machine have stopped', STOPPED)
    if not codes or {-number, 128 + number} & set(codes):
        name = signal.Signals(number).name
        raise RunStopped(f'ended by {name}, before anything was there to be saved', 128 + number)


def _children() -> list[int]:
    """List the processes that this one started."""
    found: list[int] = []
    for task in Path('/proc/self/task').glob('*/children'):
        with suppress(OSError):  # a thread that has ended meanwhile
            found += map(int, task.read_text().split())
    return found


def _age(process: int) -> float:
    """Return for how many seconds a process has been there; one that has ended, for ever."""
    try:
        fields = Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return float('inf')
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf('SC_CLK_TCK')


def exit_code_of(process: int) -> int | None:
    """Return what a child ended with, as :mod:`subprocess` counts, or ``None`` while it runs.

    Whoever started it can still ask for it afterwards.
    """
    ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _tell(failures: dict[int, Any]) -> str:
    """Name the processes that ended and what they ended with, those that were killed first."""
    lost = sorted(failures.items(), key=lambda item: (item[1].exitcode >= 0, item[0]))
    named = [
        f'process {rank} (pid {failure.pid}) '
        + (
            f'was killed by {failure.signal_name()}'
            if failure.exitcode < 0
            else f'ended with code {failure.exitcode}'
        )
        for rank, failure in lost[:PROCESSES_SHOWN]
    ]
    more = f' and {len(lost) - PROCESSES_SHOWN} more' if len(lost) > PROCESSES_SHOWN else ''
    return (
        f'{", ".join(named)}{more}; the run has ended. A process that is killed without a word of '
        'its own is mostly out of memory. A training goes on by the same command with --resume'
    )


if __name__ == '__main__':
    sys.exit(main())
