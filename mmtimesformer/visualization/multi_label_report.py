"""The sections of the report about a test in which a video may have several labels."""

import html
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmtimesformer.analysis.metrics import TestResults
from mmtimesformer.analysis.multi_label import (
    LabelAgreement,
    average_precision,
    calibration,
    class_scores,
    confused_pairs,
    f1_scores,
    label_agreement,
    mean_of,
    probabilities_of,
    sigmoid,
)
from mmtimesformer.inference.prediction import THRESHOLD
from mmtimesformer.visualization import report

MOST_CLASSES = 20  # of which bars are drawn; of more, the worst and the best
MOST_ROWS = 60  # of the table of classes
MOST_VIEWS = 12
AT = f'{100 * THRESHOLD:g}\u00a0%'


def sections(run: TestResults, pictures: Path, mistakes: int) -> list[str]:
    """Write the sections as HTML, in their order on the page."""
    run = replace(run, labels=run.labels.astype(bool))
    seen = run.without_failed()
    precision = average_precision(run.labels, run.scores)  # takes a while of thousands of classes
    return [
        _tiles(run, precision),
        report._failed(run),
        report._pair(report._curves(run, pictures), _calibration(seen, pictures)),
        report._pair(_precision(run, precision), _confused(seen)),
        _classes(run, precision),
        _wrong(seen, mistakes),
        _missed(seen, mistakes),
        _views(seen, mistakes),
        report._origin(run),
    ]


def probabilities(run: TestResults) -> np.ndarray:
    """Return the probability of each class of each video."""
    views = run.about.get('views') or {}
    number = int(views.get('clips', 1)) * int(views.get('crops', 1))
    return probabilities_of(run.scores, run.about.get('fusion'), number)


def guesses(run: TestResults) -> np.ndarray:
    """Return whether each video is given each label."""
    return np.asarray(probabilities(run) >= THRESHOLD)


def share(value: float, digits: int = 1) -> str:
    """Write a share as per cent; ``n/a`` where there is none."""
    return report._percent(value, digits) if np.isfinite(value) else 'n/a'


def _tiles(run: TestResults, precision: np.ndarray) -> str:
    seen = run.without_failed()
    micro, macro = f1_scores(run.labels, guesses(run))
    figures = {
        'mean average precision': share(mean_of(precision), 2),
        f'F1 at {AT}, micro': share(micro),
        f'F1 at {AT}, macro': share(macro),
        'all labels right': share(float((guesses(run) == run.labels).all(axis=1).mean())),
        'calibration error': share(calibration(seen.labels, probabilities(seen))[3]),
        'videos': f'{len(run.labels):,}',
    }
    if run.failed:
        figures['could not be read'] = f'{len(run.failed):,}'
    if seen.view_scores is not None:
        found = _agreement(seen)
        figures['all views agree'] = share(float(found.agrees.mean()))
    tiles = ''.join(
        f'<div class="tile"><b>{value}</b>{name}</div>' for name, value in figures.items()
    )
    return f'<div class="tiles">{tiles}</div>'


def _calibration(run: TestResults, folder: Path) -> str:
    confidence, true, counts, error = calibration(run.labels, probabilities(run))
    path = folder / 'calibration.png'
    report.draw_calibration(confidence, true, counts, path, 'probability', 'share that is true')
    body = report._image(path, 'Reliability diagram')
    body += (
        f'<p>Numbers are decisions: each class of each video. Probability and truth differ by '
        f'{share(error)} on average (expected calibration error); below the dotted line '
        'probabilities are too high.</p>'
    )
    return report._section('Calibration (reliability diagram)', body)


def _precision(run: TestResults, found: np.ndarray) -> str:
    positives = run.labels.sum(axis=0)
    known = [int(i) for i in np.argsort(found, kind='stable') if np.isfinite(found[i])]
    bars = [(run.classes[i], float(found[i]), f'of {positives[i]:,}') for i in known]
    without = len(run.classes) - len(known)
    note = f'<p>{without:,} classes without a video are left out.</p>' if without else ''
    if not bars:
        return report._section('Average precision', '<p>n/a: no video has a label.</p>')
    if len(bars) <= MOST_CLASSES:
        return report._section('Average precision, worst first', report._bars(bars) + note)
    body = '<h3>Worst</h3>' + report._bars(bars[:10]) + '<h3>Best</h3>'
    return report._section('Average precision', body + report._bars(bars[::-1][:10]) + note)


