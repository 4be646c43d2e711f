"""Draw attention maps of a video.

The model is given as for `mmtimesformer predict`. Writes into --out: a picture of frames and
overlays, a video of both, and an interactive page of all layers, heads, frames and patches.

Examples:
    mmtimesformer visualize_attention clip.mp4 CHECKPOINT --out attention
    mmtimesformer visualize_attention clip.mp4 CHECKPOINT --method gradient --class waving
"""

import argparse
import sys
from pathlib import Path

from mmtimesformer.cli import require_mmaction, run_tool
from mmtimesformer.config.command_line import (
    ToolParser,
    add_model,
    check_output,
    parse,
    positive_number,
)
from mmtimesformer.terminal import echo, echo_lines

MEGABYTES = 24


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__)
    parser.add_argument('video', help='a video file, or a folder of frames')
    add_model(parser)
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('attention'),
        help='folder for grid.png, overlay.mp4 and page.html',
    )
    parser.add_argument(
        '--method',
        choices=['rollout', 'last', 'gradient'],
        default='rollout',
        help='what the overlays show: attention rollout through all layers (rollout), attention '
        'of the class token in one layer (last), or gradient relevance for a class (gradient)',
    )
    parser.add_argument(
        '--layer',
        type=int,
        help='with --method last: which layer, from 0; -1 is the last. The page opens with it',
    )
    parser.add_argument(
        '--head', type=int, help='which head, from 0, likewise; the mean of all, if not given'
    )
    parser.add_argument(
        '--class', dest='label', metavar='NAME', help='for gradients: a name or number of a class'
    )
    parser.add_argument('--view', type=int, help='which crop or clip of the test, from 0')
    parser.add_argument(
        '--layers', type=int, nargs='+', help='layers that the page shall hold; all, if they fit'
    )
    parser.add_argument(
        '--page-megabytes',
        type=positive_number,
        default=MEGABYTES,
        metavar='MB',
        help=f'room for weights in the page ({MEGABYTES})',
    )
    parser.add_argument(
        '--fps',
        type=positive_number,
        metavar='FPS',
        help='frames per second of a folder of JPG or PNG frames, which has no rate (30)',
    )
    parser.add_argument('--classes', metavar='NAMES.txt', help='names of the classes, one a line')
    parser.add_argument('--device', help='cpu, cuda, cuda:1; the first GPU if there is one')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    return parse(parser, argv)


def visualize(args: argparse.Namespace) -> None:
    """Compute attention, then write the picture, the video and the page."""
    require_mmaction()
    from mmtimesformer.inference import VideoClassifier
    from mmtimesformer.inference.inputs import fps_note
    from mmtimesformer.visualization.attention import (
        METHODS,
        compute_attention,
        draw_attention,
        write_attention_video,
    )
    from mmtimesformer.visualization.attention_page import write_page
    from mmtimesformer.visualization.figures import shown_name

    layer = -1 if args.layer is None else args.layer
    check_output(args.out, '--out', folder=True)
    classifier = VideoClassifier(args.config, args.checkpoint, args.device, args.classes)
    asked = args.method == 'gradient' or args.label is not None
    attention = compute_attention(
        classifier, args.video, args.label, args.view, gradients=asked or None, fps=args.fps
    )
    if note := fps_note(args.video, args.fps):
        echo(note, file=sys.stderr)
    prediction = attention.prediction
    echo_lines(prediction)
    heatmap = attention.heatmap(args.method, layer, args.head)
    title = f'{shown_name(prediction.top)}  {prediction.shown()}:  {METHODS[args.method]}'
    if args.method == 'gradient':
        title = f'gradient relevance for {shown_name(attention.name)}'

    grid, video, page = (args.out / name for name in ('grid.png', 'overlay.mp4', 'page.html'))
    opens = {'method': args.method, 'layer': layer, 'head': args.head}
    report = write_page(attention, page, args.layers, args.page_megabytes, **opens)
    draw_attention(attention.frames, {args.method: heatmap}, grid, title, attention.seconds)
    write_attention_video(attention.frames, heatmap, video, attention.seconds)
    echo(f'\nwrote {grid}')
    echo(f'wrote {video}')
    echo(f'wrote {report}')


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code (see ``mmtimesformer.cli``)."""
    args = parse_args(argv)
    return run_tool(lambda: visualize(args), args.debug)


if __name__ == '__main__':
    sys.exit(main())
