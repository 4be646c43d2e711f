"""A data-loading process that dies is noticed, whatever it held when it died.

torch notices it in two ways, and neither will do. In its signal handler it raises in the midst of
whatever the main process does, such as an optimiser step, half of which is then done. And when it
waits for a batch, it looks for dead processes under a lock that a killed one may have held: then it
waits for ever. So the waiting is done in a thread, and given up when a process is dead and nothing
comes.
"""

import errno
import itertools
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Protocol

from mmengine.hooks import Hook
from torch.utils.data import DataLoader, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from mmtimesformer.compat.upstream import require_attributes
from mmtimesformer.engine.distributed.process_signals import stop_signals_blocked
from mmtimesformer.registry import HOOKS

require_attributes(DataLoader, '_iterator', used_by=__name__)
require_attributes(_MultiProcessingDataLoaderIter, '_shutdown', '_workers', used_by=__name__)

PATIENCE = 1.0  # seconds without a batch after which to look for dead processes
OUT_OF_MEMORY = 'MemoryError: Unable to allocate', "can't allocate memory", '[Errno 12]'


class Interrupts(Protocol):
    """What may end a wait for data, see :mod:`mmtimesformer.engine.hooks.stop_on_signal`."""

    def interrupting(self) -> AbstractContextManager[None]:
        """Let a signal end what is done meanwhile."""

    def end_wait(self) -> None:
        """End a wait that takes long, if a signal came."""


class WorkerDiedError(Exception):
    """A data-loading process is gone; its text says what is known of it."""


class WorkersLostError(ChildProcessError):
    """Data-loading processes die all the time.

    Args:
        losses: How often they did.
        what: The last loss.
    """

    def __init__(self, losses: int, what: str) -> None:
        super().__init__(
            f'data-loading processes died {losses} times in this epoch, the last by {what}. They '
            'may need more memory than there is: set num_workers of this data loader lower, or '
            'give the run more (in a container also --shm-size); a training goes on with --resume'
        )


class WorkerWatchdog:
    """The batches of a data loader, to be entered and iterated over once.

    Where the iteration is broken off, the loader's processes are ended; the loader is not usable
    any more then.

    Args:
        loader: The loader.
        signals: By which a wait for a batch may be ended.

    Raises:
        WorkerDiedError: In iterating, when one of the loader's processes is dead or ran out of
            memory. The others are ended with it.
    """

    def __init__(self, loader: DataLoader, signals: Interrupts | None = None) -> None:
        self.loader = loader
        self.signals = signals
        self.is_usable = True

    def __enter__(self) -> 'WorkerWatchdog':
        idle = getattr(self.loader, '_iterator', None)  # since the last pass, if they persist
        if any(worker.exitcode is not None for worker in getattr(idle, '_workers', ())):
            end_workers(idle)  # nothing is lost with them
            self.loader._iterator = None
        with stop_signals_blocked():
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
            yield from self._watched() if self.workers else self._alone()
        except (MemoryError, RuntimeError, OSError) as error:
            if not _is_out_of_memory(error):
                raise
            raise WorkerDiedError('out of memory') from error

    def _alone(self) -> Iterator[Any]:
        while True:
            try:
                with self.signals.interrupting() if self.signals else nullcontext():
                    batch = next(self.batches)
            except StopIteration:
                return
            yield batch

    def _watched(self) -> Iterator[Any]:
        while True:
            self.wanted.put(True)
            batch, error = self._wait()
            if isinstance(error, StopIteration):
                return
            if error is not None and self._is_loss(error):
                raise WorkerDiedError(self._tell()) from error
            if error is not None:
                raise error
            yield batch

    def _wait(self) -> tuple[Any, BaseException | None]:
        was_dead = False
        while True:
            try:
                return self.got.get(timeout=PATIENCE)
            except queue.Empty:  # noqa: PERF203 (once a second at most)
                if self.signals is not None:
                    self.signals.end_wait()
                if was_dead:  # and what it gave before it died has had its time to come
                    raise WorkerDiedError(self._tell()) from None
                was_dead = bool(self._dead())

    def _fetch(self) -> None:
        while self.wanted.get():
            try:
                self.got.put((next(self.batches), None))
            except BaseException as error:  # noqa: PERF203 (once a batch)
                self.got.put((None, error))

    def _is_loss(self, error: BaseException) -> bool:
        """Whether it is a loss, and not what a data set raised in one of the processes."""
        if _is_out_of_memory(error):
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


