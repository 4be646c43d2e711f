"""Read the results of a test from its work_dir: scores, labels, class names, videos."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmtimesformer.analysis.metrics import TestResults
from mmtimesformer.analysis.predictions import read_failures, read_views
from mmtimesformer.checkpoints.metadata import read_literals
from mmtimesformer.class_names import class_names_of, stated_data_set
from mmtimesformer.fileio.safe_pickle import shown
from mmtimesformer.fileio.safe_text import LARGEST_LITERALS, read_json, read_text

LARGEST_LIST = 256 << 20  # bytes, of a list of videos


def read_test_results(
    work_dir: str | Path, predictions: Path | None = None, classes: Path | None = None
) -> TestResults:
    """Read the results of a test.

    Class names come from ``classes``, else from ``result.meta.json``, else from ``classes.txt`` in
    the folder of the annotation file, else they are the indices. Videos are those of the config's
    test set, if their number is that of the results.

    Args:
        work_dir: Of the training.
        predictions: The dump of ``tools/test.py``; by default the newest ``.pkl`` of ``work_dir``.
        classes: A file of class names, one per line.

    Raises:
        FileNotFoundError: There are no predictions, or no such file of names.
        ValueError: A file is damaged, or there are fewer names than classes.
    """
    work_dir = Path(work_dir)
    predictions = predictions or _newest_predictions(work_dir)
    scores, labels, view_scores = read_views(predictions)
    meta = predictions.with_suffix('.meta.json')
    about = _read_about(meta) if meta.is_file() else {}
    dataset = _test_set(work_dir, about)
    names = _class_names(classes, about, dataset) or _stated_names(about, dataset, scores.shape[1])
    if len(names) < scores.shape[1]:
        raise ValueError(
            f'{len(names)} class names are too few for {scores.shape[1]} classes; set --classes'
        )
    lines = _listed(dataset, len(labels))
    return TestResults(
        scores,
        labels,
        names[: scores.shape[1]],
        [_video(line, dataset) for line in lines],
        about,
        work_dir,
        view_scores,
        read_failures(predictions),
        labels.dtype.kind == 'f',
        lines,
        dataset.get('delimiter', ' '),
    )


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = read_json(path)
    except ValueError:
        about = None
    if not isinstance(about, dict):
        raise ValueError(
            f'{path} is damaged; remove it, or write it again with tools/test.py --dump'
        )
    for key, (what, is_valid) in ABOUT.items():
        value = about.get(key)
        if value is not None and not is_valid(value):
            raise ValueError(
                f'{path} has {key}={shown(value)}, but it must be {what}; remove the file, or '
                'write it again with tools/test.py --dump'
            )
    return about


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and '\0' not in value


# Keys of result.meta.json that the report reads.
ABOUT: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        ('config', 'checkpoint', 'protocol', 'fusion', 'speed', 'date'), ('a string', _is_text)
    ),
    'classes': (
        'a list of names',
        lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    ),
    'views': (
        'the numbers of clips and of crops',
        lambda value: (
            isinstance(value, dict)
            and all(type(value.get(key)) is int and value[key] > 0 for key in ('clips', 'crops'))
        ),
    ),
    'temperature': (
        'a number above 0',
        lambda value: type(value) in (int, float) and 0 < value < float('inf'),
    ),
    **dict.fromkeys(('scores', 'versions'), ('a table', lambda value: isinstance(value, dict))),
}


def _newest_predictions(work_dir: Path) -> Path:
    found = sorted(work_dir.glob('*.pkl'), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(
            f'{work_dir} holds no .pkl of predictions; write one with: python tools/test.py CONFIG '
            f'CHECKPOINT --dump {work_dir}/result.pkl'
        )
    return found[-1]


def _test_set(work_dir: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Return the test set of the config in ``work_dir``, else of the one in ``about``.

    The config is parsed and not run: a folder may come from anyone.
    """
    configs = [*sorted(work_dir.glob('*.py')), Path(about.get('config') or '')]
    for path in configs:
        if _is_file(path):
            with path.open('rb') as file:  # one more than allowed, to be refused
                text = file.read(4 * LARGEST_LITERALS + 4).decode('utf-8', 'replace')
            try:
                loader = read_literals(text).get('test_dataloader')
            except ValueError as error:
                raise ValueError(f'{path}: {error}; remove it') from None
            dataset = loader.get('dataset') if isinstance(loader, dict) else None
            return _texts_in(dataset) if isinstance(dataset, dict) else {}
    return {}


def _texts_in(dataset: dict[str, Any]) -> dict[str, Any]:
    """Return the paths and the delimiter of a data set, where they are strings."""
    prefix = dataset.get('data_prefix')
    return {
        'ann_file': _text(dataset.get('ann_file')),
        'video': _text(prefix.get('video')) if isinstance(prefix, dict) else '',
        'delimiter': _text(dataset.get('delimiter')) or ' ',
    }


def _text(value: Any) -> str:
    return value if _is_text(value) else ''


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _class_names(
    classes: Path | None, about: dict[str, Any], dataset: dict[str, Any]
) -> list[str] | None:
    if classes is not None:
        return _lines(classes)
    if isinstance(names := about.get('classes'), list):
        return [str(name) for name in names]
    ann_file = Path(dataset.get('ann_file') or '')
    path = ann_file.with_name('classes.txt') if ann_file.name else None
    return _lines(path) if path and _is_file(path) else None


def _stated_names(about: dict[str, Any], dataset: dict[str, Any], num_classes: int) -> list[str]:
    """Return the shipped names of the data set that config or list states, else numbers."""
    config = Path(about.get('config') or '').name
    data_set = stated_data_set([dataset.get('ann_file'), config], num_classes)
    return list(class_names_of(data_set)) if data_set else [str(i) for i in range(num_classes)]


def _lines(path: Path) -> list[str]:
    lines = read_text(path, LARGEST_LIST).split('\n')  # a name may hold other line separators
    return [line.strip() for line in lines if line.strip()]


def _listed(dataset: dict[str, Any], number: int) -> list[str]:
    """Return the lines of the annotation file, if their number is that of the results."""
    ann_file = Path(dataset.get('ann_file') or '')
    lines = _lines(ann_file) if _is_file(ann_file) else []
    return lines if len(lines) == number else []


def _video(line: str, dataset: dict[str, Any]) -> Path:
    return Path(dataset['video']) / line.split(dataset['delimiter'])[0]
