"""Mutated files: every reader reads or refuses them, in seconds and in little memory."""

import json
import random
import resource
import shutil
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmaction.utils import register_all_modules
from mmengine.fileio import dump

from mmtimesformer.analysis.predictions import read_views
from mmtimesformer.analysis.test_results import read_test_results
from mmtimesformer.checkpoints import load_torch, read_checkpoint, read_file
from mmtimesformer.checkpoints.dcp_metadata import METADATA
from mmtimesformer.checkpoints.readers import Contents, write_torch
from mmtimesformer.datasets.tar_shards.index import Entry, Member, format_index, parse_index
from mmtimesformer.engine.checkpointing.safe_loading import load_from_local
from mmtimesformer.inference.inference_config import inference_config_of_checkpoint
from tests.checkpoints.conftest import IMAGE_FILES, VIDEO_FILES, as_huggingface, random_weights
from tests.checkpoints.test_dcp import save as save_sharded
from tests.checkpoints.test_torch_checkpoints import training_checkpoint
from tests.fileio import mutations
from tests.inference.conftest import CONFIG

SECONDS = 2.0  # of the processor, for a file
MEMORY = 200 << 20  # bytes
FORBIDDEN = (
    'pickle.find_class', 'exec', 'os.system', 'os.exec', 'os.fork', 'os.remove', 'os.rename',
    'os.mkdir', 'os.putenv', 'subprocess.Popen', 'socket.connect', 'shutil.rmtree',
)  # fmt: skip

Mutation = Callable[[bytes, random.Random], bytes]
# Each writes a file and returns it, how it is changed, and what reads it.
Made = tuple[Path, Mutation, Callable[[], object]]


def _weights() -> dict[str, torch.Tensor]:
    return random_weights(width=8, depth=1)


def _official(folder: Path) -> Made:
    VIDEO_FILES['official'](_weights(), folder / 'a.pyth')
    return folder / 'a.pyth', mutations.zip_changed, lambda: read_checkpoint(folder / 'a.pyth')


def _legacy(folder: Path) -> Made:
    path = folder / 'a.pth'
    torch.save({'model_state': _weights()}, path, _use_new_zipfile_serialization=False)

    def change(content: bytes, chance: random.Random) -> bytes:
        start = content.index(b'\x80\x02', len(mutations.bytes_changed.__name__) + 30)
        return content[:start] + mutations.pickle_changed(content[start:], chance)

    return path, change, lambda: read_checkpoint(path)


def _training(folder: Path) -> Made:
    path = folder / 'epoch_1.pth'
    weights = {f'backbone.{key}': value for key, value in _weights().items() if 'head' not in key}
    meta = {'cfg': CONFIG, 'epoch': 1, 'dataset_meta': {'classes': ['a', 'b']}}
    torch.save({**training_checkpoint(), 'state_dict': weights, 'meta': meta}, path)
    return path, mutations.zip_changed, lambda: load_from_local(str(path))


def _safetensors(folder: Path) -> Made:
    path = folder / 'model.safetensors'
    VIDEO_FILES['huggingface'](_weights(), path)
    return path, mutations.safetensors_changed, lambda: read_checkpoint(path)


def _npz(folder: Path) -> Made:
    IMAGE_FILES['jax'](_weights(), folder / 'a.npz')
    return folder / 'a.npz', mutations.zip_changed, lambda: read_checkpoint(folder / 'a.npz')


def _paddle(folder: Path) -> Made:
    path = folder / 'a.pdparams'
    VIDEO_FILES['paddle protocol 2'](_weights(), path)
    return path, mutations.pickle_changed, lambda: read_checkpoint(path)


