"""Write the HTML report of a test, or the comparison of several.

WORK_DIR is that of the training, with the result of `mmtimesformer test … --dump
WORK_DIR/result.pkl`. The report is one file with all its pictures. Two or more WORK_DIRs, tested on
the same videos, are compared with the first.

Examples:
    mmtimesformer report work_dirs/mine
    mmtimesformer report work_dirs/a work_dirs/b --out compare.html
"""

import argparse
import sys
from pathlib import Path

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import ToolParser, check_output, parse, whole_number
from mmtimesformer.non_finite import NonFiniteError, about_scores
from mmtimesformer.terminal import echo


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__)
    parser.add_argument(
        'work_dirs', type=Path, nargs='+', metavar='WORK_DIR', help='the work_dir of a training'
    )
    parser.add_argument(
        '--predictions', type=Path, help='the dump of the test (the newest .pkl of WORK_DIR)'
    )
    parser.add_argument('--classes', type=Path, help='class names, one per line')
    parser.add_argument('--out', type=Path, help='the HTML file (WORK_DIR/report.html)')
    parser.add_argument(
        '--frames',
        type=whole_number(0),
        default=60,
        help='how many videos of the list to show with frames, those with the largest errors first',
    )
    parser.add_argument('--mistakes', type=whole_number(0), default=8, help='how many to show')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    if len(args.work_dirs) > 1:
        if args.out is None:
            parser.error('several WORK_DIRs are compared; give --out compare.html')
        if args.predictions is not None:
            parser.error('--predictions is for one WORK_DIR')
    return args


def compare(args: argparse.Namespace) -> None:
    """Read the results of each run, and write their comparison."""
    from mmtimesformer.analysis.run_comparison import run_names
    from mmtimesformer.analysis.test_results import read_test_results
    from mmtimesformer.visualization.comparison_page import write_comparison

    check_output(args.out, '--out')
    names = run_names(args.work_dirs)
    runs = [read_test_results(folder, None, args.classes) for folder in args.work_dirs]
    page = write_comparison(runs, names, args.out)
    echo(f'{page} ({page.stat().st_size / 1024:.0f} KiB): open it in a browser')


def write(args: argparse.Namespace) -> None:
    """Read the results, and write the report.

    Raises:
        NonFiniteError: Scores of some videos are NaN or infinite; the report lists them, unless all
            are.
    """
    from mmtimesformer.analysis.test_results import read_test_results
    from mmtimesformer.visualization.report import write_report

    (work_dir,) = args.work_dirs
    out = args.out or work_dir / 'report.html'
    if work_dir.is_dir():
        check_output(out, '--out')
    results = read_test_results(work_dir, args.predictions, args.classes)
    broken = results.non_finite
    if len(broken) == len(results.labels):
        raise NonFiniteError(f'{about_scores(broken, len(results.labels))}. No report is written')
    page = write_report(results, out, args.mistakes, args.frames)
    echo(f'{page} ({page.stat().st_size / 1024:.0f} KiB): open it in a browser')
    if broken:
        outcome = 'They are left out' if results.is_regression else 'They count as wrong'
        raise NonFiniteError(f'{about_scores(broken, len(results.labels))}. {outcome}')


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = parse_args(argv)
    job = compare if len(args.work_dirs) > 1 else write
    return run_tool(lambda: job(args), args.debug)


if __name__ == '__main__':
    sys.exit(main())
