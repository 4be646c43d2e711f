"""Filter the requests of the demo page: an ASGI layer in front of the web framework.

The framework (Gradio) has some 60 routes, of which the page needs a dozen: others fetch URLs,
forward to other servers, list endpoints, and name files by their paths on the server. This layer

- refuses other routes, other origins (a website that posts to a page on the same machine), and
  other host names (DNS rebinding);
- accepts only uploaded files as videos;
- replaces the server's folder by :data:`FILES`, both ways;
- removes aborted uploads, and the oldest uploads where they fill the disk;
- tracks which clients still wait for an answer.

It needs the standard library only.
"""

import ipaddress
import json
import os
import re
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

FILES = '/page-files'  # stands for the server's folder in requests and answers
API = '/gradio_api'
ROUTES = {
    'GET': (
        r'/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt'
        r'|/(assets|static|svelte)/[\w./@+-]+|/pwa_icon(/\d+)?'
        rf'|{API}/(theme\.css|info/?|app_id/?|queue/data|queue/status|upload_progress)'
        rf'|{API}/heartbeat/[\w-]+|{API}/file={FILES}/.+'
    ),
    'POST': rf'{API}/(upload|queue/join|run/predict|cancel|reset/?)',
}
ROUTES['HEAD'] = ROUTES['GET']
LARGEST_BODY = 2**20  # bytes of a request that is no upload
FORM = 2**16  # bytes of a form around its file
KEPT_UPLOADS = 4  # of the largest size; the oldest are removed
GRACE = 3.0  # seconds from a request to the connection that waits for its answer
REMEMBERED = 1000  # requests
REWRITTEN = ('text/html', 'application/json', 'text/plain', 'text/event-stream')
# The page loads nothing from other origins, and no other page may embed it.
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'self'; "
    "form-action 'self'; base-uri 'self'"
)
OF_FILES = "default-src 'none'; sandbox"  # an upload that is opened as a page runs no script
DROPPED = {  # headers that compress answers, or change the client's address
    b'accept-encoding', b'forwarded', b'x-forwarded-for', b'x-forwarded-host',
    b'x-forwarded-proto', b'x-forwarded-port', b'x-forwarded-prefix', b'x-direct-url',
}  # fmt: skip


class Refused(Exception):  # noqa: N818 (an answer, not an error)
    """A request that is refused, with a status of HTTP and a reason for the client."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Waiting:
    """Track which sessions still wait for an answer; thread-safe.

    A request joins a queue, and its answer comes over a connection of the same session. A request
    is abandoned when it is cancelled, when that connection is closed, or when none was opened
    within :data:`GRACE` seconds.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._joined: OrderedDict[str, float] = OrderedDict()  # by session, when it last asked
        self._open: Counter[str] = Counter()  # by session
        self._cancelled: OrderedDict[str, None] = OrderedDict()  # events

    def join(self, session: str) -> None:
        with self._changed:
            _remember(self._joined, session, time.monotonic())

    def cancel(self, event: str) -> None:
        with self._changed:
            _remember(self._cancelled, event, None)
            self._changed.notify_all()

    def connect(self, session: str) -> None:
        with self._changed:
            self._open[session] += 1
            self._changed.notify_all()

    def disconnect(self, session: str) -> None:
        with self._changed:
            self._open[session] -= 1
            if self._open[session] <= 0:
                del self._open[session]

    def waits(self, session: str | None, event: str | None = None) -> bool:
        """Return whether a client still waits; right after a request, wait for its connection.

        A session that is not known (``None``) counts as waiting.
        """
        if session is None:
            return True
        with self._changed:
            while event not in self._cancelled and not self._open[session]:
                left = self._joined.get(session, -GRACE) + GRACE - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return event not in self._cancelled


