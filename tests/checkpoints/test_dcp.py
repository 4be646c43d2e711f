"""A sharded checkpoint is read completely, or refused with an error message."""

import io
import os
import pickle
import re
import shutil
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
)

from mmtimesformer.checkpoints import dcp, load_torch, read_file
from mmtimesformer.checkpoints.dcp import (
    change_tensors,
    corruption_of_shards,
    load_sharded,
    read_metadata,
    remove_stale_shards,
    tensors_of,
)
from mmtimesformer.checkpoints.dcp_metadata import METADATA
from mmtimesformer.checkpoints.readers import write_torch
from mmtimesformer.engine.checkpointing.resume import latest_valid_checkpoint
from mmtimesformer.engine.distributed.sharded_checkpoint import write_shards

PART = '__0_0.distcp'


def training() -> dict[str, Any]:
    """Return the state of a training, to be sharded."""
    noise = torch.Generator().manual_seed(0)
    return {
        'state_dict': {
            'backbone.weight': torch.randn(5, 3, generator=noise),
            'backbone.half': torch.randn(4, generator=noise).bfloat16(),
            'steps': torch.tensor(7),
            'complex': torch.tensor([1 + 2j]),
            'empty': torch.zeros(0, 3),
        },
        'optimizer': {
            'state': {
                0: {'step': torch.tensor(2.0), 'exp_avg': torch.randn(5, 3, generator=noise)}
            },
            'param_groups': [{'lr': 0.1, 'params': [0]}],
        },
    }


def save(path: Path, state: dict[str, Any] | None = None) -> Path:
    """Write a sharded checkpoint; return its folder."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch's own, of a process that is alone
        parts = write_shards(training() if state is None else state, path)
    write_torch({'meta': {'epoch': 3}, **parts}, path)
    return path.parent / parts['shares']['folder']


def assert_whole(path: Path, state: dict[str, Any] | None = None) -> None:
    expected = {'meta': {'epoch': 3}, **(state or training())}
    read = read_file(path).checkpoint
    assert list(read) == list(expected)
    assert read['optimizer']['param_groups'] == expected['optimizer']['param_groups']
    for (place, one), (other_place, other) in zip(
        tensors_of(read).items(), tensors_of(expected).items(), strict=True
    ):
        assert place == other_place
        assert one.dtype == other.dtype and one.device.type == 'cpu', place
        assert torch.equal(one, other), place


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / 'epoch_3.pth'


def test_a_sharded_checkpoint_is_read_completely(path: Path) -> None:
    state = training()
    folder = save(path, state)
    assert re.fullmatch(r'epoch_3\.pth\.[0-9a-f]{8}\.shares', folder.name)
    assert_whole(path, state)
    assert path.stat().st_size < 10_000  # no content
    assert all(tensor.is_meta for tensor in tensors_of(load_torch(path)).values())


def test_it_is_read_where_it_was_moved_to(path: Path, tmp_path: Path) -> None:
    state = training()
    folder = save(path, state)
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    shutil.move(path, elsewhere)
    with pytest.raises(FileNotFoundError, match='copy the folder to where the checkpoint is'):
        read_file(elsewhere / path.name)
    shutil.move(folder, elsewhere)
    assert_whole(elsewhere / path.name, state)


def test_a_second_checkpoint_of_the_same_name_has_a_folder_of_its_own(path: Path) -> None:
    first = save(path)
    changed = training()
    changed['state_dict']['steps'] += 1
    second = save(path, changed)
    assert first.is_dir() and second.is_dir() and first != second
    assert_whole(path, changed)
    assert remove_stale_shards(path.parent) == [first]
    assert not first.exists()
    assert_whole(path, changed)


def test_only_what_no_file_names_is_swept(path: Path) -> None:
    kept, gone, killed = (save(path.with_name(name)) for name in ('a.pth', 'b.pt', 'c.d.pth'))
    unreadable, renamed = save(path), save(path.with_name('epoch_4.pth'))
    path.write_bytes(path.read_bytes()[:-100])
    path.with_name('epoch_4.pth').rename(path.with_name('best of all.pth'))
    ordinary = path.with_name('ordinary.pth')
    write_torch(training(), ordinary)
    left = path.with_name('ordinary.pth.0a1b2c3d.shares')
    left.mkdir()
    users = path.with_name('notes.shares')
    users.mkdir()
    for name in ('b.pt', 'c.d.pth'):
        path.with_name(name).unlink()
    assert remove_stale_shards(path.parent, ('a.pth', 'ordinary.pth')) == [left]
    assert remove_stale_shards(path.parent) == [gone, killed]
    for folder in (kept, unreadable, renamed, users):
        assert folder.is_dir(), folder
    path.write_bytes(b'')  # after a power cut
    os.mkfifo(path.with_name('pipe.pth'))
    assert remove_stale_shards(path.parent) == [] and unreadable.is_dir()
    assert_whole(path.with_name('best of all.pth'))


# -- damage ----------------------------------------------------------------------------------------


def truncate(folder: Path) -> None:
    (folder / PART).write_bytes((folder / PART).read_bytes()[:-10])


def flip(folder: Path) -> None:
    data = bytearray((folder / PART).read_bytes())
    weight = training()['state_dict']['backbone.weight'].numpy().tobytes()
    data[data.index(weight)] ^= 1
    (folder / PART).write_bytes(data)


def spoil_metadata(folder: Path) -> None:
    data = bytearray((folder / METADATA).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / METADATA).write_bytes(data)


def make_pipe(folder: Path) -> None:
    (folder / PART).unlink()
    os.mkfifo(folder / PART)


DAMAGES = {
    'a part is missing': (lambda folder: (folder / PART).unlink(), 'is missing'),
    'a part is shorter': (truncate, 'copy it again'),
    'a bit is another': (flip, 'does not match its checksum'),
    'a part is a pipe': (make_pipe, 'is missing'),
    'the description is spoilt': (spoil_metadata, 'metadata is damaged'),
    'the folder is missing': (shutil.rmtree, 'is missing'),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_is_reported_and_the_checkpoint_before_is_taken(path: Path, damage: str) -> None:
    before = path.with_name('epoch_2.pth')
    save(before)
    spoil, words = DAMAGES[damage]
    folder = save(path)
    assert corruption_of_shards(path) is None
    assert latest_valid_checkpoint(path.parent, pytest.fail) == str(path)
    spoil(folder)
    if spoil is not flip:  # torch looks at checksums of tensors only when asked to
        with pytest.raises((ValueError, FileNotFoundError), match=words) as raised:
            read_file(path)
        assert str(folder) in str(raised.value)
    assert re.search(words, str(corruption_of_shards(path)))
    message: list[str] = []
    assert latest_valid_checkpoint(path.parent, message.append) == str(before)
    assert 'epoch_3.pth is damaged' in message[0]


# -- malice ----------------------------------------------------------------------------------------


class Program:
    """Unpickled, it makes a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.made),)


