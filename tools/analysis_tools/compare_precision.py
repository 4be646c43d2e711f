"""Measure on your videos what each speed gains in time and costs in scores.

The model is given as for `mmtimesformer predict`. Every speed is compared with `exact`: seconds a
video (with reading), the largest and the mean difference of a score, the lowest cosine of logits,
and how many videos get another best class. Writes no file.

Examples:
    mmtimesformer compare_precision videos/ CHECKPOINT --speeds bf16 compiled+bf16
"""

import argparse
import sys

from mmtimesformer.cli import require_mmaction, run_tool
from mmtimesformer.config.command_line import ToolParser, add_model, parse
from mmtimesformer.config.speed import EXACT, add_speed

COLUMNS = (
    'speed', 'seconds a video', 'times as fast', 'largest difference', 'mean', 'cosine of logits',
    'other best class',
)  # fmt: skip


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__)
    parser.add_argument('video', help='a video file, or a folder of them')
    add_model(parser)
    add_speed(parser, '--speeds', several=True)
    parser.add_argument('--device', help='cpu, cuda, cuda:1; the first GPU if there is one')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    return parse(parser, argv)


def compare_speeds(args: argparse.Namespace) -> None:
    """Compute scores at each speed, and print the differences.

    Raises:
        NonFiniteError: Scores of a video are NaN or infinite at one of the speeds.
    """
    require_mmaction()
    from rich.console import Console
    from rich.table import Table

    from mmtimesformer.inference import VideoClassifier
    from mmtimesformer.inference.speed_cost import compare, finite_in_all, measure
    from mmtimesformer.non_finite import NonFiniteError, about_scores

    runs, broken = {}, []
    for speed in dict.fromkeys([EXACT, *args.speeds]):
        classifier = VideoClassifier(args.config, args.checkpoint, args.device, speed=speed)
        try:
            runs[speed] = run = measure(classifier, args.video)
        except NonFiniteError as error:
            if speed == EXACT:
                raise
            broken.append(str(error))
            continue
        if names := run.found.non_finite:
            total = len(run.found) + len(run.found.skipped)
            broken.append(about_scores(names, total, speed))
    videos = finite_in_all(runs.values())
    table = Table(title=f'{len(videos)} videos; a score is the {classifier.fusion}')
    for name in COLUMNS:
        table.add_column(name, justify='right')
    for speed, run in runs.items() if videos else ():
        cost = compare(speed, run, runs[EXACT], videos)
        table.add_row(
            speed,
            f'{cost.seconds:.2f}',
            f'{cost.gain:.2f}',
            f'{cost.largest:.2g}',
            f'{cost.mean:.2g}',
            f'{cost.cosine:.6f}',
            f'{cost.changed} of {cost.videos}',
        )
    Console().print(table)
    if broken:
        raise NonFiniteError('; '.join(broken))


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = parse_args(argv)
    return run_tool(lambda: compare_speeds(args), args.debug)


if __name__ == '__main__':
    sys.exit(main())
