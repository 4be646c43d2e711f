"""Linear layers with weights in the layout of oneDNN, for inference in bfloat16 on a CPU.

The weights are rearranged once instead of in each product, the bias is added inside the product,
and so is the GELU of the MLP. ``torch.compile`` does the same with frozen weights.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mmtimesformer.models import FFN
from mmtimesformer.models.fused_linear import has_hooks, is_plain

EXACT_GELU = 'none'  # oneDNN's name for the GELU that is not approximated


class PackedLinear(nn.Module):
    """A linear layer whose weight is in the layout of oneDNN.

    Args:
        layer: The layer, in bfloat16; it stays as it is.
        gelu: Whether an exact GELU follows.

    Shape:
        - tokens: ``… in`` -> ``… out``, bfloat16
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear, gelu: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), None)
        self.register_buffer('bias', None if layer.bias is None else layer.bias.detach())
        self._follows: tuple[str, list[Any], str] = (
            ('gelu', [], EXACT_GELU) if gelu else ('none', [], '')
        )

    def forward(self, tokens: Tensor) -> Tensor:
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            tokens.bfloat16(), self.weight, self.bias, *self._follows
        )
        return output


class PackedFFN(nn.Module):
    """The MLP of a block with packed layers; the GELU is computed inside the first product.

    Args:
        mlp: The MLP, in bfloat16; it stays as it is.

    Shape:
        - tokens: ``b n d`` -> the same, bfloat16
    """

    def __init__(self, mlp: FFN) -> None:
        super().__init__()
        self.fc1 = PackedLinear(mlp.fc1, gelu=True)
        self.fc2 = PackedLinear(mlp.fc2)

    def forward(self, tokens: Tensor) -> Tensor:
        output: Tensor = self.fc2(self.fc1(tokens))
        return output


def can_pack(device: torch.device) -> bool:
    """Return whether a device and this PyTorch have the packed products."""
    ops = torch.ops.mkldnn
    if device.type != 'cpu' or not torch.backends.mkldnn.is_available():
        return False
    has_all = hasattr(ops, '_reorder_linear_weight') and hasattr(ops, '_linear_pointwise')
    return has_all and bool(ops._is_mkldnn_bf16_supported())


def pack(backbone: Any) -> None:
    """Pack the plain linear layers of a backbone's blocks, in place.

    The ``qkv`` of the last block's attention stays: there only the class token is a query, which
    uses these weights as matrices (:meth:`SelfAttention.forward_first_token`).
    """
    last = backbone.blocks[-1].attn.qkv
    for parent in list(backbone.blocks.modules()):
        for name, part in list(parent.named_children()):
            if _is_plain_mlp(part):
                setattr(parent, name, PackedFFN(part))
    for parent in list(backbone.blocks.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, nn.Linear) and is_plain(part) and part is not last:
                setattr(parent, name, PackedLinear(part))


def _is_plain_mlp(part: nn.Module) -> bool:
    if type(part) is not FFN or not (is_plain(part.fc1) and is_plain(part.fc2)):
        return False
    return not any(map(has_hooks, part.modules()))
