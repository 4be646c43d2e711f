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
import html
import os
import signal
import socket
import sys
import threading
import webbrowser
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from mmtimesformer.cli import require_mmaction, run_tool
from mmtimesformer.config.command_line import ToolParser, parse, whole_number
from mmtimesformer.terminal import echo, safe_text

DEMO = Path('work_dirs/demo/divST')
EXAMPLES = Path('data/moving_shapes/videos_val')
MOST_EXAMPLES = 8
INSTALL = 'pip install "mmtimesformer[demo]" (in a checkout: pip install -r requirements/demo.txt)'
LARGEST_UPLOAD = 2**30  # bytes
MOST_WAITING = 8  # requests; more are refused at once
STOPS = [getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP') if hasattr(signal, name)]
CSS = """
.gradio-container { max-width: 84rem !important; margin: 0 auto; }
.head h1 { font-size: 1.7rem; margin: .6rem 0 .1rem; }
.head p, .made, .hint { color: #7b8794; margin: 0 0 .4rem; }
ol.labels { list-style: none; margin: .2rem 0 .8rem; padding: 0; }
ol.labels li { display: grid; grid-template-columns: 1fr auto; gap: .1rem 1rem; margin: 0 0 .9rem; }
ol.labels b { font-weight: 600; overflow-wrap: anywhere; }
ol.labels span { font-variant-numeric: tabular-nums; }
ol.labels .bar { grid-column: 1 / 3; height: .7rem; border-radius: 4px; overflow: hidden;
                 background: rgba(123, 135, 148, .18); }
ol.labels .bar:empty { display: none; }
ol.labels i { display: block; height: 100%; border-radius: 4px; background: #3366aa; }
ol.labels li:first-child b { font-size: 1.35rem; }
ol.labels li:first-child i { background: #e08214; }
.error { border-left: 4px solid #c0392b; background: rgba(192, 57, 43, .08); padding: .7rem 1rem;
          border-radius: 4px; overflow-wrap: anywhere; }
#video button[aria-label^="Trim"], #video button[aria-label^="Reset"] { display: none; }
#video.unplayable::after { content: "This browser cannot play the file, but the model can read it.";
  position: absolute; inset: auto 1rem 45%; text-align: center; color: #7b8794; }
iframe { width: 100%; height: min(92vh, 78rem); border: 0; border-radius: 8px; background: white; }
"""
# A browser plays fewer formats than the model reads; Gradio would show an error for these.
SCRIPT = """
for (const kind of ['error', 'loadeddata', 'emptied']) addEventListener(kind, event => {
  if (!(event.target instanceof HTMLVideoElement)) return;
  event.target.closest('#video')?.classList.toggle('unplayable', kind === 'error');
  if (kind === 'error') event.stopImmediatePropagation();
}, true);
"""
HINT = '<p class="hint">The labels appear here.</p>'


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
        from mmtimesformer.visualization.demo_page import DemoPage
        from mmtimesformer.visualization.page_guard import PageGuard, host_check

        sockets = bind(args.host, args.port)  # before the model is loaded, which takes longer
        for one in sockets:
            closing.enter_context(one)
        checkpoint = args.checkpoint or (None if args.config else demo_checkpoint())
        classifier = VideoClassifier(args.config, checkpoint, args.device, args.classes)
        names = [args.host.strip('[]'), socket.gethostname(), *args.allow_host]
        bound = [one.getsockname()[0] for one in sockets]
        guard = PageGuard(folder, host_check(bound, names), LARGEST_UPLOAD, args.debug)
        page = lay_out(
            gradio, DemoPage(classifier, written), find_examples(args.examples),
            Path(classifier.checkpoint).name, guard.waiting.waits,
        )  # fmt: skip
        guard.app = build_app(gradio, page, written)
        address = address_of(args.host, sockets[0].getsockname()[1])
        run_server(guard, sockets, address, args.open, args.debug)


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


def build_app(gradio, page, written: Path):
    """Make a web application of the page, without its own server.

    NOTE: Gradio's ``launch`` checks its own server over HTTP, through a proxy if the environment
    sets one, accepts no IPv6 address, and logs to the terminal.
    """
    import fastapi

    page.queue(max_size=MOST_WAITING, api_open=False)
    page.has_launched = True  # else Gradio accepts any path of this machine as an upload
    silent = {'docs_url': None, 'redoc_url': None, 'openapi_url': None}
    look = gradio.themes.Soft(
        primary_hue='blue', font=['system-ui', 'sans-serif'], font_mono=['monospace']
    )
    return gradio.mount_gradio_app(
        fastapi.FastAPI(**silent),
        page,
        path='/',
        app_kwargs=silent,
        allowed_paths=[str(written)],
        max_file_size=LARGEST_UPLOAD,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
        run_history=False,
        show_error=False,
        footer_links=[],
        theme=look,
        css=CSS,
        head=f'<script>{SCRIPT}</script>',
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


def find_examples(folder: Path | None) -> list[str]:
    """Choose example videos: the first of those whose names differ only by a number.

    Files that our reader refuses are left out: Gradio passes examples to ffmpeg, which would open
    the files that a playlist names.
    """
    from mmtimesformer.datasets.preparation.finding import walk_videos
    from mmtimesformer.datasets.transforms.decoding import Video

    if folder is None and not EXAMPLES.is_dir():
        return []
    folder = folder or EXAMPLES
    kinds: dict[str, str] = {}
    for name, _ in walk_videos(folder, frames=False):
        kind = Path(name).stem.strip('0123456789_-. ') or name
        if kind in kinds:
            continue
        with contextlib.suppress(OSError, ValueError):
            Video(folder / name)
            kinds[kind] = str(folder / name)
        if len(kinds) == MOST_EXAMPLES:
            break
    return list(kinds.values())


def lay_out(gradio, answers, examples: list[str], name: str, waits):
    """Build the page; ``waits`` returns whether a session still waits for an answer."""

    def answer(video, method, request: gradio.Request):
        event = LocalContext.event_id.get(None)
        still = partial(waits, request.session_hash, event)
        found = answers(video, answers.methods()[method], still)
        shown = (found.words or HINT, *(path and str(path) for path in (found.grid, found.overlay)))
        return *shown, found.walk

    from gradio.context import LocalContext

    methods = list(answers.methods())
    model = f'{html.escape(safe_text(name, 100))}, {answers.classifier.num_classes} classes'
    with gradio.Blocks(
        title='mmtimesformer', analytics_enabled=False, delete_cache=(3600, 86400)
    ) as page:
        gradio.HTML(
            f'<div class="head"><h1>Video classification and attention</h1><p>{model}</p></div>'
        )
        with gradio.Row():
            with gradio.Column(scale=5):
                video = gradio.Video(
                    label='Video', sources=['upload'], height=340, buttons=[], elem_id='video'
                )
                if examples:
                    gradio.Examples(
                        examples, video, label='or choose an example', cache_examples=False
                    )
            with gradio.Column(scale=4):
                words = gradio.HTML(HINT, elem_id='words')
        method = gradio.Radio(methods, value=methods[0], label='Attention')
        with gradio.Tab('Frames'):
            grid = gradio.Image(
                show_label=False, elem_id='grid', interactive=False,
                buttons=['download', 'fullscreen'],
            )  # fmt: skip
        with gradio.Tab('Video'):
            overlay = gradio.Video(
                show_label=False, elem_id='overlay', autoplay=True, loop=True, height=420,
                buttons=['download'],
            )  # fmt: skip
        with gradio.Tab('Every layer, head and patch'):
            walk = gradio.HTML(elem_id='walk')
        parts = [words, grid, overlay, walk]
        for changed in (video, method):
            changed.change(
                answer, [video, method], parts, concurrency_id='model', concurrency_limit=1
            )
    return page


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code (see ``mmtimesformer.cli``)."""
    args = parse_args(argv)
    return run_tool(lambda: serve(args), args.debug)


if __name__ == '__main__':
    sys.exit(main())