def _huggingface(folder: Path) -> None:
    weights = as_huggingface(_weights())
    torch.save(weights, folder / 'pytorch_model-1.bin')
    index = {'weight_map': dict.fromkeys(weights, 'pytorch_model-1.bin')}
    (folder / 'pytorch_model.bin.index.json').write_text(json.dumps(index))
    config = {
        'model_type': 'timesformer', 'num_attention_heads': 4, 'layer_norm_eps': 1e-6,
        'num_frames': 3, 'image_size': 15, 'attention_type': 'divided_space_time',
        'id2label': {'0': 'a', '1': 'b'},
    }  # fmt: skip
    (folder / 'config.json').write_text(json.dumps(config))
    preprocessor = {'image_mean': [0.5] * 3, 'image_std': [0.5] * 3, 'crop_size': {'height': 15}}
    (folder / 'preprocessor_config.json').write_text(json.dumps(preprocessor))


def _huggingface_file(file: str) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        _huggingface(folder)
        return folder / file, mutations.json_changed, lambda: read_checkpoint(folder)

    return make


def _sharded(folder: Path) -> Made:
    path = folder / 'epoch_3.pth'
    folder = save_sharded(path)

    checkpoint = load_torch(path)

    def change(content: bytes, chance: random.Random) -> bytes:
        changed = mutations.pickle_changed(content, chance)
        checkpoint['shares']['files'][METADATA] = len(changed)
        checkpoint['shares']['checksum'] = zlib.crc32(changed)
        write_torch(checkpoint, path)
        return changed

    return folder / METADATA, change, lambda: read_file(path)


def _sharded_file(folder: Path) -> Made:
    path = folder / 'epoch_3.pth'
    folder = save_sharded(path)
    (part,) = folder.glob('__0_*')

    def change(content: bytes, chance: random.Random) -> bytes:
        changed = mutations.bytes_changed(content, chance)[: len(content)]
        return changed + b'\0' * (len(content) - len(changed))

    return part, change, lambda: read_file(path)


def _results(folder: Path) -> Made:
    path = folder / 'result.pkl'
    samples = [
        {'pred_score': torch.rand(3), 'gt_label': torch.tensor([i % 3]), 'filename': f'{i}.mp4'}
        for i in range(3)
    ]
    dump(samples, str(path))
    return path, mutations.pickle_changed, lambda: read_views(path)


def _note(folder: Path) -> Made:
    _results(folder)
    note = {
        'config': 'a.py', 'checkpoint': 'b.pth', 'classes': ['a', 'b', 'c'], 'fusion': 'mean',
        'views': {'clips': 1, 'crops': 3}, 'date': '2026', 'versions': {'torch': '2'},
    }  # fmt: skip
    (folder / 'result.meta.json').write_text(json.dumps(note))
    return folder / 'result.meta.json', mutations.json_changed, lambda: read_test_results(folder)


def _config_of_results(folder: Path) -> Made:
    _results(folder)
    (folder / 'a.py').write_text(CONFIG)
    return folder / 'a.py', mutations.text_changed, lambda: read_test_results(folder)


def _tar_shards(folder: Path) -> Made:
    entries = [Entry(Member('shard-000000.tar', 512, 99, i), f'{i}.mp4', (i,)) for i in range(9)]
    path = folder / 'index.tsv'
    path.write_text('\n'.join(format_index(entries)[1:]) + '\n')
    read = lambda: parse_index(path.read_bytes().decode('utf-8'), str(path))  # noqa: E731
    return path, mutations.text_changed, read


def _stored_config(folder: Path) -> Made:
    path = folder / 'config.txt'
    plain = CONFIG.replace('[127.5] * 3', '[1, 2, 3]').replace('[64.0] * 3', '[1, 2, 3]')
    path.write_text(plain.replace('pipeline=test_pipeline', 'pipeline=[]'))
    register_all_modules(init_default_scope=False)

    def read() -> object:
        meta = {'cfg': path.read_text('utf-8', 'replace')}
        return inference_config_of_checkpoint(Contents('torch', {}, {'meta': meta}), 'epoch_1.pth')

    return path, mutations.text_changed, read


