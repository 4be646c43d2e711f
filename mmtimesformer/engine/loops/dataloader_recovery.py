"""Detect dead DataLoader workers (killed, out of memory) and restart them.

torch detects them in two ways, and neither is enough. Its signal handler raises within whatever the
main process does, such as an optimizer step, which is then half done. And while it waits for a
batch, it checks the workers under a lock that a killed worker may hold: then it waits forever. So a
thread waits for the batch here, and is abandoned when a worker is dead and no batch comes.
"""

import errno
import itertools
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from mmtimesformer.compat.upstream import require_attributes
from mmtimesformer.engine.distributed.process_signals import stop_signals_blocked
from mmtimesformer.engine.distributed.stop_signals import StopSignals

require_attributes(DataLoader, '_iterator', used_by=__name__)
require_attributes(_MultiProcessingDataLoaderIter, '_shutdown', '_workers', used_by=__name__)

PATIENCE = 1.0  # seconds without a batch before a check for dead workers
OUT_OF_MEMORY = 'MemoryError: Unable to allocate', "can't allocate memory", '[Errno 12]'


class WorkerDiedError(Exception):
    """A DataLoader worker died; the text is the cause."""


class WorkersLostError(ChildProcessError):
    """DataLoader workers died too often: ``deaths`` times, the last by ``cause``."""

    def __init__(self, deaths: int, cause: str) -> None:
        super().__init__(
            f'DataLoader workers died {deaths} times in this epoch, the last by {cause}. They may '
            'need more memory than there is: set num_workers of this data loader lower, or give '
            'the run more memory (in a container also --shm-size); resume a training with --resume'
        )


