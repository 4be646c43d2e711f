"""D1 to D8 of the demo page, each through its HTTP API (where Gradio is installed)."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmtimesformer.config.find import find_config
from tests.conftest import write_video
from tests.page_requirements import require, with_gradio
from tests.visualization.browser import free_port

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'demo_app.py'
API = '/gradio_api'
NAME = '<img src=x onerror=alert(9)>.pth'
CLASSES = [
    '$x_{$', 'win $100 or $50', '<b>bold</b>', '\x1b]0;title\x07', 'çlass 类别', '${alert(9)}',
    '{{title}}', '</script><script>alert(9)</script>',
]  # fmt: skip
PLAYLIST = '#EXTM3U\n{}#EXT-X-TARGETDURATION:9\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n'


class Recorder:
    """Listens at a port and keeps what is sent there."""

    def __init__(self) -> None:
        self.socket = socket.create_server(('127.0.0.1', 0))
        self.port = self.socket.getsockname()[1]
        self.received: list[bytes] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self.socket.accept()
                with caller:
                    caller.settimeout(1)
                    with contextlib.suppress(OSError):
                        self.received.append(caller.recv(1000))


class Page:
    """A page that is served, and its HTTP API."""

    def __init__(self, home: Path, address: str, process: subprocess.Popen) -> None:
        self.home, self.address, self.process = home, address, process
        self.folder = next(iter(self.written()))
        self.config = json.loads(self.get('/config')[1])
        self.answer = next(
            one['id'] for one in self.config['dependencies'] if len(one['outputs']) == 4
        )

    def written(self) -> list[Path]:
        """List the folders that the page has made."""
        return list((self.home / 'tmp').glob('mmtimesformer-*'))

    def answered(self) -> int:
        """Return how many answers were computed."""
        return max(
            (int(one.name.split('-')[0]) for one in (self.folder / 'answers').iterdir()), default=0
        )

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        return self._ask(path, None, headers)

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, bytes]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._ask(path, data, {'Content-Type': 'application/json', **headers})

    def upload(self, name: str, content: bytes, **headers: str) -> tuple[int, bytes]:
        head = f'--xx\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        form = {'Content-Type': 'multipart/form-data; boundary=xx', **headers}
        return self.post(f'{API}/upload', head.encode() + content + b'\r\n--xx--\r\n', **form)

    def uploaded(self, name: str, content: bytes) -> str:
        status, body = self.upload(name, content)
        assert status == 200, body
        return json.loads(body)[0]

    def join(self, path: str | None, session: str) -> tuple[int, bytes]:
        file = path and {'path': path, 'meta': {'_type': 'gradio.FileData'}}
        data = [file, 'attention rollout, all layers']
        asked = {'data': data, 'fn_index': self.answer, 'session_hash': session}
        return self.post(f'{API}/queue/join', asked)

    def connect(self, session: str) -> Any:
        address = f'{self.address}{API}/queue/data?session_hash={session}'
        return OPENER.open(address, timeout=120)

    @contextlib.contextmanager
    def connect_after_join(self, path: str, session: str) -> Iterator[tuple[str, Any]]:
        """Ask, and hold the connection; give the number of the request, and the connection."""
        event = json.loads(self.join(path, session)[1])['event_id']
        with self.connect(session) as messages:
            yield event, messages

    def ask(self, path: str | None) -> list[Any]:
        """Ask about an upload; return the words, the grid, the overlay and the page of layers."""
        session = uuid.uuid4().hex
        status, body = self.join(path, session)
        assert status == 200, body
        with self.connect(session) as messages:
            for line in messages:
                message = json.loads(line[5:]) if line.startswith(b'data:') else {}
                if message.get('msg') in ('process_completed', 'unexpected_error'):
                    assert message['success'], message
                    return message['output']['data']
        raise AssertionError('no answer came')

    def _ask(self, path: str, data: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        headers = {name.replace('_', '-'): value for name, value in headers.items()}
        request = urllib.request.Request(self.address + path, data, headers)
        try:
            with OPENER.open(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope='module')
def proxy() -> Recorder:
    return Recorder()


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint whose name and classes are hostile, and videos."""
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    folder = tmp_path_factory.mktemp('home')
    register_all_modules(init_default_scope=False)
    cfg = Config.fromfile(find_config('timesformer_divST-tiny_moving-shapes'))
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(cfg.model)
    meta = {'cfg': cfg.pretty_text, 'dataset_meta': {'classes': CLASSES}}
    torch.save({'meta': meta, 'state_dict': model.state_dict()}, folder / NAME)
    (folder / 'examples').mkdir()
    write_video(folder / 'video.mp4')
    write_video(folder / 'secret.mp4', seed=3)
    shutil.copyfile(folder / 'video.mp4', folder / 'examples' / '<b>a.mp4')
    playlist = PLAYLIST.format('#\x01\n', folder / 'secret.mp4')
    (folder / 'examples' / 'list.mp4').write_text(playlist)
    return folder


