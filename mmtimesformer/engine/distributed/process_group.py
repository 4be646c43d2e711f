"""Leave the process group cleanly, and explain errors of the connection to other processes."""

import gc
import re

import torch
from torch.distributed import DistError

LOST = re.compile(r'gloo/transport|ncclRemoteError')
AT = re.compile(r'\[([0-9a-f.:]+)\]:\d+')  # how gloo writes an address


def leave_process_group(runner: object = None) -> None:
    """Destroy the process group, and empty the runner that refers to it.

    NOTE: a model in DistributedDataParallel keeps gloo's threads alive beyond
    ``destroy_process_group``. A thread that frees its last tensor while Python exits aborts the
    process, and torchrun reports the finished run as failed.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        if runner is not None:
            vars(runner).clear()
        gc.collect()
        torch.distributed.destroy_process_group()


def lost_connection(error: BaseException) -> str | None:
    """Describe an error as the loss of another process, or return ``None`` for other errors."""
    text = str(error)
    if not isinstance(error, RuntimeError) or not (
        isinstance(error, DistError) or LOST.search(text)
    ):
        return None
    address = AT.search(text)
    where = f' on the machine {address[1]}' if address else ''
    return (
        f'another process of this run{where} has ended or cannot be reached; its own output shows '
        'why. To resume a training, give the same command with --resume'
    )
