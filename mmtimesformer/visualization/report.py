"""One page about one test: scores, curves, confusions, mistakes, calibration. Needs no server."""

import base64
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mmtimesformer.visualization.confusion import confusion_matrix, draw_confusion
from mmtimesformer.visualization.figures import BLUE, GREY, picture
from mmtimesformer.visualization.training import draw_training, read_training

MOST_CLASSES_DRAWN = 60  # a larger confusion matrix cannot be read; the list below it can
BINS = 10  # of confidence


@dataclass
class Outcome:
    """What a test left behind.

    Attributes:
        scores: Of each video and class, ``videos classes``.
        labels: The true class of each video.
        classes: Names, in the order of the labels.
        videos: The file of each video, if known, in the order of the scores.
        about: ``result.meta.json``, as ``tools/test.py --dump`` writes it.
        work_dir: Of the training, for its curves.
    """

    scores: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    videos: Sequence[Path] = ()
    about: dict[str, Any] = field(default_factory=dict)
    work_dir: Path | None = None

    @property
    def guesses(self) -> np.ndarray:
        return self.scores.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The score of the guess, as a probability; sums of logits go through a softmax first."""
        rows = self.scores
        if not np.allclose(rows.sum(axis=1), 1, atol=1e-3) or rows.min() < 0:
            rows = np.exp(rows - rows.max(axis=1, keepdims=True))
            rows = rows / rows.sum(axis=1, keepdims=True)
        return rows.max(axis=1)


def top_k(run: Outcome, k: int) -> float:
    """Return the share of videos whose true class is among the ``k`` best scores."""
    best = np.argsort(-run.scores, axis=1, kind='stable')[:, :k]
    return float((best == run.labels[:, None]).any(axis=1).mean())


def class_accuracy(run: Outcome) -> np.ndarray:
    """Return the share of right videos of each class; NaN for a class without videos."""
    right = run.guesses == run.labels
    counts = np.bincount(run.labels, minlength=len(run.classes)).astype(float)
    counts[counts == 0] = np.nan
    return np.bincount(run.labels, weights=right, minlength=len(run.classes)) / counts


def calibration(run: Outcome) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Compare confidence and accuracy, in bins of equal width.

    Returns:
        For each bin with videos its mean confidence, its accuracy and its number of videos; and the
        expected calibration error, the mean gap between the two (Guo et al., arXiv 1706.04599).
    """
    right = run.guesses == run.labels
    bins = np.minimum((run.confidence * BINS).astype(int), BINS - 1)
    used = np.unique(bins)
    confidence = np.array([run.confidence[bins == b].mean() for b in used])
    accuracy = np.array([right[bins == b].mean() for b in used])
    counts = np.array([(bins == b).sum() for b in used])
    error = float((np.abs(confidence - accuracy) * counts).sum() / counts.sum())
    return confidence, accuracy, counts, error


def write_report(run: Outcome, path: str | Path, mistakes: int = 8) -> Path:
    """Write the page, whole or not at all.

    Args:
        run: The test.
        path: The HTML file; nothing beside it is needed to read it.
        mistakes: How many of the most confident mistakes are shown.

    Raises:
        ValueError: There is no video, or labels do not fit the classes.
    """
    if not len(run.labels):
        raise ValueError('there is no video in the results; test with at least one')
    counts = confusion_matrix(run.labels, run.guesses, len(run.classes))
    parts = [_tiles(run)]
    with TemporaryDirectory() as folder:
        parts += _curves(run, Path(folder))
        parts += _confusion(run, counts, Path(folder))
        parts += _classes(run)
        parts += _mistakes(run, mistakes)
        parts += _calibration(run, Path(folder))
    parts += _origin(run)
    title = Path(run.about.get('config') or 'Test').stem
    page = PAGE.replace('{{title}}', html.escape(title)).replace('{{body}}', '\n'.join(parts))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.partial')
    partial.write_text(page, encoding='utf-8')
    partial.replace(path)
    return path


# -- sections --------------------------------------------------------------------------------------


def _tiles(run: Outcome) -> str:
    k = min(5, len(run.classes))
    figures = {
        'top-1': f'{top_k(run, 1):.2%}',
        f'top-{k}': f'{top_k(run, k):.2%}',
        'mean over classes': f'{np.nanmean(class_accuracy(run)):.2%}',
        'videos': f'{len(run.labels):,}',
    }
    tiles = ''.join(
        f'<div class="tile"><b>{value.replace("%", " %")}</b>{name}</div>'
        for name, value in figures.items()
    )
    return f'<section class="tiles">{tiles}</section>'


def _curves(run: Outcome, folder: Path) -> list[str]:
    curves = read_training(run.work_dir) if run.work_dir else {}
    if not curves.get('loss'):
        return []
    draw_training(curves, folder / 'training.png')
    return [_section('Training', _image(folder / 'training.png', 'Loss and validation accuracy'))]


def _confusion(run: Outcome, counts: np.ndarray, folder: Path) -> list[str]:
    body = ''
    if len(run.classes) <= MOST_CLASSES_DRAWN:
        draw_confusion(counts, run.classes, folder / 'confusion.png')
        body = _image(folder / 'confusion.png', 'Confusion matrix')
    wrong = counts - np.diag(np.diag(counts))
    rows = [
        (run.classes[i], run.classes[j], int(wrong[i, j]))
        for i, j in np.argwhere(wrong)[np.argsort(-wrong[wrong > 0], kind='stable')][:10]
    ]
    if rows:
        body += '<p>Most often confused:</p>' + _table(('true', 'taken for', 'videos'), rows)
    return [_section('Which class is taken for which', body or '<p>Nothing is confused.</p>')]


