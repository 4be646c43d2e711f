"""The layer in front of the demo page's web framework, without the framework."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtimesformer.visualization import page_guard
from mmtimesformer.visualization.page_guard import (
    API,
    FILES,
    PageGuard,
    Waiting,
    host_check,
    name_of,
)

HOST = {'host': '127.0.0.1:7860'}
JOIN = f'{API}/queue/join'
UPLOAD = f'{API}/upload'


class Framework:
    """Stands for the web framework: keeps what it was asked, answers what it is to answer."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.body = b''
        self.headers: dict[bytes, bytes] = {}
        self.answer = b'{}'
        self.kind = 'application/json'
        self.error: Exception | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope['path'])
        self.headers = dict(scope['headers'])
        message = await receive()
        self.body = message.get('body', b'')
        if self.error:
            raise self.error
        headers = [(b'content-type', self.kind.encode()), (b'content-length', b'2')]
        await send({'type': 'http.response.start', 'status': 200, 'headers': headers})
        half = len(self.answer) // 2
        pieces = [self.answer[:half], self.answer[half:]]
        for i, piece in enumerate(pieces):
            more = i + 1 < len(pieces)
            await send({'type': 'http.response.body', 'body': piece, 'more_body': more})


Ask = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture
def framework() -> Framework:
    return Framework()


@pytest.fixture
def guard(framework: Framework, tmp_path: Path) -> PageGuard:
    for name in ('uploads/1a2b', 'answers/1'):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / 'uploads/1a2b/x.mp4').write_bytes(b'video')
    guard = PageGuard(tmp_path.resolve(), host_check(['127.0.0.1'], ['127.0.0.1']), 1000)
    guard.app = framework
    return guard


