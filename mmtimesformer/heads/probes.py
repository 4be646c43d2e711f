"""Heads on frozen features: k nearest neighbours, and attention over tokens."""

from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn

from mmtimesformer.heads.classification import TimeSformerHead
from mmtimesformer.registry import MODELS

LEAST_VOTE = 1e-7  # of a class without a neighbour, so that its logarithm is finite


@MODELS.register_module()
class KNNHead(TimeSformerHead):
    """Cosine nearest neighbours among stored features, as a head.

    Each of the ``num_neighbors`` most similar features votes for its labels with the weight
    ``softmax(similarity / vote_temperature)`` (arXiv 1805.01978; DINO, arXiv 2104.14294). The
    logits are such that the softmax (the sigmoid for several labels) gives the votes back.

    Args:
        num_classes: Number of classes.
        in_channels: Width of a feature.
        num_samples: Number of stored features.
        num_neighbors: Features that vote.
        vote_temperature: A smaller one gives the nearest more weight.
        kwargs: As in :class:`TimeSformerHead`.

    Shape:
        - x: ``b d`` -> ``b classes``

    Raises:
        ValueError: There are fewer stored features than ``num_neighbors``.
    """

    features: Tensor
    votes: Tensor

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        num_samples: int,
        num_neighbors: int = 10,
        vote_temperature: float = 0.07,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        if not 1 <= num_neighbors <= num_samples:
            raise ValueError(
                f'num_neighbors={num_neighbors} is not between 1 and num_samples={num_samples}; '
                'set model.cls_head.num_neighbors'
            )
        del self.fc_cls
        self.num_neighbors, self.vote_temperature = num_neighbors, vote_temperature
        self.register_buffer('features', torch.zeros(num_samples, in_channels))
        self.register_buffer('votes', torch.zeros(num_samples, num_classes))

    def init_weights(self) -> None:
        """Leave the stored features as they are."""

    def forward(self, x: Tensor, **_kwargs: Any) -> Tensor:
        similarity = F.normalize(x, dim=-1) @ self.features.T
        best, places = similarity.topk(self.num_neighbors, dim=-1)
        weights = (best / self.vote_temperature).softmax(-1)
        votes = einsum(weights, self.votes[places], 'b k, b k classes -> b classes')
        if self.average_clips == 'sigmoid':
            return votes.clamp(LEAST_VOTE, 1 - LEAST_VOTE).logit()
        return (votes / votes.sum(-1, keepdim=True)).clamp(min=LEAST_VOTE).log()


@MODELS.register_module()
class AttentiveHead(TimeSformerHead):
    """A linear classifier over tokens pooled by cross-attention with one learned query.

    It needs ``backbone.out_type='tokens'``, and reads the patches of all frames; the class token is
    not used. (Attentive probing: Chen et al., arXiv 2202.03026; V-JEPA, arXiv 2404.08471.)

    Args:
        num_classes: Number of classes.
        in_channels: Width of a token.
        num_heads: Attention heads.
        kwargs: As in :class:`TimeSformerHead`.

    Shape:
        - x: ``b d`` (not used) and ``b t h w d`` -> ``b classes``

    Raises:
        ValueError: ``in_channels`` is not divisible by ``num_heads``.
    """

    def __init__(
        self, num_classes: int, in_channels: int, num_heads: int = 12, **kwargs: Any
    ) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        if in_channels % num_heads:
            raise ValueError(
                f'in_channels={in_channels} is not divisible by num_heads={num_heads}; set '
                'model.cls_head.num_heads to a divisor'
            )
        self.num_heads = num_heads
        self.query = nn.Parameter(0.02 * torch.randn(in_channels))
        self.norm = nn.LayerNorm(in_channels)
        self.kv = nn.Linear(in_channels, 2 * in_channels)
        self.fc_norm = nn.LayerNorm(in_channels)

    def forward(self, x: tuple[Tensor, Tensor], **_kwargs: Any) -> Tensor:
        if isinstance(x, Tensor):
            raise ValueError(
                "mmtimesformer.AttentiveHead reads tokens, and the backbone's output is a class "
                "token; set model.backbone.out_type to 'tokens'"
            )
        tokens = self.norm(rearrange(x[1], 'b t h w d -> b (t h w) d'))
        keys, values = rearrange(
            self.kv(tokens), 'b n (two heads c) -> two b heads n c', two=2, heads=self.num_heads
        )
        one = rearrange(self.query, '(heads c) -> 1 heads 1 c', heads=self.num_heads)
        query = one.expand(keys.shape[0], -1, -1, -1)
        pooled = F.scaled_dot_product_attention(query, keys, values)
        pooled = rearrange(pooled, 'b heads 1 c -> b (heads c)')
        return super().forward(self.fc_norm(pooled))
