"""Label videos.

The model is a checkpoint, a config and its checkpoint in any order, the name of a shipped config
with published weights (downloaded once), or a Hugging Face folder or repository.
Views, crops and the fusion of scores are those of the model's test. With --window a long video is
labelled in sliding windows.

Examples:
    mmtimesformer predict clip.mp4 work_dirs/mine/model.pth
    mmtimesformer predict videos/ CONFIG CHECKPOINT --topk 3 --out labels.csv
    mmtimesformer predict clip.mp4 timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb
    mmtimesformer predict clip.mp4 hf://facebook/timesformer-base-finetuned-k400
    mmtimesformer predict long.mp4 model.pth --window 3 --timeline labels.png labels.csv
"""

import argparse
import json
import sys
from pathlib import Path

from mmtimesformer.cli import require_mmaction, run_tool
from mmtimesformer.config.command_line import (
    ToolParser,
    add_model,
    check_output,
    file_ending_in,
    parse,
    positive_number,
)
from mmtimesformer.config.speed import EXACT, add_speed
from mmtimesformer.fileio.atomic import write_text_atomically
from mmtimesformer.terminal import echo, echo_lines, safe_text

DONE, FAILED, INCOMPLETE = 0, 1, 3
SHOWN = 40  # videos of a folder on the terminal; --out has all


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__, {3: 'done, but some videos could not be read'})
    parser.add_argument('video', help='a video file, a folder of frames, or a folder of these')
    add_model(parser)
    parser.add_argument('--topk', type=int, default=5, help='how many of the best classes to show')
    parser.add_argument(
        '--threshold',
        type=float,
        default=0.5,
        metavar='PROBABILITY',
        help='for a multi-label model: the least probability of a label (0.5)',
    )
    parser.add_argument('--device', help='cpu, cuda, cuda:1; the first GPU if there is one')
    add_speed(parser)
    parser.add_argument(
        '--speed-cost',
        action='store_true',
        help='then run the videos twice more, and print how the speed compares with exact',
    )
    parser.add_argument(
        '--calibrated',
        action='store_true',
        help='divide logits by the temperature in the checkpoint (mmtimesformer calibrate)',
    )
    parser.add_argument(
        '--preprocessing',
        choices=('checkpoint', 'config'),
        default='checkpoint',
        help="whose mean, std, sizes and frames to use where they differ (the checkpoint's)",
    )
    parser.add_argument('--classes', metavar='NAMES.txt', help='names of the classes, one a line')
    parser.add_argument('--batch-size', type=int, default=4, help='videos, or windows, at a time')
    parser.add_argument('--out', type=Path, metavar='X.json|X.csv', help='write the labels')
    parser.add_argument(
        '--save-video',
        type=Path,
        metavar='DIR|X.mp4',
        help='write the video with its labels drawn on it, without sound',
    )
    parser.add_argument(
        '--window',
        type=float,
        metavar='SECONDS',
        help='label each moment, in sliding windows',
    )
    parser.add_argument(
        '--stride',
        type=float,
        metavar='SECONDS',
        help='from window to window (half a window)',
    )
    parser.add_argument(
        '--fps',
        type=positive_number,
        metavar='FPS',
        help='frames per second of a folder of JPG or PNG frames, which has no rate (30)',
    )
    parser.add_argument(
        '--timeline',
        type=file_ending_in('.png', '.csv'),
        nargs='+',
        default=[],
        metavar='X.png|X.csv',
        help='write the labels of each moment as a picture, as a table, or both',
    )
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    check(parser, args)
    return args


def check(parser: ToolParser, args: argparse.Namespace) -> None:
    """Refuse options that do not go with each other or with the video."""
    from mmtimesformer.datasets.video_io.file_endings import is_video
    from mmtimesformer.datasets.video_io.frame_folder import is_frame_folder
    from mmtimesformer.datasets.video_io.safe_open import is_folder

    if args.window is None and (args.stride or args.timeline):
        parser.error('--stride and --timeline go with --window SECONDS')
    if args.speed_cost and (args.speed == EXACT or args.window is not None):
        parser.error('--speed-cost goes with a --speed other than exact, and without --window')
    if args.out and args.out.suffix not in ('.json', '.csv'):
        parser.error(f'--out {args.out} must end in .json or .csv')
    many = is_folder(Path(args.video)) and not is_frame_folder(args.video)
    if args.fps is not None and Path(args.video).is_file():
        parser.error(f'--fps is for a folder of frames; {args.video} is a file, with its own rate')
    if args.window is not None and many:
        parser.error('--window takes one video, not a folder')
    if args.save_video and many and args.save_video.suffix.lower() in ('.mp4', '.mkv', '.mov'):
        parser.error(f'--save-video {args.save_video} names one file; for a folder name a folder')
    if args.save_video and not args.save_video.is_dir():
        ending = args.save_video.suffix.lower()
        if ending not in ('.mp4', '.mkv', '.mov') and is_video(f'x{ending}'):
            parser.error(f'--save-video {args.save_video} must end in .mp4, .mkv or .mov')