@dataclass
class PageGuard:
    """Serve only the requests that the page needs, and only to the page.

    Args:
        folder: Of the page, resolved; ``uploads`` in it is where uploads go.
        allows_host: Whether the page is served under a host name, see :func:`host_check`.
        largest: Bytes of an upload.
        debug: Let exceptions of the framework through, for their stack trace.
        app: The web framework.

    Attributes:
        waiting: The sessions that still wait for an answer.
    """

    folder: Path
    allows_host: Callable[[str], bool]
    largest: int
    debug: bool = False
    app: App = field(init=False)

    def __post_init__(self) -> None:
        self.waiting = Waiting()
        self._uploads = self.folder / 'uploads'
        self._uploading = 0
        self._sizes: OrderedDict[str, int] = OrderedDict()
        inside = str(self.folder)
        self._inside = [one.encode() for one in dict.fromkeys((inside, quote(inside)))]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope['type'] == 'lifespan':
            await self.app(scope, receive, send)
            return
        if scope['type'] != 'http':
            return  # web sockets: the page has none
        pairs = scope['headers']
        headers = {name.decode('latin-1'): value.decode('latin-1') for name, value in pairs}
        answer = _Answer(send, self._inside, scope['path'])
        try:
            self._check(scope['method'], scope['path'], headers)
            await self._serve(scope, headers, receive, answer)
        except Refused as refused:
            await answer.refuse(refused.status, refused.reason)
        except Exception:
            if self.debug:
                raise
            await answer.refuse(500, 'internal error; --debug shows it')

    # -- requests ------------------------------------------------------------------------------

    def _check(self, method: str, path: str, headers: dict[str, str]) -> None:
        host = headers.get('host', '')
        if not self.allows_host(name_of(host)):
            raise Refused(
                403, 'the page is not served under this host name; --allow-host NAME allows it'
            )
        origin = headers.get('origin')
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        linked = headers.get('sec-fetch-site') in ('cross-site', 'same-site')
        if foreign or (linked and not (method == 'GET' and path == '/')):
            raise Refused(403, 'a page of another origin may not use this one')
        known = re.fullmatch(ROUTES.get(method, ''), path, re.ASCII | re.DOTALL)
        if not known or {'..', '.'} & set(re.split(r'[/\\]', path)):
            raise Refused(404, 'not found')

    async def _serve(
        self, scope: Message, headers: dict[str, str], receive: Receive, answer: '_Answer'
    ) -> None:
        path = scope['path']
        kept = [pair for pair in scope['headers'] if pair[0] not in DROPPED]
        scope = {**scope, 'headers': kept}
        if path.startswith(f'{API}/file='):
            inside = self._path_of(path.removeprefix(f'{API}/file='))
            path = f'{API}/file={inside}'
            scope |= {'path': path, 'raw_path': quote(path).encode()}
            await self.app(scope, receive, answer)
        elif path == f'{API}/queue/data':
            await self._serve_answers(scope, receive, answer)
        elif path == f'{API}/upload':
            await self._take_upload(scope, headers, receive, answer)
        elif scope['method'] == 'POST':
            body = await _read(receive, headers)
            if path in (f'{API}/queue/join', f'{API}/run/predict'):
                asked = self._checked_question(body)
                self.waiting.join(asked['session_hash'])
                body = json.dumps(asked).encode()
            elif path == f'{API}/cancel':
                event = _object(body).get('event_id')
                if isinstance(event, str):
                    self.waiting.cancel(event)
            length = (b'content-length', str(len(body)).encode())
            scope['headers'] = [pair for pair in kept if pair[0] != b'content-length'] + [length]
            await self.app(scope, _given(body, receive), answer)
        else:
            await self.app(scope, receive, answer)

    async def _serve_answers(self, scope: Message, receive: Receive, answer: '_Answer') -> None:
        found = re.search(
            r'(?:^|&)session_hash=([\w-]{1,64})(?:&|$)', scope['query_string'].decode()
        )
        if not found:
            raise Refused(400, 'session_hash is missing')
        self.waiting.connect(found[1])
        try:
            await self.app(scope, receive, answer)
        finally:
            self.waiting.disconnect(found[1])

    async def _take_upload(
        self, scope: Message, headers: dict[str, str], receive: Receive, answer: '_Answer'
    ) -> None:
        size = headers.get('content-length', '')
        if not size.isascii() or not size.isdecimal():
            raise Refused(411, 'an upload needs the header content-length')
        if int(size) > self.largest + FORM:
            raise Refused(413, f'an upload has at most {self.largest:,} bytes')
        self._uploading += 1
        try:
            await self.app(scope, receive, answer)
        finally:
            self._uploading -= 1
            if not self._uploading:
                self._sweep(answer.rewritten)

    def _checked_question(self, body: bytes) -> dict[str, Any]:
        """Read a prediction request: files must be uploads; no URL is fetched."""
        asked = _object(body)
        session = asked.get('session_hash')
        if not isinstance(session, str) or not re.fullmatch(r'[\w-]{1,64}', session, re.ASCII):
            raise Refused(400, 'session_hash is not valid')
        data = asked.get('data')
        asked['data'] = [self._checked(one) for one in data] if isinstance(data, list) else []
        return asked

    def _checked(self, value: Any) -> Any:
        """Return a value of a request: an uploaded file, or a plain value."""
        if isinstance(value, dict) and 'video' in value:  # as older clients write a video
            value = value['video']
        if isinstance(value, dict):
            path = value.get('path')
            if not isinstance(path, str) or not path.startswith(f'{FILES}/uploads/'):
                raise Refused(400, 'a video must be a file that was uploaded to this page')
            inside = str(self._path_of(path))
            return {'path': inside, 'meta': {'_type': 'gradio.FileData'}}
        if isinstance(value, list) or (isinstance(value, str) and '://' in value):
            raise Refused(400, 'a request to this page must have no lists and no URLs')
        return value

    def _path_of(self, shown: str) -> Path:
        """Return the file of a path that begins with :data:`FILES`."""
        path = Path(f'{self.folder}{shown.removeprefix(FILES)}')
        try:
            inside = path.resolve().is_relative_to(self.folder) and path.is_file()
        except (OSError, ValueError):  # a name that is too long, or has a zero byte
            inside = False
        if not inside or '..' in path.parts or not shown.startswith(f'{FILES}/'):
            raise Refused(404, 'there is no such file')
        return path

    # -- uploads -------------------------------------------------------------------------------

    def _sweep(self, answered: bytes) -> None:
        """Remove aborted uploads, and the oldest uploads where there are too many.

        A complete upload has its own folder; an incomplete one is a file above them.
        """
        with suppress(OSError):
            for entry in os.scandir(self._uploads):
                if entry.is_file(follow_symlinks=False):
                    Path(entry.path).unlink()
        with suppress(ValueError, TypeError):
            for shown in json.loads(answered):
                path = str(self.folder) + shown.removeprefix(FILES)
                with suppress(OSError):
                    _remember(self._sizes, path, Path(path).stat().st_size)
        while len(self._sizes) > 1 and sum(self._sizes.values()) > KEPT_UPLOADS * self.largest:
            path, _ = self._sizes.popitem(last=False)
            with suppress(OSError):
                Path(path).unlink()


