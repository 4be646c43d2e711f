"""What a test said about each video, as arrays."""

import codecs
import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._utils import _rebuild_tensor_v2

from mmtimesformer.engine.results import label_of, scores_of


def _latin1(text: str, encoding: str) -> bytes:
    """Stand in for ``_codecs.encode``, by which old pickle protocols write bytes."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'bytes in {encoding}')
    return codecs.latin_1_encode(text)[0]


def _storage(content: bytes) -> Any:
    """Stand in for ``torch.storage._load_from_bytes``, which would unpickle anything."""
    return torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor_v2,
    ('torch.storage', '_load_from_bytes'): _storage,
    ('collections', 'OrderedDict'): OrderedDict,
    ('_codecs', 'encode'): _latin1,
}


class _ResultsUnpickler(pickle.Unpickler):
    """Builds lists and dicts of tensors and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}') from None


def read_predictions(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read what ``tools/test.py --dump`` wrote.

    The file is a Python pickle, a program; here it can build lists, dicts and tensors, and do
    nothing else.

    Args:
        path: The ``.pkl`` file.

    Returns:
        The scores of all videos and classes, and the true label of each video.

    Shape:
        - scores: ``videos classes``
        - labels: ``videos``

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds no predictions, or a program.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path} does not exist; write it with tools/test.py --dump {path}')
    try:
        with Path(path).open('rb') as file:
            samples = _ResultsUnpickler(file).load()
    except Exception as error:  # a broken byte can surface as any exception
        raise ValueError(
            f'{path} is damaged, or not what tools/test.py --dump writes ({error}); write it anew'
        ) from error
    if not isinstance(samples, list) or not samples:
        raise ValueError(f'{path} holds no predictions; test with at least one video')
    scores = np.stack([scores_of(sample).numpy() for sample in samples])
    return scores, np.array([label_of(sample) for sample in samples])


def top1(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of videos whose best score is that of the true class, 0 to 1."""
    return float((scores.argmax(axis=1) == labels).mean())
