"""Read checkpoint files of torch, safetensors, NumPy and Paddle; execute nothing in them.

The first bytes of a file decide how it is read, not its name: torch's zip or older pickle,
safetensors, NumPy's zip, Paddle's pickle, or a folder in Hugging Face's layout.
"""

import json
import os
import re
import struct
import warnings
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmtimesformer.checkpoints.dcp import load_sharded
from mmtimesformer.checkpoints.metadata import find_metadata
from mmtimesformer.checkpoints.torch_checkpoints import load_bounded_torch, require_checkpoint
from mmtimesformer.fileio.atomic import write_atomically
from mmtimesformer.fileio.numpy_files import read_npy
from mmtimesformer.fileio.safe_pickle import (
    DamagedError,
    InstructionError,
    RefusedError,
    read_pickle,
)
from mmtimesformer.fileio.safe_text import parse_json, read_json
from mmtimesformer.fileio.safe_zip import SafeZip, ZipError
from mmtimesformer.fileio.stand_ins import NUMPY_IN_PLACE, PLAIN
from mmtimesformer.fileio.torch_files import LEGACY_MAGIC, MapLocation

FOLDER_FILES = (
    'model.safetensors',
    'model.safetensors.index.json',
    'pytorch_model.bin',
    'pytorch_model.bin.index.json',
)
SAFE_TORCH = (2, 10)
LARGEST_SAFETENSORS_HEADER = 8 << 20  # bytes
MOST_TENSORS = 20_000  # of one safetensors or .npz file; a training of ViT-g has 4,000


@dataclass
class Contents:
    """The content of a checkpoint file.

    Attributes:
        container: ``'torch'``, ``'safetensors'``, ``'npz'`` or ``'paddle'``.
        tensors: Names and weights as they are in the file.
        extras: The other entries: ``meta``, ``cfg``, ``optimizer`` and so on in a torch file;
            ``config`` and ``preprocessor_config`` in a folder.
        checkpoint: The torch file's object itself, to resume from.
    """

    container: str
    tensors: dict[str, Tensor]
    extras: dict[str, object] = field(default_factory=dict)
    checkpoint: Any = None