class _Answer:
    """Forward an answer, with the server's folder replaced by :data:`FILES`."""

    def __init__(self, send: Send, inside: list[bytes], path: str) -> None:
        self._send, self._inside, self._path = send, inside, path
        self._start: Message | None = None
        self._started = False
        self._kind = ''
        self._held = b''
        self.rewritten = b''  # the body, if it was buffered

    async def __call__(self, message: Message) -> None:
        if message['type'] == 'http.response.start':
            self._start = {**message, 'headers': list(message.get('headers', ()))}
            names = {bytes(name).lower(): value for name, value in self._start['headers']}
            self._kind = names.get(b'content-type', b'').decode('latin-1').partition(';')[0]
            if self._kind not in REWRITTEN or self._kind == 'text/event-stream':
                await self._begin(self._start)
            return
        if message['type'] != 'http.response.body':
            await self._send(message)
            return
        body = message.get('body', b'')
        if self._kind == 'text/event-stream':  # complete messages, which end in an empty line
            self._held += body
            end = len(self._held)
            if message.get('more_body'):
                end = len(self._held.rpartition(b'\n\n')[0])
                end += 2 * bool(end)
            body, self._held = self._held[:end], self._held[end:]
            if body or not message.get('more_body'):
                await self._send({**message, 'body': self._shown(body)})
        elif self._kind in REWRITTEN:
            self.rewritten += body
            if not message.get('more_body') and self._start is not None:
                self.rewritten = self._shown(self.rewritten)
                await self._begin(self._start, len(self.rewritten))
                await self._send({'type': 'http.response.body', 'body': self.rewritten})
        else:
            await self._send(message)

    async def refuse(self, status: int, reason: str) -> None:
        """Answer with a status and a reason; end an answer that has begun."""
        if self._started:
            with suppress(Exception):  # it may have ended, too
                await self._send({'type': 'http.response.body', 'body': b''})
            return
        body = json.dumps({'detail': reason}).encode()
        headers = [(b'content-type', b'application/json')]
        start = {'type': 'http.response.start', 'status': status, 'headers': headers}
        await self._begin(start, len(body))
        await self._send({'type': 'http.response.body', 'body': body})

    async def _begin(self, start: Message, length: int | None = None) -> None:
        headers = start['headers']
        if length is not None:
            headers = [pair for pair in headers if bytes(pair[0]).lower() != b'content-length']
            headers.append((b'content-length', str(length).encode()))
        policy = OF_FILES if self._path.startswith(f'{API}/file=') else POLICY
        headers += [
            (b'content-security-policy', policy.encode()),
            (b'x-content-type-options', b'nosniff'),
            (b'referrer-policy', b'same-origin'),
        ]
        self._started = True
        await self._send({**start, 'headers': headers})

    def _shown(self, body: bytes) -> bytes:
        for inside in self._inside:
            body = body.replace(inside, FILES.encode())
        return body


