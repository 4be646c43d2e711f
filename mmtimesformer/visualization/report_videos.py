"""List the videos of a test for its report: labels, predictions, scores of each view, frames.

The page filters, sorts and marks them, and writes a corrected annotation file from the marks.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mmtimesformer.analysis.metrics import TestResults, softmax
from mmtimesformer.analysis.multi_label import sigmoid
from mmtimesformer.visualization.report_parts import frames_of

MOST_SCORES = 5  # classes of a video, besides its labels
MOST_VIEW_ROWS = 100_000  # of all videos; those with the largest errors have theirs
DIGITS = 4  # of a probability


def video_data(
    results: TestResults,
    probabilities: np.ndarray,
    predicted: np.ndarray,
    errors: np.ndarray,
    frames: int,
) -> dict[str, Any]:
    """Return what the list of videos in a report shows, as JSON values.

    Args:
        results: The test, with the videos that could not be read.
        probabilities: Of each class; of a regression the predicted numbers.
        predicted: Whether each class is predicted; not used for a regression.
        errors: What videos are sorted by, the largest first.
        frames: How many videos are shown with frames, those with the largest errors first.

    Shape:
        - probabilities, predicted: ``videos classes``
        - errors: ``videos``
    """
    order = [int(i) for i in np.argsort(-errors, kind='stable') if int(i) not in results.failed]
    pictured = set(order[: max(0, frames)] if len(results.videos) else [])
    with_views = set(_with_views(results, order))
    kind = _kind(results)
    videos = []
    for i, (name, columns) in enumerate(_listed(results)):
        video: dict[str, Any] = {'name': name, 'columns': columns, 'labels': _labels(results, i)}
        if i in results.failed:
            video['failed'] = results.failed[i][1]
        elif kind == 'regression':
            video |= {'predicted': _numbers(probabilities[i]), 'error': _rounded(errors[i])}
        else:
            video |= {
                'predicted': np.flatnonzero(predicted[i]).tolist(),
                'scores': _scores(probabilities[i], results.labels[i]),
                'error': _rounded(errors[i]),
            }
        if i in with_views and results.view_scores is not None:
            video['views'] = _views(results, results.view_scores[i], i)
        if i in pictured:
            video['frames'] = frames_of(results.videos[i])
        videos.append(video)
    return {
        'kind': kind,
        'classes': list(results.classes),
        'delimiter': results.delimiter,
        'key': _key(results),
        'note': _note(results),
        'canDownload': bool(len(results.lines)) and not changed_labels(results),
        'missingViews': results.view_scores is not None and len(with_views) < len(order),
        'videos': videos,
    }


def errors_of(results: TestResults) -> np.ndarray:
    """Return 1 minus the probability of the label of each video of a one-label test."""
    rows = np.arange(len(results.labels))
    return 1 - np.asarray(results.probabilities[rows, results.labels], dtype=np.float64)


def changed_labels(results: TestResults) -> int:
    """Return how many lines of the annotation file have other labels than the test had."""
    if not len(results.lines):
        return 0
    tokens = [_tokens_of(results, i) for i in range(len(results.lines))]
    lengths = [line.count(results.delimiter) for line in results.lines]
    others = [length - len(one) for length, one in zip(lengths, tokens, strict=True)]
    return sum(
        other != min(others) or one != _label_tokens(results, i, line)
        for i, (line, one, other) in enumerate(zip(results.lines, tokens, others, strict=True))
    )


def _kind(results: TestResults) -> str:
    if results.is_regression:
        return 'regression'
    return 'multi' if results.is_multi_label else 'single'


def _listed(results: TestResults) -> Iterator[tuple[str, list[str]]]:
    """Return name and further columns (such as the number of frames) of each line."""
    for i in range(len(results.labels)):
        if not len(results.lines):
            yield results.failed.get(i, ('', ''))[0] or f'video {i}', []
            continue
        name, *cells = results.lines[i].split(results.delimiter)
        labels = len(_tokens_of(results, i))
        yield name, cells[: len(cells) - labels]


def _tokens_of(results: TestResults, i: int) -> list[float]:
    """Return the labels of a video as numbers, as its line ends with."""
    row = results.labels[i]
    if results.is_regression:
        return [float(np.float32(value)) for value in row]
    return [float(k) for k in (np.flatnonzero(row) if results.is_multi_label else [row])]


def _label_tokens(results: TestResults, i: int, line: str) -> list[float] | None:
    """Return the numbers that a line ends with, as many as the video has labels."""
    count = len(_tokens_of(results, i))
    cells = line.split(results.delimiter)[1:]
    try:
        found = [float(cell) for cell in cells[len(cells) - count :]]
    except ValueError:
        return None
    if results.is_regression:
        return [float(np.float32(value)) for value in found]
    return sorted(found)


def _labels(results: TestResults, i: int) -> list[int] | list[str]:
    if results.is_regression and not len(results.lines):
        return _numbers(results.labels[i])
    if results.is_regression:
        return results.lines[i].split(results.delimiter)[-len(results.classes) :]
    return [int(k) for k in _tokens_of(results, i)]


def _numbers(row: np.ndarray) -> list[str]:
    """Return numbers of single precision as short text that reads back as the same."""
    return [str(np.float32(value)) for value in row]


def _rounded(value: float) -> float:
    return round(float(value), DIGITS)


def _scores(probabilities: np.ndarray, labels: np.ndarray) -> list[tuple[int, float]]:
    """Return the most probable classes, and the labels, with their probabilities."""
    best = np.argsort(-probabilities, kind='stable')[:MOST_SCORES].tolist()
    true = np.flatnonzero(labels).tolist() if labels.ndim else [int(labels)]
    chosen = dict.fromkeys([*best, *true])
    ranked = sorted(chosen, key=lambda k: -probabilities[k])
    return [(k, _rounded(probabilities[k])) for k in ranked]


def _with_views(results: TestResults, order: Sequence[int]) -> Sequence[int]:
    if results.view_scores is None:
        return []
    return order[: MOST_VIEW_ROWS // max(1, results.view_scores.shape[1])]


def _views(results: TestResults, logits: np.ndarray, i: int) -> list[list[Any]]:
    """Return of each view its scores as :func:`_scores`; of a regression its numbers."""
    if results.is_regression:
        return [_numbers(row) for row in logits]
    several = results.is_multi_label and results.about.get('fusion') != 'mean of softmax'
    values = (sigmoid if several else softmax)(logits.astype(np.float64))
    return [_scores(row, results.labels[i]) for row in values]


def _key(results: TestResults) -> str:
    """Return a hash of the test, under which a browser keeps its marks."""
    text = hashlib.sha256(repr(list(results.classes)).encode('utf-8', 'backslashreplace'))
    text.update('\n'.join(results.lines).encode('utf-8', 'backslashreplace'))
    text.update(np.ascontiguousarray(results.labels).tobytes())
    text.update(np.ascontiguousarray(results.scores).tobytes())
    return text.hexdigest()[:16]


def _note(results: TestResults) -> str:
    """Return why no annotation file can be written; empty if one can be."""
    if not len(results.lines):
        return (
            'The annotation file of the test is not known here, so names are numbers and no '
            'corrected file can be downloaded. Keep the config in the work_dir, and its ann_file.'
        )
    if changed := changed_labels(results):
        return (
            f'The annotation file has changed since the test: {changed:,} of {len(results.lines):,}'
            ' lines have other labels. Names may be those of other videos. Test again to download '
            'a corrected file.'
        )
    return ''