def predict(args: argparse.Namespace) -> int:
    """Label videos, print and write the labels."""
    require_mmaction()
    from mmtimesformer.datasets.video_io.safe_open import is_folder
    from mmtimesformer.inference import Predictions, VideoClassifier
    from mmtimesformer.inference.inputs import fps_note, is_many
    from mmtimesformer.non_finite import about_scores

    for path, option in ((args.out, '--out'), *((path, '--timeline') for path in args.timeline)):
        if path:
            check_output(path, option)
    if args.save_video:
        check_output(args.save_video, '--save-video', folder=not args.save_video.suffix)
        folders = args.save_video.is_dir() and is_folder(Path(args.video))
        if folders and args.save_video.samefile(args.video):
            raise ValueError(
                f'--save-video {args.save_video} is the folder of the videos themselves, which '
                'labelled ones could overwrite; give another folder'
            )
    classifier = VideoClassifier(
        args.config,
        args.checkpoint,
        args.device,
        args.classes,
        args.speed,
        args.calibrated,
        args.preprocessing,
    )
    if args.calibrated:
        echo(f'scores are calibrated: temperature {classifier.temperature:g}', file=sys.stderr)
    if classifier.classes is None:
        echo('classes are numbers: no names were found; give --classes NAMES.txt', file=sys.stderr)
    if (args.window is not None or args.save_video) and (note := fps_note(args.video, args.fps)):
        echo(note, file=sys.stderr)
    if args.window is not None:
        return follow(classifier, args)
    results = classifier(
        args.video, args.topk, fps=args.fps, batch_size=args.batch_size, threshold=args.threshold
    )
    if not is_many(args.video):
        results = Predictions([results])
    show(results)
    if args.out:
        write(
            args.out,
            results.as_csv() if args.out.suffix == '.csv' else as_json(results),
        )
    if args.save_video:
        save_videos(results, args, lambda result: lambda time: result)
    if args.speed_cost:
        show_cost(classifier, args)
    if broken := results.non_finite:
        total = len(results) + len(results.skipped)
        echo(f'\nerror: {about_scores(broken, total, args.speed)}', file=sys.stderr)
        return FAILED
    return INCOMPLETE if results.skipped else DONE


def show_cost(classifier, args: argparse.Namespace) -> None:
    """Print what the speed gained in time and cost in scores, on the same videos."""
    from mmtimesformer.inference import VideoClassifier
    from mmtimesformer.inference.speed_cost import compare, finite_in_all, measure

    fast = measure(classifier, args.video, args.fps)
    exact = measure(
        VideoClassifier(
            args.config, args.checkpoint, args.device, args.classes,
            calibrated=args.calibrated, preprocessing=args.preprocessing,
        ),
        args.video,
        args.fps,
    )  # fmt: skip
    if videos := finite_in_all((exact, fast)):
        echo(compare(args.speed, fast, exact, videos), file=sys.stderr)


def follow(classifier, args: argparse.Namespace) -> int:
    """Label each moment of a video."""
    from mmtimesformer.inference.prediction import as_csv
    from mmtimesformer.visualization.timeline import draw_timeline

    timeline = classifier.timeline(
        args.video, args.window, args.stride, args.topk, batch_size=args.batch_size,
        threshold=args.threshold, fps=args.fps,
    )  # fmt: skip
    echo_lines(timeline)
    if args.out:
        write(
            args.out, as_csv(timeline.as_rows()) if args.out.suffix == '.csv' else as_json(timeline)
        )
    for path in args.timeline:
        if path.suffix == '.csv':
            write(path, as_csv(timeline.as_rows()))
        else:
            draw_timeline(timeline, path)
            echo(f'wrote {path}')
    if args.save_video:
        save_videos([timeline], args, lambda timeline: timeline.prediction_at)
    return INCOMPLETE if timeline.note else DONE


def show(results) -> None:
    """Print a table: on a terminal with rules, into a pipe as plain text."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mmtimesformer.inference.prediction import LONGEST_NAME

    console = Console()
    if not console.is_terminal:
        echo_lines(results)
        return
    kind = '' if not results or results[0].is_probability else f' ({results[0].fusion})'
    table = Table('video', 'label', 'score' + kind, box=None, pad_edge=False)
    table.columns[2].justify = 'right'
    several = bool(results) and results[0].is_multi_label
    if several:
        table.add_column(f'at least {100 * results[0].threshold:g} %')
    for result in results[:SHOWN]:
        for rank, label in enumerate(result.labels):
            video = '' if rank else safe_text(result.video)
            name = safe_text(label, LONGEST_NAME)
            cells = [video, name, result.shown(rank)]
            if several:
                cells.append('yes' if result.scores[rank] >= result.threshold else '')
            table.add_row(*map(Text, cells))
    console.print(table)
    if len(results) > SHOWN:
        echo(f'… and {len(results) - SHOWN:,} more; --out X.csv has all')
    for one in results.skipped:
        echo_lines(one)


def save_videos(results, args: argparse.Namespace, when) -> None:
    """Write each video with its labels; ``when`` gives what to draw at a time."""
    out: Path = args.save_video
    from mmtimesformer.visualization.label_overlay import (
        ENDINGS,
        output_names,
        write_labelled_video,
    )

    videos = [result.video for result in results]
    files = [out] if out.suffix.lower() in ENDINGS else output_names(videos, out)
    for result, file in zip(results, files, strict=True):
        note = write_labelled_video(result.video, file, when(result), args.fps)
        echo(f'wrote {file}' + (f'; {note}' if note else ''))


def as_json(result) -> str:
    """Return indented JSON text."""
    return json.dumps(result.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + '\n'


def write(path: Path, text: str) -> None:
    """Write a text file atomically."""
    # Names of files that are not UTF-8: in JSON as its own escapes, in a table as their bytes.
    errors = 'backslashreplace' if path.suffix == '.json' else 'surrogateescape'
    write_text_atomically(path, text, errors)
    echo(f'wrote {path}')


def main(argv: list[str] | None = None) -> int:
    """Do the job; return the exit code."""
    args = parse_args(argv)
    codes: list[int] = []
    return run_tool(lambda: codes.append(predict(args)), args.debug) or codes[0]


if __name__ == '__main__':
    sys.exit(main())
