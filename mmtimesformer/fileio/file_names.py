"""Shorten file names to what a file system allows: at most 255 bytes, also for temporary files."""

import hashlib

MOST_BYTES = 200  # leaves room for endings, numbers, and what marks an unfinished file


def short_file_name(name: str, most: int = MOST_BYTES) -> str:
    """Return a name of at most ``most`` bytes in UTF-8.

    A longer name is cut and ends in a hash of all of it, so that different names stay different.

    Args:
        name: Without its folder.
        most: Bytes of the result, more than 9.
    """
    content = name.encode('utf-8', 'surrogatepass')
    if len(content) <= most:
        return name
    digest = hashlib.sha256(content).hexdigest()[:8]
    return f'{content[: most - 9].decode("utf-8", "ignore")}-{digest}'
