"""Hostile files in folders: sharded checkpoints, features, logs, notes of a training."""

import io
import json
import os
import struct
import tarfile
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from mmtimesformer.checkpoints import load_torch, read_file
from mmtimesformer.checkpoints.dcp import corruption_of_shards
from mmtimesformer.checkpoints.dcp_metadata import METADATA
from mmtimesformer.checkpoints.readers import write_torch
from mmtimesformer.datasets.preparation import packing
from mmtimesformer.datasets.preparation.moving_shapes import Settings, is_made
from mmtimesformer.datasets.preparation.reading import read_json as read_labels
from mmtimesformer.engine.checkpointing.resume import latest_valid_checkpoint
from mmtimesformer.engine.distributed.sharded_checkpoint import write_shards
from mmtimesformer.engine.hooks.unreadable_videos import UnreadableVideoList
from mmtimesformer.inference.feature_store import FeatureFolder
from mmtimesformer.visualization.training import read_training
from tests.cases.hostile import HEAD, doubled, name, nested, text, torch_zip

DCP = 'torch.distributed.checkpoint.metadata'
DEEP = '{"a":' * 10**5


def sharded(folder: Path) -> tuple[Path, Path]:
    """Write a sharded checkpoint; return it, and its folder of shards."""
    path = folder / 'epoch_1.pth'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch's own, of a process that is alone
        parts = write_shards({'state_dict': {'w': torch.arange(6.0)}}, path)
    write_torch({'meta': {'epoch': 1}, **parts}, path)
    return path, folder / parts['shares']['folder']


def assert_refused(path: Path, message: str) -> None:
    begun = time.process_time()
    with pytest.raises(ValueError, match=message) as caught:
        read_file(path)
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 1000
    assert corruption_of_shards(path)
    assert time.process_time() - begun < 2


METADATA_PROGRAMS = {
    'doubled name': name(DCP, 'MetadataIndex') + b')\x81}(' + text('fqn') + doubled() + b'ub',
    'doubled key': b'}(' + doubled() + b'K\x01u',
    'doubled Metadata': name(DCP, 'Metadata') + b')\x81}' + doubled() + b'K\x01sb',
    'doubled tensors': (
        name(DCP, 'Metadata') + b')\x81}(' + text('state_dict_metadata') + doubled() + b'ub'
    ),
    'doubled tensor': (
        name(DCP, 'Metadata')
        + b')\x81}('
        + text('state_dict_metadata')
        + b'}'
        + text('w')
        + doubled()
        + b'sub'
    ),
    'doubled encoding': name(DCP, '_MEM_FORMAT_ENCODING') + doubled() + b'\x85R',
    'an enum changed': name(DCP, '_MEM_FORMAT_ENCODING') + b'}(' + text('_value_') + b'K\x01ub',
    'doubled size': name('torch', 'Size') + doubled() + b'\x85R',
    'doubled path': name('pathlib', 'PosixPath') + doubled() + b'\x85R',
    'deep': nested(),
    'fields without end, shared': (
        name(DCP, 'MetadataIndex')
        + b'q\x00}q\x01('
        + b''.join(text(str(i)) + b'N' for i in range(50_000))
        + b'u0]('
        + b'h\x00)\x81h\x01b' * 30_000
        + b'e'
    ),
    'records in records': (
        name(DCP, 'Metadata') + b'q\x00' + (b'h\x00)\x81}' + text('x')) * 3000 + b'N' + b'sb' * 3000
    ),
}


@pytest.mark.parametrize('kind', METADATA_PROGRAMS)
def test_hostile_metadata_of_a_sharded_checkpoint_are_refused(kind: str, tmp_path: Path) -> None:
    path, folder = sharded(tmp_path)
    content = HEAD + METADATA_PROGRAMS[kind] + b'.'
    (folder / METADATA).write_bytes(content)
    checkpoint = load_torch(path)
    checkpoint['shares']['files'][METADATA] = len(content)
    checkpoint['shares']['checksum'] = zlib.crc32(content)
    write_torch(checkpoint, path)
    assert_refused(path, r'\.metadata is (refused|damaged)')