def replace_metadata(path: Path, folder: Path, content: bytes) -> None:
    (folder / METADATA).write_bytes(content)
    checkpoint = load_torch(path)
    checkpoint['shares']['files'][METADATA] = len(content)
    checkpoint['shares']['checksum'] = zlib.crc32(content)
    write_torch(checkpoint, path)


def metadata_of(path: Path) -> Any:
    return read_metadata(load_torch(path), path)[1]


def test_a_description_that_is_a_program_is_refused_and_not_run(path: Path, tmp_path: Path) -> None:
    folder = save(path)
    made = tmp_path / 'made'
    replace_metadata(path, folder, pickle.dumps(Program(made)))
    with pytest.raises(ValueError, match='is refused: it asks for posix.mkdir.*; take a check'):
        read_file(path)
    assert 'refused' in str(corruption_of_shards(path))
    assert not made.exists()


@pytest.mark.parametrize('name', ['eval', 'getattr', '__import__'])
def test_a_description_may_not_ask_for_what_python_has(path: Path, name: str) -> None:
    folder = save(path)
    replace_metadata(path, folder, f"cbuiltins\n{name}\n(S'1'\ntR.".encode())
    with pytest.raises(ValueError, match=f'builtins.{name}'):
        read_file(path)


def test_shards_may_not_hold_objects_which_torch_would_execute(path: Path, tmp_path: Path) -> None:
    """As a part that is described as bytes, but has the size of a tensor."""
    folder = save(path)
    made, metadata = tmp_path / 'made', metadata_of(path)
    place = 'state_dict/backbone.weight'
    described = BytesStorageMetadata()
    described.size = metadata.state_dict_metadata[place].size
    described.properties = metadata.state_dict_metadata[place].properties
    metadata.state_dict_metadata[place] = described
    program = io.BytesIO()
    torch.save(Program(made), program)
    (info,) = (i for index, i in metadata.storage_data.items() if index.fqn == place)
    info.offset, info.length = (folder / PART).stat().st_size, len(program.getvalue())
    metadata.storage_data[MetadataIndex(place)] = info
    with (folder / PART).open('ab') as part:
        part.write(program.getvalue())
    checkpoint = load_torch(path)
    checkpoint['shares']['files'][PART] = (folder / PART).stat().st_size
    write_torch(checkpoint, path)
    replace_metadata(path, folder, pickle.dumps(metadata))
    with pytest.raises(ValueError, match='refused: it asks for .*BytesStorageMetadata'):
        read_file(path)
    assert not made.exists()

    from mmtimesformer.checkpoints import dcp_metadata

    allowed = dcp_metadata.ALLOWED['torch.distributed.checkpoint.metadata'] | {
        'BytesStorageMetadata'
    }
    with pytest.MonkeyPatch.context() as patch:  # nor by what is described alone
        patch.setitem(dcp_metadata.ALLOWED, 'torch.distributed.checkpoint.metadata', allowed)
        with pytest.raises(ValueError, match='refused: it asks for a BytesStorageMetadata'):
            read_file(path)
        patch.setattr(dcp_metadata, '_check', lambda *_: None)
        with pytest.raises(ValueError, match='damaged .*something else than tensors'):
            read_file(path)
    assert not made.exists()


