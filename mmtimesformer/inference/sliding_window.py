"""Classify a long video in sliding windows: a timeline of predictions.

A video is decoded once, from its first frame to its last. Only frames that a window needs are kept,
and only while it is open, so the memory does not grow with the length.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice, pairwise
from typing import Any

import numpy as np

from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.inference.inputs import stream_frames
from mmtimesformer.inference.prediction import LONGEST_NAME, Prediction
from mmtimesformer.inference.views import Views, frame_numbers
from mmtimesformer.terminal import safe_text


@dataclass(frozen=True)
class Moment:
    """A window of a video, in seconds as a player counts them, and its best classes."""

    start: float
    end: float
    prediction: Prediction


@dataclass(frozen=True)
class Segment:
    """A stretch of a video in which the best class, or the set of labels, stays the same.

    Attributes:
        start: Seconds; where two stretches meet, the middle between their nearest windows' centres.
        end: Seconds.
        label: The best class; of a multi-label model all labels above the threshold, joined by
            ``+``, or ``no label``.
        score: The mean of the best class's scores.
    """

    start: float
    end: float
    label: str
    score: float


@dataclass
class Timeline:
    """The moments of a video, one for each window, in order."""

    video: str
    window: float  # its length, in seconds
    stride: float  # from the start of a window to that of the next, in seconds
    moments: list[Moment] = field(default_factory=list)
    note: str = ''  # a warning, such as where decoding ended too early

    def segments(self) -> list[Segment]:
        """Join neighbours with the same best class, or the same labels of a multi-label model."""
        return self._join(_labels)

    def best_segments(self) -> list[Segment]:
        """Join neighbours with the same best class, however many labels they have."""
        return self._join(lambda prediction: prediction.top)

    def _join(self, label_of: Callable[[Prediction], str]) -> list[Segment]:
        runs: list[list[Moment]] = []
        for moment in self.moments:
            if runs and label_of(runs[-1][-1].prediction) == label_of(moment.prediction):
                runs[-1].append(moment)
            else:
                runs.append([moment])
        borders = [self.moments[0].start] if runs else []
        for run, following in pairwise(runs):
            borders.append((_centre(run[-1]) + _centre(following[0])) / 2)
        borders += [self.moments[-1].end] if runs else []
        return [
            Segment(
                start,
                end,
                label_of(run[0].prediction),
                sum(moment.prediction.scores[0] for moment in run) / len(run),
            )
            for run, start, end in zip(runs, borders, borders[1:], strict=False)
        ]

    def at(self, time: float) -> Moment:
        """Return the moment whose centre is nearest to a time in seconds."""
        return min(self.moments, key=lambda moment: abs(_centre(moment) - time))

    def prediction_at(self, time: float) -> Prediction:
        """Return the prediction of the window whose centre is nearest to a time in seconds."""
        return self.at(time).prediction

    def as_rows(self) -> list[list[Any]]:
        """Return a table: a line for each window, its best classes side by side.

        Of a multi-label model the last column has all labels above the threshold.
        """
        ranks = range(1, 1 + max((len(m.prediction.labels) for m in self.moments), default=0))
        columns = [f'{word}_{rank}' for rank in ranks for word in ('label', 'score')]
        rows: list[list[Any]] = [['start', 'end', *columns]]
        for moment in self.moments:
            best = zip(moment.prediction.labels, moment.prediction.scores, strict=True)
            cells = [cell for label, score in best for cell in (label, score)]
            rows.append([round(moment.start, 3), round(moment.end, 3), *cells])
        if any(moment.prediction.is_multi_label for moment in self.moments):
            names = ['; '.join(m.prediction.above_threshold or ()) for m in self.moments]
            for row, cell in zip(rows, ['above_threshold', *names], strict=True):
                row.append(cell)
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Return all as plain values, for JSON."""
        return {
            'video': self.video,
            'window': self.window,
            'stride': self.stride,
            'score': self.moments[0].prediction.fusion if self.moments else None,
            'note': self.note,
            'segments': [asdict(one) for one in self.segments()],
            'moments': [
                {'start': one.start, 'end': one.end}
                | {k: v for k, v in one.prediction.as_dict().items() if k != 'video'}
                for one in self.moments
            ],
        }

    def __str__(self) -> str:
        lines = [safe_text(self.video)]
        for one in self.segments():
            is_probability = self.moments[0].prediction.is_probability
            score = f'{100 * one.score:.1f} %' if is_probability else f'{one.score:.2f}'
            label = safe_text(one.label, LONGEST_NAME)
            lines.append(f'  {clock(one.start)} - {clock(one.end)}  {label}  {score}')
        return '\n'.join([*lines, *([f'  {safe_text(self.note)}'] if self.note else [])])


