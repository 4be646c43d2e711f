"""Files in object stores, read in pieces and with patience.

`fsspec <https://filesystem-spec.readthedocs.io>`_ knows the stores (``s3://``, ``gs://``, ``az://``,
``https://``, local folders, and dozens more; each needs its own package, such as ``s3fs``). Here it
becomes a file backend of MMEngine.

A network fails now and then, and a training that lasts days must not: what fails is tried again,
after 1, 2, 4, ... seconds. What fails for too long ends the run with a :class:`StorageError`. It is
never taken for a bad video, of which a training would quietly go on without.
"""

import logging
import os
import posixpath
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from mmengine.fileio import BaseStorageBackend, register_backend
from mmengine.logging import print_log

from mmtimesformer.fileio.storage_error import LONGEST_PAUSE, PATIENCE, StorageError

T = TypeVar('T')

# What waiting does not mend; a missing package of a store is an ImportError.
FOR_GOOD = (FileNotFoundError, PermissionError, IsADirectoryError, ImportError, ValueError)


class FsspecBackend(BaseStorageBackend):
    """MMEngine's file backend for all that fsspec knows; it reads, and writes nothing.

    MMEngine finds it by prefix (``s3://bucket/key``; not for ``http://``, where it has its own), or
    by ``backend_args=dict(backend='fsspec')``.

    Args:
        patience: Seconds for which reading a file may fail before that is an error.
        storage_options: What fsspec hands to the store, such as ``endpoint_url`` or ``anon``.

    Raises:
        StorageError: In reading, if it fails for good or for too long.
    """

    def __init__(self, patience: float = PATIENCE, **storage_options: Any) -> None:
        self.patience = patience
        self.storage_options = storage_options

    def get(self, filepath: str | os.PathLike[str]) -> bytes:
        """Read a file."""
        return self._ask(filepath, lambda store, path: store.cat_file(path))

    def get_range(self, filepath: str | os.PathLike[str], start: int, stop: int) -> bytes:
        """Read the bytes from ``start`` to ``stop``; fewer if the file ends there."""

        def read(store: Any, path: str) -> bytes:
            content: bytes = store.cat_file(path, start=start, end=stop)
            if len(content) < stop - start and len(content) < store.size(path) - start:
                raise EOFError(f'{len(content):,} of {stop - start:,} bytes came')
            return content

        return self._ask(filepath, read)

    def get_text(self, filepath: str | os.PathLike[str], encoding: str = 'utf-8') -> str:
        """Read a text file."""
        return self.get(filepath).decode(encoding)

    def exists(self, filepath: str | os.PathLike[str]) -> bool:
        """Whether there is such a file or folder."""
        return self._ask(filepath, lambda store, path: store.exists(path))

    def isfile(self, filepath: str | os.PathLike[str]) -> bool:
        """Whether there is such a file."""
        return self._ask(filepath, lambda store, path: store.isfile(path))

    def isdir(self, filepath: str | os.PathLike[str]) -> bool:
        """Whether there is such a folder."""
        return self._ask(filepath, lambda store, path: store.isdir(path))

    def join_path(self, filepath: str, *filepaths: str) -> str:
        """Join parts of a URL."""
        return posixpath.join(filepath, *filepaths)

    @contextmanager
    def get_local_path(self, filepath: str | os.PathLike[str]) -> Iterator[str]:
        """Give a copy of a file on the disk, for as long as it is needed."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, posixpath.basename(os.fspath(filepath)))
            copy.write_bytes(self.get(filepath))
            yield str(copy)

    def _ask(self, filepath: str | os.PathLike[str], question: Callable[[Any, str], T]) -> T:
        """Put a question to the store of a file, again and again while it gives no answer."""
        url, began = os.fspath(filepath), time.monotonic()
        for tries in count():
            try:
                # Anew each time: fsspec keeps stores, and knows which of them a fork made useless.
                return question(*fsspec.core.url_to_fs(url, **self.storage_options))
            except FOR_GOOD as error:
                raise StorageError(
                    f'{url} cannot be read: {_in_words(error)}; correct the address, or '
                    'storage_options of the data set'
                ) from error
            except Exception as error:  # each store has classes of its own for what may pass
                waited = time.monotonic() - began
                pause = min(2**tries, LONGEST_PAUSE)
                if waited + pause > self.patience:
                    raise StorageError(
                        f'{url} could not be read for {waited:.0f} seconds: {_in_words(error)}; '
                        'see that its store can be reached from here, then go on with --resume '
                        f'(patience={self.patience:g} of the data set is how long to wait)'
                    ) from error
                print_log(
                    f'{url} cannot be read now ({_in_words(error)}); tries again in {pause} s',
                    logger='current',
                    level=logging.WARNING,
                )
            time.sleep(pause)
        raise AssertionError('counting never ends')


def _in_words(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return 'it does not exist'
    if isinstance(error, PermissionError):
        return 'the store does not allow it'
    told = next(iter(str(error).strip().splitlines()), '')
    return f'{type(error).__name__}: {told}' if told else type(error).__name__


# Prefixes of which MMEngine knows nothing; and s3, behind which it has a client that few have.
PREFIXES = ['abfs', 'adl', 'az', 'gcs', 'gs', 'hf', 'memory', 'oci', 'oss', 's3a', 'webdav']
if find_spec('petrel_client') is None:
    PREFIXES.append('s3')
register_backend('fsspec', FsspecBackend, force=True, prefixes=PREFIXES)
