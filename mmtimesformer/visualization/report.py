"""One page about one test: scores, curves, confusions, mistakes, calibration, views."""

import base64
import html
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mmtimesformer.analysis.metrics import (
    TestResults,
    calibration,
    class_accuracy,
    confusion_matrix,
    top_k,
)
from mmtimesformer.analysis.view_agreement import ViewAgreement, view_agreement
from mmtimesformer.fileio.atomic import write_text_atomically
from mmtimesformer.inference.prediction import LONGEST_NAME
from mmtimesformer.non_finite import REASON
from mmtimesformer.terminal import safe_text
from mmtimesformer.visualization.confusion import draw_confusion
from mmtimesformer.visualization.figures import BLUE, GREY, INK, picture
from mmtimesformer.visualization.training import draw_training, read_training

MOST_CLASSES_DRAWN = 60  # a larger confusion matrix cannot be read; the list below it can
MOST_VIEWS_LISTED = 12
MOST_FAILED_LISTED = 50


def write_report(run: TestResults, path: str | Path, mistakes: int = 8) -> Path:
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
    run = replace(run, classes=[safe_text(name, LONGEST_NAME) for name in run.classes])
    with TemporaryDirectory() as folder:
        if run.is_multi_label:
            from mmtimesformer.visualization import multi_label_report  # which imports this file

            parts = multi_label_report.sections(run, Path(folder), mistakes)
        else:
            parts = _sections(run, Path(folder), mistakes)
    title = Path(run.about.get('config') or 'Test').stem
    blanks = {
        'title': html.escape(safe_text(title)),
        'about': html.escape(safe_text(_about(run))),
        'body': '\n'.join(parts),
    }
    page = re.sub(r'\{\{(\w+)\}\}', lambda blank: blanks[blank[1]], PAGE)  # once, not in names
    path = Path(path)
    write_text_atomically(path, page, errors='backslashreplace')
    return path


def _sections(run: TestResults, pictures: Path, mistakes: int) -> list[str]:
    """Write the sections about a test with one label a video, in their order on the page."""
    seen = run.without_failed()
    counts = confusion_matrix(seen.labels, seen.predicted, len(run.classes))
    return [
        _tiles(run),
        _failed(run),
        _pair(_curves(run, pictures), _calibration(seen, pictures)),
        _pair(_confusion(run, counts, pictures), _classes(run) + _confused(run, counts)),
        _mistakes(seen, mistakes),
        _views(seen, mistakes),
        _origin(run),
    ]


# -- sections --------------------------------------------------------------------------------------


def _about(run: TestResults) -> str:
    """Say in one line what was tested, and how."""
    about, views = run.about, run.about.get('views')
    words = [
        Path(about['checkpoint']).name if about.get('checkpoint') else '',
        f'{views["clips"]} × {views["crops"]} views (clips × crops)' if views else '',
        about.get('fusion') or '',
        str(about.get('date') or '')[:10],
    ]
    return ' · '.join(filter(None, words))


def _tiles(run: TestResults) -> str:
    seen = run.without_failed()
    k = min(5, len(run.classes))
    figures = {
        'top-1': _percent(top_k(run, 1), 2),
        f'top-{k}': _percent(top_k(run, k), 2),
        'mean over classes': _percent(float(np.nanmean(class_accuracy(run))), 2),
        'calibration error': _percent(calibration(seen)[3]),
        'videos': f'{len(run.labels):,}',
    }
    if unreadable := len(run.failed) - len(run.non_finite):
        figures['could not be read'] = f'{unreadable:,}'
    if run.non_finite:
        figures['with NaN or infinite scores'] = f'{len(run.non_finite):,}'
    if seen.view_scores is not None:
        agrees = view_agreement(seen.view_scores, seen.labels, seen.predicted).agrees.mean()
        figures['all views agree'] = _percent(agrees)
    tiles = ''.join(
        f'<div class="tile"><b>{value}</b>{name}</div>' for name, value in figures.items()
    )
    return f'<div class="tiles">{tiles}</div>'


