"""Inference in bfloat16 or int8: faster on processors with instructions for them.

=========  =================================================  ==================================
precision  what is short                                      where it is faster
=========  =================================================  ==================================
``fp32``   nothing: the reference
``bf16``   matrix products and attention, under autocast      GPUs; CPUs with AVX-512 BF16 or AMX
``int8``   weights of the blocks, and what enters them, with  CPUs
           a scale for each row that is found on the way
=========  =================================================  ==================================

Scores change; ``tools/analysis_tools/compare_precision.py`` measures it on your own videos.
"""

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from mmtimesformer.engine.optim.amp import check_device, keep_scores_in_float32

PRECISIONS = ('fp32', 'bf16', 'int8')


def prepare(model: Any, precision: str, device: torch.device) -> None:
    """Prepare a recognizer for a precision, in place.

    Raises:
        ValueError: The precision is not known, or not on this device.
    """
    if precision not in PRECISIONS:
        raise ValueError(f'precision={precision!r} is not known; give {", ".join(PRECISIONS)}')
    if precision == 'bf16':
        if device.type == 'cuda':
            check_device('bf16')
        keep_scores_in_float32(model)
    if precision == 'int8':
        if device.type != 'cpu':
            raise ValueError(f"precision='int8' computes on a CPU, not on {device}; take bf16")
        _quantise(model.backbone)


def arithmetic(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which a prepared model runs."""
    if precision == 'bf16':
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def _quantise(backbone: nn.Module) -> None:
    """Replace the linear layers of the blocks; embeddings and norms stay as they are."""
    quantisation: Any = getattr(torch.ao, 'quantization', None)
    if not hasattr(quantisation, 'quantize_dynamic'):
        raise ValueError(
            f'torch {torch.__version__} has no dynamic int8 any more; take fp32 or bf16'
        )
    with warnings.catch_warnings():  # about its removal in a later version
        warnings.simplefilter('ignore')
        layers = {nn.Linear: quantisation.per_channel_dynamic_qconfig}
        quantisation.quantize_dynamic(backbone, layers, inplace=True)
