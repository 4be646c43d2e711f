"""Compare scores in bf16 and int8 with fp32.

The model is given as for `mmtimesformer predict`. Prints for each precision the time, the largest
and the mean difference of a score, and how many videos keep their best class. Writes no file.

Examples:
    mmtimesformer compare_precision videos/ CHECKPOINT --precisions bf16
"""

import argparse
import sys
import time

from mmtimesformer.cli import require_mmaction, run_tool
from mmtimesformer.config.command_line import ToolParser, add_model, parse


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__)
    parser.add_argument('video', help='a video file, or a folder of them')
    add_model(parser)
    parser.add_argument(
        '--precisions', nargs='+', choices=['fp32', 'bf16', 'int8'], default=['bf16', 'int8']
    )
    parser.add_argument('--device', help='cpu, cuda, cuda:1; the first GPU if there is one')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    return parse(parser, argv)


def compare(args: argparse.Namespace) -> None:
    """Compute scores in each precision, and print the differences.

    Raises:
        NonFiniteError: Scores of a video are NaN or infinite in one of the precisions.
    """
    require_mmaction()
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from mmtimesformer.inference import Predictions, VideoClassifier
    from mmtimesformer.non_finite import NonFiniteError, about_scores

    scores, seconds, broken = {}, {}, {}
    for precision in dict.fromkeys(['fp32', *args.precisions]):
        classifier = VideoClassifier(args.config, args.checkpoint, args.device, precision=precision)
        start = time.perf_counter()
        try:
            found = classifier(args.video)
        except NonFiniteError as error:
            if precision == 'fp32':
                raise
            broken[precision] = str(error)
            continue
        if not isinstance(found, list):
            found = Predictions([found])
        seconds[precision] = (time.perf_counter() - start) / (len(found) + len(found.skipped))
        scores[precision] = {one.video: one.all_scores for one in found}
        if names := found.non_finite:
            total = len(found) + len(found.skipped)
            broken[precision] = about_scores(names, total, precision)
    # Videos without finite scores in one precision are compared in none.
    common = [video for video in scores['fp32'] if all(video in found for found in scores.values())]
    scores = {name: np.stack([found[v] for v in common]) for name, found in scores.items()}
    reference = scores['fp32']
    table = Table(title=f'{len(reference)} videos; a score is the {classifier.fusion}')
    for name in ('precision', 'seconds a video', 'largest difference', 'mean', 'same best class'):
        table.add_column(name, justify='right')
    for precision, found in scores.items():
        difference = np.abs(found - reference)
        same = int((found.argmax(1) == reference.argmax(1)).sum())
        table.add_row(
            precision,
            f'{seconds[precision]:.2f}',
            f'{difference.max():.2g}',
            f'{difference.mean():.2g}',
            f'{same} of {len(found)}',
        )
    Console().print(table)
    if broken:
        raise NonFiniteError('; '.join(broken.values()))


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = parse_args(argv)
    return run_tool(lambda: compare(args), args.debug)


if __name__ == '__main__':
    sys.exit(main())
