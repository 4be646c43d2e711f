"""torchrun with exit codes for stopped trainings, stop signals, and detection of lost machines.

    python -m mmtimesformer.engine.launch.torchrun --standalone --nproc-per-node 2 TOOL ...

takes torchrun's options. Unlike torchrun itself:

- SIGTERM, SIGUSR1 and SIGHUP (the terminal was closed; ignored under ``nohup``) are forwarded to
  the processes, which have the time that they need to save;
- a training that was asked to stop, on any machine, ends with 75 and is not restarted;
- the message about a lost process has its rank, number and exit code;
- a machine that is down or disconnected is detected after half a minute, not half an hour;
- the rendezvous machine may be given by its address;
- with ``--max-restarts``, restarted processes do not wait for addresses of the lost ones;
- the processes save and end when torchrun is killed.

The exit codes are those of :mod:`mmtimesformer.cli`; 128 plus the number of a signal
is a job that ended by it, before it could save or with nothing to save.
"""

import ipaddress
import os
import signal
import socket
import sys
import time
from argparse import Namespace
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

OWNER = 'MMTIMESFORMER_TORCHRUN'  # holds the number of this process, for those it starts
PROCESSES_SHOWN = 8
RESUME = 'To resume a training, give the same command with --resume'


def main(argv: list[str] | None = None) -> int:
    """Run torchrun, and return the exit code."""
    # Not at the top: its processes import this file too, and torch may be built without them.
    from torch.distributed import DistError, run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    args = run.parse_args(argv)
    if sys.platform == 'linux' and hasattr(args, 'signals_to_handle'):  # torch 2.8 and later
        args.signals_to_handle = 'SIGINT,SIGQUIT'
        os.environ[OWNER] = str(os.getpid())
        for number in STOP_SIGNALS:
            if not is_ignored(number):
                signal.signal(number, _forward)
        signal.signal(signal.SIGUSR2, _wait_for_all)
    heartbeat = None
    lost: dict[int, str] = {}  # processes ended here because of a lost machine, and the sentence
    if args.rdzv_endpoint:
        _find_rendezvous(args)
        if sys.platform == 'linux' and args.rdzv_backend == 'c10d':
            heartbeat = Heartbeat(
                partial(_connect, args.rdzv_endpoint, args.rdzv_id), partial(_end_waiting, lost)
            )
    if args.max_restarts > 0:
        # NOTE: otherwise restarted processes use the store of the lost ones, where they may read an
        # old address and wait for ever; seen in torch 2.13.
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
        if ended <= set(lost):
            message = f'{lost[min(ended)]}; the run has ended. {RESUME}'
        else:
            message = _describe(error.failures)
        print_error(f'\nerror: {message}')
        return FAILED
    except (DistError, RendezvousError) as error:
        print_error(
            '\nerror: the machines of this run do not reach each other, now or from the start '
            f'(rendezvous at {args.rdzv_endpoint}); {error_message(error)}. {RESUME}'
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


def _connect(endpoint: str, run: str) -> 'Store':
    """Connect to the rendezvous store, once the processes were started."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    while not _children():
        time.sleep(1)
    host, _, port = endpoint.rpartition(':')
    store = TCPStore(host, int(port), is_master=False, timeout=timedelta(seconds=20))
    return PrefixStore(f'mmtimesformer {run}', store)


def _end_waiting(lost: dict[int, str], sentence: str, cut_off: bool, silence: float) -> None:
    """End the processes here that would wait for those of a lost machine.

    Processes that were started since then do not wait for it.
    """
    waiting = [process for process in _children() if cut_off or _age(process) > silence]
    if waiting or cut_off:
        print_error(f'\nerror: {sentence}; the processes on this machine are ended')
    for process in waiting:
        lost[process] = sentence
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    if cut_off:  # torchrun would wait for an answer of the rendezvous
        time.sleep(5)
        os._exit(FAILED)


def _find_rendezvous(args: Namespace) -> None:
    """Set for torchrun whether this is the rendezvous machine, and the address of this machine.

    torchrun compares names, which fails where a machine's name resolves to 127.0.0.1. Here the
    rendezvous machine is the one that can bind the address, and its own address is the one from
    which it sends packets.
    """
    host, _, port = args.rdzv_endpoint.rpartition(':')
    try:
        family, _, _, _, place = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(place)
            args.local_addr = args.local_addr or probe.getsockname()[0]
        # For several torchruns on one machine, torchrun itself takes the first one.
        within = ipaddress.ip_address(place[0]).is_loopback
        if not within and 'is_host' not in args.rdzv_conf:
            socket.create_server(place[:2], family=family).close()
            args.rdzv_conf = ','.join(filter(None, [args.rdzv_conf, 'is_host=1']))
    except (OSError, ValueError):  # it is another machine, or torchrun reports what is wrong
        return


def stop_with_torchrun() -> None:
    """Save and stop when the torchrun that started this process is killed."""
    if _started_by_ours():
        die_with_parent(os.getppid(), signal.SIGTERM)


def report_stop_to_torchrun(code: int) -> int:
    """Signal torchrun that this process was asked to stop and needs no restart; return the code.

    Perhaps only processes on another machine received the signal.
    """
    if code == STOPPED and _started_by_ours():
        for number in STOP_SIGNALS:  # it has saved; the exit code must not change
            signal.signal(number, signal.SIG_IGN)
        os.kill(os.getppid(), signal.SIGUSR2)
    return code


def _started_by_ours() -> bool:
    return os.environ.get(OWNER) == str(os.getppid())


def _forward(number: int, frame: FrameType | None) -> None:
    """Ask all processes to stop, and end when they have."""
    for process in _children():
        with suppress(ProcessLookupError):
            os.kill(process, number)
    _wait_for_all(number, frame)


def _wait_for_all(number: int, _frame: FrameType | None) -> None:
    """Wait until all processes have ended, which may take as long as it takes to save.

    Raises:
        RunStopped: They were stopped. If they had ended already, torchrun continues.
    """
    for other in (*STOP_SIGNALS, signal.SIGUSR2):
        signal.signal(other, signal.SIG_IGN)  # received already; SIGINT still ends all at once
    processes = _children()
    while None in (codes := [exit_code_of(process) for process in processes]):
        time.sleep(0.05)
    if STOPPED in codes:
        raise RunStopped(f'all {len(codes)} processes on this machine have stopped', STOPPED)
    if not codes or {-number, 128 + number} & set(codes):
        name = signal.Signals(number).name
        raise RunStopped(f'ended by {name}, before there was anything to save', 128 + number)


def _children() -> list[int]:
    """List the processes that this one started."""
    found: list[int] = []
    for task in Path('/proc/self/task').glob('*/children'):
        with suppress(OSError):  # a thread that has ended meanwhile
            found += map(int, task.read_text().split())
    return found


def _age(process: int) -> float:
    """Return the age of a process in seconds; infinity if it has ended."""
    try:
        fields = Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()
    except OSError:
        return float('inf')
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf('SC_CLK_TCK')


def exit_code_of(process: int) -> int | None:
    """Return the exit code of a child as :mod:`subprocess` does, or ``None`` while it runs.

    It does not reap the child: its parent can still wait for it.
    """
    ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _describe(failures: 'dict[int, ProcessFailure]') -> str:
    """List the processes that ended, with exit codes; those that were killed come first."""
    ordered = sorted(failures.items(), key=lambda item: (item[1].exitcode >= 0, item[0]))
    named = [
        f'process {rank} (pid {failure.pid}) '
        + (
            f'was killed by {failure.signal_name()}'
            if failure.exitcode < 0
            else f'ended with code {failure.exitcode}'
        )
        for rank, failure in ordered[:PROCESSES_SHOWN]
    ]
    more = f' and {len(ordered) - PROCESSES_SHOWN} more' if len(ordered) > PROCESSES_SHOWN else ''
    return (
        f'{", ".join(named)}{more}; the run has ended. A process that is killed without a message '
        f'is mostly out of memory. {RESUME}'
    )


if __name__ == '__main__':
    sys.exit(main())
