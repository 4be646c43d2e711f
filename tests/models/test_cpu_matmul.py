"""Float32 products by oneDNN: as exact, set only where nobody else has set it, and taken back."""

from collections.abc import Iterator

import pytest
import torch

from mmtimesformer.models import cpu_matmul
from mmtimesformer.models.cpu_matmul import (
    float32_by_onednn,
    is_faster_by_onednn,
    is_onednn_used,
    use_onednn_for_float32,
)

MATMUL = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
AMD = {'cpu_name': 'AMD EPYC', 'avx512_f': True, 'amx_tile': False}


@pytest.fixture(autouse=True)
def setting() -> Iterator[None]:
    before = MATMUL.fp32_precision
    MATMUL.fp32_precision = 'none'
    yield
    MATMUL.fp32_precision = before
    forget()


def forget() -> None:
    is_faster_by_onednn.cache_clear()


def pretend(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: {**AMD, **changes}, raising=False)
    forget()


def test_it_is_set_inside_the_block_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    monkeypatch.setattr(cpu_matmul, '_is_exact', lambda: True)
    with pytest.raises(RuntimeError), float32_by_onednn() as used:
        assert used and is_onednn_used() and MATMUL.fp32_precision == 'bf16'
        with float32_by_onednn():
            pass
        assert MATMUL.fp32_precision == 'bf16'  # the outer block's
        raise RuntimeError
    assert MATMUL.fp32_precision == 'none' and not is_onednn_used()


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    MATMUL.fp32_precision = 'ieee'
    with float32_by_onednn() as used:
        assert not used and MATMUL.fp32_precision == 'ieee'
    assert MATMUL.fp32_precision == 'ieee'


@pytest.mark.parametrize(
    'changes',
    [{'amx_tile': True}, {'avx512_f': False}, {'cpu_name': 'Intel(R) Xeon(R)'}, {'cpu_name': ''}],
    ids=['amx', 'no avx512', 'intel', 'unknown'],
)
def test_other_processors_are_left_alone(
    changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, **changes)
    monkeypatch.setattr(cpu_matmul, '_is_exact', lambda: True)
    assert not use_onednn_for_float32() and MATMUL.fp32_precision == 'none'


def test_lower_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    product = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor, '__matmul__', lambda x, y: product(x.bfloat16(), y.bfloat16()).float()
    )
    assert not use_onednn_for_float32() and MATMUL.fp32_precision == 'none'


def test_products_are_as_exact_as_before() -> None:
    a, b = torch.randn(2, 192, 192, generator=torch.Generator().manual_seed(0))
    expected = a.double() @ b.double()
    before = (a @ b - expected).abs().max().item()
    with float32_by_onednn():
        after = (a @ b - expected).abs().max().item()
    assert after < 4 * before + 1e-6


def test_pytorch_without_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_matmul, '_matmul', lambda: None)
    forget()
    with float32_by_onednn() as used:
        assert not used
