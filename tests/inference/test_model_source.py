"""What the user gave becomes a config and a checkpoint, for the tools and for VideoClassifier."""

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from mmtimesformer import VideoClassifier
from mmtimesformer.config import find
from mmtimesformer.config.find import find_config
from mmtimesformer.config.model_zoo import PublishedWeights, config_names, weights_of
from mmtimesformer.inference import model_source as module
from mmtimesformer.inference.model_source import ModelSource, model_source

NAME = 'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb'
UNPUBLISHED = 'timesformer_divST-tiny_moving-shapes'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config, a checkpoint, and a folder of transformers."""
    monkeypatch.chdir(tmp_path)
    for name in ('c.py', 'c.json', 'a.pth', 'plain', 'model.safetensors.index.json'):
        (tmp_path / name).touch()
    (tmp_path / 'hf_folder').mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ('given', 'config', 'checkpoint'),
    [
        (['a.pth'], None, 'a.pth'),
        (['plain'], None, 'plain'),
        (['hf_folder'], None, 'hf_folder'),
        (['model.safetensors.index.json'], None, 'model.safetensors.index.json'),
        (['c.py', 'a.pth'], 'c.py', 'a.pth'),
        (['a.pth', 'c.py'], 'c.py', 'a.pth'),
        (['c.json', 'plain'], 'c.json', 'plain'),
        (['plain', 'c.json'], 'c.json', 'plain'),
        (['hf_folder', NAME], NAME, 'hf_folder'),
        ([f'{NAME}.py', 'owner/name'], f'{NAME}.py', 'hf://owner/name'),
        (['owner/name@v1', NAME], NAME, 'hf://owner/name@v1'),
        (['owner/name'], None, 'hf://owner/name'),
        (['owner/na-me.1@main'], None, 'hf://owner/na-me.1@main'),
        (['hf://owner/name@v1'], None, 'hf://owner/name@v1'),
        (['https://host/a.pth'], None, 'https://host/a.pth'),
        (['timm://vit', 'c.py'], 'c.py', 'timm://vit'),
        (['a.pth', 'unknown'], 'unknown', 'a.pth'),  # an error of the config, with near names
        (['unknown', 'a.pth'], 'unknown', 'a.pth'),
        (['gone.py', 'gone.pth'], 'gone.py', 'gone.pth'),
    ],
)
def test_what_was_given_is_a_config_or_a_checkpoint(
    given: list[str], config: str | None, checkpoint: str
) -> None:
    assert model_source(*given) == ModelSource(config, checkpoint)


def test_a_config_object_may_stand_in_both_places(folder: Path) -> None:
    config = Config({'model': 1})
    for source in (model_source(config, 'a.pth'), model_source('a.pth', config)):
        assert source.config is config and source.checkpoint == 'a.pth'
    assert model_source(checkpoint=folder / 'a.pth').checkpoint == str(folder / 'a.pth')


@pytest.mark.parametrize('name', [NAME, f'{NAME}.py'])
def test_a_shipped_name_has_its_published_weights(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address = weights_of(NAME)
    assert address is not None
    assert model_source(name) == ModelSource(NAME, address)
    shown = capsys.readouterr().err
    assert shown.startswith(f'weights of {NAME}: {address} (from ') and 'license' in shown


def test_a_local_path_wins_over_a_shipped_name_and_over_a_repository(folder: Path) -> None:
    (folder / NAME).mkdir()
    assert model_source(NAME) == ModelSource(None, NAME)
    (folder / 'owner').mkdir()
    (folder / 'owner/name').touch()
    assert model_source('owner/name') == ModelSource(None, 'owner/name')


def test_with_a_checkpoint_a_folder_without_weights_does_not_hide_a_name(folder: Path) -> None:
    """A user in work_dirs has a folder of this name for each config that was trained."""
    (folder / NAME).mkdir()
    assert model_source(NAME, 'a.pth') == ModelSource(NAME, 'a.pth')
    assert model_source('a.pth', NAME) == ModelSource(NAME, 'a.pth')
    assert model_source(NAME) == ModelSource(None, NAME)  # never other weights than expected
    (folder / NAME / 'model.safetensors').touch()
    with pytest.raises(ValueError, match='are both checkpoints'):
        model_source(NAME, 'a.pth')


def test_an_owner_that_is_a_local_folder_is_told_how_to_name_the_hub(folder: Path) -> None:
    (folder / 'facebook').mkdir()
    with pytest.raises(FileNotFoundError, match='or write hf://facebook/timesformer for the'):
        model_source('facebook/timesformer')


@pytest.mark.parametrize(
    ('given', 'error'),
    [
        ([], 'a classifier needs weights; give checkpoint, or the name of a shipped config'),
        (['c.py'], 'c.py is a config, and a model needs weights; add a checkpoint: c.py CHECKP'),
        ([Config({})], 'the config is a config, and a model needs weights'),
        ([UNPUBLISHED], f'nobody publishes weights for it; add a checkpoint: {UNPUBLISHED} CH'),
        ([str(find_config(NAME))], f'or give its name alone, {NAME}, for its published weights'),
        (['c.py', NAME], f'c.py and {NAME} are both configs; give CONFIG and CHECKPOINT'),
        (['a.pth', 'hf_folder'], 'a.pth and hf_folder are both checkpoints'),
        (['a.pth', 'owner/name'], 'a.pth and owner/name are both checkpoints'),
        (['gone.py'], 'config gone.py is neither a file'),
        (['gone.pth'], 'checkpoint gone.pth does not exist (looked in'),
        (['hf_folder/gone'], 'checkpoint hf_folder/gone does not exist (looked in'),
        (['./owner/name'], 'checkpoint ./owner/name does not exist'),
        ([NAME[:-1]], f"is no name of a shipped config, and no owner/name of the Hugging Face Hub; "
         f"did you mean '{NAME}'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(given: list[str], error: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        model_source(*given)
    assert error in str(raised.value) and '\n' not in str(raised.value)


def test_every_shipped_name_is_a_config_and_no_repository() -> None:
    for name in config_names():
        assert module._is_config(name) and not module._is_checkpoint(name)


@pytest.fixture
def address(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the checkpoint on a local server."""
    monkeypatch.setenv('MMTIMESFORMER_CACHE', str(tmp_path / 'cache'))
    handler = partial(SimpleHTTPRequestHandler, directory=str(checkpoint.parent))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/{checkpoint.name}'
        server.shutdown()


