"""Mixed precision: float16 with a loss scaler on CUDA, bfloat16 without one anywhere.

Weights, gradients and optimiser stay float32; matrix products run in the short type. bfloat16 has
float32's range, so a loss needs no scaling, and CPUs know it too.

As in MMAction2, mixed precision is training's: validation stays in float32, where a few hundredths
of a percent would blur which epoch was best. A test may ask for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from mmtimesformer.registry import OPTIM_WRAPPERS

DTYPES = {'fp16': torch.float16, 'bf16': torch.bfloat16}
PLAIN = ('OptimWrapper', 'AmpOptimWrapper', 'mmtimesformer.Bfloat16OptimWrapper')


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):
    """Trains under bfloat16 autocast on the device where the model is, CPU or CUDA.

    Takes what MMEngine's ``OptimWrapper`` takes: the optimiser, ``clip_grad``,
    ``accumulative_counts``. Its state is that of a plain ``OptimWrapper``, so a run may change
    between the two when it resumes.
    """

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """Meet the model before the first step."""
        super().initialize_count_status(model, init_counts, max_counts)
        keep_scores_in_float32(model)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Compute the loss in bfloat16 where autocast allows it."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield


def train_in(precision: str, cfg: Any) -> None:
    """Change a config so that it trains in mixed precision.

    Args:
        precision: ``'fp16'`` or ``'bf16'``.
        cfg: The config; its ``optim_wrapper`` is changed in place.

    Raises:
        ValueError: This device or this optimiser wrapper cannot.
    """
    check_device(precision)
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind not in PLAIN:
        raise ValueError(
            f'--amp {precision} does not know optim_wrapper.type={kind!r}; leave --amp out, or use '
            'one of ' + ', '.join(PLAIN)
        )
    if precision == 'fp16':
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    else:
        cfg.optim_wrapper.type = 'mmtimesformer.Bfloat16OptimWrapper'
        for scaling in ('loss_scale', 'dtype', 'use_fsdp'):
            cfg.optim_wrapper.pop(scaling, None)


def test_in(precision: str, cfg: Any) -> None:
    """Change a config so that it tests in mixed precision; arguments as in :func:`train_in`.

    NOTE: MMEngine's loop knows one switch, ``fp16``, which means the device's autocast type; that
    type is a setting of the process.
    """
    check_device(precision)
    cfg.test_cfg.fp16 = True
    torch.set_autocast_dtype(get_device(), DTYPES[precision])


def keep_scores_in_float32(model: nn.Module) -> None:
    """Let class scores leave the head of an MMAction2 recogniser in float32; twice is once.

    MMAction2 hands them to NumPy for the training accuracy, and NumPy has no bfloat16.
    """
    head = getattr(getattr(model, 'module', model), 'cls_head', None)
    if head is not None and _to_float32 not in head._forward_hooks.values():
        head.register_forward_hook(_to_float32)


def _to_float32(_head: nn.Module, _inputs: Any, scores: Any) -> Any:
    return scores.float() if isinstance(scores, torch.Tensor) else scores


def check_wrapper(wrapper: Any) -> None:
    """Check whether this machine can train with MMEngine's ``AmpOptimWrapper`` of a config.

    Raises:
        ValueError: There is no GPU, the GPU does not know the type, or there is no such type.
    """
    kind = wrapper.get('type')
    if getattr(kind, '__name__', kind) != 'AmpOptimWrapper':
        return
    dtype = wrapper.get('dtype')
    known = None, 'float16', 'bfloat16', 'float32', 'float64'
    if not isinstance(dtype, torch.dtype) and dtype not in known:
        raise ValueError(
            f'optim_wrapper.dtype={dtype!r} is not known; set it to one of '
            f'{", ".join(map(str, known[1:]))}, or leave it out for float16'
        )
    name = str(dtype or 'float16').removeprefix('torch.')
    if get_device() == 'cpu':
        raise ValueError(
            f"optim_wrapper.type='AmpOptimWrapper' ({name}) needs a GPU, and this process sees "
            "none; set it to 'mmtimesformer.Bfloat16OptimWrapper', as --amp bf16 does, which works "
            'on a CPU too'
        )
    if name == 'bfloat16':
        check_device('bf16')


def check_device(precision: str) -> None:
    """Raise ``ValueError`` if this machine's device cannot compute in ``precision``."""
    device = get_device()
    if precision == 'fp16' and device == 'cpu':
        raise ValueError(
            'float16 training needs a GPU, and this process sees none; use --amp bf16, which works '
            'on a CPU too'
        )
    if precision == 'bf16' and device == 'cuda' and not torch.cuda.is_bf16_supported():
        raise ValueError(
            f'{torch.cuda.get_device_name()} does not compute in bfloat16; use --amp fp16'
        )
