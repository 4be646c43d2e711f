"""Classification heads (linear, k-NN, attentive), and ways to fuse the scores of several views.

It needs MMAction2, so ``import mmtimesformer`` does not import it. A config imports it:
``custom_imports = dict(imports=['mmtimesformer', 'mmtimesformer.heads'])``.
"""

from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce, repeat
from mmaction.models.heads import TimeSformerHead as MMAction2Head  # noqa: TID251
from torch import Tensor, nn

from mmtimesformer.config.label_checks import scores_are_sigmoids, softmax_refused
from mmtimesformer.registry import MODELS

# How the scores of a video's views are fused, by the head's `average_clips`.
FUSIONS: dict[str | None, str] = {
    'prob': 'mean of softmax',
    'sigmoid': 'mean of sigmoid',
    'score': 'mean of logits',
    'sum': 'sum of logits',
    None: 'views kept apart',
}

LEAST_VOTE = 1e-7  # of a class without a neighbour, so that its logarithm is finite


@MODELS.register_module()
class TimeSformerHead(MMAction2Head):
    """MMAction2's ``TimeSformerHead`` with two more ways to fuse views: sigmoid, and sum of logits.

    A sum ranks classes as a mean of logits does; the scores themselves differ, and are no
    probabilities. Parameters keep MMAction2's names: ``fc_cls.weight`` and ``fc_cls.bias``.

    Args:
        args: As in MMAction2's head, first ``num_classes`` and ``in_channels``.
        average_clips: ``'prob'`` for the mean of the softmax (MMAction2), ``'sigmoid'`` for the
            mean of the sigmoid (several labels a video: each class has its own probability),
            ``'score'`` for the mean of the logits (PaddleVideo), ``'sum'`` for their sum (the
            official code), or ``None`` to keep the logits of every view.
        temperature: Logits are divided by it before views are fused, which calibrates
            probabilities (:mod:`mmtimesformer.analysis.calibration`); 1 changes nothing.
        kwargs: As in MMAction2's head, which refuses unknown ones.

    Raises:
        ValueError: ``temperature`` is not above 0, or ``average_clips`` is none of these, or is
            ``'prob'`` where the loss trains a sigmoid for each class.
    """

    def __init__(
        self,
        *args: Any,
        average_clips: str | None = None,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> None:
        if not 0 < temperature < float('inf'):
            raise ValueError(
                f'temperature={temperature} is not above 0 and finite; set '
                'model.cls_head.temperature'
            )
        if average_clips not in FUSIONS:
            raise ValueError(
                f'average_clips={average_clips!r} is not known; set model.cls_head.average_clips '
                f'to one of {", ".join(map(repr, FUSIONS))}'
            )
        settings = {'loss_cls': kwargs.get('loss_cls'), 'multi_class': kwargs.get('multi_class')}
        if average_clips == 'prob' and scores_are_sigmoids(settings):
            raise ValueError(softmax_refused(settings))
        super().__init__(*args, average_clips=average_clips, **kwargs)
        self.temperature = temperature

    def average_clip(self, cls_scores: Tensor, num_segs: int = 1) -> Tensor:
        """Fuse the views of each video.

        Shape:
            - cls_scores: ``(b views) classes`` -> ``b classes``
        """
        cls_scores = cls_scores / self.temperature
        if self.average_clips == 'sigmoid':
            probabilities = cls_scores.sigmoid()
            return reduce(probabilities, '(b views) classes -> b classes', 'mean', views=num_segs)
        if self.average_clips == 'sum':
            return reduce(cls_scores, '(b views) classes -> b classes', 'sum', views=num_segs)
        return super().average_clip(cls_scores, num_segs)


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
        query = repeat(self.query, '(heads c) -> b heads 1 c', b=len(tokens), heads=self.num_heads)
        pooled = F.scaled_dot_product_attention(query, keys, values)
        pooled = rearrange(pooled, 'b heads 1 c -> b (heads c)')
        return super().forward(self.fc_norm(pooled))
