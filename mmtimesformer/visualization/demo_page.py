"""What a page to try a model shows of one video: labels with bars, and where the model looked.

It knows nothing of the page's framework; ``tools/demo_app.py`` puts the parts in their places.
"""

import html
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmtimesformer.cli import error_message
from mmtimesformer.inference import Prediction, VideoClassifier
from mmtimesformer.inference.prediction import LONGEST_NAME
from mmtimesformer.terminal import safe_text
from mmtimesformer.visualization.attention import (
    METHODS,
    AttentionView,
    describe,
    draw_attention,
    see,
    write_attention_video,
)
from mmtimesformer.visualization.attention_page import write_page
from mmtimesformer.visualization.figures import shown_name

KEPT = 4  # videos whose attention is remembered, for another way to show it
WRITTEN = 32  # answers whose pictures lie on the disk
MEGABYTES = 6.0  # of weights in the page of layers and heads, which travels inside another page


@dataclass(frozen=True)
class Answer:
    """The parts of the page that belong to one video.

    Attributes:
        words: HTML: the labels with bars, or why there are none.
        grid: A picture of the frames and of what was looked at; ``None`` without an answer.
        overlay: A video of both.
        walk: HTML: the page on which one walks through layers, heads, frames and patches.
    """

    words: str
    grid: Path | None = None
    overlay: Path | None = None
    walk: str = ''


class DemoPage:
    """Answers about videos, each in the same parts.

    Args:
        classifier: The model.
        folder: For pictures and videos; those of the last :data:`WRITTEN` answers stay.
    """

    def __init__(self, classifier: VideoClassifier, folder: Path) -> None:
        self.classifier = classifier
        self.folder = folder
        self._seen: OrderedDict[tuple[str, int], AttentionView] = OrderedDict()
        self._written = 0
        self._turn = threading.Lock()

    def methods(self) -> dict[str, str]:
        """Return the ways to show attention: what a person calls each, and its name."""
        return {
            'through all layers': 'rollout',
            'in the last layer': 'last',
            'that spoke for the label': 'gradient',
        }

    def __call__(
        self,
        video: str | Path | None,
        method: str = 'rollout',
        waits: Callable[[], bool] = lambda: True,
    ) -> Answer:
        """Label a video and draw its attention; what is wrong with it is said in words.

        One answer is made at a time, whatever thread asks.

        Args:
            video: A file.
            method: One of :meth:`methods`.
            waits: Whether somebody still waits for the answer; where nobody does, the model does
                not run.
        """
        if video is None:
            return Answer('')
        with self._turn:
            return self._answer(video, method, waits) if waits() else Answer('')

    def _answer(self, video: str | Path, method: str, waits: Callable[[], bool]) -> Answer:
        try:
            sight = self._see(Path(video))
            if not waits():  # any more
                return Answer('')
            heat = sight.heat(method)
            place = self._place()
            title = METHODS[method].replace('the class,', f'{shown_name(sight.name)},')
            rows = {'attention': heat}
            draw_attention(sight.frames, rows, place / 'grid.png', title, sight.seconds)
            write_attention_video(sight.frames, heat, place / 'overlay.mp4', sight.seconds)
            write_page(sight, place / 'page.html', megabytes=MEGABYTES, method=method)
        except Exception as error:  # whatever a stranger's file brings about
            return Answer(f'<div class="letter">{html.escape(_without_folder(error, video))}</div>')
        walk = html.escape((place / 'page.html').read_text(encoding='utf-8'), quote=True)
        return Answer(
            bars(sight.prediction) + f'<p class="made">{html.escape(describe(sight.maps))}</p>',
            place / 'grid.png',
            place / 'overlay.mp4',
            f'<iframe title="Layers, heads, frames and patches" srcdoc="{walk}"></iframe>',
        )

    def _see(self, video: Path) -> AttentionView:
        key = str(video), video.stat().st_mtime_ns
        if key not in self._seen:
            self._seen[key] = see(self.classifier, video, gradients=True)
            while len(self._seen) > KEPT:
                self._seen.popitem(last=False)
        return self._seen[key]

    def _place(self) -> Path:
        """Return a new folder: what a browser has loaded under a name it does not load again."""
        self._written += 1
        shutil.rmtree(self.folder / str(self._written - WRITTEN), ignore_errors=True)
        return self.folder / str(self._written)


def bars(prediction: Prediction) -> str:
    """Write the best classes as HTML, each with a bar where scores are probabilities."""
    rows = []
    for rank, label in enumerate(prediction.labels):
        share = prediction.scores[rank] if prediction.is_probability else 0.0
        bar = f'<i style="width:{100 * share:.2f}%"></i>' if prediction.is_probability else ''
        name = html.escape(safe_text(label, LONGEST_NAME))
        rows.append(
            f'<li><b>{name}</b><span>{prediction.shown(rank)}</span>'
            f'<div class="bar">{bar}</div></li>'
        )
    return f'<ol class="labels">{"".join(rows)}</ol>'


def _without_folder(error: Exception, video: str | Path) -> str:
    """Say what is wrong; where an upload lies is of no use to the one who uploaded it."""
    return error_message(error).replace(f'{Path(video).parent}/', '')
