"""A test sees several views of a video and tells one answer: keep what each view said, too."""

from typing import Any

from einops import rearrange
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import Tensor

from mmtimesformer.registry import HOOKS


@HOOKS.register_module()
class ViewScoresHook(Hook):
    """Give each tested sample ``view_scores``, the logits of its views before they are fused.

    They ride into a dump beside ``pred_scores``, which stay as they are, so MMAction2's analysis
    tools read the dump as before. A video costs 4 bytes for each view and class: 5 kB for three
    crops of 400 classes. Where a video has one view there is nothing to add, and nothing is.

    What the head computes is watched, not changed. A head that does not tell a row of scores for
    each view is left alone.
    """

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._logits: list[Tensor] = []

    def before_test(self, runner: Any) -> None:
        """Watch the head, and the recogniser around it."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        head = getattr(model, 'cls_head', None)
        if head is None:
            return
        self._handles = [
            head.register_forward_hook(self._keep),
            model.register_forward_hook(self._attach),
        ]

    def after_test(self, runner: Any) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._logits = [], []

    def _keep(self, head: Any, inputs: Any, logits: Any) -> None:
        if isinstance(logits, Tensor) and logits.ndim == 2:
            self._logits.append(logits.detach().float())

    def _attach(self, model: Any, inputs: Any, samples: Any) -> None:
        kept, self._logits = self._logits, []
        if len(kept) != 1 or not isinstance(samples, list) or len(kept[0]) % len(samples):
            return
        views = rearrange(kept[0], '(b views) classes -> b views classes', b=len(samples))
        if views.shape[1] > 1:
            for sample, scores in zip(samples, views, strict=True):
                sample.set_field(scores.clone(), 'view_scores')
