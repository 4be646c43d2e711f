"""Find damage inside the compressed data of JPG files, of which OpenCV gives no error.

libjpeg decodes for OpenCV. It continues after damage, and writes a line on standard error, which is
read here. Where damaged data can be decoded all the same, there is no line.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from mmtimesformer.datasets.video_io.image_file import JPG

STDERR = 2
PADDING = 16  # bytes: fewer in front of the end of the image are padding of a camera
AT_THE_END = re.compile(r'([0-9]+) extraneous bytes before marker 0xd9')


def check_jpgs(images: Iterable[tuple[str, bytes]]) -> None:
    """Decode JPGs and see that libjpeg finds no damage; other files are passed over.

    Standard error of the whole process is redirected meanwhile, so call it in a process of its own.

    Args:
        images: Name and content of each.

    Raises:
        ValueError: One is damaged.
    """
    import cv2

    with _standard_error() as written:
        for name, content in images:
            if not content.startswith(JPG):
                continue
            # Every bit is read, and the pixels, which are not wanted, are few.
            cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
            if _is_damage(written()):
                raise ValueError(f'its frame {name} is damaged: its compressed data do not fit')


def _is_damage(line: str) -> bool:
    at_the_end = AT_THE_END.search(line)
    if at_the_end:
        return int(at_the_end[1]) >= PADDING
    return 'Corrupt JPEG data' in line


@contextmanager
def _standard_error() -> Iterator[Callable[[], str]]:
    """Redirect what is written on standard error; yield a function that returns what is new."""
    with tempfile.TemporaryFile() as file:
        descriptor, end = file.fileno(), 0

        def written() -> str:
            nonlocal end
            begin, end = end, os.fstat(descriptor).st_size
            os.lseek(descriptor, begin, os.SEEK_SET)  # reading ends where writing continues
            return os.read(descriptor, end - begin).decode('utf-8', 'replace')

        before = os.dup(STDERR)
        os.dup2(descriptor, STDERR)
        try:
            yield written
        finally:
            os.dup2(before, STDERR)
            os.close(before)
