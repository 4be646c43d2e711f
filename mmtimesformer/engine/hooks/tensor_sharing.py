"""A hook that sets how DataLoader workers hand tensors to the main process."""

from typing import Any

import torch.multiprocessing
from mmengine.hooks import Hook

from mmtimesformer.registry import HOOKS


@HOOKS.register_module()
class TensorSharingHook(Hook):
    """Set PyTorch's sharing strategy before the first DataLoader worker starts.

    It works under MMEngine's own Runner too. Workers inherit the strategy where they are forked,
    not where they are spawned.

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

    def before_run(self, runner: Any) -> None:
        torch.multiprocessing.set_sharing_strategy(self.strategy)
