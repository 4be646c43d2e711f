"""Serve a web page to try a model.

Upload a video or choose an example: the page shows the top five labels and attention maps. Without
options it serves the model of `make demo`. The page itself needs no network: it loads nothing from
another server and sends nothing to one.

Examples:
    mmtimesformer demo_app --checkpoint CHECKPOINT --open
    mmtimesformer demo_app --checkpoint CHECKPOINT --examples videos --port 8000
"""

import argparse
import contextlib
import errno
import ipaddress
import os
import signal
import socket
import sys
import threading
import webbrowser
from pathlib import Path
from tempfile import TemporaryDirectory

from mmtimesformer.cli import require_mmaction, run_tool
from mmtimesformer.config.command_line import ToolParser, parse, whole_number
from mmtimesformer.terminal import echo

DEMO = Path('work_dirs/demo/divST')
EXAMPLES = Path('data/moving_shapes/videos_val')
MOST_EXAMPLES = 8
OPEN = (
    'The page listens at {}: every machine that can reach this one can use it, without a password '
    'and without encryption. Browsers of other machines offer no camera. --host 127.0.0.1 keeps '
    'the page to this machine.'
)
INSTALL = 'pip install "mmtimesformer[demo]" (in a checkout: pip install -r requirements/demo.txt)'
STOPS = [getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP') if hasattr(signal, name)]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__)
    parser.add_argument(
        '--checkpoint', help=f'the model, as for `mmtimesformer predict` (the newest of {DEMO})'
    )
    parser.add_argument(
        '--config',
        help='a config file, or the name of a shipped config, if the checkpoint holds none',
    )
    parser.add_argument('--classes', metavar='NAMES.txt', help='class names, one per line')
    parser.add_argument(
        '--examples',
        type=Path,
        metavar='DIR',
        help=f'folder of example videos ({EXAMPLES} if it exists)',
    )
    parser.add_argument('--device', help='cpu, cuda, cuda:1; the first GPU if there is one')
    parser.add_argument(
        '--host', default='127.0.0.1', help='address to serve at; 0.0.0.0 for other machines'
    )
    parser.add_argument(
        '--allow-host',
        nargs='+',
        default=[],
        metavar='NAME',
        help='further host names of the page, such as that of a proxy',
    )
    parser.add_argument('--port', type=whole_number(0, 65535), default=7860)
    parser.add_argument(
        '--max-megabytes',
        type=whole_number(1, 100_000),
        default=1000,
        metavar='N',
        help='largest file that may be uploaded (1000)',
    )
    parser.add_argument(
        '--max-seconds',
        type=whole_number(1, 1_000_000),
        default=600,
        metavar='N',
        help='longest video that is classified (600)',
    )
    parser.add_argument('--open', action='store_true', help='open the page in a browser')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    if not 0 <= args.port < 2**16:
        parser.error(f'--port {args.port} is not between 0 and 65535')
    return args


def serve(args: argparse.Namespace) -> None:
    """Load the model, then serve the page until it is stopped."""
    with contextlib.ExitStack() as closing:
        closing.enter_context(ending_by_signals())
        temporary = TemporaryDirectory(prefix='mmtimesformer-', ignore_cleanup_errors=True)
        folder = Path(closing.enter_context(temporary)).resolve()
        uploads, written = folder / 'uploads', folder / 'answers'
        uploads.mkdir()
        written.mkdir()
        gradio = import_gradio(uploads)
        require_mmaction()
        from mmtimesformer.inference import VideoClassifier
        from mmtimesformer.visualization.demo_layout import Limits, lay_out
        from mmtimesformer.visualization.demo_page import DemoPage
        from mmtimesformer.visualization.page_guard import PageGuard, host_check

        sockets = bind(args.host, args.port)  # before the model is loaded, which takes longer
        for one in sockets:
            closing.enter_context(one)
        checkpoint = args.checkpoint or (None if args.config else demo_checkpoint())
        classifier = VideoClassifier(args.config, checkpoint, args.device, args.classes)
        names = [args.host.strip('[]'), socket.gethostname(), *args.allow_host]
        bound = [one.getsockname()[0] for one in sockets]
        limits = Limits(args.max_megabytes, args.max_seconds)
        guard = PageGuard(folder, host_check(bound, names), limits.bytes, args.debug)
        examples = find_examples(args.examples)
        page = lay_out(
            gradio, DemoPage(classifier, written, limits.seconds), examples,
            Path(classifier.checkpoint).name, guard.waiting.waits, limits,
        )  # fmt: skip
        readable = [str(written), *map(str, examples.values())]
        guard.app = build_app(gradio, page, readable, limits)
        state_who_can_reach(bound)
        address = address_of(args.host, sockets[0].getsockname()[1])
        run_server(guard, sockets, address, args.open, args.debug)


def is_loopback(address: str) -> bool:
    """Return whether only programs of this machine can reach an address."""
    return ipaddress.ip_address(address.partition('%')[0]).is_loopback


def state_who_can_reach(bound: list[str]) -> None:
    """Print a sentence if other machines can reach one of the addresses."""
    reached = [one for one in dict.fromkeys(bound) if not is_loopback(one)]
    if reached:
        echo(OPEN.format(', '.join(reached)), file=sys.stderr)


def bind(host: str, port: int) -> list[socket.socket]:
    """Open a port at every address of a host name.

    Raises:
        OSError: There is no such host, it is not this machine, or the port is taken.
    """
    name = host.removeprefix('[').removesuffix(']')
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise OSError(
            f'the host {host} cannot be resolved ({getattr(error, "strerror", None) or error}); '
            'give --host an address of this machine: 127.0.0.1, ::1, or 0.0.0.0 for all of them'
        ) from error
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, place in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            sockets.append(one)
            if os.name != 'nt':
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if port == 0 and len(sockets) > 1:  # the same free port everywhere
                place = (place[0], sockets[0].getsockname()[1], *place[2:])
            one.bind(place)
    except OSError as error:
        for one in sockets:
            one.close()
        raise OSError(_why_not(host, port, error)) from error
    return sockets


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f'the host {host} is not an address of this machine; give --host 127.0.0.1, ::1, or '
            '0.0.0.0 for all of its addresses'
        )
    if error.errno == errno.EACCES:
        return f'port {port} needs administrator rights; give --port a number from 1024'
    return (
        f'cannot serve at {address_of(host, port)}, which may be in use; give --port another number'
    )


