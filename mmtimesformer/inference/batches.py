"""Open videos, run them through a model in batches, and return each result in order."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from rich.console import Console

from mmtimesformer.inference.inputs import (
    ArrayForm,
    Given,
    error_message,
    is_many,
    short_reason,
    videos_of,
)
from mmtimesformer.inference.prediction import Prediction, Predictions, Skipped
from mmtimesformer.non_finite import EARLY, REASON, NonFiniteError, about_scores, is_finite
from mmtimesformer.terminal import track

Data = dict[str, Any]
Run = Callable[[list[Data]], list[np.ndarray]]
Result = tuple[Given, np.ndarray | Skipped]


def run_in_batches(
    video: Any,
    open_video: Callable[[Given], Data],
    run: Run,
    batch_size: int,
    progress: bool,
    form: ArrayForm,
) -> Iterator[Result]:
    """Open videos, run them in batches, and yield each with its result, in order.

    Of many videos, those that cannot be read are :class:`Skipped`.

    Raises:
        ValueError: The only video cannot be read.
    """
    many, videos = is_many(video), videos_of(video, form)
    waiting: list[tuple[Given, Data | Skipped]] = []
    for number, given in enumerate(watch(videos, len(videos), 'videos', progress and many), 1):
        try:
            waiting.append((given, open_video(given)))
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # each reader has its own classes of errors
            if not many:
                raise ValueError(error_message(error, given.path, given.name)) from error
            reason = short_reason(error, given.path, given.name)
            waiting.append((given, Skipped(given.name, reason)))
        ready = sum(not isinstance(data, Skipped) for _, data in waiting)
        if ready >= batch_size or number == len(videos):
            yield from _run_batch(waiting, run)
            waiting = []


def _run_batch(waiting: list[tuple[Given, Data | Skipped]], run: Run) -> Iterator[Result]:
    """Run a batch; videos whose views have another shape are a batch of their own."""
    data = {i: one for i, (_, one) in enumerate(waiting) if not isinstance(one, Skipped)}
    results: dict[int, np.ndarray] = {}
    for shape in sorted({tuple(one['inputs'].shape) for one in data.values()}):
        numbers = [i for i, one in data.items() if tuple(one['inputs'].shape) == shape]
        results.update(zip(numbers, run([data[i] for i in numbers]), strict=True))
    for i, (given, one) in enumerate(waiting):
        yield given, one if isinstance(one, Skipped) else results[i]


def skip_non_finite(
    results: Iterable[Result], speed: str, what: str = 'class scores'
) -> Iterator[Result]:
    """Replace results that are NaN or infinite by a :class:`Skipped`.

    Raises:
        NonFiniteError: The first :data:`~mmtimesformer.non_finite.EARLY` are all NaN or infinite.
    """
    broken: list[str] = []
    finite = 0
    for given, result in results:
        if isinstance(result, Skipped):
            yield given, result
        elif is_finite(result):
            finite += 1
            yield given, result
        else:
            broken.append(given.name)
            if not finite and len(broken) >= EARLY:
                raise NonFiniteError(about_scores(broken, None, speed, what))
            reason = REASON.replace('scores', what.removeprefix('class '))
            yield given, Skipped(given.name, reason, non_finite=True)


def collect_predictions(
    results: Iterable[Result], label: Callable[[str, np.ndarray], Prediction], speed: str
) -> Predictions:
    """Label each video by its scores; list those without finite scores as skipped.

    Raises:
        NonFiniteError: The scores of the first ``EARLY`` videos, or of all, are NaN or infinite.
        ValueError: No video could be read.
    """
    found = Predictions()
    for given, result in skip_non_finite(results, speed):
        if isinstance(result, Skipped):
            found.skipped.append(result)
        else:
            found.append(label(given.name, result))
    if found.non_finite and not found:
        raise NonFiniteError(about_scores(found.non_finite, len(found.non_finite), speed))
    if found.skipped and not found:
        raise ValueError(
            f'none of {len(found.skipped)} videos could be read; the first, '
            f'{found.skipped[0].video}: {found.skipped[0].reason}'
        )
    return found


def check_positive(**numbers: float | None) -> None:
    """Refuse numbers that are not positive and finite; ``None`` is allowed."""
    for name, value in numbers.items():
        if value is not None and not 0 < value < float('inf'):
            raise ValueError(f'{name}={value} is not positive and finite; give another')


def check_probability(**numbers: float) -> None:
    """Refuse numbers outside 0 to 1."""
    for name, value in numbers.items():
        if not 0 <= value <= 1:
            raise ValueError(f'{name}={value} is not a probability; give a number from 0 to 1')


def collate(batch: list[Data]) -> Data:
    """Join the data of several videos as a model takes them."""
    return {key: [one[key] for one in batch] for key in ('inputs', 'data_samples')}


def watch(items: Iterable[Any], total: int, what: str, progress: bool) -> Iterable[Any]:
    """Show a progress bar on a terminal's standard error; standard output is for results."""
    if not progress:
        return items
    console = Console(stderr=True)
    if not console.is_terminal:
        return items
    return track(items, what, total=total, console=console)
