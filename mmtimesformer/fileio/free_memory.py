"""Read how much memory is free, before something large is loaded or a batch size is chosen."""

import re
from pathlib import Path


def available_memory() -> int | None:
    """Return the bytes that can be used without swapping; ``None`` on other systems than Linux.

    The page cache counts as free (``MemAvailable`` of ``/proc/meminfo``): after a data set was read
    it fills most of the memory.
    """
    try:
        text = Path('/proc/meminfo').read_text(encoding='ascii')
    except OSError:
        return None
    found = re.search(r'^MemAvailable: +(\d+) kB', text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