def _classes(run: Outcome) -> list[str]:
    accuracy = class_accuracy(run)
    counts = np.bincount(run.labels, minlength=len(run.classes))
    order = [i for i in np.argsort(accuracy, kind='stable') if counts[i]]
    rows = [(run.classes[i], f'{accuracy[i]:.1%}', int(counts[i])) for i in order]
    heads = ('class', 'right', 'videos')
    if len(rows) <= 20:
        return [_section('Classes, worst first', _table(heads, rows))]
    body = f'<div class="pair">{_table(heads, rows[:10])}{_table(heads, rows[::-1][:10])}</div>'
    return [_section('Worst and best classes', body)]


def _mistakes(run: Outcome, number: int) -> list[str]:
    wrong = np.flatnonzero(run.guesses != run.labels)
    chosen = wrong[np.argsort(-run.confidence[wrong], kind='stable')][:number]
    if not len(chosen):
        return [_section('Mistakes', '<p>There are none.</p>')]
    figures = []
    for i in chosen:
        name = html.escape(Path(run.videos[i]).name if len(run.videos) else f'video {i}')
        said, true = (html.escape(run.classes[c]) for c in (run.guesses[i], run.labels[i]))
        figures.append(
            f'<figure>{_strip(run.videos[i]) if len(run.videos) else ""}<figcaption>'
            f'<b>{said}</b> with {run.confidence[i]:.0%}, truly <b>{true}</b> '
            f'<span>{name}</span></figcaption></figure>'
        )
    return [_section('The most confident mistakes', ''.join(figures))]


def _calibration(run: Outcome, folder: Path) -> list[str]:
    confidence, accuracy, counts, error = calibration(run)
    with picture(folder / 'calibration.png', 4.6, 3.4) as (_, axes):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=':')
        axes.plot(confidence, accuracy, color=BLUE, marker='o', lw=1.2)
        for x, y, n in zip(confidence, accuracy, counts, strict=True):
            axes.annotate(
                f'{n}', (x, y), (0, 6), textcoords='offset points', fontsize=7, ha='center'
            )
        axes.set_xlim(0, 1.03)
        axes.set_ylim(0, 1.08)
        axes.set_xlabel('confidence')
        axes.set_ylabel('share that is right')
    body = _image(folder / 'calibration.png', 'Reliability diagram')
    body += (
        f'<p>Expected calibration error {error:.1%}: by so much confidence and accuracy differ on '
        'average. Below the dotted line the model is surer than it should be. Numbers are videos.'
        '</p>'
    )
    return [_section('Is it as sure as it is right?', body)]


def _origin(run: Outcome) -> list[str]:
    about = dict(run.about)
    about.pop('classes', None)
    views = about.pop('views', None)
    if views:
        about['views'] = f'{views["clips"]} clips x {views["crops"]} crops'
    rows = [
        (key, json.dumps(value) if isinstance(value, dict | list) else value)
        for key, value in about.items()
        if value is not None
    ]
    return [_section('How this came about', _table(('', ''), rows))] if rows else []


# -- pieces ----------------------------------------------------------------------------------------


def _strip(video: Path, frames: int = 5, height: int = 96) -> str:
    """Show a few frames of a video side by side; a word if it cannot be read."""
    from PIL import Image

    from mmtimesformer.datasets.video import Video

    try:
        opened = Video(video)
        indices = np.linspace(0, len(opened) - 1, frames).astype(int).tolist()
        pictures = [Image.fromarray(frame) for frame in opened.frames(indices)]
    except (OSError, ValueError):
        return '<p>(the video cannot be read any more)</p>'
    width = round(pictures[0].width * height / pictures[0].height)
    sheet = Image.new('RGB', (frames * (width + 4) - 4, height), 'white')
    for i, one in enumerate(pictures):
        sheet.paste(one.resize((width, height)), (i * (width + 4), 0))
    buffer = io.BytesIO()
    sheet.save(buffer, 'JPEG', quality=85)
    return _inline(buffer.getvalue(), 'jpeg', f'{frames} frames of the video')


def _image(path: Path, alt: str) -> str:
    return _inline(path.read_bytes(), 'png', alt)


def _inline(content: bytes, kind: str, alt: str) -> str:
    data = base64.b64encode(content).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{data}">'


def _section(title: str, body: str) -> str:
    return f'<section><h2>{title}</h2>{body}</section>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def row(tag: str, cells: Sequence[object]) -> str:
        return '<tr>' + ''.join(f'<{tag}>{html.escape(str(c))}</{tag}>' for c in cells) + '</tr>'

    top = row('th', heads) if any(heads) else ''
    return f'<table>{top}{"".join(row("td", cells) for cells in rows)}</table>'


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{title}}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.35rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; border-top: 1px solid #e4e7eb; padding-top: 1.2rem; margin-top: 2rem; }
img { max-width: 100%; }
table { border-collapse: collapse; margin: .5rem 0; }
td, th { text-align: left; padding: .15rem 1.2rem .15rem 0; border-bottom: 1px solid #e4e7eb;
         overflow-wrap: anywhere; vertical-align: top; }
th { color: #7b8794; font-weight: 500; }
figure { margin: 1rem 0; }
figcaption span { color: #7b8794; margin-left: .6rem; }
.tiles { display: flex; flex-wrap: wrap; gap: 1rem; }
.tile { background: #f5f7fa; border-radius: 8px; padding: .8rem 1.4rem; color: #52606d; }
.tile b { display: block; font-size: 1.6rem; color: #3366aa; font-weight: 600; }
.pair { display: flex; flex-wrap: wrap; gap: 0 3rem; }
</style>
<h1>{{title}}</h1>
{{body}}
</html>
"""