def _failed(run: TestResults) -> str:
    unreadable = [(file, why) for file, why in run.failed.values() if why != REASON]
    non_finite = [(file, REASON) for file in run.non_finite]
    return _wrong('Videos that could not be read', unreadable) + _wrong(
        'Videos whose scores are not finite', non_finite
    )


def _wrong(title: str, rows: list[tuple[str, str]]) -> str:
    """List videos that count as wrong whatever the model says."""
    if not rows:
        return ''
    body = (
        '<p>They count as wrong in the scores above and in those of the classes; what follows is '
        'about the others.</p>'
    )
    body += _table(('file', 'why'), rows[:MOST_FAILED_LISTED])
    if len(rows) > MOST_FAILED_LISTED:
        body += f'<p>And {len(rows) - MOST_FAILED_LISTED:,} more.</p>'
    return _section(title, body)


def _curves(run: TestResults, folder: Path) -> str:
    curves = read_training(run.work_dir) if run.work_dir else {}
    if not curves.get('loss'):
        return ''
    draw_training(curves, folder / 'training.png')
    score = 'mean average precision' if run.is_multi_label else 'accuracy'
    return _section('Training', _image(folder / 'training.png', f'Loss and validation {score}'))


def draw_calibration(
    confidence: np.ndarray,
    accuracy: np.ndarray,
    counts: np.ndarray,
    path: Path,
    x_label: str = 'confidence',
    y_label: str = 'share that is right',
) -> None:
    """Draw a reliability diagram as a PNG: a point for each bin, as large as its count."""
    with picture(path, 6.4, 3.6) as (_, axes):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=':')
        axes.plot(confidence, accuracy, color=BLUE, lw=0.8, alpha=0.4)
        sizes = 20 + 380 * counts / counts.sum()
        axes.scatter(confidence, accuracy, s=sizes, color=BLUE, alpha=0.85, lw=0, clip_on=False)
        for x, y, n, size in zip(confidence, accuracy, counts, sizes, strict=True):
            away = (0, 3 + size**0.5 / 2)
            axes.annotate(
                f'{n:,}', (x, y), away, textcoords='offset points', fontsize=8, ha='center',
                color=INK,
            )  # fmt: skip
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.12)
        axes.set_yticks(np.linspace(0, 1, 6))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)


def _calibration(run: TestResults, folder: Path) -> str:
    confidence, accuracy, counts, error = calibration(run)
    draw_calibration(confidence, accuracy, counts, folder / 'calibration.png')
    body = _image(folder / 'calibration.png', 'Reliability diagram')
    body += (
        f'<p>Numbers are videos. Confidence and accuracy differ by {_percent(error)} on average '
        '(expected calibration error); below the dotted line the model is surer than it should be.'
        '</p>'
    )
    return _section('Is it as sure as it is right?', body)


def _confusion(run: TestResults, counts: np.ndarray, folder: Path) -> str:
    if len(run.classes) > MOST_CLASSES_DRAWN:
        return ''
    draw_confusion(counts, run.classes, folder / 'confusion.png')
    body = _image(folder / 'confusion.png', 'Confusion matrix')
    return _section('Which class is taken for which', body)


def _confused(run: TestResults, counts: np.ndarray) -> str:
    wrong = counts - np.diag(np.diag(counts))
    rows = [
        (run.classes[i], run.classes[j], int(wrong[i, j]))
        for i, j in np.argwhere(wrong)[np.argsort(-wrong[wrong > 0], kind='stable')][:10]
    ]
    if not rows:
        return ''
    return _section('Most often confused', _table(('true', 'taken for', 'videos'), rows))


def _classes(run: TestResults) -> str:
    accuracy = class_accuracy(run)
    counts = np.bincount(run.labels, minlength=len(run.classes))
    order = [i for i in np.argsort(accuracy, kind='stable') if counts[i]]
    bars = [(run.classes[i], float(accuracy[i]), f'of {counts[i]:,}') for i in order]
    if len(bars) <= 20:
        return _section('Classes, worst first', _bars(bars))
    worst, best = (f'<h3>{word}</h3>' for word in ('Worst', 'Best'))
    body = worst + _bars(bars[:10]) + best + _bars(bars[::-1][:10])
    return _section('Worst and best classes', body)


