"""Finding what a test left behind, and which videos it was about."""

import json
from pathlib import Path
from typing import Any

from mmtimesformer.checkpoints.facts import read_literals
from mmtimesformer.visualization.predictions import read_failures, read_views
from mmtimesformer.visualization.report import Outcome


def read_outcome(
    work_dir: str | Path, predictions: Path | None = None, classes: Path | None = None
) -> Outcome:
    """Collect a test from its folder.

    Names of classes come from ``classes``, else from ``result.meta.json``, else from a
    ``classes.txt`` beside the annotation file; else classes are called by their numbers. Videos are
    those of the config's test set, where they are still as many as were tested.

    Args:
        work_dir: Of the training.
        predictions: What ``tools/test.py --dump`` wrote; the newest ``.pkl`` of ``work_dir``.
        classes: A file of class names, one a line.

    Raises:
        FileNotFoundError: There are no predictions, or no such file of names.
        ValueError: They are damaged, or there are fewer names than classes.
    """
    work_dir = Path(work_dir)
    predictions = predictions or _newest_predictions(work_dir)
    scores, labels, view_scores = read_views(predictions)
    meta = predictions.with_suffix('.meta.json')
    about = _read_about(meta) if meta.is_file() else {}
    dataset = _test_set(work_dir, about)
    names = _class_names(classes, about, dataset) or [str(i) for i in range(scores.shape[1])]
    if len(names) < scores.shape[1]:
        raise ValueError(
            f'{len(names)} class names are too few for {scores.shape[1]} classes; set --classes'
        )
    videos = _videos(dataset)
    return Outcome(
        scores,
        labels,
        names[: scores.shape[1]],
        videos if len(videos) == len(labels) else [],
        about,
        work_dir,
        view_scores,
        read_failures(predictions),
    )


def _read_about(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text('utf-8')))
    except (ValueError, TypeError, RecursionError):
        raise ValueError(
            f'{path} is damaged; remove it, or write it anew with tools/test.py --dump'
        ) from None


def _newest_predictions(work_dir: Path) -> Path:
    found = sorted(work_dir.glob('*.pkl'), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(
            f'{work_dir} holds no .pkl of predictions; write one with: python tools/test.py CONFIG '
            f'CHECKPOINT --dump {work_dir}/result.pkl'
        )
    return found[-1]


def _test_set(work_dir: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Return the config's test set; the config that the training left in its folder counts.

    It is read and not run: a folder may come from anywhere.
    """
    configs = [*sorted(work_dir.glob('*.py')), Path(about.get('config') or '')]
    for path in configs:
        if path.is_file():
            loader = read_literals(path.read_text('utf-8', 'replace')).get('test_dataloader')
            dataset = loader.get('dataset') if isinstance(loader, dict) else None
            return dataset if isinstance(dataset, dict) else {}
    return {}


def _class_names(
    classes: Path | None, about: dict[str, Any], dataset: dict[str, Any]
) -> list[str] | None:
    if classes is not None:
        return _lines(classes)
    told = about.get('classes')
    if isinstance(told, list):
        return [str(name) for name in told]
    beside = Path(dataset.get('ann_file') or '').with_name('classes.txt') if dataset else None
    return _lines(beside) if beside and beside.is_file() else None


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text('utf-8').splitlines() if line.strip()]


def _videos(dataset: dict[str, Any]) -> list[Path]:
    ann_file = Path(dataset.get('ann_file') or '')
    if not ann_file.is_file():
        return []
    folder = Path((dataset.get('data_prefix') or {}).get('video') or '')
    delimiter = dataset.get('delimiter', ' ')
    return [folder / line.split(delimiter)[0] for line in _lines(ann_file)]
