"""Predict a video and draw its attention for the demo page, which ``tools/demo_app.py`` serves."""

import contextlib
import html
import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from mmtimesformer.cli import error_message
from mmtimesformer.datasets.transforms.decoding import Video
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
LONGEST = 600.0  # seconds of a video
TEMPLATE = 'demo_answer.html.jinja'


class Stopped(Exception):  # noqa: N818 (a request that ends early, not an error)
    """The client does not wait for the answer any more."""


@dataclass(frozen=True)
class Answer:
    """What the demo page shows of one video."""

    words: str  # HTML: labels with bars, an error message, or a sentence
    grid: Path | None = None  # a picture of frames and overlays; None if there is an error
    overlay: Path | None = None  # a video of both
    walk: str = ''  # HTML: the attention page of layers, heads, frames and patches
    meaning: str = ''  # what the overlays show


class DemoPage:
    """Predict videos and draw their attention, one at a time.

    Args:
        classifier: The model.
        folder: For pictures and videos; those of the last :data:`WRITTEN` answers are kept.
        longest: Seconds of a video; a longer one gets an error message.
    """

    def __init__(self, classifier: VideoClassifier, folder: Path, longest: float = LONGEST) -> None:
        self.classifier = classifier
        self.folder = folder
        self.longest = longest
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
            waits: Whether the client still waits. If not, the model does not run, or stops before
                its next block.
        """
        if video is None:
            return Answer('')
        blocks = self.classifier.model.backbone.blocks[:-1]  # hooks change how the last one runs
        with self._lock, contextlib.suppress(Stopped), stopping(blocks, waits):
            return self._answer(video, method, waits)
        return Answer(sentence('Stopped.'))

    def _answer(self, video: str | Path, method: str, waits: Callable[[], bool]) -> Answer:
        try:
            _check(waits)
            attention = self._compute(Path(video))
            _check(waits)
            heatmap = attention.heatmap(method)
            place = self._place()
            title = METHODS[method].replace('the label', shown_name(attention.name))
            rows = {'attention': heatmap}
            draw_attention(attention.frames, rows, place / 'grid.png', title, attention.seconds)
            _check(waits)
            write_attention_video(
                attention.frames, heatmap, place / 'overlay.mp4', attention.seconds
            )
            _check(waits)
            write_page(attention, place / 'page.html', megabytes=MEGABYTES, method=method)
        except Stopped:
            raise
        except Exception as error:  # a file from anyone may raise anything
            return Answer(render(TEMPLATE, error=_without_folder(error, video)))
        walk = html.escape((place / 'page.html').read_text(encoding='utf-8'), quote=True)
        return Answer(
            _words(attention),
            place / 'grid.png',
            place / 'overlay.mp4',
            '<iframe title="Attention of each layer, head, frame and patch" '
            f'srcdoc="{walk}"></iframe>',
            METHODS[method].replace('the label', f'“{safe_text(attention.name, LONGEST_NAME)}”'),
        )

    def _compute(self, video: Path) -> AttentionView:
        key = str(video), video.stat().st_mtime_ns
        if key not in self._cache:
            check_length(video, self.longest)
            self._cache[key] = compute_attention(self.classifier, video, gradients=True)
            while len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        return self._cache[key]

    def _place(self) -> Path:
        """Return a new folder, whose name other clients cannot guess."""
        self._written += 1
        for old in self.folder.glob(f'{self._written - WRITTEN}-*'):
            shutil.rmtree(old, ignore_errors=True)
        return self.folder / f'{self._written}-{secrets.token_hex(16)}'


def sentence(text: str) -> str:
    """Return HTML that stands where the labels stand, such as a hint."""
    return render(TEMPLATE, error='', sentence=text)


@contextlib.contextmanager
def stopping(blocks: Iterable[nn.Module], waits: Callable[[], bool]) -> Iterator[None]:
    """Raise :class:`Stopped` before one of the blocks runs, once the client does not wait.

    Only blocks get a hook: layers with hooks are not fused, which would change rounding.
    """

    def check(*inputs: Any) -> None:
        _check(waits)

    handles = [block.register_forward_pre_hook(check) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_length(path: Path, longest: float) -> None:
    """Refuse a video of more than ``longest`` seconds.

    Raises:
        ValueError: It is longer. (A file that cannot be read is left to the model.)
    """
    try:
        video = Video(path)
    except ValueError:
        return
    if len(video) > longest * video.fps:
        raise ValueError(
            f'{path.name} has {len(video) / video.fps:.0f} seconds; '
            f'this page takes at most {longest:g} (--max-seconds)'
        )


def _check(waits: Callable[[], bool]) -> None:
    if not waits():
        raise Stopped


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
    return render(TEMPLATE, error='', sentence='', labels=labels, model=describe(attention.maps))


def _without_folder(error: Exception, video: str | Path) -> str:
    """Return the error message without the server's folder of uploads."""
    return error_message(error).replace(f'{Path(video).parent}/', '')
