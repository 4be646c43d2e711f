"""What a test said about each video, as arrays."""

from pathlib import Path

import numpy as np
from mmengine.fileio import load

from mmtimesformer.engine.results import label_of, scores_of


def read_predictions(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read what ``tools/test.py --dump`` wrote.

    NOTE: the file is a Python pickle, which can run code when it is opened: read your own only.

    Args:
        path: The ``.pkl`` file.

    Returns:
        The scores of all videos and classes, and the true label of each video.

    Shape:
        - scores: ``videos classes``
        - labels: ``videos``

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no predictions.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path} does not exist; write it with tools/test.py --dump {path}')
    samples = load(str(path))
    if not samples:
        raise ValueError(f'{path} holds no predictions; test with at least one video')
    scores = np.stack([scores_of(sample).numpy() for sample in samples])
    return scores, np.array([label_of(sample) for sample in samples])


def top1(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of videos whose best score is that of the true class, 0 to 1."""
    return float((scores.argmax(axis=1) == labels).mean())
