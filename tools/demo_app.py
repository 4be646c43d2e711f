"""A page to try a model in the browser: python tools/demo_app.py [options].

One gives it a video, or picks one, and sees five labels and where the model looked. Without options
it takes the model of `make demo`. The page needs no network: nothing is loaded from elsewhere, and
nothing is sent anywhere.
"""

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from mmtimesformer.engine.letters import run_job
from mmtimesformer.engine.requirements import require_mmaction
from mmtimesformer.terminal import echo

DEMO = Path('work_dirs/demo/divST')
EXAMPLES = Path('data/moving_shapes/videos_val')
MOST_EXAMPLES = 8
INSTALL = 'pip install "mmtimesformer[demo]" (in a checkout: pip install -r requirements/demo.txt)'
LARGEST_UPLOAD = '1gb'
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
.letter { border-left: 4px solid #c0392b; background: rgba(192, 57, 43, .08); padding: .7rem 1rem;
          border-radius: 4px; overflow-wrap: anywhere; }
#video button[aria-label^="Trim"], #video button[aria-label^="Reset"] { display: none; }
#video.unplayable::after { content: "This browser cannot play the file; the model reads it itself.";
  position: absolute; inset: auto 1rem 45%; text-align: center; color: #7b8794; }
iframe { width: 100%; height: min(92vh, 78rem); border: 0; border-radius: 8px; background: white; }
"""
# A browser plays fewer kinds of files than the model reads; Gradio would call that an error.
SCRIPT = """
for (const kind of ['error', 'loadeddata', 'emptied']) addEventListener(kind, event => {
  if (!(event.target instanceof HTMLVideoElement)) return;
  event.target.closest('#video')?.classList.toggle('unplayable', kind === 'error');
  if (kind === 'error') event.stopImmediatePropagation();
}, true);
"""
HINT = '<p class="hint">Its labels appear here.</p>'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--checkpoint', help=f'the weights (the newest of {DEMO})')
    parser.add_argument(
        '--config',
        help='a config file, or the name of a shipped config; a checkpoint of tools/train.py needs '
        'none',
    )
    parser.add_argument('--classes', metavar='NAMES.txt', help='names of the classes, one a line')
    parser.add_argument(
        '--examples',
        type=Path,
        metavar='DIR',
        help=f'videos to pick from ({EXAMPLES}, if it is there)',
    )
    parser.add_argument('--device', help='cpu, cuda, cuda:1; the first GPU if there is one')
    parser.add_argument('--host', default='127.0.0.1', help='0.0.0.0 lets other machines in')
    parser.add_argument('--port', type=int, default=7860)
    parser.add_argument('--open', action='store_true', help='open it in a browser')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parser.parse_args(argv)
    if args.config and not args.checkpoint:
        parser.error('--config goes with --checkpoint')
    return args


def serve(args: argparse.Namespace) -> None:
    """Load the model, then show the page until somebody stops it."""
    gradio = import_gradio()
    require_mmaction()
    from mmtimesformer.inference import VideoClassifier
    from mmtimesformer.visualization.answers import Answers

    checkpoint = args.checkpoint or newest_of_demo()
    classifier = VideoClassifier(args.config, checkpoint, args.device, args.classes)
    with TemporaryDirectory(prefix='mmtimesformer-') as folder:
        answers = Answers(classifier, Path(folder))
        page = lay_out(gradio, answers, find_examples(args.examples), Path(checkpoint).name)
        look = gradio.themes.Soft(
            primary_hue='blue', font=['system-ui', 'sans-serif'], font_mono=['monospace']
        )
        try:
            page.queue(api_open=False).launch(
                server_name=args.host,
                server_port=args.port,
                inbrowser=args.open,
                share=False,
                quiet=True,
                ssr_mode=False,
                prevent_thread_lock=True,
                allowed_paths=[folder],
                max_file_size=LARGEST_UPLOAD,
                footer_links=[],
                theme=look,
                css=CSS,
                head=f'<script>{SCRIPT}</script>',
            )
        except OSError as error:
            raise OSError(
                f'nothing can be served at {args.host}:{args.port}, which may be in use; give '
                '--port another number'
            ) from error
        echo(f'http://{args.host}:{args.port}  (Ctrl-C ends it)', flush=True)
        page.block_thread()


def import_gradio():
    """Import Gradio, with its messages home switched off.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'the page is made by Gradio, but {error.name} is not installed; run: {INSTALL}'
        ) from error
    return gradio


def newest_of_demo() -> str:
    """Return the checkpoint that `make demo` left.

    Raises:
        FileNotFoundError: It was not run here.
    """
    from mmtimesformer.engine import latest_checkpoint

    newest = latest_checkpoint(DEMO)
    if newest is None:
        raise FileNotFoundError(
            f'there is no model in {DEMO}: run make demo first, or give --checkpoint'
        )
    return newest


def find_examples(folder: Path | None) -> list[str]:
    """Choose videos to pick from: of those that are named alike but for a number, the first."""
    from mmtimesformer.datasets.preparation.finding import walk_videos

    if folder is None and not EXAMPLES.is_dir():
        return []
    folder = folder or EXAMPLES
    kinds: dict[str, str] = {}
    for name, _ in walk_videos(folder):
        kinds.setdefault(Path(name).stem.strip('0123456789_-. ') or name, str(folder / name))
    return list(kinds.values())[:MOST_EXAMPLES]


def lay_out(gradio, answers, examples: list[str], name: str):
    """Put the parts of the page in their places."""

    def answer(video, method):
        found = answers(video, answers.methods()[method])
        shown = (found.words or HINT, *(path and str(path) for path in (found.grid, found.overlay)))
        return *shown, found.walk

    methods = list(answers.methods())
    model = f'{name}, {answers.classifier.num_classes} classes'
    with gradio.Blocks(
        title='mmtimesformer', analytics_enabled=False, delete_cache=(3600, 86400)
    ) as page:
        gradio.HTML(
            f'<div class="head"><h1>What does it see, and where does it look?</h1><p>{model}</p>'
            '</div>'
        )
        with gradio.Row():
            with gradio.Column(scale=5):
                video = gradio.Video(
                    label='A video', sources=['upload'], height=340, buttons=[], elem_id='video'
                )
                if examples:
                    gradio.Examples(examples, video, label='or one of these', cache_examples=False)
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
        video.change(answer, [video, method], parts)
        method.change(answer, [video, method], parts)
    return page


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code (see ``mmtimesformer.engine.letters``)."""
    args = parse_args(argv)
    return run_job(lambda: serve(args), args.debug)


if __name__ == '__main__':
    sys.exit(main())