def _classes(run: TestResults, found: np.ndarray) -> str:
    each = class_scores(run.labels, guesses(run))
    rank = np.where(np.isfinite(found), found, np.inf)
    order = np.argsort(rank, kind='stable')
    rows = [
        (
            run.classes[i],
            f'{each.positives[i]:,}',
            f'{each.predicted[i]:,}',
            share(found[i]),
            share(each.precision[i]),
            share(each.recall[i]),
            share(each.f1[i]),
        )
        for i in order[:MOST_ROWS]
    ]
    heads = 'class', 'true', 'given', 'average precision', 'precision', 'recall', 'F1'
    body = f'<div class="wide">{report._table(heads, rows)}</div>'
    if len(order) > MOST_ROWS:
        body += f'<p>The worst {MOST_ROWS} of {len(order):,} classes.</p>'
    body += (
        f'<p>A label is given where its probability is at least {AT}; a video has '
        f'{run.labels.sum(axis=1).mean():.2f} labels on average and is given '
        f'{guesses(run).sum(axis=1).mean():.2f}.</p>'
    )
    return report._section('Classes', body)


def _confused(run: TestResults) -> str:
    pairs = confused_pairs(run.labels, guesses(run))[:10]
    if not pairs:
        return ''
    rows = [(run.classes[i], run.classes[j], count) for i, j, count in pairs]
    table = report._table(('missed', 'given', 'videos'), rows)
    return report._section('Missed, and another given', table)


def _wrong(run: TestResults, number: int) -> str:
    title = 'The most confident wrong labels'
    values = np.where(run.labels, -1.0, probabilities(run))
    places = _largest(values, number, THRESHOLD)
    figures = [
        report._figure(
            run,
            video,
            f'<b>{_name(run, label)}</b> with {share(values[video, label], 0)}, truly '
            f'{_names(run, run.labels[video])}',
        )
        for video, label in places
    ]
    return report._section(title, report._figures(figures) if figures else '<p>There are none.</p>')


def _missed(run: TestResults, number: int) -> str:
    title = 'True labels with the lowest probability'
    values = np.where(run.labels, 1 - probabilities(run), -1.0)
    places = _largest(values, number, np.nextafter(1 - THRESHOLD, 1))
    figures = [
        report._figure(
            run,
            video,
            f'<b>{_name(run, label)}</b> with {share(1 - values[video, label], 0)} only; given '
            f'{_names(run, guesses(run)[video])}',
        )
        for video, label in places
    ]
    return report._section(title, report._figures(figures) if figures else '<p>There are none.</p>')


def _views(run: TestResults, number: int) -> str:
    if run.view_scores is None:
        return report._views(run, number)  # which says why there is nothing to compare
    found = _agreement(run)
    views = len(found.precision)
    alone = [(f'view {i} alone', float(value), '') for i, value in enumerate(found.precision)]
    if views > MOST_VIEWS:
        best, worst = float(found.precision.max()), float(found.precision.min())
        alone = [('worst view', worst, ''), ('best view', best, '')]
    bars = [bar for bar in [*alone, ('all views fused', found.fused, '')] if np.isfinite(bar[1])]
    body = (
        f'<p>All {views} views give the same labels (of at least {AT}) in '
        f'<b>{share(float(found.agrees.mean()))}</b> of the videos. Mean average precision:</p>'
    )
    body += report._bars(bars)
    figures = [
        report._figure(
            run,
            i,
            '; '.join(f'view {k}: {_names(run, row)}' for k, row in enumerate(found.predicted[i]))
            if views <= MOST_VIEWS
            else f'truly {_names(run, run.labels[i])}',
        )
        for i in found.least(number)
    ]
    if figures:
        body += '<h3>Where they agree least</h3>' + report._figures(figures)
    return report._section('Do the views of a video agree?', body)


def _agreement(run: TestResults) -> LabelAgreement:
    assert run.view_scores is not None
    logits = run.view_scores.astype(np.float64)
    if run.about.get('fusion') == 'mean of softmax':
        rows = np.exp(logits - logits.max(axis=-1, keepdims=True))
        values = rows / rows.sum(axis=-1, keepdims=True)
    else:
        values = sigmoid(logits)
    return label_agreement(run.labels, values, run.scores, THRESHOLD)


def _largest(values: np.ndarray, number: int, least: float) -> list[tuple[int, int]]:
    """Return video and class of the largest values, those of at least ``least``."""
    order = np.argsort(-values, axis=None, kind='stable')[: max(0, number)]
    places = zip(*np.unravel_index(order, values.shape), strict=True)
    return [(int(i), int(j)) for i, j in places if values[i, j] >= least]


def _name(run: TestResults, label: int) -> str:
    return html.escape(run.classes[label])


def _names(run: TestResults, row: np.ndarray) -> str:
    names = [f'<b>{_name(run, int(i))}</b>' for i in np.flatnonzero(row)]
    more = f' and {len(names) - 8} more' if len(names) > 8 else ''
    return (', '.join(names[:8]) + more) or 'no label'
