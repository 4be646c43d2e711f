"""Activation checkpointing: recompute cheap activations in the backward pass to save memory.

A divided block keeps for each token, in units of ``embed_dims``:

=================  =================================================================  ====
level              recomputed                                                         kept
=================  =================================================================  ====
``False``          nothing                                                              24
``'pointwise'``    norms, activation, sums and copies                                   16
``'projections'``  also the output projections of attention, the smallest products      14
``'mlp'``          also the hidden layer of the MLP                                     10
``'block'``        everything but the input of the block                                 1
=================  =================================================================  ====
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

LEVELS = (False, True, 'pointwise', 'projections', 'mlp', 'block')

_aten = torch.ops.aten
PRODUCTS = frozenset({_aten.mm.default, _aten.addmm.default})  # what linear layers become
ATTENTIONS = frozenset(
    {
        _aten.bmm.default,
        _aten._scaled_dot_product_flash_attention.default,
        _aten._scaled_dot_product_flash_attention_for_cpu.default,
        _aten._scaled_dot_product_efficient_attention.default,
        _aten._scaled_dot_product_cudnn_attention.default,
    }
)


def recompute(
    step: Callable[..., Tensor], tokens: Tensor, t: int, *key_bias: Tensor, level: bool | str
) -> Tensor:
    """Run a block, and keep for its backward pass the activations of a level.

    Random numbers are drawn again as they were. Works under autocast, DDP and ``torch.compile``.
    The level ``True`` is ``'block'``.
    """
    options: dict[str, Any] = {}
    if isinstance(level, str) and level != 'block':
        keep = partial(_policy, level, tokens.shape[-1])
        options['context_fn'] = partial(create_selective_checkpoint_contexts, keep)
    output: Tensor = checkpoint(step, tokens, t, *key_bias, use_reentrant=False, **options)
    return output


def _policy(level: str, d: int, _: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Return whether the result of an operation is kept.

    The products of a block differ in shape: queries, keys and values ``d -> 3 d``, projections
    ``d -> d``, the MLP ``d -> 4 d -> d``. The output of the MLP is kept
    by the next block as part of the sum, so it is neither kept here nor recomputed.
    """
    keep, again = CheckpointPolicy.MUST_SAVE, CheckpointPolicy.PREFER_RECOMPUTE
    if op in ATTENTIONS:
        return keep
    if op not in PRODUCTS:
        return again
    rows, (wide, narrow) = args[-2].shape[0], args[-1].shape
    if wide > d or (level == 'mlp' and narrow > 3 * d):
        return again
    is_projection = wide == narrow and rows != wide  # the product of two matrices has such rows
    return again if is_projection and level != 'pointwise' else keep