def read_file(
    path: str | os.PathLike[str], *, trust: bool = False, map_location: MapLocation = 'cpu'
) -> Contents:
    """Read a checkpoint file or folder, by its content.

    Args:
        path: A file, or a folder with weights and ``config.json``.
        trust: Let this one torch file run the code it holds. Only for files of your own.
        map_location: Where the tensors of a torch file go, as in :func:`torch.load`; those of
            other files go to the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is empty, damaged, no checkpoint, or holds a program instead of data.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _read_folder(path, trust, map_location)
    container = container_of(path)
    if container == 'torch':
        contents = _read_torch(path, trust, map_location)
    elif container == 'index':
        contents = _read_shards(path, trust, map_location)
    else:
        contents = _READERS[container](path)
    if not contents.tensors and contents.checkpoint is None:
        raise ValueError(f'checkpoint {path} holds no weights; give a file that does')
    if path.name in FOLDER_FILES:
        contents.extras.update(_read_configs(path.parent))
    try:
        find_metadata(contents.extras, contents.tensors)
    except ValueError as error:
        raise ValueError(f'checkpoint {path} is refused: {error}') from None
    return contents


def container_of(path: Path) -> str:
    """Detect the container by its first bytes, and a zip by its members.

    Returns:
        ``'torch'``, ``'safetensors'``, ``'npz'``, ``'paddle'`` or ``'index'``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is none of these; the message states what it looks like.
    """
    require_checkpoint(path)
    size = path.stat().st_size
    with path.open('rb') as file:
        head = file.read(512)
    # First, because the length at the start of safetensors can look like any other magic number.
    header = struct.unpack('<Q', head[:8])[0] if head[8:9] == b'{' else 0
    if 0 < header <= size - 8:
        return 'safetensors'
    if head.startswith(b'PK'):
        return _container_of_zip(path)
    if head.startswith(LEGACY_MAGIC):
        return 'torch'
    if head.startswith(b'\x80'):
        return 'paddle'
    if header > 0 and not head.startswith((b'{', b'<')):
        raise ValueError(
            f'checkpoint {path} is cut short or no checkpoint: its header would be {header} bytes '
            f'of {size}; copy or download it again'
        )
    if head.lstrip().startswith(b'{') and b'"' in head and path.name.endswith('.json'):
        return 'index'
    raise ValueError(f'checkpoint {path} is not a checkpoint: {_looks_like(head)}')


def _looks_like(head: bytes) -> str:
    if head.startswith(b'version https://git-lfs'):
        return "it is git-lfs's placeholder for the real file; run `git lfs pull`"
    if head.lstrip()[:15].lower().startswith((b'<!doctype html', b'<html', b'<?xml')):
        return 'it is a web page; open its address in a browser to see why'
    if head[4:8] == b'ftyp' or head.startswith((b'\x1aE\xdf\xa3', b'RIFF')):
        return 'it is a video; give the video first, and the checkpoint last'
    return (
        f'it begins with {head[:8]!r}; readable are files of torch, safetensors, NumPy (.npz) and '
        'Paddle (.pdparams)'
    )


def _container_of_zip(path: Path) -> str:
    try:
        with path.open('rb') as file:
            members = SafeZip(file, path.stat().st_size).members
    except ZipError as error:
        raise ValueError(
            f'checkpoint {path} {error}; copy or download it again, or take an earlier one'
        ) from None
    return 'npz' if any(member.endswith('.npy') for member in members) else 'torch'


# -- torch -----------------------------------------------------------------------------------------


def _read_torch(path: Path, trust: bool, map_location: MapLocation) -> Contents:
    if trust:
        with path.open('rb') as file:
            checkpoint = torch.load(file, map_location=map_location, weights_only=False)
    else:
        _warn_of_old_torch()
        checkpoint = load_bounded_torch(path, map_location)
    return from_torch(load_sharded(checkpoint, path), path)


def _warn_of_old_torch() -> None:
    numbers = re.match(r'(\d+)\.(\d+)', torch.__version__)
    if numbers and (int(numbers[1]), int(numbers[2])) < SAFE_TORCH:
        warnings.warn(
            f'torch {torch.__version__} has a known hole in weights_only, through which a hostile '
            'checkpoint can run code (CVE-2025-32434 before 2.6, CVE-2026-24747 before 2.10); take '
            'only files that you trust, or install torch 2.10 or newer',
            stacklevel=2,
        )


def from_torch(checkpoint: object, path: Path | str = 'given') -> Contents:
    """Find the weights in the object of a torch file: a state dict, or a dict around one."""
    if not isinstance(checkpoint, Mapping):
        raise ValueError(
            f'checkpoint {path} holds a {type(checkpoint).__name__}, not a dictionary of weights; '
            'save model.state_dict() instead'
        )
    for key in ('state_dict', 'model_state', 'model_state_dict', 'model'):
        inner = checkpoint.get(key)
        if isinstance(inner, Mapping) and any(isinstance(v, Tensor) for v in inner.values()):
            extras = {name: value for name, value in checkpoint.items() if name != key}
            return Contents('torch', _only_tensors(inner), extras, checkpoint)
    return Contents('torch', _only_tensors(checkpoint), {}, checkpoint)


def _only_tensors(state_dict: Mapping[Any, object]) -> dict[str, Tensor]:
    """Keep the tensors; a state dict may have other entries, such as its own metadata."""
    return {str(k): v for k, v in state_dict.items() if isinstance(v, Tensor)}


# -- safetensors -----------------------------------------------------------------------------------


def _read_safetensors(path: Path) -> Contents:
    safetensors = _import_safetensors(path)
    _check_header(path)
    try:
        with safetensors.safe_open(str(path), framework='pt') as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except OSError:
        raise
    except Exception as error:  # the library raises many types
        raise ValueError(
            f'checkpoint {path} is damaged or incomplete ({_line(error)}); copy or download it '
            'again'
        ) from error
    extras: dict[str, object] = {}
    if 'mmtimesformer' in metadata:
        what = f'the metadata "mmtimesformer" of checkpoint {path}'
        extras['meta'] = parse_json(metadata['mmtimesformer'], what)
    return Contents('safetensors', tensors, extras)


def _check_header(path: Path) -> None:
    """Check the size of a header, and names that repeat, which the safetensors library does not."""
    with path.open('rb') as file:
        size = struct.unpack('<Q', file.read(8))[0]
        if size > LARGEST_SAFETENSORS_HEADER:
            raise ValueError(
                f'checkpoint {path} is refused: its header has {size:,} bytes, and at most '
                f'{LARGEST_SAFETENSORS_HEADER:,} are read'
            )
        header = file.read(size)
    _check_number(parse_json(header, f'the header of checkpoint {path}'), path)

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(found := dict(pairs)) != len(pairs):
            raise ValueError(f'checkpoint {path} is refused: two of its tensors have the same name')
        return found

    json.loads(header, object_pairs_hook=unique)


def _check_number(names: object, path: Path) -> None:
    if isinstance(names, Sized) and len(names) > MOST_TENSORS:
        raise ValueError(
            f'checkpoint {path} is refused: it holds {len(names):,} tensors, and at most '
            f'{MOST_TENSORS:,} are read from one file'
        )


def _line(error: Exception) -> str:
    """Return one line of a library's error, which may quote the file."""
    lines = ascii(str(error))[1:-1].split('\\n')
    return lines[0][:200]


def _import_safetensors(path: Path) -> ModuleType:
    try:
        import safetensors
        import safetensors.torch
    except ImportError:
        raise ValueError(
            f'checkpoint {path} is a safetensors file, and the package that reads it is not '
            'installed; run `pip install safetensors`'
        ) from None
    return safetensors


# -- NumPy -----------------------------------------------------------------------------------------


