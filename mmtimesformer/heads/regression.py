"""A head for regression: one or several numbers for each video."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import reduce
from mmaction.models.heads import TimeSformerHead as MMAction2Head  # noqa: TID251
from torch import Tensor, nn

from mmtimesformer.compat.data_samples import targets_of
from mmtimesformer.compat.upstream import overrides
from mmtimesformer.registry import MODELS

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
