"""Predict a video and draw its attention for the demo page, which ``tools/demo_app.py`` serves."""

import html
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmtimesformer.cli import error_message
from mmtimesformer.inference import VideoClassifier
from mmtimesformer.inference.prediction import LONGEST_NAME
from mmtimesformer.terminal import safe_text
from mmtimesformer.visualization.attention import (
    METHODS,
    AttentionView,
    compute_attention,
    describe,
    draw_attention,
    write_attention_video,
)
from mmtimesformer.visualization.attention_page import write_page
from mmtimesformer.visualization.figures import shown_name
from mmtimesformer.visualization.templates import render

CACHED = 4  # videos whose attention is kept, for another method
WRITTEN = 32  # answers whose files are kept
MEGABYTES = 6.0  # of weights in the attention page, which is a frame in the demo page
TEMPLATE = 'demo_answer.html.jinja'


@dataclass(frozen=True)
class Answer:
    """What the demo page shows of one video."""

    words: str  # HTML: labels with bars, or the error message
    grid: Path | None = None  # a picture of frames and overlays; None if there is an error
    overlay: Path | None = None  # a video of both
    walk: str = ''  # HTML: the attention page of layers, heads, frames and patches


class DemoPage:
    """Predict videos and draw their attention, one at a time.

    Args:
        classifier: The model.
        folder: For pictures and videos; those of the last :data:`WRITTEN` answers are kept.
    """

    def __init__(self, classifier: VideoClassifier, folder: Path) -> None:
        self.classifier = classifier
        self.folder = folder
        self._cache: OrderedDict[tuple[str, int], AttentionView] = OrderedDict()
        self._written = 0
        self._lock = threading.Lock()

    def methods(self) -> dict[str, str]:
        """Return the methods to draw attention: the text of the button, and the name."""
        return {
            'attention rollout, all layers': 'rollout',
            'attention in the last layer': 'last',
            'gradient relevance for the label': 'gradient',
        }

    def __call__(
        self,
        video: str | Path | None,
        method: str = 'rollout',
        waits: Callable[[], bool] = lambda: True,
    ) -> Answer:
        """Predict a video and draw its attention; an error becomes a message in the answer.

        Args:
            video: A file.
            method: One of :meth:`methods`.
            waits: Whether the client still waits; if not, the model does not run.
        """
        if video is None:
            return Answer('')
        with self._lock:
            return self._answer(video, method, waits) if waits() else Answer('')

    def _answer(self, video: str | Path, method: str, waits: Callable[[], bool]) -> Answer:
        try:
            attention = self._compute(Path(video))
            if not waits():  # any more
                return Answer('')
            heatmap = attention.heatmap(method)
            place = self._place()
            title = METHODS[method].replace('the label', shown_name(attention.name))
            rows = {'attention': heatmap}
            draw_attention(attention.frames, rows, place / 'grid.png', title, attention.seconds)
            write_attention_video(
                attention.frames, heatmap, place / 'overlay.mp4', attention.seconds
            )
            write_page(attention, place / 'page.html', megabytes=MEGABYTES, method=method)
        except Exception as error:  # a file from anyone may raise anything
            return Answer(render(TEMPLATE, error=_without_folder(error, video)))
        walk = html.escape((place / 'page.html').read_text(encoding='utf-8'), quote=True)
        return Answer(
            _words(attention),
            place / 'grid.png',
            place / 'overlay.mp4',
            f'<iframe title="Layers, heads, frames and patches" srcdoc="{walk}"></iframe>',
        )

    def _compute(self, video: Path) -> AttentionView:
        key = str(video), video.stat().st_mtime_ns
        if key not in self._cache:
            self._cache[key] = compute_attention(self.classifier, video, gradients=True)
            while len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        return self._cache[key]

    def _place(self) -> Path:
        """Return a new folder: browsers do not load a name a second time."""
        self._written += 1
        shutil.rmtree(self.folder / str(self._written - WRITTEN), ignore_errors=True)
        return self.folder / str(self._written)


def _words(attention: AttentionView) -> str:
    """Return the best classes as HTML, with bars where scores are probabilities."""
    prediction = attention.prediction
    labels = [
        (
            safe_text(label, LONGEST_NAME),
            prediction.shown(rank),
            prediction.scores[rank] if prediction.is_probability else None,
        )
        for rank, label in enumerate(prediction.labels)
    ]
    return render(TEMPLATE, error='', labels=labels, model=describe(attention.maps))


def _without_folder(error: Exception, video: str | Path) -> str:
    """Return the error message without the server's folder of uploads."""
    return error_message(error).replace(f'{Path(video).parent}/', '')
