"""What ``torch.save`` writes is read as ``torch.load`` reads it, by the restricted unpickler."""

import io
import pickle
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from mmtimesformer.fileio import safe_pickle, stand_ins
from mmtimesformer.fileio.safe_pickle import (
    Budget,
    RefusedError,
    Unpickler,
    check_bounded,
    read_pickle,
)
from mmtimesformer.fileio.safe_zip import ZipError
from mmtimesformer.fileio.stand_ins import (
    PLAIN,
)
from mmtimesformer.fileio.torch_files import read_torch_file

BASE = torch.arange(30.0)
SHARED = torch.arange(6).reshape(2, 3)
HOLDER = torch.nn.Linear(3, 2)
WITH_ATTRIBUTE = torch.arange(3.0)
WITH_ATTRIBUTE.note = 'left out'  # type: ignore[attr-defined]
CONTENT: dict[str, Any] = {
    'dtypes': [
        torch.arange(5).to(getattr(torch, name))
        for name in stand_ins.DTYPES
        if name not in ('float8_e8m0fnu', 'float8_e4m3fnuz', 'float8_e5m2fnuz')
    ],
    'views': [BASE[3:20:4], BASE.reshape(5, 6).T, BASE.reshape(2, 3, 5)[:, 1], BASE[:0]],
    'expanded': torch.ones(1, 4).expand(3, 4),
    'same storage': (SHARED, SHARED[1], SHARED),
    'scalar': torch.tensor(2.5),
    'empty': torch.zeros(0, 3),
    'learned': torch.ones(2, requires_grad=True),
    'parameter': HOLDER.weight,
    'frozen parameter': torch.nn.Parameter(torch.ones(2), requires_grad=False),
    'attribute': WITH_ATTRIBUTE,
    'no content': torch.empty(3, 4, device='meta'),
    'state dict': HOLDER.state_dict(),
    'python': [
        None, True, -1, 2**40, 1.5, 'é', b'\xff\x00', bytearray(b'x'), (1, 2, 3), 3 + 4j,
        {1, 'a'}, {'a': {2: None}}, OrderedDict(a=1), Counter('aab'), torch.Size([2, 3]),
        torch.device('cpu'), torch.float16, set(), (), [],
    ],
}  # fmt: skip


def written(content: Any, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def read(content: bytes, **options: Any) -> Any:
    return read_torch_file(io.BytesIO(content), len(content), PLAIN, **options)


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.stride() == other.stride() and one.device == other.device
        assert one.requires_grad == other.requires_grad
        assert one.is_meta or one.numpy(force=True).tobytes() == other.numpy(force=True).tobytes()
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('kind', [kind for kind in CONTENT if kind != 'dtypes'])
def test_it_is_read_as_torch_reads_it(kind: str, zipped: bool) -> None:
    content = written(CONTENT[kind], zipped)
    assert_same(read(content), torch.load(io.BytesIO(content), weights_only=True))


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_every_element_type_is_read(zipped: bool) -> None:
    content = written(CONTENT['dtypes'], zipped)
    for one, other in zip(read(content), CONTENT['dtypes'], strict=True):
        assert one.dtype == other.dtype and torch.equal(one.cfloat(), other.cfloat())


def test_repeated_references_stay_references() -> None:
    one, part, again = read(written(CONTENT['same storage'], True))
    assert again is one
    one[1] = 9
    assert part.tolist() == [9, 9, 9]


def test_versions_of_modules_come_along() -> None:
    weights = torch.nn.BatchNorm1d(3).state_dict()
    loaded = read(written(weights, True))
    assert loaded._metadata[''] == {'version': 2}
    torch.nn.BatchNorm1d(3).load_state_dict(loaded)


def test_bytes_of_another_order_are_swapped() -> None:
    tensors = [torch.arange(3.0), torch.tensor([1 + 2j]), torch.tensor([1, 2], dtype=torch.int8)]
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(written(tensors, True))) as old:
        with zipfile.ZipFile(target, 'w') as new:
            for name in old.namelist():
                data = old.read(name)
                if name.endswith('byteorder'):
                    data = b'big'
                elif '/data/' in name and len(data) == 12:
                    data = b''.join(data[i : i + 4][::-1] for i in range(0, 12, 4))
                elif '/data/' in name and len(data) == 8:
                    data = data[:4][::-1] + data[4:][::-1]
                new.writestr(name, data)
    assert_same(read(target.getvalue()), tensors)


