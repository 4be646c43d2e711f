"""Name the kind of machine that a benchmark ran on."""

import platform
from datetime import date
from pathlib import Path

import torch


def machine_name(threads: int) -> str:
    """Return date, processor and versions in one line."""
    names = [
        line.partition(':')[2].strip()
        for line in Path('/proc/cpuinfo').read_text().splitlines()
        if line.startswith('model name')
    ]
    cpu = f'{len(names)} x {names[0]}' if names else platform.processor()
    capability = torch.backends.cpu.get_cpu_capability()
    return (
        f'{date.today().isoformat()}, {cpu} ({capability}), {threads} of its threads, no GPU, '
        f'torch {torch.__version__}.'
    )
