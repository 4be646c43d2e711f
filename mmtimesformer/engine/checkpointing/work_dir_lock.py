"""One training at a time in a ``work_dir``: two would overwrite each other's checkpoints."""

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = '.training'
PATIENCE = 10  # seconds to wait for one who may just be ending


@contextmanager
def only_one_training(
    work_dir: str | os.PathLike[str],
    warn: Callable[[str], object],
    is_stopping: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Hold the lock of a ``work_dir``; only the main process of a run asks for it.

    The operating system gives it back when the process ends, however it ends. It belongs to the
    process alone: data loaders that outlive it do not hold it.

    Args:
        work_dir: The folder; a file in it tells who trains there.
        warn: Is told where the disk knows no locks, as some network disks do not.
        is_stopping: Whether the wait for another process is to end.

    Raises:
        OSError: Another process holds it; the message tells its machine and number.
        InterruptedError: ``is_stopping`` returned true while another process held it.
    """
    path = Path(work_dir) / LOCK
    if fcntl is None:
        yield
        return
    path.touch()
    with path.open('r+') as file:
        given_up = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    warn(
                        f'{path} cannot be locked ({error}): see to it yourself that no other '
                        'training writes there'
                    )
                    break
            if is_stopping():
                raise InterruptedError(f'asked to stop while another training is in {work_dir}')
            if time.monotonic() > given_up:
                raise BlockingIOError(
                    f'{work_dir} is in use: {file.read().strip() or "another process"} trains '
                    'there; wait for it, or give --work-dir another folder'
                )
            time.sleep(0.2)
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}, since {time.ctime()}\n')
        file.flush()
        yield
