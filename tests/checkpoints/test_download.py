import hashlib
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mmtimesformer.checkpoints import read_checkpoint
from mmtimesformer.checkpoints.download import cache_folder, fetch

from .conftest import IMAGE_FILES, VIDEO_FILES, random_weights


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv('MMTIMESFORMER_CACHE', str(tmp_path / 'cache'))
    return cache_folder()


@pytest.fixture
def server(tmp_path):
    """A web server on this machine; ``.asked`` lists the paths that were asked for."""
    folder = tmp_path / 'www'
    folder.mkdir()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            file = folder / self.path.strip('/')
            if not file.is_file():
                self.send_error(404)
                return
            content = file.read_bytes()
            self.send_response(200)
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if server.breaks_off else content)

        def log_message(self, *args) -> None:
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.asked, server.breaks_off, server.folder = [], False, folder
    server.url = f'http://127.0.0.1:{server.server_address[1]}'
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_web_address_is_downloaded_once_with_progress(server, cache, capsys) -> None:
    VIDEO_FILES['official'](random_weights(), server.folder / 'model.pyth')
    for _ in range(2):
        read = read_checkpoint(f'{server.url}/model.pyth')
        assert read.source.name == 'official'
    assert server.asked == ['/model.pyth']
    assert 'downloading model.pyth' in capsys.readouterr().err


@pytest.mark.parametrize('digits', [8, 64])
def test_a_hash_is_verified_in_the_address_or_as_an_argument(digits, server, cache) -> None:
    VIDEO_FILES['official'](random_weights(), server.folder / 'model.pyth')
    right = _sha256(server.folder / 'model.pyth')[:digits]
    wrong = ('0' if right[0] != '0' else '1') + right[1:]
    with pytest.raises(ValueError, match=f'has the SHA-256 .* but {wrong} is wanted'):
        fetch(f'{server.url}/model.pyth#sha256={wrong}')
    assert not [path for path in cache.rglob('*') if path.is_file()]  # nothing has landed
    fetch(f'{server.url}/model.pyth#sha256={right}')
    fetch(f'{server.url}/model.pyth', sha256=right)
    with pytest.raises(ValueError, match='has the SHA-256'):
        fetch(f'{server.url}/model.pyth', sha256=wrong)  # also what is here already


def test_a_hash_of_a_local_file_is_verified(tmp_path) -> None:
    VIDEO_FILES['official'](random_weights(), tmp_path / 'a')
    read_checkpoint(tmp_path / 'a', sha256=_sha256(tmp_path / 'a'))
    with pytest.raises(ValueError, match='has the SHA-256'):
        read_checkpoint(tmp_path / 'a', sha256='0' * 64)
    with pytest.raises(ValueError, match='is not a hash; give 8 to 64 hexadecimal digits'):
        read_checkpoint(tmp_path / 'a', sha256='latest')


def test_a_download_that_breaks_off_leaves_nothing(server, cache) -> None:
    VIDEO_FILES['official'](random_weights(), server.folder / 'model.pyth')
    server.breaks_off = True
    with pytest.raises(ValueError, match='broke off after|cannot download'):
        fetch(f'{server.url}/model.pyth')
    assert not [path for path in cache.rglob('*') if path.is_file()]
    server.breaks_off = False
    assert read_checkpoint(f'{server.url}/model.pyth').load_report.complete


def test_a_missing_address_is_an_error_with_its_status(server, cache) -> None:
    with pytest.raises(ValueError, match='cannot download .*nothing.pth .*404'):
        fetch(f'{server.url}/nothing.pth')


class FakeHub(types.ModuleType):
    """The three calls of huggingface_hub that are used, over a folder on this machine."""

    def __init__(self, folder: Path) -> None:
        super().__init__('huggingface_hub')
        self.folder, self.calls = folder, []
        hub = self

        class HfApi:
            def list_repo_files(self, repository, revision=None):
                return [path.name for path in hub.folder.iterdir()]

        self.HfApi = HfApi

    def hf_hub_download(self, repository, file, revision=None):
        self.calls.append((repository, file, revision))
        return str(self.folder / file)

    def snapshot_download(
        self, repository, revision=None, allow_patterns=(), local_files_only=False
    ):
        self.calls.append((repository, tuple(allow_patterns), revision))
        return str(self.folder)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> FakeHub:
    (tmp_path / 'repository').mkdir()
    fake = FakeHub(tmp_path / 'repository')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', fake)
    return fake


def test_a_repository_of_hugging_face_is_read_with_its_config(hub) -> None:
    VIDEO_FILES['huggingface'](random_weights(), hub.folder / 'model.safetensors')
    config = '{"model_type": "timesformer", "num_attention_heads": 4, "num_frames": 3}'
    (hub.folder / 'config.json').write_text(config)
    (hub.folder / 'training_args.bin').write_text('not wanted')
    read = read_checkpoint('hf://owner/name@v1')
    assert read.describe().num_heads == 4
    wanted = ('config.json', '*preprocessor_config.json', 'model.safetensors')
    assert hub.calls == [('owner/name', wanted, 'v1')]


def test_shards_of_a_repository_are_asked_for_with_their_index(hub) -> None:
    (hub.folder / 'model.safetensors.index.json').write_text('{}')
    fetch('hf://owner/name')
    assert 'model-*.safetensors' in hub.calls[0][1]


