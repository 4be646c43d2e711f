"""Heads: classification (linear, k-NN, attentive) and regression; ways to fuse several views.

It needs MMAction2, so ``import mmtimesformer`` does not import it. A config imports it:
``custom_imports = dict(imports=['mmtimesformer', 'mmtimesformer.heads'])``.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce
from mmaction.models.heads import TimeSformerHead as MMAction2Head  # noqa: TID251
from torch import Tensor, nn

from mmtimesformer.compat.data_samples import targets_of
from mmtimesformer.compat.upstream import overrides
from mmtimesformer.config.label_checks import scores_are_sigmoids, softmax_refused
from mmtimesformer.registry import MODELS

# How the scores of a video's views are fused, by the head's `average_clips`.
FUSIONS: dict[str | None, str] = {
    'prob': 'mean of softmax',
    'sigmoid': 'mean of sigmoid',
    'score': 'mean of logits',
    'sum': 'sum of logits',
    'number': 'mean of numbers',  # of regression
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
        known = [fusion for fusion in FUSIONS if fusion != 'number']
        if average_clips not in known:
            raise ValueError(
                f'average_clips={average_clips!r} is not known; set model.cls_head.average_clips '
                f'to one of {", ".join(map(repr, known))}'
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


LOSSES = {'mse': F.mse_loss, 'l1': F.l1_loss, 'smooth_l1': F.smooth_l1_loss}


class ScaledLinear(nn.Linear):
    """A linear layer whose outputs are multiplied by constants, and whose checkpoint has them.

    ``weight`` and ``bias`` are in units of ``scale``, where the targets have a deviation of about
    1. In a state dict both are multiplied by ``scale``: it is that of a plain linear layer in the
    units of the targets, which any ``scale`` can load. ``scale`` consists of powers of 2, so
    saving and loading change no bit.

    Shape:
        - input: ``b in_features`` -> ``b out_features``, in the units of the targets
        - scale: ``out_features``
    """

    def __init__(self, in_features: int, out_features: int, scale: Tensor) -> None:
        super().__init__(in_features, out_features)
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.scale.to(input)

    @overrides(nn.Module)
    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in ('weight', 'bias'):
            saved = destination[prefix + name]
            destination[prefix + name] = saved * self._factors(saved)

    @overrides(nn.Module)
    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        given = {prefix + name: state_dict.get(prefix + name) for name in ('weight', 'bias')}
        for key, tensor in given.items():
            if isinstance(tensor, Tensor) and len(tensor) == len(self.scale):
                state_dict[key] = tensor / self._factors(tensor)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        state_dict.update({key: tensor for key, tensor in given.items() if tensor is not None})

    def _factors(self, tensor: Tensor) -> Tensor:
        return self.scale.to(tensor).reshape(-1, *[1] * (tensor.ndim - 1))


@MODELS.register_module()
class RegressionHead(MMAction2Head):
    """Predict one or several numbers of a video, such as a speed or a position.

    The data set has ``num_targets`` set, and its list has the numbers after each path. The numbers
    of several views are averaged. Parameters are ``fc_cls.weight`` and ``fc_cls.bias``, as those of
    a classifier, so every checkpoint reader takes them.

    With ``target_mean`` and ``target_std`` the layer starts at the mean and works in units of about
    one deviation (the nearest power of 2, see :class:`ScaledLinear`), so targets of any size train
    with one learning rate, and the loss is in these units. The checkpoint is in the units of the
    targets: a later config with other values gives the same predictions.

    Args:
        num_targets: Numbers for each video.
        in_channels: Width of the features.
        loss: ``'mse'``, ``'l1'`` or ``'smooth_l1'``.
        target_mean: Mean of each target; ``'auto'`` in a config: of the training list. ``None``
            for 0.
        target_std: Standard deviation of each target; ``'auto'`` likewise. ``None`` for 1.
        dropout_ratio: Fraction of features that are dropped in training.
        init_std: Deviation of the initial weights, in units of the deviation of the targets.
        init_cfg: As in MMEngine.

    Shape:
        - features: ``(b views) d`` -> ``b num_targets``

    Raises:
        ValueError: A loss is unknown, or mean and deviation do not fit ``num_targets``.
    """

    def __init__(
        self,
        num_targets: int,
        in_channels: int,
        loss: str = 'mse',
        target_mean: Sequence[float] | None = None,
        target_std: Sequence[float] | None = None,
        dropout_ratio: float = 0.0,
        init_std: float = 0.02,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        if loss not in LOSSES:
            raise ValueError(
                f'loss={loss!r} is not known; set model.cls_head.loss to one of {", ".join(LOSSES)}'
            )
        mean = _per_target('target_mean', target_mean, num_targets, 0.0)
        std = _per_target('target_std', target_std, num_targets, 1.0)
        if min(std) <= 0:
            raise ValueError(
                f'target_std={std} has a number that is not above 0: a target that never changes '
                'cannot be learned; correct model.cls_head.target_std, or remove the target'
            )
        super().__init__(
            num_targets, in_channels, dropout_ratio=dropout_ratio, init_std=init_std,
            average_clips=None, init_cfg=init_cfg,
        )  # fmt: skip
        self.average_clips = 'number'
        scale = torch.tensor([2.0 ** round(math.log2(one)) for one in std])
        self.mean = torch.tensor(mean)
        self.loss_function = LOSSES[loss]
        self.fc_cls = ScaledLinear(in_channels, num_targets, scale)

    def init_weights(self) -> None:
        """Draw weights; the bias is the mean of the targets."""
        super().init_weights()
        with torch.no_grad():
            self.fc_cls.bias.copy_(self.mean / self.fc_cls.scale)

    def loss_by_feat(self, cls_scores: Tensor, data_samples: list[Any]) -> dict[str, Tensor]:
        """Return the loss and the mean absolute error of the batch.

        Shape:
            - cls_scores: ``b num_targets``, in the units of the targets
        """
        targets = torch.stack([targets_of(sample) for sample in data_samples]).to(cls_scores)
        scale = self.fc_cls.scale.to(cls_scores)
        loss = self.loss_function(cls_scores / scale, targets / scale)
        return {'loss_cls': loss, 'mae': (cls_scores - targets).abs().mean().detach()}

    def predict_by_feat(self, cls_scores: Tensor, data_samples: list[Any]) -> list[Any]:
        """Write the numbers into the samples as scores; there is no best class."""
        for sample in super().predict_by_feat(cls_scores, data_samples):
            for name in ('pred_label', 'pred_labels'):
                sample.pop(name, None)
            sample.set_metainfo({'num_targets': self.num_classes})
        return data_samples

    def average_clip(self, cls_scores: Tensor, num_segs: int = 1) -> Tensor:
        """Average the numbers of the views of each video.

        Shape:
            - cls_scores: ``(b views) targets`` -> ``b targets``
        """
        return reduce(cls_scores, '(b views) targets -> b targets', 'mean', views=num_segs)


def _per_target(
    name: str, values: Sequence[float] | None, num_targets: int, default: float
) -> list[float]:
    """Return a number for each target."""
    if values is None:
        return [default] * num_targets
    if isinstance(values, str) or len(values) != num_targets:
        raise ValueError(
            f'{name}={values!r} is no list of num_targets={num_targets} numbers; set '
            f"model.cls_head.{name}, or 'auto' for those of the training list"
        )
    return [float(value) for value in values]


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
