import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmtimesformer.checkpoints import read_checkpoint, read_file, readers

from .conftest import IMAGE_FILES, SCHEMES, VIDEO_FILES, as_paddle, random_weights


class RunsCode:
    """A plain ``__reduce__``: unpickled, it makes the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f'touch {self.marker}',)


class EvaluatesCode(RunsCode):
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f'open({str(self.marker)!r}, "w")',)


class ImportsCode(RunsCode):
    """Through NumPy, which a reader of arrays is tempted to trust as a whole."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            np.testing.runstring,  # type: ignore[attr-defined]
            (f'open({str(self.marker)!r}, "w")', {}),
        )


def _torch_zip(path: Path, marker: Path) -> None:
    torch.save({'state_dict': random_weights(), 'meta': RunsCode(marker)}, path)


def _torch_legacy(path: Path, marker: Path) -> None:
    torch.save({'model_state': RunsCode(marker)}, path, _use_new_zipfile_serialization=False)


def _history_buffer_chain(path: Path, marker: Path) -> None:
    """The chain through HistoryBuffer and getattr that torch's own hint would allow."""

    def name(module: str, attribute: str) -> bytes:
        return b'c' + module.encode() + b'\n' + attribute.encode() + b'\n'

    def text(value: str) -> bytes:
        return b'X' + len(value.encode()).to_bytes(4, 'little') + value.encode()

    getattr_, new = name('__builtin__', 'getattr'), name('mmengine.logging.history_buffer', '')
    buffer = new[:-1] + b'HistoryBuffer\n)\x81'
    program = b'\x80\x02}(' + text('state_dict') + b'}' + text('x') + b'('
    program += getattr_ + b'q\x09' + b'h\x09' + text('__self__') + b'\x86Rq\x00'
    program += b'h\x09h\x00' + text('exec') + b'\x86Rq\x01'
    program += b'h\x09h\x00' + text('slice') + b'\x86Rq\x02'
    program += buffer + b'q\x03}(' + text('setdefault') + b'h\x02' + text('update') + b'h\x01ub'
    program += buffer + b'q\x04}(' + text('_statistics_methods') + b'h\x03ub'
    program += b'h\x04}(' + text('statistics_methods') + text(f'open({str(marker)!r},"w")') + b'ub'
    program += b'tu.'
    _put_into_torch_zip(path, program)


