"""Mixed precision: float16 with a loss scaler on CUDA, bfloat16 without one anywhere.

Weights, gradients and optimizer stay in float32; matrix products run in the short type. bfloat16
has the range of float32, so the loss needs no scaling, and CPUs support it too.

As in MMAction2, only training uses it: validation stays in float32, where a few hundredths of a
percent decide which epoch is best. A test can use it too.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import nn

from mmtimesformer.registry import OPTIM_WRAPPERS

DTYPES = {'fp16': torch.float16, 'bf16': torch.bfloat16}
PLAIN = ('OptimWrapper', 'AmpOptimWrapper', 'mmtimesformer.Bfloat16OptimWrapper')


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):
    """Train under bfloat16 autocast on the device of the model, CPU or CUDA.

    It takes the arguments of MMEngine's ``OptimWrapper`` and has the same state, so a run may
    change between the two when it resumes.
    """

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """Keep the scores of the model in float32, before the first step."""
        super().initialize_count_status(model, init_counts, max_counts)
        keep_scores_in_float32(model)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Compute the loss under bfloat16 autocast."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield


def train_in(precision: str, cfg: Config) -> None:
    """Change ``optim_wrapper`` of a config, so that it trains in ``'fp16'`` or ``'bf16'``.

    Raises:
        ValueError: The device or the optimizer wrapper does not support it.
    """
    check_device(precision)
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind not in PLAIN:
        raise ValueError(
            f'--amp {precision} does not support optim_wrapper.type={kind!r}; omit --amp, or use '
            'one of ' + ', '.join(PLAIN)
        )
    if precision == 'fp16':
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    else:
        cfg.optim_wrapper.type = 'mmtimesformer.Bfloat16OptimWrapper'
        for scaling in ('loss_scale', 'dtype', 'use_fsdp'):
            cfg.optim_wrapper.pop(scaling, None)


def test_in(precision: str, cfg: Config) -> None:
    """Change a config so that it tests in mixed precision; arguments as in :func:`train_in`.

    NOTE: MMEngine's loop has one switch, ``fp16``, for the autocast type of the device; that type
    is a setting of the process.
    """
    check_device(precision)
    cfg.test_cfg.fp16 = True
    torch.set_autocast_dtype(get_device(), DTYPES[precision])


def keep_scores_in_float32(model: nn.Module) -> None:
    """Convert the class scores of an MMAction2 recognizer to float32; it may be called again.

    MMAction2 computes the training accuracy in NumPy, which has no bfloat16.
    """
    inner = model.module if is_model_wrapper(model) else model
    head = getattr(inner, 'cls_head', None)
    if head is not None and _to_float32 not in head._forward_hooks.values():
        head.register_forward_hook(_to_float32)


def _to_float32(_head: nn.Module, _inputs: object, scores: object) -> object:
    return scores.float() if isinstance(scores, torch.Tensor) else scores


def check_wrapper(wrapper: Mapping[str, Any]) -> None:
    """Check whether this machine can train with MMEngine's ``AmpOptimWrapper`` of a config.

    Raises:
        ValueError: There is no GPU, the GPU does not support the type, or there is no such type.
    """
    kind = wrapper.get('type')
    if getattr(kind, '__name__', kind) != 'AmpOptimWrapper':
        return
    dtype = wrapper.get('dtype')
    known = None, 'float16', 'bfloat16', 'float32', 'float64'
    if not isinstance(dtype, torch.dtype) and dtype not in known:
        raise ValueError(
            f'optim_wrapper.dtype={dtype!r} is not known; set it to one of '
            f'{", ".join(map(str, known[1:]))}, or omit it for float16'
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
