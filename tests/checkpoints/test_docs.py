"""The commands of docs/checkpoints.md, run as they are printed, on weights made here."""

import importlib.util
import re
import shlex
import sys
import types
from pathlib import Path

import pytest

from mmtimesformer.checkpoints import read_checkpoint

from .conftest import IMAGE_FILES, VIDEO_FILES, random_weights

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ('docs/checkpoints.md', 'README.md')
# The width, which gives the number of heads, is that of ViT-Ti; 224 pixels are 14 patches of 16.
SIZE = {'width': 192, 'depth': 1, 'patch': 16, 'grid': 14}
SOURCES = {
    'TimeSformer_divST_8x32_224_K400.pyth': VIDEO_FILES['official'],
    'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb.pth': VIDEO_FILES['mmaction2'],
    'TimeSformer_k400.pdparams': VIDEO_FILES['paddle'],
    'timesformer.pth': VIDEO_FILES['mmtimesformer'],
}


def _commands() -> list[str]:
    found = []
    for document in DOCUMENTS:
        path = ROOT / document
        text = path.read_text(encoding='utf-8') if path.exists() else ''
        found += re.findall(r'^python tools/convert_checkpoint\.py .*$', text, re.MULTILINE)
    return list(dict.fromkeys(found))


@pytest.fixture
def hub(tmp_path, monkeypatch) -> None:
    """Stand in for the network: a repository of Hugging Face, and timm's list of models."""
    video, image = tmp_path / 'hub_video', tmp_path / 'hub_image'
    for folder in (video, image):
        folder.mkdir()
    VIDEO_FILES['huggingface'](random_weights(**SIZE), video / 'model.safetensors')
    IMAGE_FILES['timm safetensors'](random_weights(**SIZE), image / 'model.safetensors')
    hub, timm = types.ModuleType('huggingface_hub'), types.ModuleType('timm')
    hub.HfApi = lambda: types.SimpleNamespace(
        list_repo_files=lambda repository, revision: ['model.safetensors']
    )
    hub.snapshot_download = lambda repository, **_: str(
        image if repository.startswith('timm/') else video
    )
    timm.get_pretrained_cfg = lambda name, **_: types.SimpleNamespace(hf_hub_id=f'timm/{name}')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
    monkeypatch.setitem(sys.modules, 'timm', timm)


def test_the_documents_print_a_command_for_each_system() -> None:
    text = '\n'.join(_commands())
    for word in ('.pyth', '8xb8', 'hf://', '.pdparams', 'timm://', '.npz'):
        assert word in text


@pytest.mark.parametrize('command', _commands())
def test_each_printed_command_runs_as_printed(command, hub, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, write in SOURCES.items():
        write(random_weights(**SIZE), tmp_path / name)
    (tmp_path / 'my-finetuned-folder').mkdir()
    VIDEO_FILES['huggingface'](
        random_weights(**SIZE), tmp_path / 'my-finetuned-folder' / 'model.safetensors'
    )
    import numpy as np

    from .conftest import as_jax

    np.savez(tmp_path / 'ViT-B_16.npz', **as_jax(random_weights('space_only', **SIZE), heads=3))

    spec = importlib.util.spec_from_file_location(
        'convert_checkpoint', ROOT / 'tools' / 'convert_checkpoint.py'
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    arguments = shlex.split(command)[2:]
    assert tool.main(arguments) == 0
    assert read_checkpoint(tmp_path / arguments[1]).load_report.complete
