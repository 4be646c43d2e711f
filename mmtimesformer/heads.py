"""The classification head, and the ways to fuse the scores of several views.

It needs MMAction2, so ``import mmtimesformer`` does not import it. A config imports it:
``custom_imports = dict(imports=['mmtimesformer', 'mmtimesformer.heads'])``.
"""

from typing import Any

from einops import reduce
from mmaction.models.heads import TimeSformerHead as MMAction2Head  # noqa: TID251
from torch import Tensor

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
        kwargs: As in MMAction2's head, which refuses unknown ones.

    Raises:
        ValueError: ``average_clips`` is none of these, or ``'prob'`` where the loss trains a
            sigmoid for each class.
    """

    def __init__(self, *args: Any, average_clips: str | None = None, **kwargs: Any) -> None:
        if average_clips not in FUSIONS:
            raise ValueError(
                f'average_clips={average_clips!r} is not known; set model.cls_head.average_clips '
                f'to one of {", ".join(map(repr, FUSIONS))}'
            )
        settings = {'loss_cls': kwargs.get('loss_cls'), 'multi_class': kwargs.get('multi_class')}
        if average_clips == 'prob' and scores_are_sigmoids(settings):
            raise ValueError(softmax_refused(settings))
        super().__init__(*args, average_clips=average_clips, **kwargs)

    def average_clip(self, cls_scores: Tensor, num_segs: int = 1) -> Tensor:
        """Fuse the views of each video.

        Shape:
            - cls_scores: ``(b views) classes`` -> ``b classes``
        """
        if self.average_clips == 'sigmoid':
            probabilities = cls_scores.sigmoid()
            return reduce(probabilities, '(b views) classes -> b classes', 'mean', views=num_segs)
        if self.average_clips == 'sum':
            return reduce(cls_scores, '(b views) classes -> b classes', 'sum', views=num_segs)
        return super().average_clip(cls_scores, num_segs)