def host_check(bound: Collection[str], names: Iterable[str]) -> Callable[[str], bool]:
    """Return the check of a request's host name, against DNS rebinding.

    Scripts of a website that points its own name at this machine cannot change the name in the
    request, and an IP address cannot be rebound.

    Args:
        bound: Addresses that the page listens at.
        names: Further host names of the page.
    """
    allowed = {name.lower().rstrip('.') for name in names} | {'localhost'}
    local = all(ipaddress.ip_address(one.partition('%')[0]).is_loopback for one in bound)

    def allows(host: str) -> bool:
        host = host.lower().rstrip('.')
        try:
            address = ipaddress.ip_address(host.partition('%')[0])
        except ValueError:
            return host in allowed
        return address.is_loopback or not local

    return allows


def name_of(host: str) -> str:
    """Return a ``Host`` header without its port and brackets."""
    found = re.fullmatch(r'(?:\[([^\]]*)\]|([^:\[\]]*))(?::\d*)?', host)
    return (found[1] or found[2] or '') if found else ''


def _remember(known: OrderedDict[str, Any], key: str, value: Any) -> None:
    known[key] = value
    known.move_to_end(key)
    while len(known) > REMEMBERED:
        known.popitem(last=False)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(400, 'the request is not a JSON object')
    return found


async def _read(receive: Receive, headers: dict[str, str]) -> bytes:
    body = b''
    while True:
        message = await receive()
        if message['type'] == 'http.disconnect':
            raise Refused(400, 'the request is incomplete')
        body += message.get('body', b'')
        if len(body) > LARGEST_BODY:
            raise Refused(413, f'a request has at most {LARGEST_BODY:,} bytes')
        if not message.get('more_body'):
            return body


def _given(body: bytes, receive: Receive) -> Receive:
    """Return a receive function that replays a body, and then reads the connection."""
    waiting = [{'type': 'http.request', 'body': body, 'more_body': False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again
