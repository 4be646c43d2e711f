"""Call a function on each item in worker processes, which may crash or hang (with a time limit).

A corrupt video can crash or hang a decoder. The item then gets an error message, and another worker
replaces the one that died or was too slow.

NOTE: pebble kills only the worker on a timeout, not the ffmpeg that it started; loky has no time
limit for one call, and fails all pending calls if one worker crashes. Hence own code.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar('T')
R = TypeVar('R')

START_LIMIT = 300  # seconds in which a worker must have imported what it needs


def call_isolated(
    job: Callable[[T], R],
    items: Iterable[T],
    num_workers: int,
    timeout: float,
    preload: tuple[str, ...] = (),
) -> Generator[tuple[T, R | None, str | None], None, None]:
    """Call ``job`` on each item, in worker processes.

    Args:
        job: A function that can be pickled. What it raises becomes a message.
        items: Each is pickled and sent.
        num_workers: Processes.
        timeout: Seconds for one call, from when a worker takes it.
        preload: Modules that are imported once for all workers.

    Yields:
        An item, what the job returned, and ``None``; or the item, ``None``, and what went wrong. In
        the order in which they are done. Workers end when the iterator is closed.
    """
    context = _context(preload)
    todo = iter(items)
    workers: list[_Worker[T, R]] = []
    try:
        for item in todo:
            workers.append(_Worker(context, job, timeout, item))
            if len(workers) >= num_workers:
                break
        while workers:
            soonest = min(worker.deadline for worker in workers)
            wait([worker.pipe for worker in workers], max(0, soonest - time.monotonic()))
            for worker in list(workers):
                done = worker.answer()
                if done is None:
                    continue
                yield done
                try:
                    following = next(todo)
                except StopIteration:
                    worker.end()
                    workers.remove(worker)
                    continue
                if worker.alive:
                    worker.take(following)
                else:
                    worker.end()
                    workers[workers.index(worker)] = _Worker(context, job, timeout, following)
    finally:
        for worker in workers:
            worker.end()


class Writing(Protocol):
    """A file to be written; ``part`` is the path of the unfinished file."""

    @property
    def part(self) -> Path: ...


W = TypeVar('W', bound=Writing)


def write_isolated(
    job: Callable[[W], R], todo: Sequence[W], num_workers: int, timeout: float
) -> Generator[tuple[W, R | None, str | None], None, None]:
    """Call ``job`` as :func:`call_isolated` does, and remove what it leaves unfinished."""
    at_work = set(todo)
    results = call_isolated(job, todo, num_workers, timeout, (job.__module__,))
    try:
        with closing(results):
            for item, done, wrong in results:
                _discard(item.part)
                at_work.discard(item)
                yield item, done, wrong
    finally:
        for item in at_work:  # those whose processes have just been killed
            _discard(item.part)


def _discard(part: Path) -> None:
    with suppress(OSError):
        part.unlink(missing_ok=True)


class _Worker(Generic[T, R]):
    """A process, the item it is at, and until when it may be."""

    def __init__(self, context: Any, job: Callable[[T], R], timeout: float, item: T) -> None:
        self.timeout = timeout
        self.item = item
        self.ready = False
        self.alive = True
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(job, theirs), daemon=True)
        self.process.start()
        theirs.close()  # or the end of the process would not end the pipe
        self.deadline = time.monotonic() + START_LIMIT

    def take(self, item: T) -> None:
        self.item = item
        self.deadline = time.monotonic() + self.timeout
        try:
            self.pipe.send(item)
        except OSError:  # it has just died; reading the pipe fails then
            pass

    def answer(self) -> tuple[T, R | None, str | None] | None:
        """Return what became of the item, or nothing as long as it is being worked at."""
        if self.pipe.poll():
            try:
                output = self.pipe.recv()
            except (EOFError, OSError):
                return self._died()
            if not self.ready:
                self.ready = True
                self.take(self.item)
                return None
            return (self.item, *output)
        if time.monotonic() < self.deadline:
            return None
        self.end()
        if not self.ready:
            raise RuntimeError(f'a worker process did not start in {START_LIMIT} seconds')
        return self.item, None, f'no answer in {self.timeout:g} seconds'

    def _died(self) -> tuple[T, R | None, str | None]:
        self.process.join()
        code = self.process.exitcode
        self.end()
        if not self.ready:
            raise RuntimeError(f'a worker process could not start (exit code {code})')
        how = f'signal {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'
        return self.item, None, f'the process that read it crashed ({how})'

    def end(self) -> None:
        """Kill the process, and what it has started."""
        self.alive = False
        if self.process.is_alive():
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except (AttributeError, OSError):  # Windows; or no group of its own yet
                self.process.kill()
        self.process.join()
        self.pipe.close()


def _context(preload: tuple[str, ...]) -> Any:
    """Choose how processes start: from a clean server where there is one.

    A plain fork would copy this process with its threads in whatever state they are.
    """
    if 'forkserver' not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context('spawn')
    from multiprocessing import forkserver

    context = multiprocessing.get_context('forkserver')
    # What all workers need is imported once, there, and not by each of them for seconds.
    context.set_forkserver_preload([__name__, *preload])
    # Python 3.11's server searches PYTHONPATH for modules, not the sys.path of this process.
    before = os.environ.get('PYTHONPATH')
    os.environ['PYTHONPATH'] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ['PYTHONPATH']
        else:
            os.environ['PYTHONPATH'] = before
    return context


def _serve(job: Callable[[Any], Any], pipe: 'Connection[Any, Any]') -> None:
    """Answer calls until the other end is gone, be it by a crash."""
    if hasattr(os, 'setsid'):
        os.setsid()  # a group of its own, so that what it starts can be killed with it
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)  # decoders write whatever they find odd, and progress is shown there
    try:
        pipe.send(None)
        while True:
            item = pipe.recv()
            try:
                output: tuple[Any, str | None] = job(item), None
            except Exception as error:
                lines = str(error).strip().splitlines()
                output = None, lines[0] if lines else type(error).__name__
            pipe.send(output)
    except (EOFError, OSError):
        return
