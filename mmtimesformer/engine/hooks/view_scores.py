"""Keep the scores of each view in a dump of a multi-view test."""

from einops import rearrange
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mmtimesformer.registry import HOOKS


@HOOKS.register_module()
class ViewScoresHook(Hook):
    """Add ``view_scores`` to each tested sample: the logits of its views before their fusion.

    A dump has them next to ``pred_scores``, which do not change, so MMAction2's analysis tools read
    it as before. They take 4 bytes for each view and class: 5 kB for three crops of 400 classes.
    Nothing is added for one view, or for a head that does not return a row of scores per view.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._logits: list[Tensor] = []

    def before_test(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        head = getattr(model, 'cls_head', None)
        if head is None:
            return
        self._handles = [
            head.register_forward_hook(self._keep),
            model.register_forward_hook(self._attach),
        ]

    def after_test(self, runner: Runner) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._logits = [], []

    def _keep(self, head: nn.Module, inputs: object, logits: object) -> None:
        if isinstance(logits, Tensor) and logits.ndim == 2:
            self._logits.append(logits.detach().float())

    def _attach(self, model: nn.Module, inputs: object, samples: object) -> None:
        kept, self._logits = self._logits, []
        if len(kept) != 1 or not isinstance(samples, list) or len(kept[0]) % len(samples):
            return
        views = rearrange(kept[0], '(b views) classes -> b views classes', b=len(samples))
        if views.shape[1] > 1:
            for sample, scores in zip(samples, views, strict=True):
                sample.set_field(scores.clone(), 'view_scores')