def address_of(host: str, port: int) -> str:
    """Return the address for a browser on this machine."""
    name = host.removeprefix('[').removesuffix(']')
    name = {'0.0.0.0': '127.0.0.1', '::': '::1'}.get(name, name)
    return f'http://[{name}]:{port}' if ':' in name else f'http://{name}:{port}'


@contextlib.contextmanager
def ending_by_signals():
    """Stop on SIGTERM and a closed terminal as on Ctrl-C, so that the page's files are removed."""

    def end(number, frame):
        raise KeyboardInterrupt

    numbers = [getattr(signal, name, None) for name in ('SIGTERM', 'SIGHUP')]
    before = {number: signal.signal(number, end) for number in numbers if number is not None}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def build_app(gradio, page, readable: list[str], limits):
    """Make a web application of the page, without its own server.

    Args:
        gradio: The module.
        page: Its ``Blocks``.
        readable: Files and folders that the page may show, besides uploads.
        limits: See ``Limits``.

    NOTE: Gradio's ``launch`` checks its own server over HTTP, through a proxy if the environment
    sets one, accepts no IPv6 address, and logs to the terminal.
    """
    import fastapi

    from mmtimesformer.visualization.demo_layout import script, style, theme

    page.queue(max_size=limits.waiting, api_open=False)
    page.has_launched = True  # else Gradio accepts any path of this machine as an upload
    silent = {'docs_url': None, 'redoc_url': None, 'openapi_url': None}
    return gradio.mount_gradio_app(
        fastapi.FastAPI(**silent),
        page,
        path='/',
        app_kwargs=silent,
        allowed_paths=readable,
        max_file_size=limits.bytes,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
        run_history=False,
        show_error=False,
        footer_links=[],
        theme=theme(gradio),
        css=style(),
        head=script(limits),
    )


def run_server(app, sockets: list[socket.socket], address: str, browser: bool, debug: bool) -> None:
    """Serve until Ctrl-C, SIGTERM, or a closed terminal; print nothing else without debug."""
    import uvicorn

    terminal = sys.stdout

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            if self.started:
                echo(f'{address}  (Ctrl-C ends it)', file=terminal, flush=True)
                if browser:
                    threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()

        @contextlib.contextmanager
        def capture_signals(self):
            before = {one: signal.signal(one, self.handle_exit) for one in STOPS}
            try:
                yield  # uvicorn would raise the signal again, and files would remain
            finally:
                for one, handler in before.items():
                    signal.signal(one, handler)

    config = uvicorn.Config(
        app,
        log_level='info' if debug else 'critical',
        access_log=debug,
        ws='none',
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    with contextlib.ExitStack() as quiet:
        if not debug:  # the framework prints stack traces of invalid requests
            nothing = quiet.enter_context(Path(os.devnull).open('w'))
            quiet.enter_context(contextlib.redirect_stdout(nothing))
            quiet.enter_context(contextlib.redirect_stderr(nothing))
        Server(config).run(sockets)


def import_gradio(uploads: Path):
    """Import Gradio without its telemetry, and with its files in the given folder.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'
    os.environ['GRADIO_TEMP_DIR'] = str(uploads)
    try:
        import fastapi  # noqa: F401 (with uvicorn, which Gradio needs)
        import gradio
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'the page needs Gradio, but {error.name} is not installed; run: {INSTALL}'
        ) from error
    return gradio


def demo_checkpoint() -> str:
    """Return the last checkpoint of `make demo`.

    Raises:
        FileNotFoundError: There is none.
    """
    from mmtimesformer.engine import latest_checkpoint

    newest = latest_checkpoint(DEMO)
    if newest is None:
        raise FileNotFoundError(
            f'there is no model in {DEMO}: run make demo first, or give --checkpoint'
        )
    return newest


def find_examples(folder: Path | None) -> dict[str, Path]:
    """Choose example videos: the first of those whose names differ only by a number.

    Returns them by their names without that number.

    Files that our reader refuses are left out: Gradio passes examples to ffmpeg, which would open
    the files that a playlist names.
    """
    from mmtimesformer.datasets.preparation.finding import walk_videos
    from mmtimesformer.datasets.transforms.decoding import Video

    if folder is None and not EXAMPLES.is_dir():
        return {}
    folder = (folder or EXAMPLES).absolute()
    kinds: dict[str, Path] = {}
    for name, _ in walk_videos(folder, frames=False):
        kind = Path(name).stem.strip('0123456789_-. ') or name
        if kind in kinds:
            continue
        with contextlib.suppress(OSError, ValueError):
            Video(folder / name)
            kinds[kind] = folder / name
        if len(kinds) == MOST_EXAMPLES:
            break
    return kinds


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code (see ``mmtimesformer.cli``)."""
    args = parse_args(argv)
    return run_tool(lambda: serve(args), args.debug)


if __name__ == '__main__':
    sys.exit(main())
