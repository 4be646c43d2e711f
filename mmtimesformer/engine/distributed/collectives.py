"""Decisions that all processes of a run take together, so that none waits for another for ever."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from mmengine import dist

T = TypeVar('T')


def all_ranks(condition: bool) -> bool:
    """Whether a condition is true in every process; all must call it."""
    return bool(_reduced(int(condition), 'min'))


def any_rank(condition: bool) -> bool:
    """Whether a condition is true in any process; all must call it."""
    return bool(_reduced(int(condition), 'max'))


def smallest(number: int) -> int:
    """Return the smallest of the processes' numbers; all must call it."""
    return _reduced(number, 'min')


def broadcast_from_rank0(value: T) -> T:
    """Return the main process's value; all must call it."""
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


@contextmanager
def raise_on_all_ranks() -> Iterator[None]:
    """Raise an ``OSError`` of one process, which writes for all, in every process."""
    error: OSError | None = None
    try:
        yield
    except OSError as problem:
        error = problem
    texts = [text for text in dist.all_gather_object(str(error) if error else None) if text]
    if texts:
        raise error or OSError(texts[0])


def _reduced(number: int, operation: str) -> int:
    if dist.get_world_size() == 1:
        return number
    tensor = torch.tensor(number, device=dist.get_comm_device())
    dist.all_reduce(tensor, operation)
    return int(tensor.item())
