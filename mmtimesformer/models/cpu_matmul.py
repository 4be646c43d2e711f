"""Compute float32 matrix products of a CPU by oneDNN where MKL is slow: on AMD with AVX-512.

PyTorch gives float32 matrix products to MKL, which uses half of the vector width on processors of
other makers than Intel. oneDNN uses all of it, but PyTorch asks it for float32 only when lower
precision is allowed too. Without matrix units for bfloat16 (AMX) oneDNN has no lower precision to
use, so the products stay float32; :func:`is_faster_by_onednn` computes one to make sure.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

BFLOAT16_ALLOWED = 'bf16'  # the value of PyTorch's setting that sends float32 to oneDNN
NOT_SET = 'none'

Constant = Callable[[Callable[[], bool]], Callable[[], bool]]
constant: Constant = torch.compiler.assume_constant_result  # what torch.compile does not trace


@contextmanager
def float32_by_onednn() -> Iterator[bool]:
    """Use oneDNN for float32 matrix products in this block, where it is faster and as exact.

    A value that the user has set for ``torch.backends.mkldnn.matmul.fp32_precision`` stays.

    Yields:
        Whether oneDNN is used.
    """
    before = _setting()
    try:
        yield use_onednn_for_float32()
    finally:
        if before == NOT_SET:
            _matmul().fp32_precision = NOT_SET


def use_onednn_for_float32() -> bool:
    """Use oneDNN for float32 matrix products of this process from now on; see the module.

    Returns:
        Whether it is used: not where it is no faster, and not where the user has set
        ``torch.backends.mkldnn.matmul.fp32_precision``, for example to ``'ieee'``.
    """
    if _setting() == NOT_SET and is_faster_by_onednn():
        _matmul().fp32_precision = BFLOAT16_ALLOWED
    return is_onednn_used()


@constant
def is_onednn_used() -> bool:
    """Return whether float32 matrix products of a CPU go to oneDNN, in full precision."""
    return _setting() == BFLOAT16_ALLOWED and is_faster_by_onednn()


@constant
def has_amx() -> bool:
    """Return whether this processor has matrix units for bfloat16 (AMX)."""
    return bool(_processor().get('amx_tile'))


@cache
def is_faster_by_onednn() -> bool:
    """Return whether oneDNN is faster on this processor than MKL, and computes in float32."""
    if _setting() is None or not torch.backends.mkldnn.is_available() or has_amx():
        return False
    processor = _processor()
    return (
        bool('AMD' in processor.get('cpu_name', '') and processor.get('avx512_f')) and _is_exact()
    )


def _processor() -> dict[str, Any]:
    """Return the features of this processor; none in versions of PyTorch that do not list them."""
    return dict(torch.cpu.get_capabilities()) if hasattr(torch.cpu, 'get_capabilities') else {}


def _matmul() -> Any:
    return getattr(torch.backends.mkldnn, 'matmul', None)


def _setting() -> str | None:
    """Return PyTorch's setting; ``None`` in versions without it (before 2.9)."""
    return getattr(_matmul(), 'fp32_precision', None)


def _is_exact() -> bool:
    """Multiply numbers that bfloat16 cannot hold by the identity, by oneDNN."""
    before = _setting()
    try:
        _matmul().fp32_precision = BFLOAT16_ALLOWED
        numbers = torch.linspace(1, 2, 256 * 256, dtype=torch.float32).view(256, 256)
        return torch.equal(numbers @ torch.eye(256), numbers)
    finally:
        _matmul().fp32_precision = before