def _mistakes(run: TestResults, number: int) -> str:
    wrong = np.flatnonzero(run.predicted != run.labels)
    chosen = wrong[np.argsort(-run.confidence[wrong], kind='stable')][:number]
    if not len(chosen):
        return _section('Mistakes', '<p>There are none.</p>')
    figures = []
    for i in chosen:
        said, true = (html.escape(run.classes[c]) for c in (run.predicted[i], run.labels[i]))
        caption = f'<b>{said}</b> with {_percent(run.confidence[i], 0)}, truly <b>{true}</b>'
        figures.append(_figure(run, i, caption))
    return _section('The most confident mistakes', _figures(figures))


def _views(run: TestResults, number: int) -> str:
    title = 'Do the views of a video agree?'
    if run.view_scores is None:
        told = run.about.get('views') or {}
        if told.get('clips', 2) * told.get('crops', 2) == 1:
            why = 'The test took one view of each video, so there is nothing to compare.'
        else:
            why = (
                'Not known: the result file has the fused scores of each video and not what each '
                'view said. tools/test.py --dump writes both; test again to see it here.'
            )
        return _section(title, f'<p>{why}</p>')
    found = view_agreement(run.view_scores, run.labels, run.predicted)
    single = found.accuracy
    body = (
        f'<p>All {found.views} views name the same class in <b>{_percent(found.agrees.mean())}</b> '
        f'of the videos. A view by itself is right in {_percent(single.mean())} on average, all '
        f'of them fused in <b>{_percent(found.fused_accuracy)}</b>; at least one view is right in '
        f'{_percent(found.correct_in_any)}.</p>'
    )
    alone = [(f'view {i} alone', float(share), '') for i, share in enumerate(single)]
    if found.views > MOST_VIEWS_LISTED:
        alone = [('worst view', float(single.min()), ''), ('best view', float(single.max()), '')]
    body += _bars([*alone, ('all views fused', found.fused_accuracy, '')])
    figures = [_disagreement(run, found, i) for i in found.least(number)]
    if figures:
        body += (
            '<h3>Where they agree least</h3><p>Overlap is the share of a view’s probability that '
            'lies where the mean of all views puts it.</p>' + _figures(figures)
        )
    return _section(title, body)


def _disagreement(run: TestResults, found: ViewAgreement, i: int) -> str:
    votes = ', '.join(
        f'{html.escape(run.classes[label])} ×\u2009{count}' for label, count in found.votes(i)
    )
    said, true = (html.escape(run.classes[c]) for c in (found.fused[i], found.labels[i]))
    verdict = 'which is true' if said == true else f'truly <b>{true}</b>'
    overlap = _percent(found.overlap[i], 0)
    return _figure(run, i, f'{votes}; fused <b>{said}</b>, {verdict}; overlap {overlap}')


def _origin(run: TestResults) -> str:
    about = dict(run.about)
    about.pop('classes', None)
    views = about.pop('views', None)
    if views:
        about['views'] = f'{views["clips"]} clips x {views["crops"]} crops'
    rows = [
        (key, ', '.join(f'{k} {v}' for k, v in value.items()) if isinstance(value, dict) else value)
        for key, value in about.items()
        if value is not None
    ]
    return _section('How this came about', _table(('', ''), rows)) if rows else ''


# -- pieces ----------------------------------------------------------------------------------------


def _percent(share: float, digits: int = 1) -> str:
    return f'{100 * share:.{digits}f}\u00a0%'


def _pair(*sections: str) -> str:
    """Set sections side by side, where there is room; an empty one is left out."""
    return f'<div class="pair">{"".join(f"<div>{one}</div>" for one in sections if one)}</div>'


def _bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """Draw shares as bars: a name, a share, and a word behind it."""
    drawn = ''.join(
        f'<tr><td>{html.escape(name)}</td><td class="bar"><i style="width:{100 * share:.1f}%"></i>'
        f'</td><td class="number">{_percent(share)}</td><td class="note">{word}</td></tr>'
        for name, share, word in rows
    )
    return f'<table class="bars">{drawn}</table>'


