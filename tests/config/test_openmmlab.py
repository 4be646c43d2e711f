"""`mmengine.hub` and `_base_ = 'mmtimesformer::…'` find our configs; `get_model` builds them."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mmaction
import pytest
import torch
from mmengine.config import Config, utils
from mmengine.hub import get_config, get_model, hub
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import Runner

import mmtimesformer
from mmtimesformer import VideoClassifier
from mmtimesformer.config import model_zoo
from mmtimesformer.config.model_zoo import config_names, weights_of

CONFIGS = Path(__file__).parents[2] / 'configs' / 'timesformer'
NAME = 'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb'
DEMO = 'timesformer_divST-tiny_moving-shapes'


@pytest.fixture(autouse=True)
def _scope_as_before() -> Iterator[None]:
    before = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


def address(name: str) -> str:
    return f'mmtimesformer::timesformer/{name}.py'


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[str]]]:
    """A folder that a web server on this machine serves as the published weights of the demo."""
    folder = tmp_path / 'www'
    folder.mkdir()
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02}).start()
    weights = f'http://127.0.0.1:{server.server_address[1]}/weights.pth'
    entry = {'Name': DEMO, 'Config': f'configs/timesformer/{DEMO}.py', 'Weights': weights}
    entry |= {'Weights Origin': 'a test', 'Weights License': 'none'}
    entries = {**model_zoo.metafile_entries(), DEMO: entry}
    monkeypatch.setattr('mmtimesformer.config.model_zoo.metafile_entries', lambda: entries)
    monkeypatch.setattr('mmtimesformer.config.openmmlab.metafile_entries', lambda: entries)
    monkeypatch.setenv('MMTIMESFORMER_CACHE', str(tmp_path / 'cache'))
    yield folder, asked
    server.shutdown()
    server.server_close()


def test_get_config_reads_a_shipped_config_and_the_address_of_its_weights() -> None:
    cfg = get_config(address(NAME), pretrained=True)
    assert cfg.pop('model_path') == weights_of(NAME)
    assert cfg.to_dict() == Config.fromfile(CONFIGS / f'{NAME}.py').to_dict()


def test_a_config_outside_the_metafile_and_a_part_of_configs_are_found() -> None:
    assert get_config(address(DEMO)).default_scope == 'mmaction'
    part = get_config('mmtimesformer::_base_/models/timesformer_tiny.py')
    assert part.model.backbone.type == 'mmtimesformer.TimeSformer'


def test_a_wrong_name_is_an_error_that_says_where_the_names_are() -> None:
    with pytest.raises(FileNotFoundError, match='has no config .*configs/timesformer/README.md'):
        get_config(address('no-such-config'))


def test_configs_of_other_packages_stay_with_mmengine() -> None:
    """Asked directly: `mmaction::` itself fails under MMEngine 0.11 by a list in its metafile."""
    folder = str(Path(mmaction.__file__).parent)
    path = utils._get_external_cfg_base_path(folder, f'recognition/timesformer/{NAME}.py')
    assert Path(path).is_relative_to(folder)


@pytest.mark.parametrize('name', config_names())
def test_get_model_builds_every_shipped_config(name: str) -> None:
    # Paddle's mixing of batches calls Tensor.item, which a meta tensor has not
    before = DefaultScope.get_current_instance()
    with nullcontext() if name.startswith('pp-') else torch.device('meta'):
        model = get_model(address(name))
    assert type(model.backbone) is mmtimesformer.TimeSformer
    after = DefaultScope.get_current_instance()
    assert (after and after.scope_name) == (before and before.scope_name)


def test_get_model_downloads_the_published_weights_once(served: tuple[Path, list[str]]) -> None:
    folder, asked = served
    trained = get_model(address(DEMO))
    torch.save({'state_dict': trained.state_dict()}, folder / 'weights.pth')
    for _ in range(2):
        model = get_model(address(DEMO), pretrained=True)
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, trained.state_dict()[name]), name
    assert asked == ['/weights.pth']


@pytest.mark.parametrize('name', [DEMO, 'timesformer_divST_1xb8-8x16x1-20e_ucf101-split1-rgb'])
def test_pretrained_without_published_weights_is_one_sentence(name: str) -> None:
    """The first is in no metafile, the second has an entry without weights."""
    for get in (get_config, hub.get_config, get_model):
        with pytest.raises(ValueError, match=f'nobody publishes weights for .*{name}.py; leave'):
            get(address(name), pretrained=True)
    assert 'model_path' not in get_config(address(name))
    with pytest.raises(FileNotFoundError, match='has no config timesformer/no-such'):
        get_model('mmtimesformer::timesformer/no-such.py', pretrained=True)


@pytest.mark.filterwarnings('ignore')
def test_a_config_with_our_config_as_base_trains_in_mmengines_runner(
    tiny_videos: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = '{address(DEMO)}'\ntrain_cfg = dict(max_epochs=1, val_begin=1)\n")
    cfg = Config.fromfile(path)
    assert cfg.model._scope_ == 'mmtimesformer'
    for loader, names in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        one = cfg[f'{loader}_dataloader']
        one.update(batch_size=2, num_workers=0, persistent_workers=False)
        one.dataset.ann_file = str(tiny_videos / f'{names}.txt')
        one.dataset.data_prefix.video = str(tiny_videos)
        one.dataset.metainfo.classes = ['a', 'b']
    cfg.train_cfg.val_interval = 1
    cfg.work_dir, cfg.experiment_name = str(tmp_path / 'run'), tmp_path.name
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert type(runner.model.backbone) is mmtimesformer.TimeSformer
    stored = VideoClassifier(None, tmp_path / 'run' / 'epoch_1.pth')  # by the config inside
    assert stored(tiny_videos / '0.mp4').all_scores.shape == (8,)
    assert 'Failed to search registry' not in ''.join(capfd.readouterr())


def test_bare_names_of_mmaction2_are_found_in_our_scope() -> None:
    with DefaultScope.overwrite_default_scope('mmtimesformer'):
        assert MODELS.build({'type': 'CrossEntropyLoss'}).loss_weight == 1
        with pytest.raises(Exception, match='no.such|NoSuch'):
            MODELS.build({'type': 'NoSuchLoss'})
        with pytest.raises(Exception, match='NoSuch'):
            DATASETS.build({'type': 'mmtimesformer.NoSuch'})


def test_without_import_mmengine_says_that_it_does_not_have_us() -> None:
    code = f"from mmengine.hub import get_config; get_config('{address(NAME)}')"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'does not support to load mmtimesformer config' in done.stderr
