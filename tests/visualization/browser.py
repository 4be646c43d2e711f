"""Control Chromium through the HTTP API of chromedriver, for the tests of pages."""

import base64
import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from requirements.make_browser import find_browser
from tests.page_requirements import in_ci

FLAGS = (
    '--headless --disable-gpu --disable-quic --no-first-run --disable-background-networking '
    '--disable-dev-shm-usage '  # of which a container may have 64 MB
    '--disable-component-update --disable-sync --window-size=1200,1500'
)


class Browser:
    """Chromium, controlled through the HTTP API of chromedriver."""

    def __init__(self, port: int, profile: Path) -> None:
        self.address = f'http://127.0.0.1:{port}'
        flags = [*FLAGS.split(), f'--user-data-dir={profile}']
        if os.geteuid() == 0 or in_ci():
            # Chromium's own sandbox runs neither as root nor where AppArmor allows no namespaces
            flags.append('--no-sandbox')
        wanted = {
            'browserName': 'chrome',
            'goog:chromeOptions': {'args': flags, 'binary': find_browser()},
            'goog:loggingPrefs': {'browser': 'ALL', 'performance': 'ALL'},
        }
        self.session = ''
        answer = self.ask('/session', {'capabilities': {'alwaysMatch': wanted}})
        self.session = f'/session/{answer["sessionId"]}'

    def ask(self, path: str, body: dict[str, Any] | None = None, method: str = '') -> Any:
        request = urllib.request.Request(
            self.address + self.session + path,
            json.dumps(body).encode() if body is not None else None,
            {'Content-Type': 'application/json'},
            method=method or ('GET' if body is None else 'POST'),
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)['value']
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)['value']['message']) from error

    def devtools(self, name: str, **options: Any) -> Any:
        """Send a command of the Chrome DevTools protocol."""
        return self.ask('/goog/cdp/execute', {'cmd': name, 'params': options})

    def run(self, script: str) -> Any:
        return self.ask('/execute/sync', {'script': script, 'args': []})

    def open(self, page: Path | str, ready: str = 'document.body.dataset.ready === "yes"') -> None:
        """Open a file or an address, and wait until an expression in it is true."""
        address = page.resolve().as_uri() if isinstance(page, Path) else page
        self.ask('/url', {'url': address})
        self.wait(f'return {ready}')

    def wait(self, script: str, seconds: float = 30) -> None:
        """Wait until a script returns something true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.run(script):
                return
            time.sleep(0.1)
        raise AssertionError(f'never came true: {script}; {self.complaints()}')

    def complaints(self) -> list[str]:
        return [entry['message'] for entry in self.ask('/se/log', {'type': 'browser'})]

    def click(self, element: str, x: float = 0.5, y: float = 0.5) -> None:
        """Click with the mouse into an element, at shares of its width and height."""
        box = self.run(
            f'const e = document.querySelector({element!r}); e.scrollIntoView({{block: "center"}});'
            'const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]'
        )
        place = {'x': round(box[0] + x * box[2]), 'y': round(box[1] + y * box[3])}
        steps = [
            {'type': 'pointerMove', 'duration': 0, 'origin': 'viewport', **place},
            {'type': 'pointerDown', 'button': 0},
            {'type': 'pointerUp', 'button': 0},
        ]
        mouse = {'type': 'pointer', 'id': 'mouse', 'actions': steps}
        self.ask('/actions', {'actions': [mouse]})

    def press(self, key: str) -> None:
        steps = [{'type': 'keyDown', 'value': key}, {'type': 'keyUp', 'value': key}]
        self.ask('/actions', {'actions': [{'type': 'key', 'id': 'keys', 'actions': steps}]})

    def requests(self) -> list[str]:
        """Return the addresses that the page has asked for since the last question.

        Those of the browser's own first page are left out.
        """
        events = [json.loads(e['message']) for e in self.ask('/se/log', {'type': 'performance'})]
        asked = [
            event['message']['params']['request']['url']
            for event in events
            if event['message']['method'] == 'Network.requestWillBeSent'
        ]
        return [address for address in asked if not address.startswith('chrome://')]

    def choose_file(self, element: str, path: Path) -> None:
        """Give a file to an ``<input type="file">``."""
        found = self.ask('/element', {'using': 'css selector', 'value': element})
        self.ask(f'/element/{next(iter(found.values()))}/value', {'text': str(path)})

    def screenshot(self, path: Path) -> None:
        """Save what the window shows, as a PNG."""
        path.write_bytes(base64.b64decode(self.ask('/screenshot')))


@contextlib.contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """Start Chromium, and end it.

    Args:
        profile: An empty folder.
    """
    port = free_port()
    driver = subprocess.Popen(
        ['chromedriver', f'--port={port}'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(port)
        opened = Browser(port, profile)
        yield opened
        opened.ask('', method='DELETE')
    finally:
        driver.terminate()
        driver.wait()


def free_port() -> int:
    """Return a port that nobody listens to."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return int(free.getsockname()[1])


def wait_for(port: int, seconds: float = 10) -> None:
    """Wait until somebody listens to a port."""
    for _ in range(round(10 * seconds)):
        with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), 1):
            return
        time.sleep(0.1)
    raise AssertionError(f'nobody came to listen to port {port}')