def _figures(figures: Sequence[str]) -> str:
    return f'<div class="figures">{"".join(figures)}</div>'


def _figure(run: TestResults, i: int, caption: str) -> str:
    """Show frames of a video, where it is known which one it was, and words below them."""
    name = safe_text(Path(run.videos[i]).name if len(run.videos) else f'video {i}')
    return (
        f'<figure>{_strip(run.videos[i]) if len(run.videos) else ""}<figcaption>{caption} '
        f'<span>{html.escape(name)}</span></figcaption></figure>'
    )


def _strip(video: Path, frames: int = 5, height: int = 96) -> str:
    """Show a few frames of a video side by side; a word if it cannot be read."""
    from PIL import Image

    from mmtimesformer.datasets.transforms.decoding import Video

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
        return (
            '<tr>' + ''.join(f'<{tag}>{html.escape(safe_text(c))}</{tag}>' for c in cells) + '</tr>'
        )

    top = row('th', heads) if any(heads) else ''
    return f'<table>{top}{"".join(row("td", cells) for cells in rows)}</table>'


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{title}}</title>
<style>
:root { --ink: #1f2933; --grey: #7b8794; --line: #e4e7eb; --blue: #3366aa; }
* { box-sizing: border-box; }
body { font: 15px/1.55 system-ui, sans-serif; color: var(--ink); background: #f5f7fa; margin: 0; }
main { max-width: 76rem; margin: 0 auto; padding: 2rem 1.2rem 3rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 .8rem; }
h3 { font-size: .92rem; margin: 1.1rem 0 .3rem; }
p { margin: .6rem 0; max-width: 46rem; }
.about { color: var(--grey); margin: .3rem 0 1.4rem; }
section { background: white; border: 1px solid var(--line); border-radius: 10px;
          padding: 1.2rem 1.4rem; margin-bottom: 1.1rem; }
img { max-width: 100%; display: block; }
table { border-collapse: collapse; }
td, th { text-align: left; padding: .22rem 1.2rem .22rem 0; border-bottom: 1px solid var(--line);
         overflow-wrap: anywhere; vertical-align: top; }
th { color: var(--grey); font-weight: 500; white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
.tiles { display: flex; flex-wrap: wrap; gap: 1.1rem; margin-bottom: 1.1rem; }
.tile { flex: 1 1 8.5rem; background: white; border: 1px solid var(--line); border-radius: 10px;
        padding: .8rem 1.2rem; color: var(--grey); }
.tile b { display: block; font-size: 1.55rem; line-height: 1.3; color: var(--blue);
          font-weight: 600; white-space: nowrap; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
        column-gap: 1.1rem; align-items: stretch; }
.pair > div { display: flex; flex-direction: column; min-width: 0; }
.pair > div > section:last-child { flex: 1; }
.bars { width: 100%; max-width: 46rem; }
.bars td { border: 0; vertical-align: middle; padding: .16rem .8rem .16rem 0; }
.bars td:first-child { min-width: 7rem; }
.bars .bar { width: 55%; }
@media (max-width: 600px) { .bars .bar { width: 25%; } }
.bars i { display: block; height: .8rem; border-radius: 3px; background: var(--blue);
          min-width: 1px; }
.bars .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bars .note { color: var(--grey); white-space: nowrap; }
.wide { overflow-x: auto; }
.wide td, .wide th { white-space: nowrap; }
@media (max-width: 40rem) {
  .bars .bar { width: 35%; }
  .bars td:first-child { min-width: 6rem; }
}
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr));
           gap: 1.1rem 1.4rem; margin-top: .8rem; }
figure { margin: 0; min-width: 0; }
figure img { width: 100%; border-radius: 5px; }
figcaption { margin-top: .3rem; font-size: .92rem; overflow-wrap: anywhere; }
figcaption span { color: var(--grey); margin-left: .4rem; overflow-wrap: anywhere; }
</style>
<main>
<h1>{{title}}</h1>
<p class="about">{{about}}</p>
{{body}}
</main>
</html>
"""
