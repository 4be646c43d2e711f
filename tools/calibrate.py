"""Fit a temperature on validation scores.

The scores are those of this checkpoint on validation videos (mmtimesformer test --dump), not of the
test set. Writes a copy of the checkpoint with the temperature in its metadata. It is used on
request only: --calibrated of the tools test and predict, VideoClassifier(calibrated=True).

Examples:
    mmtimesformer calibrate model.pth --scores work_dirs/val/result.pkl --out calibrated.pth
"""

import argparse
import shlex
import sys
from pathlib import Path

from mmtimesformer.cli import require_file, run_tool
from mmtimesformer.config.command_line import ToolParser, check_output, parse
from mmtimesformer.terminal import echo


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__)
    parser.add_argument(
        'checkpoint', type=Path, help='a .pth file of this package; convert other formats first'
    )
    parser.add_argument(
        '--scores', type=Path, metavar='RESULT.pkl',
        help='of mmtimesformer test --dump, on validation videos',
    )  # fmt: skip
    parser.add_argument(
        '--out', type=Path, metavar='FILE', help='the new file (NAME_calibrated.pth)'
    )
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    return parse(parser, argv)


def calibrate(args: argparse.Namespace) -> None:
    """Fit the temperature, write the checkpoint, and print what changes."""
    from mmtimesformer.analysis.calibration import calibrate_checkpoint
    from mmtimesformer.analysis.test_results import read_test_results

    remedy = (
        'correct the path, or convert a Hugging Face folder, a repository or published weights '
        'with mmtimesformer convert_checkpoint to a .pth file first'
    )
    require_file(args.checkpoint, 'checkpoint', remedy, Path.is_file)
    if args.scores is None:
        raise ValueError(missing_scores(args.checkpoint))
    out = args.out or args.checkpoint.with_name(f'{args.checkpoint.stem}_calibrated.pth')
    check_output(out, '--out')
    results = read_test_results(args.scores.parent, args.scores)
    found = calibrate_checkpoint(args.checkpoint, results, out)
    echo(f'temperature: {found.temperature:.4g}, fitted on {len(results.labels):,} videos')
    echo(
        f'expected calibration error: {100 * found.before:.2f} % before, {100 * found.after:.2f} % '
        'after (fitted on one half of the videos, measured on the other)'
    )
    for one in found.sets:
        echo(
            f'label sets at {100 * one.level:g} %: coverage {100 * one.coverage:.1f} %, '
            f'{one.size:.2f} labels on average'
        )
    echo(f'saved: {out}; use it with --calibrated')


def missing_scores(checkpoint: Path) -> str:
    """Return a sentence with the two commands that calibrate a checkpoint."""
    path = shlex.quote(str(checkpoint))
    return (
        'no scores of validation videos are given; set --scores. With the validation list as the '
        'test list of CONFIG, run (1) '
        f'mmtimesformer test CONFIG {path} --dump val/result.pkl --work-dir val (2) '
        f'mmtimesformer calibrate {path} --scores val/result.pkl'
    )


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = parse_args(argv)
    return run_tool(lambda: calibrate(args), args.debug)


if __name__ == '__main__':
    sys.exit(main())