def test_shards_do_not_point_outside_their_folder(path: Path) -> None:
    folder = save(path)
    metadata = metadata_of(path)
    for info in metadata.storage_data.values():
        info.relative_path = f'../{info.relative_path}'
    replace_metadata(path, folder, pickle.dumps(metadata))
    with pytest.raises(ValueError, match='refused: it asks for the file'):
        read_file(path)

    for key, value in (
        ('folder', '../elsewhere'), ('folder', '..'), ('files', None), ('files', {METADATA: '9'}),
        ('files', {}),
    ):  # fmt: skip
        save(path)
        checkpoint = load_torch(path)
        checkpoint['shares'][key] = value
        write_torch(checkpoint, path)
        with pytest.raises(ValueError, match='does not name the folder of its shards'):
            read_file(path)
    save(path)
    checkpoint = load_torch(path)
    checkpoint['shares']['files']['../epoch_3.pth'] = 1
    write_torch(checkpoint, path)
    with pytest.raises(FileNotFoundError, match='is missing'):
        read_file(path)


def test_a_description_does_not_change_torch(path: Path) -> None:
    """A pickle may set attributes of what it has found; of a class they would stay."""
    folder = save(path)
    program = b'\x80\x04ctorch.distributed.checkpoint.metadata\nMetadata\n'
    program += b'(N}\x8c\x04mine\x8c\x01xstb.'  # BUILD with (None, {'mine': 'x'})
    replace_metadata(path, folder, program)
    with pytest.raises(ValueError, match='refused: it asks for a change of a class'):
        read_file(path)
    assert not [name for name in vars(Metadata) if name.startswith('mine')]


@pytest.mark.parametrize('what', ['rows', 'twice', 'bytes', 'tensor'])
def test_what_is_described_is_all_there(path: Path, what: str) -> None:
    folder = save(path)
    metadata = metadata_of(path)
    described = metadata.state_dict_metadata['state_dict/backbone.weight']
    if what == 'rows':
        described.chunks[0].sizes = torch.Size([4, 3])
    elif what == 'twice':  # as many numbers as there should be
        half = ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([2, 3]))
        third = ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([3, 3]))
        described.chunks[:] = [half, third]
    elif what == 'bytes':
        next(iter(metadata.storage_data.values())).length = 10**9
    else:
        described.size = described.chunks[0].sizes = torch.Size([2**40])
    replace_metadata(path, folder, pickle.dumps(metadata))
    with pytest.raises(ValueError, match='metadata is damaged'):
        read_file(path)


def test_a_missing_tensor_is_reported(path: Path) -> None:
    folder = save(path)
    checkpoint = load_torch(path)
    checkpoint['state_dict']['more'] = torch.empty(2, device='meta')
    write_torch(checkpoint, path)
    with pytest.raises(ValueError, match=f'{folder.name} has no state_dict/more of shape'):
        read_file(path)


# -- what could not be written ---------------------------------------------------------------------


def test_a_full_disk_is_an_os_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', full)
    with pytest.raises(OSError, match='process 0 could not write its shard: .*No space left'):
        save(path)
    assert not path.exists()
    monkeypatch.undo()
    assert len(remove_stale_shards(path.parent, (path.name,))) == 1


def test_a_disk_that_is_really_full_is_an_os_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.checkpoint.filesystem import FileSystem

    opened = FileSystem.create_stream

    @contextmanager
    def full(self: Any, target: Any, mode: str) -> Iterator[Any]:
        with opened(self, '/dev/full' if mode == 'wb' else target, mode) as stream:
            yield stream

    monkeypatch.setattr(FileSystem, 'create_stream', full)
    state = {'state_dict': {'weight': torch.zeros(10**6)}}
    with pytest.raises(OSError, match='process 0 could not write its shard'):
        save(path, state)
    assert not path.exists()


@pytest.mark.parametrize('bug', [TypeError('a bug'), RuntimeError('CUDA error')], ids=str)
def test_a_bug_is_not_a_full_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch, bug: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise bug

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(type(bug), match=str(bug)):
        save(path)


def test_an_interrupt_is_not_reported_as_a_full_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, 'save', end)
    with pytest.raises(KeyboardInterrupt):
        save(path)
    monkeypatch.undo()
    state = training()
    save(path, state)
    monkeypatch.setattr(dcp, 'read_torch', end)  # of a part, by which the content is read
    with pytest.raises(KeyboardInterrupt):
        load_sharded({**load_torch(path)}, path)


def test_trees_keep_their_kind() -> None:
    weights = torch.nn.Linear(2, 2).state_dict()
    tree = {'a': weights, 'b': [torch.ones(1), (torch.ones(2), 'text')]}
    changed = change_tensors(tree, lambda place, tensor: (place, tensor.numel()))
    assert type(changed['a']) is type(weights)
    assert changed['a']._metadata == weights._metadata
    assert changed['a']['weight'] == ('a/weight', 4)
    assert changed['b'] == [('b/0', 1), (('b/1/0', 2), 'text')]
    assert isinstance(weights['weight'], torch.Tensor)
