"""Convert the value of any metric to JSON values.

A metric may return a number, a tensor (``ConfusionMatrix``), an array, text, or lists and dicts of
these. JSON has no NaN and no infinity: both become ``null``.
"""

import math
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import torch


def to_json(value: Any) -> Any:
    """Return a value as plain numbers, text, lists and dicts, for ``json.dumps(allow_nan=False)``.

    Tensors and arrays become lists (those of no axis a number), sets sorted lists, NaN and infinity
    ``None``, complex numbers and anything unknown text.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if value.is_sparse or value.is_quantized:
            value = value.to_dense() if value.is_sparse else value.dequantize()
        return to_json(value.tolist())  # bfloat16 too
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Set):
        return [to_json(item) for item in sorted(value, key=repr)]
    return str(value)
