"""Read the scores and labels of a test from its dump, as arrays."""

from pathlib import Path
from typing import Any

import numpy as np

from mmtimesformer.compat.data_samples import (
    is_multi_label,
    is_regression,
    label_of,
    mark_as_wrong,
    multi_hot_of,
    scores_of,
    targets_of,
    view_scores_of,
)
from mmtimesformer.fileio.safe_pickle import (
    DamagedError,
    InstructionError,
    Names,
    RefusedError,
    read_pickle,
)
from mmtimesformer.fileio.stand_ins import NUMPY, PLAIN, TORCH
from mmtimesformer.fileio.torch_files import load_from_bytes
from mmtimesformer.non_finite import is_finite

NAMES: Names = {**PLAIN, **NUMPY, **TORCH, 'torch.storage._load_from_bytes': load_from_bytes}


def read_predictions(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the scores and labels that ``tools/test.py --dump`` wrote, see :func:`read_views`."""
    scores, labels, _ = read_views(path)
    return scores, labels


def read_views(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Read scores, labels and logits of each view that ``tools/test.py --dump`` wrote.

    The file is a Python pickle. Only lists, dicts and tensors are built from it; no code runs.

    Args:
        path: The ``.pkl`` file.

    Returns:
        Scores, labels, and logits of each view; ``None`` for the last if they were not kept, or if
        videos have different numbers of views.

    Shape:
        - scores: ``videos classes``
        - labels: ``videos``; of a multi-label test ``videos classes``, booleans; of a regression
            ``videos targets``, floats
        - logits: ``videos views classes``

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no predictions, or other objects than these.
    """
    samples = _read(path)
    scores = np.stack([scores_of(sample).numpy() for sample in samples])
    labels = _labels_of(samples, path)
    views = [v.numpy() for v in map(view_scores_of, samples) if v is not None]
    alike = len(views) == len(samples) and len({one.shape for one in views}) == 1
    return scores, labels, np.stack(views) if alike else None


def _labels_of(samples: list[dict[str, Any]], path: str | Path) -> np.ndarray:
    """Return the class index of each video, its multi-hot row, or its numbers."""
    numbers = [is_regression(sample) for sample in samples]
    if any(numbers) and not all(numbers):
        raise ValueError(
            f'{path} has {sum(numbers)} videos with numbers and {len(numbers) - sum(numbers)} with '
            'classes; test data sets of one kind only'
        )
    if any(numbers):
        return np.stack([targets_of(sample).numpy() for sample in samples])
    several = [is_multi_label(sample) for sample in samples]
    if not any(several):
        return np.array([label_of(sample) for sample in samples])
    if not all(several):
        raise ValueError(
            f'{path} has {sum(several)} videos with a multi-hot row of labels and '
            f'{len(several) - sum(several)} with one label; test data sets of one kind only'
        )
    return np.stack([multi_hot_of(sample).numpy() for sample in samples])


def read_failures(path: str | Path) -> dict[int, tuple[str, str]]:
    """Read which videos of a test failed: unreadable files, and NaN or infinite scores.

    Returns:
        By video index, the file and the reason; :data:`~mmtimesformer.non_finite.REASON` for scores
        that are not finite.
    """
    return {
        i: (str(sample.get('filename', '')), str(sample.get('failed') or sample['non_finite']))
        for i, sample in enumerate(_read(path))
        if sample.get('failed') or sample.get('non_finite')
    }


def _read(path: str | Path) -> list[dict[str, Any]]:
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path} does not exist; write it with tools/test.py --dump {path}')
    try:
        with Path(path).open('rb') as file:
            samples = read_pickle(file, Path(path).stat().st_size, NAMES)
    except OSError:
        raise
    except Exception as error:  # torch may raise any exception
        why = {
            RefusedError: f'it asks for {error}',
            InstructionError: f'it has the instruction {error}',
            DamagedError: str(error),
        }.get(type(error), type(error).__name__)
        raise ValueError(
            f'{path} is damaged, or not what tools/test.py --dump writes ({why}); write it again'
        ) from None
    if not isinstance(samples, list) or not samples:
        raise ValueError(f'{path} holds no predictions; test with at least one video')
    try:
        for sample in samples:
            scores_of(sample).numpy()
            _ = is_regression(sample) or is_multi_label(sample) or label_of(sample)
            views = view_scores_of(sample)
            if sample.get('failed'):
                continue
            if not is_finite(scores_of(sample)) or not (views is None or is_finite(views)):
                mark_as_wrong(sample)  # of a test by MMAction2's own tools, or an older version
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise ValueError(
            f'{path} does not hold the predictions of a test; write it with '
            f'tools/test.py --dump {path}'
        ) from error
    return samples


def top1(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the top-1 accuracy, 0 to 1."""
    if labels.dtype.kind == 'f':
        raise ValueError(
            'top-1 accuracy needs classes, and this test is a regression; '
            'tools/analysis_tools/report.py shows its errors'
        )
    if labels.ndim != 1:
        raise ValueError(
            'top-1 accuracy needs one label for each video, and this test is multi-label; '
            'tools/analysis_tools/report.py shows its average precision'
        )
    return float((scores.argmax(axis=1) == labels).mean())