def _put_into_torch_zip(path: Path, program: bytes) -> None:
    import zipfile

    torch.save({'state_dict': {}}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
        for member, content in members.items():
            archive.writestr(member, program if member.endswith('data.pkl') else content)


def _code_in_config_text(path: Path, marker: Path) -> None:
    run = f'__import__("os").system("touch {marker}")'
    text = f'model = dict(backbone=dict(num_heads={run}))\ncustom = {run}\n{run}\n'
    state_dict = {f'backbone.{k}': v for k, v in random_weights(head=False).items()}
    torch.save({'meta': {'cfg': text, 'config': text}, 'state_dict': state_dict}, path)


def _code_in_yaml(path: Path, marker: Path) -> None:
    text = f'DATA: !!python/object/apply:os.system ["touch {marker}"]\n'
    weights = {f'model.{k}': v for k, v in random_weights().items()}
    torch.save({'model_state': weights, 'cfg': text}, path)


def _npz(path: Path, marker: Path) -> None:
    with path.open('wb') as file:
        np.savez(file, cls=np.array([RunsCode(marker)], dtype=object))


def _npy_in_zip_of_torch(path: Path, marker: Path) -> None:
    program = pickle.dumps({'state_dict': EvaluatesCode(marker)}, protocol=2)
    _put_into_torch_zip(path, program)


def _paddle(path: Path, marker: Path) -> None:
    path.write_bytes(pickle.dumps({**as_paddle(random_weights()), 'x': RunsCode(marker)}, 4))


def _paddle_eval(path: Path, marker: Path) -> None:
    path.write_bytes(pickle.dumps({'backbone.cls_token': EvaluatesCode(marker)}, protocol=2))


def _paddle_objects(path: Path, marker: Path) -> None:
    path.write_bytes(pickle.dumps({'x': np.array([RunsCode(marker)], dtype=object)}, protocol=4))


def _paddle_codec(path: Path, marker: Path) -> None:
    """`_codecs.encode` finds its codec by importing a module of that name."""
    program = b'\x80\x02}X\x01\x00\x00\x00xc_codecs\nencode\n'
    path.write_bytes(program + b'X\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86Rs.')


MALICIOUS = {
    'torch zip': _torch_zip,
    'torch legacy': _torch_legacy,
    'history buffer': _history_buffer_chain,
    'eval in a torch zip': _npy_in_zip_of_torch,
    'npz': _npz,
    'paddle': _paddle,
    'paddle eval': _paddle_eval,
    'paddle objects': _paddle_objects,
    'paddle codec': _paddle_codec,
}
HARMLESS_TEXT = {'config text': _code_in_config_text, 'yaml': _code_in_yaml}


@pytest.mark.parametrize('kind', MALICIOUS)
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(kind, tmp_path, marker) -> None:
    MALICIOUS[kind](tmp_path / 'model.pth', marker)
    with pytest.raises(ValueError, match='refused|damaged'):
        read_checkpoint(tmp_path / 'model.pth')
    assert not marker.exists()


@pytest.mark.parametrize('kind', HARMLESS_TEXT)
def test_code_in_the_text_of_a_config_is_read_as_text(kind, tmp_path, marker) -> None:
    HARMLESS_TEXT[kind](tmp_path / 'model.pth', marker)
    read_checkpoint(tmp_path / 'model.pth')
    assert not marker.exists()


@pytest.mark.parametrize('kind', ['torch zip', 'paddle'])
def test_these_files_do_run_code_where_they_are_trusted(kind, tmp_path, marker) -> None:
    """Else the tests above would prove nothing."""
    path = tmp_path / 'model.pth'
    MALICIOUS[kind](path, marker)
    if kind == 'paddle':
        pickle.loads(path.read_bytes())
    else:
        read_checkpoint(path, trust=True)
    assert marker.exists()


@pytest.mark.parametrize(
    ('kind', 'container'),
    [
        ('official', 'torch'),
        ('huggingface', 'safetensors'),
        ('paddle', 'paddle'),
        ('paddle protocol 2', 'paddle'),
        ('jax', 'npz'),
    ],
)
@pytest.mark.parametrize('name', ['x.pth', 'x.safetensors', 'x.npz', 'x.pdparams', 'x', 'x.json'])
def test_the_container_is_detected_by_content_and_not_by_name(
    kind, container, name, tmp_path
) -> None:
    ({**VIDEO_FILES, **IMAGE_FILES})[kind](random_weights(), tmp_path / name)
    assert read_file(tmp_path / name).container == container


@pytest.mark.parametrize('first_byte', [0x50, 0x80])
def test_safetensors_is_distinguished_from_a_zip_and_a_pickle_with_the_same_first_byte(
    first_byte, tmp_path
) -> None:
    """It begins with the length of its header, whose first byte can be any multiple of eight."""
    tensors = random_weights(head=False)
    for length in range(0, 400, 4):
        readers.write_safetensors(tensors, tmp_path / 'a', {'note': 'x' * length})
        if (tmp_path / 'a').read_bytes()[0] == first_byte:
            break
    else:
        pytest.fail('no header of this length')
    assert set(read_file(tmp_path / 'a').tensors) == set(tensors)


@pytest.mark.parametrize('kind', ['official', 'huggingface', 'paddle', 'jax'])
@pytest.mark.parametrize('kept', [0, 1, 7, 100, 0.5, 0.99])
def test_a_truncated_file_gets_a_clear_answer(kind, kept, tmp_path) -> None:
    path = tmp_path / 'model.pth'
    ({**VIDEO_FILES, **IMAGE_FILES})[kind](random_weights(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(ValueError, match='checkpoint .*model.pth (is|holds|has) ') as error:
        read_checkpoint(path)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'is empty'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'git lfs pull'),
        (b'<!DOCTYPE html><html>Sign in</html>', 'a web page'),
        (b'{"model_type": "timesformer"}', "begins with b'{"),
        (b'\x89PNG\r\n\x1a\n' + b'0' * 50, 'readable are files of torch'),
        (b'\xff' * 8 + b'{' + b'0' * 50, 'cut short or no checkpoint'),
    ],
)
def test_the_error_for_what_is_no_checkpoint_states_what_it_looks_like(
    content, message, tmp_path
) -> None:
    (tmp_path / 'model.pth').write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / 'model.pth')


def test_the_error_for_a_missing_file_names_the_folder(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=f'looked in {tmp_path}'):
        read_checkpoint(tmp_path / 'nothing.pth')