@dataclass(frozen=True)
class Window:
    """A window, in seconds, with its views, packed as the model takes them."""

    start: float
    end: float
    data: dict[str, Any]


class Windows:
    """Slide a window over a video file; iterate once.

    A window has ``seconds``, and starts ``stride`` seconds after the one before it. The last one is
    moved back to end where the video ends. A video shorter than a window is one window. ``note`` is
    set when decoding ended too early.

    Raises:
        ValueError: The file has no frames per second.
    """

    def __init__(self, video: Video, views: Views, seconds: float, stride: float) -> None:
        if not video.fps > 0:
            raise ValueError(
                f'the video {video.path} has no frames per second, which windows of seconds need; '
                'write it again, for instance with ffmpeg -r 30'
            )
        self.video, self.views = video, views
        self.length = min(max(1, round(seconds * video.fps)), len(video))
        step = max(1, round(stride * video.fps))
        self.starts = list(range(0, len(video) - self.length + 1, step))
        if self.starts[-1] + self.length < len(video):
            self.starts.append(len(video) - self.length)
        self.note = ''

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[Window]:
        chosen = self.views.choose(self.length, self.video.fps)
        wanted = set(frame_numbers(chosen))
        waiting, running = deque(self.starts), deque[tuple[int, float, dict[int, Any]]]()
        frame_time = 1 / self.video.fps
        given = 0
        try:
            for frame in stream_frames(self.video):
                while waiting and waiting[0] == frame.number:
                    running.append((waiting.popleft(), frame.time, {}))
                pixels = None
                for start, _, frames in running:
                    if frame.number - start in wanted:
                        pixels = frame.pixels() if pixels is None else pixels
                        frames[frame.number - start] = pixels
                while running and running[0][0] + self.length - 1 == frame.number:
                    _, began, frames = running.popleft()
                    data = self.views.of_chosen(chosen, frames)
                    given += 1
                    yield Window(began, frame.time + frame_time, data)
            reason = 'it has fewer frames than its header gives'
        except ValueError as error:
            reason = str(error)
        if given < len(self):
            if not given:
                raise ValueError(f'the video {self.video.path} cannot be read: {reason}')
            missing = len(self) - given
            self.note = f'windows missing at the end: {missing} of {len(self)}; {reason}'


def run_windows(
    windows: Iterable[Window],
    scores_of: Callable[[list[dict[str, Any]]], list[np.ndarray]],
    batch_size: int,
) -> Iterator[tuple[Window, np.ndarray]]:
    """Run windows through a model in batches; yield each with its scores."""
    waiting = iter(windows)
    while batch := list(islice(waiting, batch_size)):
        yield from zip(batch, scores_of([one.data for one in batch]), strict=True)


def clock(seconds: float) -> str:
    """Write a time as minutes and seconds: ``1:05.2``."""
    minutes, rest = divmod(round(max(seconds, 0) * 10), 600)
    return f'{minutes}:{rest // 10:02d}.{rest % 10}'


def _labels(prediction: Prediction) -> str:
    """Name the labels of a moment, in the order of their names if there are several."""
    if prediction.above_threshold is None:
        return prediction.top
    return ' + '.join(sorted(prediction.above_threshold)) or 'no label'


def _centre(moment: Moment) -> float:
    return (moment.start + moment.end) / 2