@contextlib.contextmanager
def served(home: Path, proxy: Recorder, host: str = '127.0.0.1') -> Iterator[Page]:
    """Serve a page as a user does; what it prints goes to ``output.txt``."""
    port = free_port()
    command = [
        sys.executable, str(TOOL), '--host', host, '--port', str(port), '--device', 'cpu',
        '--checkpoint', NAME, '--examples', 'examples',
    ]  # fmt: skip
    through = f'http://127.0.0.1:{proxy.port}'
    names = ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'all_proxy', 'ALL_PROXY')
    environment = {**os.environ, **dict.fromkeys(names, through)}
    environment.pop('no_proxy', None), environment.pop('NO_PROXY', None)
    environment['PYTHONPATH'] = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    temporary = home / 'tmp'
    temporary.mkdir(exist_ok=True)
    environment['TMPDIR'] = str(temporary)
    with (home / 'output.txt').open('w') as output:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=output, stderr=output)
        try:
            for _ in range(1200):
                if 'Ctrl-C' in (home / 'output.txt').read_text():
                    break
                assert process.poll() is None, (home / 'output.txt').read_text()
                time.sleep(0.1)
            address = (home / 'output.txt').read_text().split('  ')[0]
            yield Page(home, address, process)
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope='module')
def page(home: Path, proxy: Recorder) -> Iterator[Page]:
    require('Gradio')
    with served(home, proxy) as page:
        yield page


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location('demo_app', TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words_of(answer: list[Any]) -> str:
    return answer[0] if isinstance(answer[0], str) else answer[0]['value']


# D1: what is uploaded opens no other file


@pytest.mark.parametrize('name', ['x.m3u8', 'x.mp4'])
@pytest.mark.parametrize('disguise', ['', '#\x01\n'], ids=['text', 'control byte'])
def test_d1_a_playlist_is_refused_and_what_it_names_is_not_shown(
    page: Page, home: Path, name: str, disguise: str
) -> None:
    for target in (home / 'secret.mp4', 'secret.mp4', f'file://{home}/secret.mp4'):
        content = PLAYLIST.format(disguise, target).encode()
        found = page.ask(page.uploaded(name, content))
        assert 'class="error"' in words_of(found)
        assert 'class="labels"' not in words_of(found)
        assert found[1:] == ['', '', '']


def test_d1_a_list_of_files_for_ffmpeg_is_refused(page: Page, home: Path) -> None:
    lists = {
        'x.ffconcat': f'ffconcat version 1.0\nfile {home}/secret.mp4\n',
        'x.mpd': f'<?xml version="1.0"?><MPD><BaseURL>{home}/secret.mp4</BaseURL></MPD>',
        'x.sdp': 'v=0\nc=IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96\na=rtpmap:96 H264/90000\n',
    }
    for name, content in lists.items():
        words = words_of(page.ask(page.uploaded(name, content.encode())))
        assert 'class="error"' in words and 'class="labels"' not in words


@pytest.mark.parametrize('path', ['{home}/secret.mp4', 'file://{home}/secret.mp4', 'secret.mp4'])
def test_d1_a_path_of_the_server_is_no_upload(page: Page, home: Path, path: str) -> None:
    status, body = page.join(path.format(home=home), 'abc')
    assert status == 400 and b'was uploaded to this page' in body


def test_d1_an_example_that_is_a_playlist_is_not_offered(page: Page) -> None:
    assert 'data-name=\\"&lt;b&gt;a\\"' in json.dumps(page.config)
    assert 'data-name=\\"list\\"' not in json.dumps(page.config)


# D2: nothing is sent anywhere


def test_d2_nothing_goes_through_a_proxy_or_to_an_address_that_a_request_names(
    page: Page, proxy: Recorder, home: Path
) -> None:
    target = Recorder()
    url = f'http://127.0.0.1:{target.port}/x.mp4'
    assert page.join(url, 'abc')[0] == 400
    assert page.get(f'{API}/proxy={url}')[0] == 404
    assert page.get(f'{API}/file={url}')[0] == 404
    words = words_of(page.ask(page.uploaded('x.m3u8', PLAYLIST.format('#\x01\n', url).encode())))
    assert 'class="error"' in words
    page.ask(page.uploaded('video.mp4', (home / 'video.mp4').read_bytes()))
    assert proxy.received == [] and target.received == []


# D3: what was written is removed


def test_d3_an_aborted_upload_leaves_nothing(page: Page) -> None:
    host, port = re.fullmatch(r'http://([\d.]+):(\d+)', page.address).groups()
    before = {path for path in page.folder.rglob('*') if path.is_file()}
    with socket.create_connection((host, int(port))) as connection:
        head = (
            f'POST {API}/upload HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 9000000\r\n'
            'Content-Type: multipart/form-data; boundary=xx\r\n\r\n--xx\r\n'
            'Content-Disposition: form-data; name="files"; filename="x.mp4"\r\n\r\n'
        )
        connection.sendall(head.encode() + b'0' * 300_000)
        time.sleep(0.5)
        assert {path for path in page.folder.rglob('*') if path.is_file()} > before
    for _ in range(100):
        left = {path for path in page.folder.rglob('*') if path.is_file()} - before
        if not left:
            return
        time.sleep(0.1)
    raise AssertionError(f'{left} are left')


@with_gradio
def test_d3_sigterm_ends_the_page_like_ctrl_c_and_removes_what_it_wrote(
    home: Path, proxy: Recorder, tmp_path: Path
) -> None:
    own = tmp_path / 'home'
    shutil.copytree(home, own, ignore=shutil.ignore_patterns('tmp'))
    host = '::1' if _has_ipv6() else '127.0.0.1'
    with served(own, proxy, host) as page:
        if host == '::1':
            assert page.address.startswith('http://[::1]:')  # D6
        path = page.uploaded('video.mp4', (own / 'video.mp4').read_bytes())
        page.ask(path)
        page.join(path, 'abc')
        with page.connect('abc'):  # an answer is being made, and waited for
            page.process.send_signal(signal.SIGTERM)
            assert page.process.wait(60) == 0
        left = {path.name for path in (own / 'tmp').iterdir()}
        assert not {name for name in left if not name.startswith('torchinductor_')}
    assert (own / 'output.txt').read_text().splitlines() == [f'{page.address}  (Ctrl-C ends it)']


# D4, D5: names are text


def test_d4_the_name_of_the_checkpoint_is_escaped(page: Page) -> None:
    for path in ('/', '/config'):
        text = page.get(path)[1].decode().replace('\\u003c', '<').replace('\\u0026', '&')
        assert '<img src=x' not in text
        assert '&lt;img src=x onerror=alert(9)&gt;.pth' in text


def test_d5_classes_that_are_markup_or_mathtext_get_labels_and_pictures(
    page: Page, home: Path
) -> None:
    path = page.uploaded('$x_{$ <b>.mp4', (home / 'video.mp4').read_bytes())
    words, grid, overlay, walk = page.ask(path)
    assert 'class="labels"' in words
    assert '<b>bold' not in words and '<script' not in words + walk
    assert '\x1b' not in words + walk
    (picture,) = re.findall(r'<img src="\.(.*?)"', grid)
    assert page.get(picture)[1].startswith(b'\x89PNG')
    assert '<b>bold' not in grid + overlay and '<video' in overlay and '<iframe' in walk


# D6: hosts


def _has_ipv6() -> bool:
    try:
        with socket.create_server(('::1', 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize('host', ['::1', '[::1]'])
def test_d6_an_ipv6_host_is_served(tool: ModuleType, host: str) -> None:
    if not _has_ipv6():
        pytest.skip('this machine has no IPv6')
    (one,) = tool.bind(host, 0)
    with one:
        assert one.getsockname()[0] == '::1'
    assert tool.address_of(host, 7860) == 'http://[::1]:7860'


@pytest.mark.parametrize('host', ['no-such-host.invalid', 'a' * 300, '1.2.3.4.5'])
def test_d6_a_host_that_does_not_resolve_is_an_error(tool: ModuleType, host: str) -> None:
    with pytest.raises(OSError, match=f'the host {host} cannot be resolved .* give --host'):
        tool.bind(host, 7860)


def test_d6_a_host_of_another_machine_and_a_port_in_use_have_different_messages(
    tool: ModuleType,
) -> None:
    with pytest.raises(OSError, match=r'the host 192\.0\.2\.1 is not an address of this machine'):
        tool.bind('192.0.2.1', 0)
    with socket.create_server(('127.0.0.1', 0)) as taken:
        with pytest.raises(OSError, match='may be in use; give --port another number'):
            tool.bind('127.0.0.1', taken.getsockname()[1])
    with pytest.raises(SystemExit):
        tool.parse_args(['--port', '65536'])


# D7: the queue


def test_d7_requests_that_were_given_up_are_refused_or_not_computed(page: Page, home: Path) -> None:
    path = page.uploaded('again.mp4', (home / 'video.mp4').read_bytes())
    page.ask(path)
    before = page.answered()
    answers = [page.join(path, uuid.uuid4().hex) for _ in range(20)]
    full = [body for status, body in answers if status == 503]
    assert len(full) >= 8, 'the queue has no bound'
    assert all(status in (200, 503) for status, _ in answers)
    time.sleep(5)  # by then nobody waits for them
    assert 'class="labels"' in words_of(page.ask(path))
    assert page.answered() == before + 1


def test_d7_what_is_cancelled_or_whose_connection_is_closed_is_not_computed(
    page: Page, home: Path
) -> None:
    path = page.uploaded('more.mp4', (home / 'video.mp4').read_bytes())
    page.ask(path)
    write_video(home / 'long.mp4', num_frames=300, seed=5)
    long = page.uploaded('long.mp4', (home / 'long.mp4').read_bytes())
    before = page.answered()
    running, cancelled, closed = (uuid.uuid4().hex for _ in range(3))
    page.join(long, running)
    with page.connect(running), page.connect_after_join(path, cancelled) as (event, _):
        asked = {'event_id': event, 'session_hash': cancelled, 'fn_index': page.answer}
        assert page.post(f'{API}/cancel', asked)[0] == 200
        page.join(path, closed)
        page.connect(closed).close()
        assert 'class="labels"' in words_of(page.ask(path))
    assert page.answered() == before + 2, 'a request that was given up was computed'


def test_d7_two_requests_at_once_get_their_own_answers(page: Page, home: Path) -> None:
    for seed in (7, 8):
        write_video(home / f'{seed}.mp4', seed=seed)
    paths = [page.uploaded(f'{seed}.mp4', (home / f'{seed}.mp4').read_bytes()) for seed in (7, 8)]
    with ThreadPoolExecutor() as pool:
        at_once = list(pool.map(page.ask, paths * 2))
    alone = [page.ask(path) for path in paths]
    for found, expected in zip(at_once, alone * 2, strict=True):
        assert (words_of(found), found[3]) == (words_of(expected), expected[3])
    assert alone[0][3] != alone[1][3] and '7.mp4' in alone[0][3] and '8.mp4' in alone[1][3]


# D8: quiet, without paths, for its own origin


def test_d8_no_path_of_the_server_is_shown(page: Page, home: Path) -> None:
    upload = page.upload('video.mp4', (home / 'video.mp4').read_bytes())[1].decode()
    answer = json.dumps(page.ask(json.loads(upload)[0]))
    failed = json.dumps(page.ask(page.uploaded('x.mp4', b'no video')))
    shown = [page.get(path)[1].decode() for path in ('/', '/config', f'{API}/info')]
    for text in (upload, answer, failed, *shown):
        assert str(home) not in text and 'mmtimesformer-' not in text
        assert not re.search(r'["=(](/tmp|/root|/home|/work|/usr)/', text)


@pytest.mark.parametrize(
    'headers',
    [
        {'Origin': 'http://evil.example'},
        {'Origin': 'null'},
        {'Host': 'evil.example', 'Origin': 'http://evil.example'},
    ],
)
def test_d8_other_origins_write_nothing(page: Page, headers: dict[str, str]) -> None:
    before = sorted(page.folder.rglob('*'))
    status, _ = page.upload('x.mp4', b'from elsewhere', **headers)
    assert status == 403
    assert page.get('/config', **headers)[0] == 403
    assert sorted(page.folder.rglob('*')) == before


def test_d8_an_upload_that_is_a_page_runs_no_script(page: Page) -> None:
    path = page.uploaded('x.html', b'<script>alert(9)</script>')
    request = urllib.request.Request(f'{page.address}{API}/file={path}')
    with OPENER.open(request) as answer:
        assert 'sandbox' in answer.headers['content-security-policy']
        assert answer.headers['content-disposition'].startswith('attachment')


def test_d8_the_terminal_stays_quiet_whatever_is_sent(page: Page, home: Path) -> None:
    page.join(None, 'abc')
    for body in (b'{', {'data': ['x'] * 9, 'fn_index': 10**9, 'session_hash': 'abc'}):
        page.post(f'{API}/queue/join', body)
        page.post(f'{API}/run/predict', body)
    page.post(f'{API}/queue/join', {'data': [1], 'fn_index': page.answer, 'session_hash': 'abc'})
    page.post(f'{API}/upload', b'no form')
    page.get(f'{API}/queue/data?session_hash=nobody')
    page.ask(page.uploaded('x.mp4', b'\0\1 no video \xff' * 99))
    printed = (home / 'output.txt').read_text().splitlines()
    assert printed == [f'{page.address}  (Ctrl-C ends it)']
