"""Track which checkpoints are good to resume from when a training diverges.

A checkpoint is known to be good when finite losses and gradients followed it. With a learning rate
that is too large, a step of finite loss can ruin the weights; a checkpoint of that step looks fine,
and only the next steps show the damage.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor

from mmtimesformer.engine.distributed.collectives import all_ranks

ENOUGH = 20  # sound steps (finite, of a usual loss) after which a checkpoint is certainly good
GROWTH = 1000  # weights that are so many times as large as at the start are ruined
SMALLEST = 0.01  # the smallest size at the start to compare with


class CheckpointHistory:
    """Count the sound steps that followed each saved checkpoint.

    One such step shows that the weights are not ruined, ``ENOUGH`` of them that no divergence had
    begun.

    Attributes:
        steps: Path of a checkpoint -> sound steps since it was saved, at most ``ENOUGH``; the
            oldest first. Those older than the last certainly good one are dropped.
    """

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}

    def add(self, path: str, steps: int = 0) -> None:
        """Add a checkpoint, with the number of sound steps after it."""
        self.steps.pop(path, None)
        self.steps[path] = steps

    def count_step(self) -> None:
        """Count a sound step for all of them."""
        for path, steps in self.steps.items():
            self.steps[path] = min(steps + 1, ENOUGH)
        sure = self._sure()
        if sure is not None and self.steps[sure] == ENOUGH:
            while next(iter(self.steps)) != sure:
                del self.steps[next(iter(self.steps))]

    def forget(self, names: list[str]) -> None:
        """Drop checkpoints of these file names, which are removed from the disk."""
        self.steps = {path: n for path, n in self.steps.items() if Path(path).name not in names}

    def last_good(self) -> str | None:
        """Return the newest one that a sound step followed, or ``None``."""
        return next((path for path in reversed(self.steps) if self.steps[path]), None)

    def needed(self) -> list[str]:
        """List what must stay on the disk: the last good one, a certain one, and its successor."""
        paths = list(self.steps)
        sure, good = self._sure(), self.last_good()
        first = paths.index(sure) if sure is not None else 0
        return [*paths[first : first + 2], *([good] if good is not None else [])]

    def _sure(self) -> str | None:
        """Return the newest one with the most sound steps."""
        most = max(self.steps.values(), default=0)
        return next((path for path in reversed(self.steps) if self.steps[path] == most > 0), None)


def size_of_weights(runner: Runner) -> float:
    """Return the root mean square of all weights that this process holds."""
    norms, count = 0.0, 0
    for tensor in _local(list(runner.model.parameters())):
        norm = torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64)
        norms += float(norm) ** 2
        count += tensor.numel()
    return (norms / max(count, 1)) ** 0.5


def problem_of_state(runner: Runner, size_at_start: float) -> str | None:
    """Return what makes a training's state useless, or ``None``; all processes must call it.

    ``size_at_start`` is what :func:`size_of_weights` returned before the first step.
    """
    for name, tensors in _tensors_of(runner):
        if not all_ranks(are_finite_here(tensors)):
            return f'{name} are not finite (NaN or infinite)'
    growth = size_of_weights(runner) / max(size_at_start, SMALLEST)
    if not all_ranks(growth < GROWTH):
        return f'the weights are more than {GROWTH} times as large as at the start'
    return None


def are_finite_here(tensors: list[Tensor]) -> bool:
    """Whether all numbers that this process holds of all tensors are finite."""
    dense = [t.coalesce().values() if t.is_sparse else t for t in _local(tensors)]
    norms = torch._foreach_norm([t for t in dense if t.numel()]) if dense else []
    return all(bool(torch.stack(part).isfinite().all()) for part in _by_device(norms))


def _tensors_of(runner: Runner) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield weights, averaged weights and optimizer states, with a name for a message."""
    yield 'the weights', _floats(runner.model.state_dict().values())
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            yield 'the averaged weights', _floats(hook.ema_model.state_dict().values())
    wrapper = runner.optim_wrapper
    for one in [wrapper] if isinstance(wrapper, OptimWrapper) else list(wrapper.values()):
        states = one.optimizer.state.values()
        values = [value for state in states for value in state.values()]
        yield "the optimizer's moments", _floats(values)


def _floats(values: Iterable[object]) -> list[Tensor]:
    return [v.detach() for v in values if isinstance(v, Tensor) and v.is_floating_point()]


def _local(tensors: list[Tensor]) -> list[Tensor]:
    return [t.to_local() if hasattr(t, 'to_local') else t for t in tensors]


def _by_device(norms: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    for device in {norm.device for norm in norms}:
        yield [norm.float() for norm in norms if norm.device == device]