def test_one_file_of_a_repository_can_be_named(hub) -> None:
    VIDEO_FILES['official'](random_weights(), hub.folder / 'weights.pyth')
    assert read_checkpoint('hf://owner/name/weights.pyth').source.name == 'official'
    assert hub.calls == [('owner/name', 'weights.pyth', None)]


@pytest.mark.parametrize(
    ('address', 'revision', 'file'),
    [
        ('owner/name@refs/pr/1', 'refs/pr/1', None),
        ('owner/name@refs/pr/12/weights/x.pth', 'refs/pr/12', 'weights/x.pth'),
        ('owner/name@refs/convert/parquet', 'refs/convert/parquet', None),
        ('owner/name@feature%2Fx', 'feature/x', None),
        ('owner/name@feature/x.pth', 'feature', 'x.pth'),
        ('owner/name@v1/x.pth', 'v1', 'x.pth'),
    ],
)
def test_a_revision_may_be_a_pull_request_or_a_branch_with_a_slash(
    address: str, revision: str, file: str | None, hub
) -> None:
    (hub.folder / 'model.safetensors').write_text('')
    (hub.folder / 'weights').mkdir()
    for name in ('x.pth', 'weights/x.pth'):
        (hub.folder / name).write_text('')
    fetch(f'hf://{address}')
    repository, what, asked = hub.calls[0]
    assert (repository, asked) == ('owner/name', revision)
    assert what == file or (file is None and 'model.safetensors' in what)


def test_a_repository_without_known_weights_asks_for_the_file(hub) -> None:
    (hub.folder / 'weights.pyth').write_text('')
    with pytest.raises(ValueError, match='name the file: hf://owner/name/FILE'):
        fetch('hf://owner/name')


def test_a_failure_of_the_hub_is_an_error_in_one_sentence(hub, monkeypatch) -> None:
    def fail(*args, **kwargs):
        raise OSError('no route to host')

    monkeypatch.setattr(hub, 'snapshot_download', fail)
    (hub.folder / 'model.safetensors').write_text('')
    with pytest.raises(ValueError, match='cannot download hf://owner/name .*no route to host'):
        fetch('hf://owner/name')


def test_a_repository_that_was_downloaded_is_used_without_a_network(
    hub, monkeypatch, capsys
) -> None:
    """As on the nodes of a cluster: HF_HUB_OFFLINE=1 lets nothing but the copy be read."""

    def fail(*args, **kwargs):
        raise OSError('offline mode is enabled')

    monkeypatch.setattr(hub.HfApi, 'list_repo_files', fail)
    index = '{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
    for name, text in (
        ('config.json', '{}'), ('model.safetensors.index.json', index), ('model-1.safetensors', ''),
    ):  # fmt: skip
        with pytest.raises(ValueError, match='offline mode is enabled'):
            fetch('hf://owner/name')
        (hub.folder / name).write_text(text)
    with pytest.raises(ValueError, match='offline mode is enabled'):  # a part is missing
        fetch('hf://owner/name')
    (hub.folder / 'model-2.safetensors').write_text('')
    assert fetch('hf://owner/name@v1') == hub.folder
    assert hub.calls[-1] == ('owner/name', (), 'v1')
    assert 'using the copy of hf://owner/name@v1 here' in capsys.readouterr().err


@pytest.mark.parametrize('source', ['hf://owner', 'hf://'])
def test_the_error_for_a_malformed_repository_shows_the_form(source, hub) -> None:
    with pytest.raises(ValueError, match='write hf://owner/name'):
        fetch(source)


def test_timm_names_the_file_and_the_hub_brings_it(hub, monkeypatch) -> None:
    timm = types.ModuleType('timm')
    config = types.SimpleNamespace(
        hf_hub_id='timm/', architecture='vit_base_patch16_224', tag='augreg_in21k', url=''
    )
    timm.get_pretrained_cfg = lambda name, allow_unregistered: config
    monkeypatch.setitem(sys.modules, 'timm', timm)
    IMAGE_FILES['timm safetensors'](random_weights(), hub.folder / 'model.safetensors')
    read = read_checkpoint('timm://vit_base_patch16_224.augreg_in21k')
    assert read.source.name == 'timm_vit'
    assert hub.calls[0][0] == 'timm/vit_base_patch16_224.augreg_in21k'


def test_an_unknown_timm_model_is_an_error_that_names_the_list(monkeypatch) -> None:
    def fail(name, allow_unregistered):
        raise RuntimeError('Model architecture has no pretrained cfg registered.')

    timm = types.ModuleType('timm')
    timm.get_pretrained_cfg = fail
    monkeypatch.setitem(sys.modules, 'timm', timm)
    with pytest.raises(ValueError, match='timm.list_pretrained'):
        fetch('timm://vit_huge_and_more')


def test_timm_weights_at_a_web_address_are_downloaded(server, cache, monkeypatch) -> None:
    timm = types.ModuleType('timm')
    IMAGE_FILES['jax'](random_weights(), server.folder / 'vit.npz')
    config = types.SimpleNamespace(hf_hub_id=None, url=f'{server.url}/vit.npz')
    timm.get_pretrained_cfg = lambda name, allow_unregistered: config
    monkeypatch.setitem(sys.modules, 'timm', timm)
    assert read_checkpoint('timm://vit').source.name == 'jax_vit'


@pytest.mark.parametrize(
    ('source', 'package'), [('hf://owner/name', 'huggingface_hub'), ('timm://vit', 'timm')]
)
def test_the_error_without_the_package_names_the_pip_command(source, package, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f'needs the package {package}.*pip install {package}'):
        fetch(source)