def test_the_error_for_a_torch_file_of_something_else_names_its_type(tmp_path) -> None:
    torch.save([1, 2, 3], tmp_path / 'list.pth')
    with pytest.raises(ValueError, match='holds a list, not a dictionary of weights'):
        read_checkpoint(tmp_path / 'list.pth')


@pytest.mark.parametrize('ending', ['safetensors', 'bin'])
def test_a_folder_of_shards_is_read_as_one(ending, tmp_path) -> None:
    weights = random_weights()
    whole = tmp_path / 'whole'
    VIDEO_FILES['huggingface' if ending == 'safetensors' else 'huggingface bin'](weights, whole)
    tensors = read_file(whole).tensors
    halves = [dict(list(tensors.items())[i::2]) for i in (0, 1)]
    stem = 'model' if ending == 'safetensors' else 'pytorch_model'
    weight_map = {}
    for i, half in enumerate(halves):
        name = f'{stem}-0000{i + 1}-of-00002.{ending}'
        if ending == 'safetensors':
            readers.write_safetensors(half, tmp_path / name)
        else:
            torch.save(half, tmp_path / name)
        weight_map.update(dict.fromkeys(half, name))
    index = tmp_path / f'{stem}.{ending}.index.json'
    index.write_text(json.dumps({'weight_map': weight_map}))
    for source in (tmp_path, index):
        read = read_checkpoint(source)
        assert set(read.tensors) == set(weights)

    (tmp_path / next(iter(weight_map.values()))).unlink()
    with pytest.raises(FileNotFoundError, match='of-00002'):
        read_checkpoint(tmp_path)


def test_an_index_that_points_out_of_its_folder_is_refused(tmp_path) -> None:
    index = tmp_path / 'model.safetensors.index.json'
    index.write_text(json.dumps({'weight_map': {'x': '../../secret.safetensors'}}))
    with pytest.raises(ValueError, match='points outside its folder'):
        read_checkpoint(tmp_path)


def test_the_error_for_a_folder_without_weights_names_the_files(tmp_path) -> None:
    with pytest.raises(ValueError, match='holds no weights: none of model.safetensors'):
        read_checkpoint(tmp_path)


def test_the_error_without_safetensors_names_the_pip_command(tmp_path, monkeypatch) -> None:
    VIDEO_FILES['huggingface'](random_weights(), tmp_path / 'a')
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(ValueError, match='pip install safetensors'):
        read_checkpoint(tmp_path / 'a')


@pytest.mark.parametrize('scheme', SCHEMES)
def test_a_pickle_of_numpy_1_and_of_numpy_2_are_both_read(scheme, tmp_path) -> None:
    content = pickle.dumps(as_paddle(random_weights(scheme)), protocol=2)
    new, old = b'numpy._core.multiarray', b'numpy.core.multiarray'
    for i, variant in enumerate((content.replace(new, old), content)):
        path = tmp_path / f'{i}.pdparams'
        path.write_bytes(variant)
        assert read_checkpoint(path).attention_type == scheme


def test_bfloat16_of_paddle_is_read_as_bfloat16(tmp_path) -> None:
    weights = {name: tensor.bfloat16() for name, tensor in random_weights(head=False).items()}
    arrays = {
        name: np.ascontiguousarray(
            (tensor.T if tensor.ndim == 2 else tensor).contiguous().view(torch.int16).numpy()
        ).view(np.uint16)
        for name, tensor in weights.items()
    }
    (tmp_path / 'a').write_bytes(pickle.dumps(arrays, protocol=4))
    read = read_checkpoint(tmp_path / 'a')
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(('version', 'warns'), [('2.9.1', True), ('2.10.0', False), ('3.0', False)])
def test_an_older_torch_is_warned_of_with_its_hole(version, warns, tmp_path, monkeypatch) -> None:
    VIDEO_FILES['official'](random_weights(), tmp_path / 'a')
    monkeypatch.setattr(torch, '__version__', version)
    if warns:
        with pytest.warns(UserWarning, match='torch 2.9.1 has a known hole .*CVE-2026-24747'):
            read_checkpoint(tmp_path / 'a')
    else:
        read_checkpoint(tmp_path / 'a')


def test_an_array_of_the_other_byte_order_is_read(tmp_path: Path) -> None:
    values = np.arange(6, dtype='>f4').reshape(2, 3)
    np.savez(tmp_path / 'x.npz', w=values, le=values.astype('<f4'))
    tensors = read_file(tmp_path / 'x.npz').tensors
    assert torch.equal(tensors['w'], tensors['le']) and tensors['w'].dtype == torch.float32