def to_meta(storage: torch.UntypedStorage, location: str) -> torch.UntypedStorage | None:
    assert location == 'cpu'
    return None


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize(
    ('map_location', 'device'),
    [
        (None, 'cpu'), ('cpu', 'cpu'), (torch.device('cpu'), 'cpu'), ({'cpu': 'cpu'}, 'cpu'),
        (to_meta, 'cpu'), ('meta', 'meta'), ({'cpu': 'meta'}, 'meta'),
    ],
)  # fmt: skip
def test_tensors_go_where_they_are_wanted(map_location: Any, device: str, zipped: bool) -> None:
    tensor = read(written(BASE[2:9], zipped), map_location=map_location)
    assert tensor.device.type == device and tensor.shape == (7,)


def test_a_compressed_checkpoint_is_read(tmp_path: Path) -> None:
    weights = {'a': torch.randn(500, 50), 'b': torch.zeros(1000, 500)}
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(written(weights, True))) as old:
        with zipfile.ZipFile(target, 'w', zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
    assert_same(read(target.getvalue()), weights)


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_plain_values_of_every_protocol_are_read(protocol: int) -> None:
    value = [CONTENT['python'][:11], b'', {'x' * 300: 'é' * 300, 'y': b'z' * 300}, 2**60, -(2**100)]
    content = pickle.dumps(value, protocol)
    assert read_pickle(content, len(content), PLAIN) == value


def test_checkpoints_of_many_tensors_are_within_the_limits() -> None:
    weights = {f'backbone.blocks.{i}.attn.qkv.weight': torch.zeros(2) for i in range(1000)}
    state = {i: {'step': torch.tensor(1.0), 'exp_avg': torch.zeros(2)} for i in range(1000)}
    loaded = read(written({'state_dict': weights, 'optimizer': {'state': state}}, True))
    assert len(loaded['optimizer']['state']) == 1000


def test_a_budget_grows_with_the_file() -> None:
    """A list of lists is refused where it is far larger than its bytes, and not where it is not."""
    many = pickle.dumps([[i, i, f'{i:030}'] for i in range(20_000)], 2)
    empty = b'\x80\x02](' + b']' * 10**5 + b'e.'
    allowed = safe_pickle.FACTOR * len(many)
    machine = Unpickler(io.BytesIO(many), len(many), PLAIN, Budget(len(many), base=0))
    assert len(machine.load()) == 20_000 and 0 < machine.budget.left < allowed
    with pytest.raises(RefusedError, match='objects of more than'):
        Unpickler(io.BytesIO(empty), len(empty), PLAIN, Budget(len(empty), base=0)).load()


def test_what_is_checked_is_what_can_be_printed() -> None:
    check_bounded({'a': [1, 2, ('x', {'y': None})]})
    shared: Any = 'x'
    for _ in range(50):
        shared = [shared, shared]
    with pytest.raises(RefusedError, match='too often to be printed'):
        check_bounded(shared)
    deep: Any = []
    for _ in range(150):
        deep = [deep]
    with pytest.raises(RefusedError, match='more than 100 levels'):
        check_bounded(deep)
    check_bounded([['the same text' * 100] * 10] * 10)


def test_a_weight_that_does_not_match_its_checksum_is_an_error() -> None:
    file = io.BytesIO()
    torch.save({'w': torch.arange(1000.0)}, file)
    content = bytearray(file.getvalue())
    content[content.index(torch.arange(1000.0).numpy().tobytes()) + 1001] ^= 1
    with pytest.raises(ZipError, match='does not match its checksum'):
        read_torch_file(io.BytesIO(content), len(content), PLAIN)
