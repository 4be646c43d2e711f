"""Write files that once made a reader hang, run out of memory, or change the process.

Nothing in them does harm beyond waiting. Each is a case of a kind; readers must refuse it within a
second, in one sentence that names the file.
"""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

HEAD = b'\x80\x02'  # pickle, protocol 2
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)


def name(module: str, attribute: str) -> bytes:
    return b'c' + module.encode() + b'\n' + attribute.encode() + b'\n'


def text(value: str) -> bytes:
    data = value.encode()
    return b'X' + struct.pack('<I', len(data)) + data


def doubled(depth: int = 60, start: bytes = b'K\x01') -> bytes:
    """A tuple that holds another one twice, and so on: 2 ** depth leaves when printed or hashed."""
    return start + b''.join(b'q' + bytes([i]) + b'h' + bytes([i]) + b'\x86' for i in range(depth))


def nested(depth: int = 50_000) -> bytes:
    """A list in a list, and so on."""
    return b']' * depth + b'a' * (depth - 1)


def torch_zip(path: Path, program: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, 'w', method) as archive:
        archive.writestr('archive/data.pkl', program)
        archive.writestr('archive/byteorder', 'little')
        archive.writestr('archive/version', '3\n')
    return path


def _torch(program: bytes) -> Callable[[Path], Path]:
    return lambda folder: torch_zip(folder / 'hostile.pth', HEAD + program + b'.')


def _file(file: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / file).write_bytes(content)
        return folder / file

    return write


def _legacy(program: bytes) -> Callable[[Path], Path]:
    return _file('hostile.pth', LEGACY + HEAD + program + b'.' + pickle.dumps([], 2))


def storage(count: int, key: str = '0') -> bytes:
    """The persistent id of a storage of floats."""
    parts = text('storage') + name('torch', 'FloatStorage') + text(key) + text('cpu')
    return b'(' + parts + b'J' + struct.pack('<i', count) + b'tQ'


def tensor(count: int, size: int, stride: int, key: str = '0') -> bytes:
    """A tensor of one dimension over a storage of so many floats."""
    numbers = [b'J' + struct.pack('<i', number) for number in (size, stride)]
    shape = numbers[0] + b'\x85' + numbers[1] + b'\x85\x89' + name('collections', 'OrderedDict')
    return (
        name('torch._utils', '_rebuild_tensor_v2')
        + b'('
        + storage(count, key)
        + b'K\x00'
        + shape
        + b')RtR'
    )


def _weights(*tensors: bytes) -> bytes:
    return b'}(' + b''.join(text(f'w{i}') + t for i, t in enumerate(tensors)) + b'u'


def _views(folder: Path) -> Path:
    """A float, expanded to a thousand tensors of a billion."""
    views = [tensor(1, 10**9, 0) for _ in range(1000)]
    path = torch_zip(folder / 'hostile.pth', HEAD + _weights(*views) + b'.')
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr('archive/data/0', b'\0' * 4)
    return path


def _compressed_storage(folder: Path) -> Path:
    """Five megabytes that unpack to five gigabytes of weights (here: 300 KB to 300 MB)."""
    count = 75 * 10**6
    program = HEAD + _weights(tensor(count, count, 1)) + b'.'
    path = torch_zip(folder / 'hostile.pth', program)
    with zipfile.ZipFile(path, 'a', zipfile.ZIP_DEFLATED) as archive:
        with archive.open('archive/data/0', 'w') as member:
            for _ in range(300):
                member.write(bytes(10**6))
    return path


def _compressed_pickle(folder: Path) -> Path:
    path = folder / 'hostile.pth'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        with archive.open('archive/data.pkl', 'w') as member:
            member.write(HEAD + b'X' + struct.pack('<I', 30 * 10**6))
            for _ in range(30):
                member.write(b'x' * 10**6)
            member.write(b'.')
    return path


def _compressed_npz(folder: Path) -> Path:
    path = folder / 'hostile.npz'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        with archive.open('cls.npy', 'w') as member:
            np.lib.format.write_array_header_1_0(
                member, {'descr': '<f4', 'fortran_order': False, 'shape': (75 * 10**6,)}
            )
            for _ in range(300):
                member.write(bytes(10**6))
    return path


def _npy_header(shape: str, descr: str = "'<f4'") -> Callable[[Path], Path]:
    """A header that states more than there is."""

    def write(folder: Path) -> Path:
        header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        content = b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header + b'\0' * 16
        with zipfile.ZipFile(folder / 'hostile.npz', 'w') as archive:
            archive.writestr('cls.npy', content)
        return folder / 'hostile.npz'

    return write


