"""Detect non-finite numbers (NaN or infinite) in weights and in class scores, and name them.

``argmax`` treats NaN as the largest number, so a model with such weights has the accuracy of one
constant class, without an error. So weights are checked when they are loaded, and scores wherever
they are used.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

SHOWN = 3  # names in a message
REASON = 'its scores are not finite (NaN or infinite)'
EARLY = 8  # videos without a finite score, after which a job stops


class NonFiniteError(ValueError):
    """Weights, class scores or features are NaN or infinite; the message names them."""


def is_finite(values: Tensor | np.ndarray) -> bool:
    """Whether a tensor or an array of floats holds neither NaN nor infinite values."""
    if isinstance(values, Tensor):
        return bool(values.isfinite().all())
    return bool(np.isfinite(values).all())


def some_names(names: Sequence[str], shown: int = SHOWN) -> str:
    """List the first names, and how many more there are."""
    more = len(names) - shown
    return ', '.join(names[:shown]) + (f' and {more:,} more' if more > 0 else '')


def check_weights(weights: Mapping[str, Tensor], names: Collection[str] | None = None) -> None:
    """Refuse weights that are NaN or infinite; one pass over all of them.

    Args:
        weights: A state dict.
        names: Those to check, such as a model's parameters; all floats, if not given. (A buffer
            may be infinite on purpose: an attention mask.)

    Raises:
        NonFiniteError: A tensor is not finite, or would not be as float32.
    """
    checked = weights if names is None else {n: weights[n] for n in names if n in weights}
    broken = non_finite_weights(checked)
    if broken:
        raise NonFiniteError(
            f'{len(broken)} of the {len(checked)} weights of the checkpoint are NaN or infinite '
            f'({some_names(broken)}), so no score of the model would mean anything; give an '
            'earlier checkpoint, from before the training diverged'
        )


def non_finite_weights(weights: Mapping[str, Tensor]) -> list[str]:
    """List the tensors that hold a value which is NaN or infinite as float32."""
    return [name for name, tensor in weights.items() if not _is_sound(tensor)]


def _is_sound(tensor: Tensor) -> bool:
    tensor = tensor.to_local() if hasattr(tensor, 'to_local') else tensor  # of a sharded model
    if not tensor.is_floating_point() or tensor.is_meta:
        return True
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        tensor = tensor.float()
    return is_finite(tensor)


def about_scores(
    videos: Sequence[str],
    total: int | None = None,
    speed: str = 'exact',
    what: str = 'class scores',
) -> str:
    """Return the message for videos whose scores are not finite.

    Args:
        videos: Their names.
        total: Of how many videos, if that is known.
        speed: Of the computation; or its type, such as ``'float16'``.
        what: ``'class scores'`` or ``'features'``.
    """
    if total is None:
        subject = f'the {what} of {some_names(videos)}'
    elif len(videos) >= total > 1:
        subject = f'the {what} of all {total:,} videos ({some_names(videos)})'
    else:
        number = f'{len(videos):,} of {total:,} videos (' if total > 1 else 'the video '
        subject = f'the {what} of {number}{some_names(videos)}' + ')' * (total > 1)
    remedy = 'give a checkpoint from before the training diverged'
    if speed != 'exact':
        remedy = f'they were computed in {speed}: compute in fp32, or else {remedy}'
    return f'{subject} are NaN or infinite, and must be finite numbers; {remedy}'
