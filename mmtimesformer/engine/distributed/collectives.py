"""What the processes of one run must decide together, so that none waits for another for ever."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine import dist


def all_ranks(fine: bool) -> bool:
    """Whether it is fine in every process; each must ask."""
    return bool(_reduced(int(fine), 'min'))


def any_rank(true: bool) -> bool:
    """Whether it is true in any process; each must ask."""
    return bool(_reduced(int(true), 'max'))


def smallest(number: int) -> int:
    """Return the smallest of the processes' numbers; each must ask."""
    return _reduced(number, 'min')


def broadcast_from_rank0(value: Any) -> Any:
    """Return the main process's value; each must ask."""
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


@contextmanager
def raise_on_all_ranks() -> Iterator[None]:
    """Let an ``OSError`` of one process, which writes for all, be raised in every process."""
    error: OSError | None = None
    try:
        yield
    except OSError as problem:
        error = problem
    told = [text for text in dist.all_gather_object(str(error) if error else None) if text]
    if told:
        raise error or OSError(told[0])


def _reduced(number: int, how: str) -> int:
    if dist.get_world_size() == 1:
        return number
    tensor = torch.tensor(number, device=dist.get_comm_device())
    dist.all_reduce(tensor, how)
    return int(tensor.item())
