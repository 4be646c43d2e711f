"""A data-loading process that dies is noticed, whatever it held when it died.

torch notices it in two ways, and neither will do. In its signal handler it raises in the midst of
whatever the main process does, such as an optimiser step, half of which is then done. And when it
waits for a batch, it looks for dead processes under a lock that a killed one may have held: then it
waits for ever. So the waiting is done in a thread, and given up when a process is dead and nothing
comes.
"""

import queue
import signal
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from torch.utils.data import DataLoader

PATIENCE = 1.0  # seconds without a batch after which to look for dead processes


class WorkerLostError(Exception):
    """A data-loading process is gone; its text says what is known of it."""


class WatchedBatches:
    """The batches of a data loader, to be entered and iterated over once.

    Where the iteration is broken off, the loader's processes are ended; the loader is not usable
    any more then.

    Raises:
        WorkerLostError: In iterating, when one of the loader's processes is dead or ran out of
            memory. The others are ended with it.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader
        self.is_usable = True

    def __enter__(self) -> 'WatchedBatches':
        self.batches = iter(self.loader)
        self.workers = getattr(self.batches, '_workers', ())
        if hasattr(signal, 'SIGCHLD') and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's own handler, see above
        if self.workers:
            self.wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
            self.got: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
            threading.Thread(target=self._fetch, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.workers:
            self.wanted.put(False)
        if kind is not None or self._dead():
            end_workers(self.batches)
            self.is_usable = False

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._watched() if self.workers else self.batches
        except MemoryError as error:
            raise WorkerLostError('out of memory') from error

    def _watched(self) -> Iterator[Any]:
        while True:
            self.wanted.put(True)
            batch, error = self._wait()
            if isinstance(error, StopIteration):
                return
            if error is not None and self._is_loss(error):
                raise WorkerLostError(self._tell()) from error
            if error is not None:
                raise error
            yield batch

    def _wait(self) -> tuple[Any, BaseException | None]:
        was_dead = False
        while True:
            try:
                return self.got.get(timeout=PATIENCE)
            except queue.Empty:  # noqa: PERF203 (once a second at most)
                if was_dead:  # and what it gave before it died has had its time to come
                    raise WorkerLostError(self._tell()) from None
                was_dead = bool(self._dead())

    def _fetch(self) -> None:
        while self.wanted.get():
            try:
                self.got.put((next(self.batches), None))
            except BaseException as error:  # noqa: PERF203 (once a batch)
                self.got.put((None, error))

    def _is_loss(self, error: BaseException) -> bool:
        """Whether it is a loss, and not what a data set raised in one of the processes."""
        if isinstance(error, MemoryError):
            return True
        if 'Original Traceback' in str(error):
            return False
        if isinstance(error, OSError | EOFError):  # in fetching from one that may just be dying
            given_up = time.monotonic() + PATIENCE
            while not self._dead() and time.monotonic() < given_up:
                time.sleep(0.01)
        return str(error).startswith('DataLoader worker (pid') or bool(self._dead())

    def _dead(self) -> list[Any]:
        """List the processes that died, not those that ended as they should."""
        return [worker for worker in self.workers if worker.exitcode not in (None, 0)]

    def _tell(self) -> str:
        codes = {worker.exitcode for worker in self._dead()}
        names = [signal.Signals(-code).name if code < 0 else f'code {code}' for code in codes]
        why = {'SIGKILL': ', as when memory is out', 'SIGBUS': ', as when /dev/shm is full'}
        return ', '.join(name + why.get(name, '') for name in names) or 'out of memory'


def end_workers(batches: Any) -> None:
    """End the processes of a data loader's iterator; they hold nothing that is still wanted."""
    for worker in getattr(batches, '_workers', ()):
        worker.kill()
    # Or it would ask them to end, under a lock that a dead one may hold for ever.
    batches._shutdown = True