def test_the_classifier_takes_all_of_it(
    config: Path,
    checkpoint: Path,
    address: str,
    tiny_videos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    video = tiny_videos / '0.mp4'
    both = VideoClassifier(config, checkpoint, device='cpu')
    swapped = VideoClassifier(checkpoint, config, device='cpu')
    alone = VideoClassifier(checkpoint, device='cpu')
    assert both.given_config == swapped.given_config == str(config)
    assert alone.given_config is None and alone.checkpoint == str(checkpoint)
    for place in (module, find):
        monkeypatch.setattr(place, 'shipped_configs', lambda: {'own_name': config})
    published = PublishedWeights(address, 'me', 'CC0')
    monkeypatch.setattr(module, 'published_weights', {'own_name': published}.get)
    by_name = VideoClassifier('own_name', device='cpu')
    assert by_name.given_config == 'own_name' and by_name.checkpoint == address
    assert f'weights of own_name: {address} (from me, license CC0)' in capfd.readouterr().err
    scores = both(video).all_scores
    for one in (swapped, alone, by_name):
        assert np.array_equal(one(video).all_scores, scores)


def test_a_relative_path_with_a_home_folder_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('HOME', str(folder / 'home'))
    (folder / 'home').mkdir()
    shutil.copy(folder / 'c.py', folder / 'home/c.py')
    assert model_source('~/a.pth', '~/c.py') == ModelSource('~/c.py', '~/a.pth')
