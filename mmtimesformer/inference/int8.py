"""Linear layers in 8 bits: weights with a scale per channel, activations with one per token.

A weight is rounded once, to ``-127 … 127`` times the largest of its output channel. A token is
rounded on every pass, to ``-127 … 127`` times its own largest value. Their product is exact in 32
bits, and is scaled back: ``y = s_token * s_channel * (codes @ codes) + bias``.

It is computed by ``torch.ops.onednn.qlinear_pointwise`` on packed weights. torch 2.13 cannot trace
that, so under ``torch.compile`` it is ``torch._int_mm``, into whose scaling the code is fused.

NOTE: ``qlinear_pointwise`` is fast on processors with VNNI for unsigned codes only (signed ones
take a reference loop, 1,500 times slower), so a token's codes are shifted by 128.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from mmtimesformer.models.fused_linear import is_plain

LEVELS = 127
SHIFT = 128
SMALLEST = 1e-30  # of a scale: a token of zeros has zeros as codes


class Int8Linear(nn.Module):
    """A linear layer in 8 bits, for inference on a CPU.

    Args:
        layer: The layer to round; it stays as it is.

    Shape:
        - tokens: ``… in`` -> ``… out``, float32
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach().float()
        scales = (weight.abs().amax(1) / LEVELS).clamp_min(SMALLEST)
        codes = (weight / scales[:, None]).round().to(torch.int8)
        self.register_buffer('codes', codes)
        self.register_buffer('scales', scales)
        self.register_buffer('zeros', torch.zeros(len(scales), dtype=torch.int64))
        bias = None if layer.bias is None else layer.bias.detach().float().clone()
        self.register_buffer('bias', bias)
        self._packed: Tensor | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        flat = tokens.reshape(-1, self.in_features).float()
        highest, lowest = flat.amax(-1, keepdim=True), flat.amin(-1, keepdim=True)
        scale = (torch.maximum(highest, -lowest) / LEVELS).clamp_min(SMALLEST)
        rounded = (flat * scale.reciprocal()).add_(SHIFT + 0.5)
        if torch.compiler.is_compiling():
            codes = (rounded.floor() - SHIFT).to(torch.int8)
            output = torch._int_mm(codes, self.codes.t()).float() * scale * self.scales
        else:
            output = multiply(rounded.to(torch.uint8), self.packed(), self.scales, self.zeros)
            output.mul_(scale)
        if self.bias is not None:
            output.add_(self.bias)
        return output.view(*tokens.shape[:-1], self.out_features)

    def packed(self) -> Tensor:
        """Return the codes in the layout of the kernel."""
        if self._packed is None:
            self._packed = pack(self.codes)
        return self._packed

    def extra_repr(self) -> str:
        return f'in_features={self.in_features}, out_features={self.out_features}'


def pack(codes: Tensor) -> Tensor:
    """Return a weight's codes, ``out in``, in the layout of the kernel."""
    packed: Tensor = torch.ops.onednn.qlinear_prepack(codes, None)
    return packed


def multiply(codes: Tensor, packed: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """Return the products of codes of tokens and of weights, times the weights' scales."""
    product: Tensor = torch.ops.onednn.qlinear_pointwise(
        codes, 1.0, SHIFT, packed, scales, zeros, None, 1.0, 0, torch.float32, 'none', [], ''
    )
    return product


def quantise(backbone: Any) -> None:
    """Replace the linear layers of a backbone's blocks, in place.

    The ``qkv`` of the last block's attention stays: there only the class token is a query, which
    uses these weights as matrices (:meth:`SelfAttention.forward_first_token`).

    Raises:
        ValueError: This processor or PyTorch has no exact int8 products, or no layer is plain.
    """
    check_products()
    last = backbone.blocks[-1].attn.qkv
    found = [
        (parent, name, layer)
        for parent in backbone.blocks.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, nn.Linear) and is_plain(layer) and layer is not last
    ]
    if not found:
        raise ValueError(
            "speed='int8' changes plain linear layers, and the blocks of this model have none; "
            "give speed='exact'"
        )
    for parent, name, layer in found:
        setattr(parent, name, Int8Linear(layer))


@cache
def check_products() -> None:
    """Compute a product of the largest codes, and compare it with the exact one.

    Processors without VNNI add products of 8 bits in 16, where large ones overflow.

    Raises:
        ValueError: It differs, or there is no such operation.
    """
    weight = torch.full((32, 64), -LEVELS, dtype=torch.int8)
    codes = torch.full((32, 64), SHIFT + LEVELS, dtype=torch.uint8)
    expected = float(-LEVELS * LEVELS * 64)
    try:
        ones, zeros = torch.ones(32), torch.zeros(32, dtype=torch.int64)
        found = multiply(codes, pack(weight), ones, zeros)
        signed = torch._int_mm((codes - SHIFT).to(torch.int8), weight.t())
    except (RuntimeError, AttributeError) as error:
        raise ValueError(
            f'PyTorch {torch.__version__} has no int8 products on this processor; give '
            "speed='exact' or 'bf16'"
        ) from error
    if not bool((found == expected).all() and (signed == expected).all()):
        raise ValueError(
            "the int8 products of this processor overflow (it has no VNNI); give speed='exact' or "
            "'bf16'"
        )
