"""Lock a ``work_dir``: two trainings in one folder would overwrite each other's checkpoints."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = '.training'
PATIENCE = 10  # seconds to wait for a training that may just be ending


@contextmanager
def only_one_training(
    work_dir: str | os.PathLike[str],
    warn: Callable[[str], object],
    is_stopping: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Hold the lock of a ``work_dir``; only the main process of a run calls it.

    The operating system releases it when the process ends, even by a kill. Forked data loaders that
    outlive the process do not hold it. A file in the folder names the process that trains there;
    ``warn`` receives a warning where the disk has no locks, as some network disks have none.

    Raises:
        OSError: Another process holds it; the message has its machine and number.
        InterruptedError: ``is_stopping`` returned true while another process held it.
    """
    path = Path(work_dir) / LOCK
    lock = FileLock(path, fallback_to_soft=False)  # a soft lock would survive a killed machine
    try:
        lock.acquire(PATIENCE, 0.2, cancel_check=is_stopping)
    except Timeout as error:
        if is_stopping():
            raise InterruptedError(f'stop requested while {work_dir} is locked') from error
        holder = path.read_text(encoding='utf-8').strip() or 'another process'
        raise BlockingIOError(
            f'{work_dir} is in use: {holder} trains there; wait for it, or give --work-dir another '
            'folder'
        ) from error
    except PermissionError:
        raise
    except OSError as error:
        warn(f'{path} cannot be locked ({error}); make sure that no other training writes there')
    else:
        with suppress(OSError):
            path.write_text(
                f'process {os.getpid()} on {socket.gethostname()}, since {time.ctime()}'
            )
    try:
        yield
    finally:
        lock.release()