def _read_npz(path: Path) -> Contents:
    tensors: dict[str, Tensor] = {}
    try:
        with path.open('rb') as file:
            archive = SafeZip(file, path.stat().st_size)
            _check_number(archive.members, path)
            for name in archive.members:
                key = name.removesuffix('.npy')
                tensors[key] = _from_numpy(read_npy(archive, name), key, path)
    except RefusedError as error:
        raise ValueError(
            f'checkpoint {path} is refused: it holds {error}, and weights need only numbers; get a '
            'plain .npz from a source you trust'
        ) from None
    except ZipError as error:
        raise ValueError(f'checkpoint {path} {error}; copy or download it again') from None
    return Contents('npz', tensors)


def _from_numpy(array: np.ndarray, key: str, path: Path) -> Tensor:
    if array.dtype == np.uint16 or array.dtype.str == '|V2':  # how NumPy carries bfloat16
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    if array.dtype.kind not in 'biuf':
        raise ValueError(f'checkpoint {path}: {key} is of dtype {array.dtype}, not numeric')
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder('='))
    return torch.from_numpy(np.require(array, requirements=['C', 'W']))


# -- Paddle ----------------------------------------------------------------------------------------


def _read_paddle(path: Path) -> Contents:
    size = path.stat().st_size
    try:
        with path.open('rb') as file:
            checkpoint = read_pickle(file, size, {**PLAIN, **NUMPY_IN_PLACE}, factor=8)
    except (RefusedError, InstructionError) as error:
        what = 'asks for' if isinstance(error, RefusedError) else 'holds the instruction'
        raise ValueError(
            f'checkpoint {path} is refused: read as a pickle of NumPy arrays (.pdparams), it '
            f'{what} {error}, and weights need only numbers; get it from a source you trust'
        ) from None
    except DamagedError as error:
        raise ValueError(
            f'checkpoint {path} is damaged or incomplete ({error}); copy or download it again'
        ) from None
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f'checkpoint {path} holds a {type(checkpoint).__name__}, not named weights'
        )
    tensors = {}
    for key in list(checkpoint):
        value = checkpoint.pop(key)
        if isinstance(value, np.ndarray) and type(key) is str:
            tensors[key] = _from_numpy(value, key, path)
    return Contents('paddle', tensors)


# -- folders ---------------------------------------------------------------------------------------


def _read_folder(folder: Path, trust: bool, map_location: MapLocation) -> Contents:
    for name in FOLDER_FILES:
        if (folder / name).is_file():
            return read_file(folder / name, trust=trust, map_location=map_location)
    raise ValueError(
        f'folder {folder} holds no weights: none of {", ".join(FOLDER_FILES)}; give the file itself'
    )


def _read_shards(index: Path, trust: bool, map_location: MapLocation) -> Contents:
    contents = Contents('torch', {})
    for name in _files_of(index):
        shard = index.parent / name
        if shard.exists() and container_of(shard) == 'index':
            raise ValueError(f'{index} names {name}, which is an index too; give files of weights')
        part = read_file(shard, trust=trust, map_location=map_location)
        contents.container = part.container
        contents.tensors.update(part.tensors)
    return contents


def _files_of(index: Path) -> list[str]:
    """Return the files that an index of weights names, which are in its folder."""
    content = read_json(index)
    weight_map = content.get('weight_map') if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(
            f'{index} is not an index of weights: it needs a "weight_map" of names to files'
        )
    for weight, name in weight_map.items():
        if not isinstance(name, str) or not name:
            raise ValueError(
                f'{index} is not an index of weights: {weight[:80]!a} is in a '
                f'{type(name).__name__}, and must be in a file, given by its name'
            )
        if Path(name).name != name or len(name) > 255 or '\0' in name:
            raise ValueError(
                f'{index} points outside its folder, at {name[:80]!a}, which is refused'
            )
    return sorted(set(weight_map.values()))


def _read_configs(folder: Path) -> dict[str, object]:
    configs = {}
    for name in ('config', 'preprocessor_config', 'video_preprocessor_config'):
        path = folder / f'{name}.json'
        if path.exists():
            configs[name] = read_json(path)
            if not isinstance(configs[name], dict):
                kind = type(configs[name]).__name__
                raise ValueError(
                    f'{path} holds a {kind} of JSON, not named values; download it again'
                )
    return configs


_READERS: dict[str, Callable[[Path], Contents]] = {
    'safetensors': _read_safetensors,
    'npz': _read_npz,
    'paddle': _read_paddle,
}


# -- writing ---------------------------------------------------------------------------------------


def write_torch(checkpoint: Mapping[str, object], path: Path) -> None:
    """Write a file that :func:`torch.load` reads with ``weights_only=True``."""
    with write_atomically(path) as file:
        torch.save(checkpoint, file)


def write_safetensors(
    tensors: Mapping[str, Tensor], path: Path, meta: Mapping[str, object] | None = None
) -> None:
    """Write a safetensors file; ``meta`` goes into its header, as JSON."""
    safetensors = _import_safetensors(path)
    metadata = {'format': 'pt'}
    if meta:
        metadata['mmtimesformer'] = json.dumps(meta)
    with write_atomically(path) as file:
        safetensors.torch.save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata
        )
