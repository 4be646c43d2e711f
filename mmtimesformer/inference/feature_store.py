"""Store the features of many videos: resumable, each file written atomically, with a manifest.

=================  ==========================================================================
format             what lies in the folder
=================  ==========================================================================
``npy``            ``features/<name of the video>.npy``, an array each
``safetensors``    ``features/<name of the video>.safetensors``, a tensor ``features`` each
``h5``             ``features.h5``, a data set each, by the name of the video; put together at
                   the end from ``.npy`` files, which are then removed
=================  ==========================================================================

``manifest.json`` records how they were computed. A folder holds features of one kind only.
"""

import hashlib
import json
import shutil
from datetime import datetime, timezone
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmtimesformer.checkpoints import read_file
from mmtimesformer.checkpoints.readers import write_safetensors
from mmtimesformer.fileio.atomic import write_atomically, write_json_atomically
from mmtimesformer.fileio.file_names import short_file_name
from mmtimesformer.fileio.numpy_files import read_npy_file
from mmtimesformer.fileio.safe_pickle import shown
from mmtimesformer.fileio.safe_text import read_json
from mmtimesformer.non_finite import NonFiniteError, about_scores, is_finite

FORMATS = ('npy', 'safetensors', 'h5')
LARGEST_MANIFEST = 256 << 20  # bytes, of 3 million videos


class FeatureFolder:
    """A folder of features.

    Args:
        folder: Where they go.
        form: ``'npy'``, ``'safetensors'`` or ``'h5'``.
        settings: What makes features comparable: checkpoint, ``out``, layers and so on.

    Raises:
        ModuleNotFoundError: The package for this format is not installed.
        ValueError: The folder holds features of another making, or the format is not known.
    """

    def __init__(self, folder: str | Path, form: str, settings: dict[str, Any]) -> None:
        if form not in FORMATS:
            raise ValueError(f'format {form} is not known; give one of {", ".join(FORMATS)}')
        self.folder, self.form = Path(folder), form
        # Through JSON, so that what is compared with a manifest went the same way.
        self.settings = json.loads(json.dumps({**settings, 'format': form}))
        self._check_package()
        self.manifest = self.folder / 'manifest.json'
        self.shapes: dict[str, list[int]] = {}
        self._is_checked = True  # all features here were finite when they were written
        if self.manifest.is_file():
            self._check_same()
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise ValueError(
                f'the folder {folder} has no manifest.json and is not empty; give --out another'
            )
        self.write_manifest({}, 'unfinished')

    def is_done(self, name: str) -> bool:
        """Whether the features of a video are there, and are finite numbers."""
        if not self._path(name).is_file() and not (self.form == 'h5' and self._in_h5(name)):
            return False
        return self._is_checked or is_finite(self.read(name))

    def add(self, name: str, features: np.ndarray) -> None:
        """Write the features of a video, atomically.

        Raises:
            NonFiniteError: They are NaN or infinite.
        """
        if not is_finite(features):
            raise NonFiniteError(about_scores([name], 1, str(features.dtype), 'features'))
        path = self._path(name)
        if self.form == 'safetensors':
            write_safetensors({'features': torch.from_numpy(features)}, path)
            return
        with write_atomically(path) as part:
            with part.open('wb') as file:
                np.save(file, features, allow_pickle=False)

    def finish(self, names: list[str], failed: dict[str, str]) -> int:
        """Put everything in its place and write the manifest; return how many have features.

        ``failed`` are the requested videos that could not be read, and why.
        """
        for name in failed:
            self._path(name).unlink(missing_ok=True)  # an older one, with NaN
        if self.form == 'h5':
            self._gather(names)
        for name in names:
            if name not in failed and self.is_done(name):
                self.shapes[name] = list(self.read(name).shape)
        self.write_manifest(failed, 'complete' if not failed else 'without the failed videos')
        return len(self.shapes)

    def read(self, name: str) -> np.ndarray:
        """Return the features of a video."""
        path = self._path(name)
        if self.form == 'safetensors':
            return read_file(path).tensors['features'].numpy()
        if path.is_file():
            return np.asarray(read_npy_file(path))
        with self._h5() as file:
            return np.asarray(file[name])

    def write_manifest(self, failed: dict[str, str], state: str) -> None:
        """Say how these features came about, which there are, and which there are not."""
        content = {
            **self.settings,
            'state': state,
            'finite': self._is_checked,
            'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
            'shapes': self.shapes,
            'failed': failed,
        }
        write_json_atomically(self.manifest, content)

    def _check_same(self) -> None:
        try:
            known = read_json(self.manifest, LARGEST_MANIFEST)
            if not isinstance(known, dict) or not isinstance(known.get('shapes') or {}, dict):
                raise ValueError
        except ValueError:
            raise ValueError(
                f'{self.manifest} is damaged, so what {self.folder} holds is not known; give --out '
                'another folder'
            ) from None
        known.setdefault('speed', 'exact')  # there was no other before it was recorded
        for key, value in self.settings.items():
            if key not in ('versions', 'checkpoint', 'config') and known.get(key) != value:
                raise ValueError(
                    f'{self.folder} holds features with {key}={shown(known.get(key))}, now it is '
                    f'{value!r}; give --out another folder'
                )
        self.shapes = known.get('shapes') or {}
        self._is_checked = known.get('finite') is True

    def _check_package(self) -> None:
        try:
            if self.form == 'h5':
                import_module('h5py')
            elif self.form == 'safetensors':
                import_module('safetensors')
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f'--format {self.form} needs the package {error.name}; run: pip install '
                f'{error.name}, or take --format npy'
            ) from error

    def _path(self, name: str) -> Path:
        """Name the file of a video; the names that lead out of the folder stay in it too."""
        ending = 'safetensors' if self.form == 'safetensors' else 'npy'
        inside = [part for part in Path(name).parts if part not in ('/', '..')]
        return (
            self.folder / 'features' / Path(*inside[:-1], f'{short_file_name(inside[-1])}.{ending}')
        )

    def _h5(self, mode: str = 'r', path: Path | None = None) -> Any:
        return import_module('h5py').File(path or self.folder / 'features.h5', mode)

    def _in_h5(self, name: str) -> bool:
        if not (self.folder / 'features.h5').is_file():
            return False
        with self._h5() as file:
            return name in file

    def _gather(self, names: list[str]) -> None:
        """Put the single files and what was gathered before into one new file, then remove them."""
        target = self.folder / 'features.h5'
        with write_atomically(target) as part:
            if target.is_file():
                shutil.copyfile(target, part)
            with self._h5('a' if target.is_file() else 'w', part) as file:
                for name in names:
                    if self._path(name).is_file():
                        if name in file:  # with NaN, of an earlier version
                            del file[name]
                        file[name] = read_npy_file(self._path(name))
        shutil.rmtree(self.folder / 'features', ignore_errors=True)


def sha256_of(path: Path) -> str:
    """Return the hash of a file, or of a folder's files one after the other by name."""
    files = sorted(p for p in path.rglob('*') if p.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        with file.open('rb') as opened:
            for chunk in iter(partial(opened.read, 2**20), b''):
                digest.update(chunk)
    return digest.hexdigest()
