"""The MLP of a block, applied to each token by itself."""

import torch.nn.functional as F
from mmengine.model import trunc_normal_init
from torch import Tensor, nn

from mmtimesformer.registry import MODELS


@MODELS.register_module()
class FFN(nn.Module):
    """Two linear layers with an exact (erf) GELU between them.

    Args:
        embed_dims: Width of a token.
        feedforward_channels: Width between the two layers; 4 times ``embed_dims`` in the paper.
        drop_rate: Fraction of channels dropped in training after each layer, 0 to 1.

    Shape:
        - tokens: ``b n d`` -> ``b n d``
    """

    def __init__(self, embed_dims: int, feedforward_channels: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, feedforward_channels)
        self.fc2 = nn.Linear(feedforward_channels, embed_dims)
        self.drop = nn.Dropout(drop_rate)
        trunc_normal_init(self.fc1, std=0.02)
        trunc_normal_init(self.fc2, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        output: Tensor = self.drop(self.fc2(self.drop(F.gelu(self.fc1(tokens)))))
        return output
