"""Set how DataLoader workers send tensors to the main process."""

import torch.multiprocessing
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmtimesformer.registry import HOOKS


@HOOKS.register_module()
class TensorSharingHook(Hook):
    """Set PyTorch's sharing strategy before the first DataLoader worker starts.

    It works under MMEngine's Runner too. Forked workers inherit the strategy, spawned ones do not.

    Args:
        strategy: ``'file_system'`` (by a name, faster for many small clips) or
            ``'file_descriptor'`` (nothing is left in shared memory after a kill); see
            :func:`torch.multiprocessing.set_sharing_strategy`.

    Raises:
        ValueError: This system does not have the strategy.
    """

    priority = 'VERY_HIGH'

    def __init__(self, strategy: str) -> None:
        known = torch.multiprocessing.get_all_sharing_strategies()
        if strategy not in known:
            raise ValueError(
                f'strategy={strategy!r} is not one of {", ".join(sorted(known))}; set strategy of '
                'mmtimesformer.TensorSharingHook to one of them'
            )
        self.strategy = strategy

    def before_run(self, runner: Runner) -> None:
        torch.multiprocessing.set_sharing_strategy(self.strategy)
