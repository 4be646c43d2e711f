"""What a test said about each video, as arrays."""

from pathlib import Path
from typing import Any

import numpy as np

from mmtimesformer.compat.data_samples import (
    is_multi_label,
    label_of,
    mark_as_wrong,
    multi_hot_of,
    scores_of,
    view_scores_of,
)
from mmtimesformer.fileio.safe_pickle import (
    DamagedError,
    InstructionError,
    Names,
    RefusedError,
    read_pickle,
)
from mmtimesformer.fileio.stand_ins import (
    NUMPY,
    PLAIN,
    TORCH,
)
from mmtimesformer.fileio.torch_files import load_from_bytes
from mmtimesformer.non_finite import is_finite

NAMES: Names = {
    **PLAIN,
    **NUMPY,
    **TORCH,
    'torch.storage._load_from_bytes': load_from_bytes,
}


def read_predictions(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read what ``tools/test.py --dump`` wrote: the scores of each video, and what is true of it.

    Shape:
        - scores: ``videos classes``
        - labels: ``videos``; of a multi-label test ``videos classes``, booleans

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no predictions, or a program.
    """
    scores, labels, _ = read_views(path)
    return scores, labels


def read_views(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Read what ``tools/test.py --dump`` wrote, with what each view of a video said.

    The file is a Python pickle, a program; here it can build lists, dicts and tensors, and do
    nothing else.

    Args:
        path: The ``.pkl`` file.

    Returns:
        The scores of all videos and classes, the true label of each video, and the logits of each
        view; ``None`` in their place where they were not kept, or some video has other views.

    Shape:
        - scores: ``videos classes``
        - labels: ``videos``; of a multi-label test ``videos classes``, booleans
        - logits: ``videos views classes``

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no predictions, or a program.
    """
    samples = _read(path)
    scores = np.stack([scores_of(sample).numpy() for sample in samples])
    labels = _truth_of(samples, path)
    views = [v.numpy() for v in map(view_scores_of, samples) if v is not None]
    alike = len(views) == len(samples) and len({one.shape for one in views}) == 1
    return scores, labels, np.stack(views) if alike else None


def _truth_of(samples: list[dict[str, Any]], path: str | Path) -> np.ndarray:
    """Return the label of each video, or a multi-hot row of each."""
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
    """Read which videos of a test count as wrong: unreadable files, and NaN or infinite scores.

    Returns:
        By their numbers, the file of each and what was wrong with it;
        :data:`~mmtimesformer.non_finite.REASON` for scores that are not finite.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no predictions, or a program.
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
    except Exception as error:  # torch may refuse what it is given by any exception
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
            scores_of(sample).numpy(), is_multi_label(sample) or label_of(sample)
            views = view_scores_of(sample)
            if not is_finite(scores_of(sample)) or not (views is None or is_finite(views)):
                mark_as_wrong(sample)  # of a test by MMAction2's own tools, or an older version
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise ValueError(
            f'{path} holds something else than the predictions of a test; write it with '
            f'tools/test.py --dump {path}'
        ) from error
    return samples


def top1(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of videos whose best score is that of the true class, 0 to 1."""
    if labels.ndim != 1:
        raise ValueError(
            'top-1 accuracy needs one label for each video, and these have several; see their '
            'average precision with tools/analysis_tools/report.py'
        )
    return float((scores.argmax(axis=1) == labels).mean())