class WorkerWatchdog:
    """The batches of a data loader; enter it and iterate over it once.

    If the iteration is interrupted, the workers are killed, and the loader is not usable any more.
    ``signals`` interrupt a wait for a batch.

    Raises:
        WorkerDiedError: While iterating, when a worker is dead or out of memory. All workers of
            the loader are killed then.
    """

    def __init__(self, loader: DataLoader, signals: StopSignals | None = None) -> None:
        self.loader = loader
        self.signals = signals or StopSignals()
        self.is_usable = True

    def __enter__(self) -> 'WorkerWatchdog':
        idle = getattr(self.loader, '_iterator', None)  # persistent workers
        if any(worker.exitcode is not None for worker in getattr(idle, '_workers', ())):
            end_workers(idle)  # no batch is lost
            self.loader._iterator = None
        with stop_signals_blocked():
            self.batches = iter(self.loader)
        self.workers = getattr(self.batches, '_workers', ())
        if hasattr(signal, 'SIGCHLD') and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # not torch's handler
        if self.workers:
            self.wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
            self.got: queue.SimpleQueue[tuple[object, BaseException | None]] = queue.SimpleQueue()
            threading.Thread(target=self._fetch, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self.workers:
            self.wanted.put(False)
        if kind is not None or self._dead():
            end_workers(self.batches)
            self.is_usable = False

    def __iter__(self) -> Iterator[object]:
        try:
            yield from self._from_workers() if self.workers else self._from_main_process()
        except (MemoryError, RuntimeError, OSError) as error:
            if not _is_out_of_memory(error):
                raise
            raise WorkerDiedError('out of memory') from error

    def _from_main_process(self) -> Iterator[object]:
        while True:
            try:
                with self.signals.interrupting():
                    batch = next(self.batches)
            except StopIteration:
                return
            yield batch

    def _from_workers(self) -> Iterator[object]:
        while True:
            self.wanted.put(True)
            batch, error = self._wait()
            if isinstance(error, StopIteration):
                return
            if error is not None and self._is_death(error):
                raise WorkerDiedError(self._cause()) from error
            if error is not None:
                raise error
            yield batch

    def _wait(self) -> tuple[object, BaseException | None]:
        was_dead = False
        while True:
            try:
                return self.got.get(timeout=PATIENCE)
            except queue.Empty:  # noqa: PERF203 (once a second at most)
                self.signals.end_wait()
                if was_dead:  # and no batch that was ready came since
                    raise WorkerDiedError(self._cause()) from None
                was_dead = bool(self._dead())

    def _fetch(self) -> None:
        while self.wanted.get():
            try:
                self.got.put((next(self.batches), None))
            except BaseException as error:  # noqa: PERF203 (once a batch)
                self.got.put((None, error))

    def _is_death(self, error: BaseException) -> bool:
        """Whether a worker died, instead of the data set raising an error in it."""
        if _is_out_of_memory(error):
            return True
        if 'Original Traceback' in str(error):
            return False
        if isinstance(error, OSError | EOFError):  # from a worker that may be dying
            until = time.monotonic() + PATIENCE
            while not self._dead() and time.monotonic() < until:
                time.sleep(0.01)
        return str(error).startswith('DataLoader worker (pid') or bool(self._dead())

    def _dead(self) -> list[BaseProcess]:
        """List the workers that died; those that finished have exit code 0."""
        return [worker for worker in self.workers if worker.exitcode not in (None, 0)]

    def _cause(self) -> str:
        codes = {code for worker in self._dead() if (code := worker.exitcode)}
        names = [signal.Signals(-code).name if code < 0 else f'code {code}' for code in codes]
        why = {'SIGKILL': ', probably out of memory', 'SIGBUS': ', probably a full /dev/shm'}
        return ', '.join(name + why.get(name, '') for name in names) or 'out of memory'


class RestartingDataLoader:
    """A data loader that restarts dead workers and continues with the next batch.

    For loops that only iterate. All other attributes are those of the wrapped loader. Signals
    interrupt a wait for a batch.

    Raises:
        WorkersLostError: While iterating, when workers died more than ``max_restarts`` times.
    """

    def __init__(
        self,
        loader: DataLoader,
        warn: Callable[[str], object],
        max_restarts: int,
        signals: StopSignals | None = None,
    ) -> None:
        self.loader, self.warn, self.max_restarts = loader, warn, max_restarts
        self.signals = signals

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[object]:
        loader, done, deaths = self.loader, 0, 0
        while True:
            watchdog = WorkerWatchdog(loader, self.signals)
            try:
                with watchdog as batches:
                    for batch in batches:
                        done += 1
                        yield batch
                return
            except WorkerDiedError as error:
                deaths += 1
                if deaths > self.max_restarts:
                    raise WorkersLostError(deaths, str(error)) from error
                self.warn(
                    f'DataLoader workers are restarted: one died ({error}). Continues after batch '
                    f'{done} of {len(self)} (restart {deaths} of at most {self.max_restarts}).'
                )
            finally:
                if not watchdog.is_usable:  # the next pass would wait for its dead workers
                    self.loader._iterator = None
            rest = _RemainingBatches(self.batch_sampler, done)
            loader = loader_like(self.loader, self.dataset, rest)


class _RemainingBatches(Sampler):
    """The batches of a batch sampler without the first ``done``."""

    def __init__(self, batches: BatchSampler, done: int) -> None:
        self.batches, self.done = batches, done

    def __len__(self) -> int:
        return len(self.batches) - self.done

    def __iter__(self) -> Iterator[list[int]]:
        return itertools.islice(iter(self.batches), self.done, None)


def loader_like(
    loader: DataLoader, dataset: Dataset, batch_sampler: Sampler[list[Any]]
) -> DataLoader:
    """Build a data loader with the settings of another one and other batches."""
    names = (
        'num_workers', 'collate_fn', 'pin_memory', 'timeout', 'multiprocessing_context',
        'generator', 'prefetch_factor', 'persistent_workers', 'pin_memory_device', 'worker_init_fn',
    )  # fmt: skip
    settings = {name: getattr(loader, name) for name in names if hasattr(loader, name)}
    return DataLoader(dataset, batch_sampler=batch_sampler, **settings)


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, NumPy, torch or the system ran out of memory.

    torch raises a RuntimeError, and NumPy's error becomes one when it comes from a worker; these
    are recognized by the last line of the message.
    """
    if isinstance(error, MemoryError) or getattr(error, 'errno', None) == errno.ENOMEM:
        return True
    last = str(error).strip().rpartition('\n')[2]
    return any(words in last for words in OUT_OF_MEMORY)


def end_workers(batches: Any) -> None:
    """Kill the workers of a data loader's iterator."""
    for worker in getattr(batches, '_workers', ()):
        worker.kill()
    # Otherwise torch asks them to end, under a lock that a dead worker may hold
    batches._shutdown = True