def _yaml(folder: Path) -> Made:
    text, path = folder / 'config.yaml', folder / 'a.pyth'
    text.write_text(
        'DATA:\n  NUM_FRAMES: 3\n  MEAN: [0.45, 0.45, 0.45]\n  STD: [0.225, 0.225, 0.225]\n'
        '  SAMPLING_RATE: 32\n  TEST_CROP_SIZE: 15\nTIMESFORMER:\n  ATTENTION_TYPE: '
        "'divided_space_time'\nTRAIN:\n  DATASET: 'kinetics'\n"
    )
    weights = {f'model.{key}': value for key, value in _weights().items()}

    def read() -> object:
        cfg = text.read_text('utf-8', 'replace')
        torch.save({'model_state': weights, 'cfg': cfg}, path)
        return read_checkpoint(path)

    return text, mutations.text_changed, read


FORMATS: dict[str, Callable[[Path], Made]] = {
    'torch zip': _official,
    'legacy torch': _legacy,
    'training checkpoint': _training,
    'safetensors': _safetensors,
    'npz': _npz,
    'pdparams': _paddle,
    'config of a folder': _huggingface_file('config.json'),
    'preprocessor of a folder': _huggingface_file('preprocessor_config.json'),
    'index of a folder': _huggingface_file('pytorch_model.bin.index.json'),
    'metadata of a sharded checkpoint': _sharded,
    'part of a sharded checkpoint': _sharded_file,
    'dump of results': _results,
    'note of results': _note,
    'config of results': _config_of_results,
    'index of tar shards': _tar_shards,
    'stored config': _stored_config,
    'stored YAML': _yaml,
}

_seen: list[str] = []
_watching = False


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if not _watching or event not in FORBIDDEN:
        return
    if event != 'exec' or not args[0].co_filename.endswith('.py'):  # which is an import
        _seen.append(event)


@pytest.fixture(scope='module')
def _audit() -> None:
    sys.addaudithook(_watch)  # stays for the process, and is quiet outside of these tests


@pytest.fixture(autouse=True)
def _process_stays_as_it_is() -> Iterator[None]:
    from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, Metadata

    def state() -> object:
        function = torch._utils._rebuild_tensor_v2
        return (
            function.__defaults__, dict(vars(function)), set(vars(Metadata)) - {'__slotnames__'},
            {member.name: member.value for member in _MEM_FORMAT_ENCODING},
            torch.serialization.get_safe_globals(), torch.get_default_dtype(),
        )  # fmt: skip

    before = state()
    yield
    assert state() == before


def assert_survives(form: str, folder: Path, count: int) -> None:
    global _watching
    path, change, read = FORMATS[form](folder)
    original = path.read_bytes()
    keep = folder / 'original'
    shutil.copy(path, keep)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        read()  # else nothing is shown; and what is imported on the way is imported now
        for seed in range(count):
            chance = random.Random(f'{form} {seed}')
            path.write_bytes(change(original, chance))
            where = f'{form}, seed {seed}'
            _seen.clear()
            begun, memory = time.process_time(), _peak()
            _watching = True
            try:
                read()
            except (ValueError, FileNotFoundError) as error:
                message = str(error)
                assert message and len(message) < 3000, where
            except OSError as error:
                assert error.strerror, where
            except Exception as error:
                raise AssertionError(f'{where}: {error!r}') from error
            finally:
                _watching = False
            assert time.process_time() - begun < SECONDS, where
            assert _peak() - memory < MEMORY, where
            assert not _seen, f'{where}: {_seen}'


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.usefixtures('_audit')
@pytest.mark.parametrize('form', FORMATS)
def test_200_mutated_files_of_a_format_do_no_harm(form: str, tmp_path: Path) -> None:
    assert_survives(form, tmp_path, 200)


@pytest.mark.slow
@pytest.mark.usefixtures('_audit')
@pytest.mark.parametrize('form', FORMATS)
def test_2000_mutated_files_of_a_format_do_no_harm(form: str, tmp_path: Path) -> None:
    assert_survives(form, tmp_path, 2000)