@pytest.fixture
def ask(guard: PageGuard) -> Ask:
    """Send a request; return status, headers and body of the answer."""

    def run(
        method: str, path: str, body: bytes = b'', query: str = '', **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        given = {**HOST, 'content-length': str(len(body)), **headers}
        pairs = [(k.replace('_', '-').encode(), v.encode('latin-1')) for k, v in given.items()]
        scope = {
            'type': 'http', 'method': method, 'path': path, 'headers': pairs,
            'query_string': query.encode(),
        }  # fmt: skip
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {'type': 'http.request', 'body': body, 'more_body': False}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(guard(scope, receive, send))
        start = sent[0]
        found = {k.decode(): v.decode() for k, v in start['headers']}
        return start['status'], found, b''.join(one.get('body', b'') for one in sent[1:])

    return run


def question(path: Any) -> bytes:
    file = {
        'path': path,
        'url': 'http://x/',
        'is_stream': True,
        'meta': {'_type': 'gradio.FileData'},
    }
    return json.dumps({'data': [file, 'rollout'], 'session_hash': 'abc', 'fn_index': 1}).encode()


# Who may ask


@pytest.mark.parametrize(
    ('bound', 'host', 'allowed'),
    [
        ('127.0.0.1', 'localhost', True),
        ('127.0.0.1', 'LOCALHOST.', True),
        ('127.0.0.1', '127.0.0.1', True),
        ('::1', '::1', True),
        ('127.0.0.1', '192.168.0.7', False),
        ('127.0.0.1', 'evil.example', False),
        ('127.0.0.1', '', False),
        ('127.0.0.1', '127.0.0.1.evil.example', False),
        ('0.0.0.0', '192.168.0.7', True),
        ('::', 'fe80::1%eth0', True),
        ('0.0.0.0', 'evil.example', False),
        ('0.0.0.0', 'gpu7', True),
    ],
)
def test_a_host_name_that_could_be_rebound_is_refused(bound: str, host: str, allowed: bool) -> None:
    assert host_check([bound], ['gpu7'])(host) is allowed


@pytest.mark.parametrize(
    ('host', 'name'),
    [
        ('localhost', 'localhost'), ('localhost:1', 'localhost'), ('[::1]:7860', '::1'),
        ('[::1]', '::1'), ('a:b:1', ''), ('', ''), ('x@localhost', 'x@localhost'),
    ],
)  # fmt: skip
def test_a_host_header_is_read_without_its_port(host: str, name: str) -> None:
    assert name_of(host) == name


@pytest.mark.parametrize('method', ['GET', 'POST'])
@pytest.mark.parametrize(
    'headers',
    [
        {'origin': 'http://evil.example'},
        {'origin': 'null'},
        {'origin': 'http://127.0.0.1:8000'},  # another server of this machine
        {'origin': ''},
        {'sec_fetch_site': 'cross-site'},
        {'sec_fetch_site': 'same-site'},
        {'host': 'evil.example:7860', 'origin': 'http://evil.example:7860'},
    ],
)
def test_other_origins_are_refused_before_the_framework_gets_them(
    ask: Ask, framework: Framework, method: str, headers: dict[str, str]
) -> None:
    path = UPLOAD if method == 'POST' else '/config'
    status, _, body = ask(method, path, **headers)
    assert status == 403 and framework.paths == []
    assert 'origin' in json.loads(body)['detail'] or '--allow-host' in json.loads(body)['detail']


def test_the_pages_own_origin_and_clients_without_one_are_served(
    ask: Ask, framework: Framework
) -> None:
    assert ask('GET', '/config', origin='http://127.0.0.1:7860')[0] == 200
    assert ask('GET', '/', sec_fetch_site='cross-site')[0] == 200, 'a link to the page'
    assert ask('POST', UPLOAD, b'x', sec_fetch_site='same-origin')[0] == 200
    assert len(framework.paths) == 3


# What may be asked


@pytest.mark.parametrize(
    ('method', 'path'),
    [
        ('GET', f'{API}/proxy=http://169.254.169.254/'),
        ('GET', f'{API}/file=/etc/passwd'),
        ('GET', f'{API}/file=http://evil.example/x'),
        ('GET', f'{API}/file={FILES}/../../etc/passwd'),
        ('GET', f'{API}/file={FILES}/uploads/1a2b/../1a2b/x.mp4'),
        ('GET', f'{API}/file={FILES}/uploads/1a2b'),
        ('GET', f'{API}/file={FILES}/uploads/1a2b/y.mp4'),
        ('GET', f'{API}/file={FILES}/{"x" * 5000}'),
        ('GET', f'{API}/file={FILES}/\0'),
        ('GET', '/assets/../config'),
        ('GET', '/assets/..\\config'),
        ('GET', '/monitoring'),
        ('GET', f'{API}/deep_link'),
        ('GET', f'{API}/run/predict'),
        ('POST', f'{API}/call/answer'),
        ('POST', f'{API}/api/predict'),
        ('POST', f'{API}/component_server'),
        ('POST', f'{API}/vibe-edit'),
        ('POST', f'{API}/process_recording'),
        ('POST', '/login'),
        ('POST', '/'),
        ('PUT', '/'),
        ('DELETE', '/config'),
        ('OPTIONS', UPLOAD),
        ('GET', '/config\n'),
    ],
)
def test_what_the_page_does_not_need_is_not_there(
    ask: Ask, framework: Framework, method: str, path: str
) -> None:
    assert ask(method, path)[0] == 404
    assert framework.paths == []


def test_files_of_the_page_are_served_by_their_shown_names(
    ask: Ask, guard: PageGuard, framework: Framework
) -> None:
    framework.kind = 'video/mp4'
    status, headers, _ = ask('GET', f'{API}/file={FILES}/uploads/1a2b/x.mp4')
    assert status == 200
    assert framework.paths == [f'{API}/file={guard.folder}/uploads/1a2b/x.mp4']
    assert 'sandbox' in headers['content-security-policy']
    assert headers['x-content-type-options'] == 'nosniff'


def test_a_link_out_of_the_folder_is_not_followed(
    ask: Ask, guard: PageGuard, framework: Framework
) -> None:
    (guard.folder / 'uploads/1a2b/link').symlink_to('/etc/passwd')
    assert ask('GET', f'{API}/file={FILES}/uploads/1a2b/link')[0] == 404
    assert ask('POST', JOIN, question(f'{FILES}/uploads/1a2b/link'))[0] == 404
    assert framework.paths == []


@pytest.mark.parametrize('path', [JOIN, f'{API}/run/predict'])
@pytest.mark.parametrize(
    'video',
    [
        '/etc/passwd',
        'http://127.0.0.1:9/x.mp4',
        'https://huggingface.co/x.mp4',
        'file:///etc/passwd',
        f'{FILES}/answers/1',
        f'{FILES}/uploads/../../x',
        f'{FILES}/uploads/1a2b',
        f'{FILES}x',
        7,
        None,
        ['/etc/passwd'],
    ],
)
def test_a_question_is_about_an_upload(
    ask: Ask, framework: Framework, path: str, video: Any
) -> None:
    assert ask('POST', path, question(video))[0] in (400, 404)
    nested = json.dumps({'data': [{'video': {'path': video}}], 'session_hash': 'abc'}).encode()
    assert ask('POST', path, nested)[0] in (400, 404)
    assert framework.paths == []


@pytest.mark.parametrize(
    'body',
    [
        b'', b'{', b'[]', b'7', b'[' * 100_000, b'{"data": [["/etc/passwd"]], "session_hash": "a"}',
        b'{"data": ["http://127.0.0.1:9/x.mp4"], "session_hash": "a"}',
        b'{"data": [], "session_hash": "../x"}', b'{"data": []}', b'\xff\xfe',
    ],
)  # fmt: skip
def test_a_question_that_is_none_is_refused(ask: Ask, framework: Framework, body: bytes) -> None:
    assert ask('POST', JOIN, body)[0] == 400
    assert framework.paths == []


def test_a_question_reaches_the_framework_with_its_file_and_nothing_else_of_it(
    ask: Ask, guard: PageGuard, framework: Framework
) -> None:
    assert ask('POST', JOIN, question(f'{FILES}/uploads/1a2b/x.mp4'))[0] == 200
    file, method = json.loads(framework.body)['data']
    inside = str(guard.folder / 'uploads/1a2b/x.mp4')
    assert file == {'path': inside, 'meta': {'_type': 'gradio.FileData'}}
    assert method == 'rollout'
    assert framework.headers[b'content-length'] == str(len(framework.body)).encode()


def test_headers_that_would_name_another_address_are_dropped(
    ask: Ask, framework: Framework
) -> None:
    ask('GET', '/config', x_forwarded_host='evil.example', accept_encoding='br', cookie='a=b')
    assert set(framework.headers) == {b'host', b'content-length', b'cookie'}


def test_requests_and_uploads_have_a_largest_size(ask: Ask, framework: Framework) -> None:
    assert ask('POST', JOIN, b' ' * (page_guard.LARGEST_BODY + 1))[0] == 413
    assert ask('POST', UPLOAD, content_length=str(1000 + page_guard.FORM + 1))[0] == 413
    for size in ('', '-1', '1e3', '²'):
        assert ask('POST', UPLOAD, content_length=size)[0] == 411
    assert framework.paths == []


# What is answered


@pytest.mark.parametrize('kind', page_guard.REWRITTEN)
def test_the_servers_folder_is_never_shown(
    ask: Ask, guard: PageGuard, framework: Framework, kind: str
) -> None:
    framework.kind = f'{kind}; charset=utf-8'
    framework.answer = f'{{"path": "{guard.folder}/uploads/1a2b/x.mp4"}}'.encode()
    status, headers, body = ask('GET', '/config')
    assert status == 200
    assert json.loads(body) == {'path': f'{FILES}/uploads/1a2b/x.mp4'}
    if kind != 'text/event-stream':
        assert headers['content-length'] == str(len(body))


def test_a_failure_of_the_framework_is_a_sentence_without_a_trace(
    ask: Ask, guard: PageGuard, framework: Framework
) -> None:
    framework.error = RuntimeError(f'{guard.folder} is secret')
    status, _, body = ask('GET', '/config')
    assert status == 500 and b'secret' not in body
    guard.debug = True
    with pytest.raises(RuntimeError):
        ask('GET', '/config')


# Uploads


def test_what_an_aborted_upload_leaves_is_removed(
    ask: Ask, guard: PageGuard, framework: Framework
) -> None:
    left = guard.folder / 'uploads/tmpabcdef'
    left.write_bytes(b'half')
    framework.error = ConnectionError()
    ask('POST', UPLOAD, b'x')
    assert not left.exists()
    assert (guard.folder / 'uploads/1a2b/x.mp4').is_file()


def test_an_upload_that_still_runs_is_not_removed(
    ask: Ask, guard: PageGuard, framework: Framework
) -> None:
    left = guard.folder / 'uploads/tmpabcdef'
    left.write_bytes(b'half')
    guard._uploading = 1
    ask('POST', UPLOAD, b'x')
    assert left.exists()


def test_the_oldest_uploads_are_removed_where_they_fill_the_disk(
    ask: Ask, guard: PageGuard, framework: Framework
) -> None:
    paths = []
    for i in range(6):
        paths.append(guard.folder / f'uploads/{i}/x.mp4')
        paths[-1].parent.mkdir()
        paths[-1].write_bytes(b'0' * 1000)
        framework.answer = json.dumps([str(paths[-1])]).encode()
        assert ask('POST', UPLOAD, b'x')[0] == 200
    assert [path.exists() for path in paths] == [False, False, True, True, True, True]


# Who waits


def test_who_closed_the_connection_or_cancelled_waits_no_more() -> None:
    waiting = Waiting()
    waiting.join('a')
    waiting.connect('a')
    assert waiting.waits('a') and waiting.waits('a', 'one')
    waiting.cancel('one')
    assert waiting.waits('a', 'two') and not waiting.waits('a', 'one')
    waiting.connect('a')
    waiting.disconnect('a')
    assert waiting.waits('a'), 'one of two connections is left'
    waiting._joined['a'] -= page_guard.GRACE
    waiting.disconnect('a')
    assert not waiting.waits('a')
    assert waiting.waits(None) and not waiting.waits('never came')


def test_who_never_connects_is_waited_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_guard, 'GRACE', 0.2)
    waiting = Waiting()
    for session in 'abc':
        waiting.join(session)
    start = time.monotonic()
    assert [waiting.waits(session) for session in 'abc'] == [False] * 3
    assert 0.1 < time.monotonic() - start < 0.4, 'all of them together'