def _overlapping(folder: Path) -> Path:
    """A thousand members that are the same bytes."""
    array = io.BytesIO()
    np.save(array, np.zeros(1000, np.float32))
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('w.npy', array.getvalue())
    content = file.getvalue()
    start = content.index(b'PK\x01\x02')
    end = content.index(b'PK\x05\x06')
    entry = content[start:end]
    many = b''.join(entry.replace(b'w.npy', b'%05d' % i) for i in range(1000))
    tail = struct.pack('<4s4H2LH', b'PK\x05\x06', 0, 0, 1000, 1000, len(many), start, 0)
    (folder / 'hostile.npz').write_bytes(content[:start] + many + tail)
    return folder / 'hostile.npz'


def _safetensors(header: bytes, data: bytes = b'\0' * 16) -> Callable[[Path], Path]:
    return _file('hostile.safetensors', struct.pack('<Q', len(header)) + header + data)


_ENTRY = b'"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}'


def _index(content: object, file: str = 'pytorch_model.bin.index.json') -> Callable[[Path], Path]:
    return _file(file, json.dumps(content).encode())


def _config(content: bytes, file: str = 'config.json') -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        header = b'{' + _ENTRY + b'}'
        (folder / 'model.safetensors').write_bytes(
            struct.pack('<Q', len(header)) + header + b'\0' * 16
        )
        (folder / file).write_bytes(content)
        return folder

    return write


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / 'hostile.pth')
    return folder / 'hostile.pth'


def _link_to_device(folder: Path) -> Path:
    (folder / 'hostile.pth').symlink_to('/dev/zero')
    return folder / 'hostile.pth'


_LAUGHS = 'a: &a [x, x, x, x, x, x, x, x, x]\n' + ''.join(
    f'{b}: &{b} [{", ".join(f"*{a}" for _ in range(9))}]\n'
    for a, b in zip('abcdefghijkl', 'bcdefghijklm', strict=True)
)


def _official(config: str) -> bytes:
    weights = b'}' + text('w') + tensor(0, 0, 1) + b's'
    return b'}(' + text('model_state') + weights + text('cfg') + text(config) + b'u'


_SHARED_TEXT = text('x' * 10**6) + b'q\x01' + name('_codecs', 'encode') + b'q\x02'
_DOUBLE = doubled()
_GETATTR = name('builtins', 'getattr')
_HISTORY = name('mmengine.logging.history_buffer', 'HistoryBuffer')
_NUMPY = 'numpy.core.multiarray'

CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    # messages that print what they were given
    'doubled in getattr': _torch(_GETATTR + _HISTORY + _DOUBLE + b'\x86R'),
    'doubled owner in getattr': _torch(_GETATTR + _DOUBLE + text('mean') + b'\x86R'),
    'doubled in dtype': _torch(name('numpy', 'dtype') + _DOUBLE + b'\x85R'),
    'doubled in _reconstruct': _torch(name(_NUMPY, '_reconstruct') + _DOUBLE + b'\x85R'),
    'doubled max_length': _torch(_HISTORY + b')\x81}(' + text('max_length') + _DOUBLE + b'ub'),
    'doubled arguments': _torch(name('torch._utils', '_rebuild_tensor_v2') + _DOUBLE + b'R'),
    'doubled storage': _torch(_DOUBLE + b'Q'),
    'doubled device': _torch(name('torch', 'device') + _DOUBLE + b'\x85R'),
    'doubled function': _torch(_DOUBLE + b')R'),
    'doubled class': _torch(_DOUBLE + b')\x81'),
    'doubled state of nothing': _torch(b'N' + _DOUBLE + b'b'),
    'doubled in a legacy file': _legacy(_GETATTR + _HISTORY + _DOUBLE + b'\x86R'),
    'doubled Paddle': _file(
        'hostile.pdparams', HEAD + name(_NUMPY, '_reconstruct') + _DOUBLE + b'\x85R.'
    ),
    # keys that are hashed while they are read
    'doubled key': _torch(b'}(' + _DOUBLE + b'K\x01u'),
    'doubled key, one at a time': _torch(b'}' + _DOUBLE + b'K\x01s'),
    'doubled member of a set': _torch(name('builtins', 'set') + b'](' + _DOUBLE + b'e\x85R'),
    'doubled pair': _torch(
        name('collections', 'OrderedDict') + b'](' + _DOUBLE + b'K\x01\x86e\x85R'
    ),
    'doubled key of a legacy file': _legacy(b'}(' + _DOUBLE + b'K\x01u'),
    'doubled key of a storage': _torch(
        b'(' + text('storage') + name('torch', 'FloatStorage') + _DOUBLE + text('cpu') + b'K\x01tQ'
    ),
    'doubled key of Paddle': _file('hostile.pdparams', HEAD + b'}(' + _DOUBLE + b'K\x01u.'),
    'keys of one hash': _torch(
        b'}('
        + b''.join(
            b'\x8a\x0c' + (i * (2**61 - 1)).to_bytes(12, 'little', signed=True) + b'N'
            for i in range(1, 50_000)
        )
        + b'u'
    ),
    # state that is small in the file and copied for each of many objects
    'versions of modules, shared': _torch(
        name('collections', 'OrderedDict')
        + b'q\x00}q\x01('
        + text('_metadata')
        + b'}('
        + b''.join(b'J' + struct.pack('<i', i) + b'N' for i in range(50_000))
        + b'uu0]('
        + b'h\x00)Rh\x01b' * 30_000
        + b'e'
    ),
    # BUILD on what is not of the file
    'BUILD on a function': _torch(
        name('torch._utils', '_rebuild_tensor_v2')
        + b'N}('
        + text('__defaults__')
        + b'K\x01K\x02\x86u\x86b'
    ),
    'BUILD on a class': _torch(
        name('collections', 'OrderedDict') + b'N}(' + text('get') + b'K\x01u\x86b'
    ),
    'BUILD on a dtype': _torch(name('torch', 'float32') + b'}(' + text('x') + b'K\x01ub'),
    # depth
    'deep list': _torch(nested()),
    'deep tuple': _torch(b')' + b'\x85' * 50_000),
    'deep marks': _torch(b'(' * 50_000),
    'deep legacy file': _legacy(nested()),
    'deep Paddle': _file('hostile.pdparams', HEAD + nested() + b'.'),
    'a list of itself': _torch(b']q\x01h\x01a'),
    # what comes out is small as long as nobody prints it
    'doubled metadata': _torch(b'}(' + text('meta') + _DOUBLE + b'u'),
    'a text a million times': _torch(
        b'}(' + text('x') + text('y' * 10**5) + b'q\x01](' + b'h\x01' * 10**6 + b'eu'
    ),
    # memory
    'sets without end': _file('hostile.pdparams', b'\x80\x04(' + b'\x8f' * (2 * 10**6) + b'l.'),
    'lists without end': _torch(b'](' + b']' * 10**6 + b'e'),
    'copies without end': _torch(
        _SHARED_TEXT + b'](' + (b'h\x02h\x01' + text('latin1') + b'\x86R') * 20_000 + b'e'
    ),
    'bytes that are not there': _file('hostile.pdparams', b'\x80\x04B\xff\xff\xff\xfe.'),
    'text that is not there': _file('hostile.pdparams', b'\x80\x04\x8d' + b'\xff' * 7 + b'\x0f.'),
    'a storage that is not there': _torch(_weights(tensor(2**30, 2**30, 1))),
    'a legacy storage that is not there': _legacy(
        _weights(tensor(2**30, 2**30, 1).replace(b'tQ', b'NtQ'))
    ),
    'a tensor larger than its storage': _torch(_weights(tensor(0, 2**30, 2**30))),
    'views without end': _views,
    'a compressed storage': _compressed_storage,
    'a compressed pickle': _compressed_pickle,
    'a compressed array': _compressed_npz,
    'an array that is not there': _npy_header('(1000000000,)'),
    'an array of sizes that overflow': _npy_header('(4294967296, 4294967296)'),
    'an array of strange elements': _npy_header('(1,)', "'V2000000000'"),
    'a deep header of an array': _npy_header('(' * 3000 + ')' * 3000),
    'members that overlap': _overlapping,
    # safetensors
    'deep metadata': _safetensors(
        b'{"__metadata__":{"mmtimesformer":"' + b'[' * 10**5 + b']' * 10**5 + b'"},' + _ENTRY + b'}'
    ),
    'metadata that is no JSON': _safetensors(
        b'{"__metadata__":{"mmtimesformer":"{nothing"},' + _ENTRY + b'}'
    ),
    'metadata of a wrong kind': _safetensors(
        b'{"__metadata__":{"mmtimesformer":"{\\"mmtimesformer\\":{\\"num_heads\\":[[1]]}}"},'
        + _ENTRY
        + b'}'
    ),
    'a deep header': _safetensors(b'{"a":' + b'[' * 10**5 + b']' * 10**5 + b'}'),
    'a header of names twice': _safetensors(b'{' + _ENTRY + b',' + _ENTRY + b'}'),
    'a header that is too large': _safetensors(b'{' + _ENTRY + b' ' * (9 << 20) + b'}'),
    'a header of very many tensors': _safetensors(
        b'{'
        + b','.join(
            b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(100_000)
        )
        + b'}',
        b'',
    ),
    'a header of a size that overflows': _safetensors(
        b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,16]}}'
    ),
    # an index, and configs
    'an index of itself': _index({'weight_map': {'a': 'pytorch_model.bin.index.json'}}),
    'an index of an index': lambda folder: (
        _index({'weight_map': {'a': 'other.json'}}, 'model.safetensors.index.json')(folder),
        _index({'weight_map': {'a': 'model.safetensors.index.json'}}, 'other.json')(folder),
    )[0],
    'an index of a list': _index({'weight_map': {'a': ['x.bin']}}),
    'an index of a table': _index({'weight_map': {'a': {'b': 1}}}),
    'an index that is a list': _index({'weight_map': ['x.bin']}),
    'an index of a number': _index({'weight_map': {'a': 1}}),
    'an index of nothing': _index({'weight_map': {}}),
    'a deep index': _file(
        'pytorch_model.bin.index.json', b'{"weight_map":' + b'[' * 10**5 + b']' * 10**5 + b'}'
    ),
    'an index of a name with a zero': _index({'weight_map': {'a': 'x\0.bin'}}),
    'an index of a long name': _index({'weight_map': {'a': 'x' * 5000}}),
    'a deep config': _config(b'{"a":' + b'[' * 10**5 + b']' * 10**5 + b'}'),
    'a config that is a list': _config(b'[1]'),
    'a preprocessor that is a list': _config(b'[1]', 'preprocessor_config.json'),
    'a config of many lists': _config(b'[' + b'[],' * 10**6 + b'[]]'),
    # text in a checkpoint
    'a billion laughs': _torch(_official(_LAUGHS)),
    'deep YAML': _torch(_official('[' * 20_000 + ']' * 20_000)),
    'long YAML': _torch(_official('- a\n' * 10**6)),
    # no file
    'a pipe': _fifo,
    'a device': _link_to_device,
}


