"""MMAction2's TimeSformerHead with more ways to fuse views, and a temperature for calibration."""

from typing import Any

from einops import reduce
from mmaction.models.heads import TimeSformerHead as MMAction2Head  # noqa: TID251
from torch import Tensor

from mmtimesformer.config.label_checks import scores_are_sigmoids, softmax_refused
from mmtimesformer.heads.fusion import FUSIONS
from mmtimesformer.registry import MODELS


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