@pytest.mark.parametrize('program', [b'}(' + doubled() + b'K\x01u', nested(), b'N'])
def test_a_hostile_part_of_a_sharded_checkpoint_is_refused(program: bytes, tmp_path: Path) -> None:
    path, folder = sharded(tmp_path)
    (part,) = folder.glob('__0_*')
    size = part.stat().st_size
    content = torch_zip(tmp_path / 'part', HEAD + program + b'.').read_bytes()
    if len(content) < size:  # as many bytes as it had, in a comment of the archive
        rest = size - len(content)
        content = content[:-2] + struct.pack('<H', rest) + b'x' * rest
    (folder / part.name).write_bytes(content)
    if len(content) != size:
        checkpoint = load_torch(path)
        checkpoint['shares']['files'][part.name] = len(content)
        write_torch(checkpoint, path)
    begun = time.process_time()
    with pytest.raises(ValueError, match='is damaged'):
        read_file(path)
    assert time.process_time() - begun < 2


@pytest.mark.parametrize('value', [[1], {'a': {'b': 1}}, 'x', {1: 2}, {METADATA: 'x'}])
def test_shares_that_are_no_names_of_files_are_refused(value: object, tmp_path: Path) -> None:
    path, _ = sharded(tmp_path)
    checkpoint = load_torch(path)
    checkpoint['shares']['files'] = value
    write_torch(checkpoint, path)
    with pytest.raises(ValueError, match=r'epoch_1\.pth does not name the folder of its shards'):
        read_file(path)


@pytest.mark.parametrize('content', [DEEP, '[]', '{"shapes": 3}', '{"format": ' + '9' * 5000 + '}'])
def test_a_hostile_manifest_of_features_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / 'manifest.json').write_text(content)
    with pytest.raises(ValueError, match=r'manifest\.json is damaged'):
        FeatureFolder(tmp_path, 'npy', {})


def test_a_hostile_array_of_features_is_refused(tmp_path: Path) -> None:
    folder = FeatureFolder(tmp_path, 'npy', {})
    folder.add('a.mp4', np.ones((2, 3), np.float32))
    assert folder.read('a.mp4').tolist() == [[1, 1, 1], [1, 1, 1]]
    file = tmp_path / 'features/a.mp4.npy'
    file.write_bytes(file.read_bytes().replace(b'(2, 3)', b'(2000000000, 300)'))
    with pytest.raises(ValueError, match=r'a\.mp4\.npy is not an array of numbers'):
        folder.read('a.mp4')


def test_a_hostile_list_of_bad_videos_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / 'bad_videos.jsonl'
    path.write_text(f'{DEEP}\n[]\n{{"file": ["x"]}}\n' + json.dumps({'file': 'a.mp4'}) + '\n')
    listed = UnreadableVideoList(path)
    listed.add([{'file': 'b.mp4'}])
    assert set(listed.videos) == {'a.mp4', 'b.mp4'}
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match='not a file'):  # a pipe would be waited for
        UnreadableVideoList(path).add([{'file': 'b.mp4'}])


@pytest.mark.parametrize('content', ['x' * 10**6, '\0', '\ud800', '[' * 1000 + '\n' * 9])
def test_a_hostile_note_of_the_last_checkpoint_does_no_harm(content: str, tmp_path: Path) -> None:
    torch.save({'state_dict': {}}, tmp_path / 'epoch_1.pth')
    note = content.encode('utf-8', 'surrogatepass')
    (tmp_path / 'last_checkpoint').write_bytes(note)
    found = latest_valid_checkpoint(tmp_path, lambda _: None)
    assert found == str(tmp_path / 'epoch_1.pth')


@pytest.mark.parametrize('line', [DEEP, '[1]', '{"loss": [1], "step": 1}', '{"loss": 1}', 'x'])
def test_a_hostile_log_of_a_training_is_refused(line: str, tmp_path: Path) -> None:
    folder = tmp_path / '2026/vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('{"loss": 1.5, "step": 1}\n' + line)
    with pytest.raises(ValueError, match=r'line 2 of .*scalars\.json'):
        read_training(tmp_path)


def test_a_deep_annotation_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'labels.json').write_text(DEEP)
    with pytest.raises(ValueError, match=r'labels\.json is not complete JSON'):
        read_labels(tmp_path / 'labels.json', dict)


def test_a_deep_manifest_of_moving_shapes_is_none(tmp_path: Path) -> None:
    (tmp_path / 'manifest.json').write_text(DEEP)
    assert not is_made(tmp_path, Settings())


def test_a_member_that_says_any_size_is_not_unpacked(tmp_path: Path) -> None:
    info = tarfile.TarInfo('left_out.json')
    info.size = 1 << 40
    with pytest.raises(ValueError, match='bytes'):
        packing._content(tarfile.TarFile(fileobj=io.BytesIO(), mode='w'), info)
