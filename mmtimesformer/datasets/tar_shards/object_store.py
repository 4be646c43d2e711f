"""MMEngine file backend for object stores, through fsspec, with retries.

`fsspec <https://filesystem-spec.readthedocs.io>`_ reads ``s3://``, ``gs://``, ``az://``,
``https://``, local folders and many more; each needs its own package, such as ``s3fs``.

A read that fails is tried again after 1, 2, 4, ... seconds. If it fails for too long, a
:class:`StorageError` ends the run: a lost network is never taken for a corrupt video.
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

# Errors that no retry can cure; a missing package of a store is an ImportError.
PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, ImportError, ValueError)


class FsspecBackend(BaseStorageBackend):
    """Read-only file backend of MMEngine for all stores of fsspec.

    MMEngine selects it by prefix (``s3://bucket/key``; ``http://`` has its own backend), or by
    ``backend_args=dict(backend='fsspec')``.

    Args:
        patience: Seconds for which reading a file may fail before it is an error.
        storage_options: Options of the store, such as ``endpoint_url`` or ``anon``.

    Raises:
        StorageError: A read failed permanently, or for longer than ``patience``.
    """

    def __init__(self, patience: float = PATIENCE, **storage_options: Any) -> None:
        self.patience = patience
        self.storage_options = storage_options

    def get(self, filepath: str | os.PathLike[str]) -> bytes:
        """Read a file."""
        return self._request(filepath, lambda store, path: store.cat_file(path))

    def get_range(self, filepath: str | os.PathLike[str], start: int, stop: int) -> bytes:
        """Read the bytes from ``start`` to ``stop``; fewer if the file ends there."""

        def read(store: Any, path: str) -> bytes:
            content: bytes = store.cat_file(path, start=start, end=stop)
            if len(content) < stop - start and len(content) < store.size(path) - start:
                raise EOFError(f'{len(content):,} of {stop - start:,} bytes came')
            return content

        return self._request(filepath, read)

    def get_text(self, filepath: str | os.PathLike[str], encoding: str = 'utf-8') -> str:
        """Read a text file."""
        return self.get(filepath).decode(encoding)

    def exists(self, filepath: str | os.PathLike[str]) -> bool:
        """Whether there is such a file or folder."""
        return self._request(filepath, lambda store, path: store.exists(path))

    def isfile(self, filepath: str | os.PathLike[str]) -> bool:
        """Whether there is such a file."""
        return self._request(filepath, lambda store, path: store.isfile(path))

    def isdir(self, filepath: str | os.PathLike[str]) -> bool:
        """Whether there is such a folder."""
        return self._request(filepath, lambda store, path: store.isdir(path))

    def join_path(self, filepath: str, *filepaths: str) -> str:
        """Join parts of a URL."""
        return posixpath.join(filepath, *filepaths)

    @contextmanager
    def get_local_path(self, filepath: str | os.PathLike[str]) -> Iterator[str]:
        """Yield a temporary local copy of a file."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, posixpath.basename(os.fspath(filepath)))
            copy.write_bytes(self.get(filepath))
            yield str(copy)

    def _request(self, filepath: str | os.PathLike[str], request: Callable[[Any, str], T]) -> T:
        """Send a request to the store of a file; retry while it fails."""
        url, began = os.fspath(filepath), time.monotonic()
        for tries in count():
            try:
                # Looked up for each try: fsspec caches stores and replaces them after a fork.
                return request(*fsspec.core.url_to_fs(url, **self.storage_options))
            except PERMANENT as error:
                raise StorageError(
                    f'{url} cannot be read: {_in_words(error)}; correct the address, or '
                    'storage_options of the data set'
                ) from error
            except Exception as error:  # each store has its own classes of temporary errors
                waited = time.monotonic() - began
                pause = min(2**tries, LONGEST_PAUSE)
                if waited + pause > self.patience:
                    raise StorageError(
                        f'{url} could not be read for {waited:.0f} seconds: {_in_words(error)}; '
                        'check that it can be reached from here, then run again with --resume '
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
    message = next(iter(str(error).strip().splitlines()), '')
    return f'{type(error).__name__}: {message}' if message else type(error).__name__


# Prefixes without a backend in MMEngine; and s3, whose backend needs a client that few have.
PREFIXES = ['abfs', 'adl', 'az', 'gcs', 'gs', 'hf', 'memory', 'oci', 'oss', 's3a', 'webdav']
if find_spec('petrel_client') is None:
    PREFIXES.append('s3')
register_backend('fsspec', FsspecBackend, force=True, prefixes=PREFIXES)