class RestartingDataLoader:
    """A data loader that goes on where it was when one of its processes dies.

    It is for loops that only iterate; to all others it is the loader that it holds.

    Args:
        loader: The loader.
        tell: Is told of each loss.
        max_losses: How often that may happen in one pass.
        signals: By which a wait for a batch may be ended.

    Raises:
        WorkersLostError: In iterating, when it has happened too often.
    """

    def __init__(
        self,
        loader: DataLoader,
        tell: Callable[[str], object],
        max_losses: int,
        signals: Interrupts | None = None,
    ) -> None:
        self.loader, self.tell, self.max_losses = loader, tell, max_losses
        self.signals = signals

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        loader, done, losses = self.loader, 0, 0
        while True:
            watched = WorkerWatchdog(loader, self.signals)
            try:
                with watched as batches:
                    for batch in batches:
                        done += 1
                        yield batch
                return
            except WorkerDiedError as loss:
                losses += 1
                if losses > self.max_losses:
                    raise WorkersLostError(losses, str(loss)) from loss
                self.tell(
                    f'Data-loading processes are replaced, for one died ({loss}). It goes on after '
                    f'batch {done} of {len(self)} ({losses} of {self.max_losses} such losses).'
                )
            finally:
                if not watched.is_usable:  # else the next pass would wait for its dead processes
                    self.loader._iterator = None
            loader = loader_like(self.loader, self.dataset, _Rest(self.batch_sampler, done))


@HOOKS.register_module()
class RestartWorkersHook(Hook):
    """Let validations and tests outlive their data-loading processes, as a training does.

    Args:
        max_losses: How often in a validation or test data-loading processes may die.
    """

    def __init__(self, max_losses: int = 10) -> None:
        self.max_losses = max_losses

    def before_val(self, runner: Any) -> None:
        """Put the loader of the validation into one that endures."""
        self._endure(runner.val_loop, runner)

    def before_test(self, runner: Any) -> None:
        """Put the loader of the test into one that endures."""
        self._endure(runner.test_loop, runner)

    def _endure(self, loop: Any, runner: Any) -> None:
        loader = loop.dataloader
        if isinstance(loader, DataLoader) and loader.batch_sampler is not None:
            ends = hasattr(runner._train_loop, 'leave_validation')  # a training that saves then
            signals = getattr(runner, 'stop_signals', None) if ends else None
            loop.dataloader = RestartingDataLoader(
                loader, runner.logger.warning, self.max_losses, signals
            )


class _Rest(Sampler):
    """The batches of a sampler that come after some."""

    def __init__(self, batches: Any, done: int) -> None:
        self.batches, self.done = batches, done

    def __len__(self) -> int:
        return len(self.batches) - self.done

    def __iter__(self) -> Iterator[list[int]]:
        return itertools.islice(iter(self.batches), self.done, None)


def loader_like(loader: DataLoader, dataset: Any, batch_sampler: Any) -> DataLoader:
    """Build a data loader with the settings of another, over other batches."""
    names = (
        'num_workers', 'collate_fn', 'pin_memory', 'timeout', 'multiprocessing_context',
        'generator', 'prefetch_factor', 'persistent_workers', 'pin_memory_device', 'worker_init_fn',
    )  # fmt: skip
    settings = {name: getattr(loader, name) for name in names if hasattr(loader, name)}
    return DataLoader(dataset, batch_sampler=batch_sampler, **settings)


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, NumPy, torch or the system had no memory to give.

    Across the border of a process NumPy's error comes as a RuntimeError, which torch's own is from
    the start; then the last line of its text tells.
    """
    if isinstance(error, MemoryError) or getattr(error, 'errno', None) == errno.ENOMEM:
        return True
    last = str(error).strip().rpartition('\n')[2]
    return any(words in last for words in OUT_OF_MEMORY)


def end_workers(batches: Any) -> None:
    """End the processes of a data loader's iterator; they hold nothing that is still wanted."""
    for worker in getattr(batches, '_workers', ()):
        worker.kill()
    # Or it would ask them to end, under a lock that a dead one may hold for ever.
    batches._shutdown = True
