"""Hostile files are refused in a second, in one sentence; the process stays as it was."""

import copy
import json
import pickle
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from mmtimesformer.analysis.predictions import read_views
from mmtimesformer.analysis.test_results import read_test_results
from mmtimesformer.checkpoints import load_torch, read_checkpoint, read_file
from mmtimesformer.engine.checkpointing.resume import corruption_of, latest_valid_checkpoint
from mmtimesformer.engine.checkpointing.safe_loading import load_from_local
from tests.cases.hostile import CHECKPOINTS, HEAD, RESULTS, doubled, name, text, torch_zip

SECONDS = 2.0
MEMORY = 200 << 20  # bytes


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture(autouse=True)
def _nothing_changes() -> Iterator[None]:
    """Torch is afterwards what it was."""
    function = torch._utils._rebuild_tensor_v2
    before = copy.copy(function.__defaults__), dict(vars(function)), torch.float32, dict.get
    yield
    assert before == (function.__defaults__, dict(vars(function)), torch.float32, dict.get)


def assert_refused(read: Callable[[Path], object], path: Path, names: Path | None = None) -> None:
    begun, memory = time.process_time(), peak()
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        read(path)
    assert time.process_time() - begun < SECONDS
    assert peak() - memory < MEMORY, f'{(peak() - memory) >> 20} MB'
    message = str(caught.value)
    assert '\n' not in message and len(message) < 1000 and message.isprintable()
    assert (names or path).name in message


@pytest.mark.parametrize('case', CHECKPOINTS)
def test_a_hostile_checkpoint_is_refused(case: str, tmp_path: Path) -> None:
    path = CHECKPOINTS[case](tmp_path)
    assert_refused(read_checkpoint, path, tmp_path)


@pytest.mark.parametrize(
    'case', [case for case in CHECKPOINTS if case.startswith(('doubled', 'BUILD', 'a compressed'))]
)
def test_it_is_refused_by_those_who_load_and_resume(case: str, tmp_path: Path) -> None:
    path = CHECKPOINTS[case](tmp_path)
    assert_refused(lambda path: load_from_local(str(path)), path)
    if path.suffix == '.pth' and not case.endswith('metadata'):
        assert_refused(load_torch, path)


def test_attributes_of_a_state_dict_are_left_out(tmp_path: Path) -> None:
    program = name('collections', 'OrderedDict') + b')R}(' + text('items') + doubled() + b'ub'
    read = load_torch(torch_zip(tmp_path / 'a.pth', HEAD + program + b'.'))
    assert vars(read) == {}


@pytest.mark.parametrize('case', RESULTS)
def test_a_hostile_dump_of_results_is_refused(case: str, tmp_path: Path) -> None:
    path = RESULTS[case](tmp_path)
    assert_refused(read_views, path)
    assert_refused(lambda path: read_test_results(tmp_path), path)


def test_a_zip_bomb_is_damage_to_resume_from(tmp_path: Path) -> None:
    shutil.move(CHECKPOINTS['a compressed storage'](tmp_path), tmp_path / 'epoch_1.pth')
    begun = time.process_time()
    assert 'zip bomb' in str(corruption_of(str(tmp_path / 'epoch_1.pth')))
    with pytest.raises(ValueError, match='every checkpoint .* is damaged'):
        latest_valid_checkpoint(tmp_path, lambda _: None)
    assert time.process_time() - begun < SECONDS


def test_the_limit_of_a_zip_bomb_is_quoted(tmp_path: Path) -> None:
    path = CHECKPOINTS['a compressed array'](tmp_path)
    with pytest.raises(ValueError, match=r'would unpack to 300,000,\d+, and at most [\d,]+ are'):
        read_file(path)


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('classes', 'abc'),
        ('classes', [['a']]),
        ('config', ['a']),
        ('config', 'a\0b'),
        ('views', {'clips': 'many', 'crops': 1}),
        ('views', [1]),
        ('checkpoint', {'a': 1}),
        ('date', 3),
    ],
)
def test_a_note_of_results_with_a_wrong_value_is_refused(
    key: str, value: object, tmp_path: Path
) -> None:
    dump(tmp_path / 'result.pkl')
    (tmp_path / 'result.meta.json').write_text(json.dumps({key: value}))
    with pytest.raises(ValueError, match=rf'result.meta.json has {key}='):
        read_test_results(tmp_path)


@pytest.mark.parametrize('content', ['[' * 10**5, '[1]', '', '{"a": ' + '{"b":' * 10**5])
def test_a_note_of_results_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    dump(tmp_path / 'result.pkl')
    (tmp_path / 'result.meta.json').write_text(content)
    with pytest.raises(ValueError, match='result.meta.json is damaged'):
        read_test_results(tmp_path)


@pytest.mark.parametrize(
    'dataset',
    ['ann_file=[1]', 'ann_file="a\\0"', f'ann_file="{"x" * 5000}"', 'data_prefix=3', 'delimiter=1'],
)
def test_a_config_in_a_folder_of_results_may_say_anything(dataset: str, tmp_path: Path) -> None:
    dump(tmp_path / 'result.pkl')
    (tmp_path / 'config.py').write_text(f'test_dataloader = dict(dataset=dict({dataset}))')
    assert read_test_results(tmp_path).videos == []


def dump(path: Path) -> None:
    sample = {'pred_score': torch.tensor([0.25, 0.75]), 'gt_label': torch.tensor([1])}
    path.write_bytes(pickle.dumps([sample], 2))


def test_compressed_weights_are_read(tmp_path: Path) -> None:
    """Limits are no reason to refuse an honest file."""
    weights = {f'w{i}': np.random.default_rng(i).normal(size=(64, 64)) for i in range(10)}
    weights['zeros'] = np.zeros((1000, 1000))  # 8 MB that shrink to 8 KB
    np.savez_compressed(tmp_path / 'weights.npz', **weights)
    read = read_file(tmp_path / 'weights.npz').tensors
    assert set(read) == set(weights)
    assert all(np.array_equal(read[key].numpy(), value) for key, value in weights.items())


def test_names_of_a_million_blocks_are_refused(tmp_path: Path) -> None:
    """A table of names is made for the blocks that exist, and not for the stated number."""
    weights = {f'blocks.{i}.norm1.weight': np.zeros(1, np.float32) for i in range(2000)}
    weights['blocks.999999999.norm1.weight'] = np.zeros(1, np.float32)
    weights['blocks.' + '9' * 3000 + '.norm1.weight'] = np.zeros(1, np.float32)
    save_file(weights, tmp_path / 'deep.safetensors')
    assert_refused(read_checkpoint, tmp_path / 'deep.safetensors', Path())


def test_an_axis_of_a_million_blocks_is_refused(tmp_path: Path) -> None:
    weights = {'Transformer/encoderblock/LayerNorm_0/scale': np.zeros(10**6, np.int8)}
    np.savez(tmp_path / 'wide.npz', **weights)
    assert_refused(read_checkpoint, tmp_path / 'wide.npz', Path())


def test_an_array_of_nothing_and_everything_is_refused(tmp_path: Path) -> None:
    path = tmp_path / 'hostile.pdparams'
    content = pickle.dumps({'w': np.zeros((0, 77))}, 2)
    path.write_bytes(content.replace(b'K\x4d', b'\x8a\x09' + b'\xff' * 8 + b'\x00'))
    assert path.read_bytes() != content
    assert_refused(read_file, path)