def test_who_connects_a_moment_later_is_answered() -> None:
    waiting = Waiting()
    waiting.join('a')
    threading.Timer(0.05, waiting.connect, ['a']).start()
    assert waiting.waits('a')


def test_a_request_is_joined_cancelled_and_connected_through_the_guard(
    ask: Ask, guard: PageGuard
) -> None:
    ask('POST', JOIN, question(f'{FILES}/uploads/1a2b/x.mp4'))
    assert 'abc' in guard.waiting._joined
    ask('GET', f'{API}/queue/data', query='session_hash=abc')
    assert not guard.waiting._open, 'the connection has ended'
    ask('POST', f'{API}/cancel', json.dumps({'event_id': 'e', 'session_hash': 'abc'}).encode())
    assert 'e' in guard.waiting._cancelled
    assert ask('GET', f'{API}/queue/data', query='session_hash=%2e')[0] == 400


def test_what_is_remembered_of_requests_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_guard, 'REMEMBERED', 5)
    waiting = Waiting()
    for i in range(20):
        waiting.join(str(i))
        waiting.cancel(str(i))
    assert len(waiting._joined) == len(waiting._cancelled) == 5


def test_messages_of_a_connection_are_not_held_back(guard: PageGuard, framework: Framework) -> None:
    sent: list[bytes] = []
    answer = page_guard._Answer(_appending(sent), [b'/secret'], '/x')

    async def run() -> None:
        headers = [(b'content-type', b'text/event-stream')]
        await answer({'type': 'http.response.start', 'status': 200, 'headers': headers})
        for piece in (b'data: /sec', b'ret/1\n\ndata: 2', b'\n\n', b'data: /secret'):
            await answer({'type': 'http.response.body', 'body': piece, 'more_body': True})
        await answer({'type': 'http.response.body', 'body': b'\n\n'})

    asyncio.run(run())
    files = FILES.encode()
    assert sent == [b'data: ' + files + b'/1\n\n', b'data: 2\n\n', b'data: ' + files + b'\n\n']


def _appending(sent: list[bytes]) -> Any:
    async def send(message: Any) -> None:
        if message['type'] == 'http.response.body':
            sent.append(message['body'])

    return send
