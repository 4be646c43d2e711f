"""Fuse two consecutive linear layers into one: the product of their matrices.

``W2 (W1 x + b1) + b2 = (W2 W1) x + W2 b1 + b2``. For TimeSformer-B this saves 5 % of a forward
pass; multiplying the matrices costs as much as 768 tokens of one layer, and is done once per step.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


def has_hooks(module: nn.Module) -> bool:
    """Return whether a module has hooks, or a ``forward`` that was set on the instance.

    Accelerate and several quantisation tools set the latter.
    """
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or 'forward' in module.__dict__
    )


def is_recorded() -> bool:
    """Return whether ``torch.compile``, ``torch.export`` or ``torch.jit.trace`` runs."""
    return torch.compiler.is_compiling() or _is_traced()


def is_exported() -> bool:
    """Return whether ``torch.export`` or ``torch.jit.trace`` runs."""
    return torch.compiler.is_exporting() or _is_traced()


def _is_traced() -> bool:
    is_tracing: Callable[[], bool] = torch.jit.is_tracing  # type: ignore[attr-defined]
    return is_tracing()


def is_plain(layer: nn.Module, kind: type[nn.Module] = nn.Linear) -> bool:
    """Return whether a layer computes only what its ``weight`` and ``bias`` define.

    Only then may its weights be used past its forward pass. A layer of another class (LoRA,
    bitsandbytes, dynamic quantisation, a parametrisation), one with hooks, and one whose weight is
    a tensor subclass (torchao, ``DTensor``) are not plain: a subclass may have no ``view`` or no
    matrix-vector product.
    """
    if type(layer) is not kind or has_hooks(layer):
        return False
    return all(_is_plain_tensor(getattr(layer, name)) for name in ('weight', 'bias'))


def _is_plain_tensor(tensor: Tensor | None) -> bool:
    kind = type(tensor)
    if tensor is None or kind is nn.Parameter or kind is Tensor:
        return True
    return kind.__module__.startswith('torch._subclasses')  # torch.export's, for plain ones


class FusedLinear:
    """The product of two linear layers, cached on a CPU without gradients.

    With gradients, or on a GPU (where it costs microseconds), it is computed on every call, and is
    differentiable in both layers. The cache is invalidated by any change of the weights, also by
    those of an averaged model, which writes to ``weight.data`` and so leaves the tensor's version
    unchanged. So weights are compared by a fingerprint, one matrix-vector product each.

    The cache is not part of the model's state: not saved, not copied, not moved.
    """

    def __init__(self) -> None:
        self._fingerprint: Tensor | None = None
        self._cached: tuple[Tensor, Tensor] | None = None

    def __call__(self, first: nn.Linear, second: nn.Linear) -> tuple[Tensor, Tensor]:
        """Return ``W2 W1`` and ``W2 b1``; the bias of the second layer is left to the caller."""
        if first.weight.device.type != 'cpu' or torch.is_grad_enabled() or is_recorded():
            return multiply(first, second)
        found = fingerprint(first, second)
        known = self._fingerprint
        if self._cached is None or known is None or not torch.equal(found, known):
            self._fingerprint, self._cached = found, multiply(first, second)
        return self._cached

    def __getstate__(self) -> dict[str, Any]:
        return {'_fingerprint': None, '_cached': None}


def multiply(first: nn.Linear, second: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return ``W2 W1`` and ``W2 b1``, in the weights' own precision also under autocast."""
    with without_autocast(first.weight.device.type):
        return second.weight @ first.weight, second.weight @ first.bias


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """Compute in the precision of the tensors also under autocast."""
    has_autocast = device != 'meta' and torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if has_autocast else nullcontext()


def fingerprint(first: nn.Linear, second: nn.Linear) -> Tensor:
    """Return numbers that change with the weights: weighted sums of each row, and the bias."""
    weight = first.weight
    ramp = torch.linspace(1, 2, weight.shape[1], dtype=weight.dtype, device=weight.device)
    return torch.cat([weight @ ramp, second.weight @ ramp[: second.weight.shape[1]], first.bias])