def _storage_file(content: bytes) -> bytes:
    """A storage, as :mod:`pickle` writes that of a tensor: a torch file of its own."""
    return (
        name('torch.storage', '_load_from_bytes')
        + name('_codecs', 'encode')
        + text(content.decode('latin1'))
        + text('latin1')
        + b'\x86R\x85R'
    )


_DUMP = 'hostile.pkl'
RESULTS: dict[str, Callable[[Path], Path]] = {
    'doubled in encode': _file(
        _DUMP, HEAD + name('_codecs', 'encode') + text('a') + _DOUBLE + b'\x86R.'
    ),
    'doubled key': _file(_DUMP, HEAD + b']}(' + _DOUBLE + b'K\x01ua.'),
    'BUILD on a function': _file(
        _DUMP,
        HEAD
        + name('torch._utils', '_rebuild_tensor_v2')
        + b'N}('
        + text('__defaults__')
        + b'K\x01K\x02\x86u\x86b.',
    ),
    'doubled scores': _file(_DUMP, HEAD + b']}(' + text('pred_score') + _DOUBLE + b'ua.'),
    'doubled in a storage': _file(
        _DUMP,
        HEAD + b']' + _storage_file(LEGACY + HEAD + b'}(' + _DOUBLE + b'K\x01u.') + b'a.',
    ),
    'a zip in a storage': _file(_DUMP, HEAD + b']' + _storage_file(b'PK\x03\x04') + b'a.'),
    'a storage in a storage': _file(
        _DUMP, HEAD + b']' + _storage_file(LEGACY + HEAD + _storage_file(LEGACY) + b'.') + b'a.'
    ),
    'a storage that is not there': _file(
        _DUMP,
        HEAD
        + b']'
        + _storage_file(LEGACY + HEAD + storage(2**30).replace(b'tQ', b'NtQ') + b'.')
        + b'a.',
    ),
    'deep': _file(_DUMP, HEAD + nested() + b'.'),
    'lists without end': _file(_DUMP, HEAD + b'](' + b']' * 10**6 + b'e.'),
    'storages without end': _file(
        _DUMP,
        HEAD
        + text((LEGACY + b'\0' * 10**5).decode('latin1'))
        + b'q\x01'
        + name('torch.storage', '_load_from_bytes')
        + b'q\x02]('
        + (b'h\x02h\x01\x85R') * 100_000
        + b'e.',
    ),
    'numbers': _file(_DUMP, pickle.dumps([1, 2], 2)),
    'text': _file(_DUMP, b'not a pickle'),
    'empty': _file(_DUMP, b''),
}
