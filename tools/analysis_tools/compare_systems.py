"""Compare systems on one video and the same weights.

Prints for this package, transformers' pipeline and the official protocol: frames, resize, crop,
mean and std, colour order, fusion of views, and logits; then where each differs and why.
CHECKPOINT is a Hugging Face folder or repository, or any checkpoint that needs no config.

Examples:
    mmtimesformer compare_systems clip.mp4 facebook/timesformer-base-finetuned-k400
"""

import argparse
import json
import sys

from mmtimesformer.cli import require_mmaction, run_tool
from mmtimesformer.config.command_line import ToolParser, parse
from mmtimesformer.terminal import echo, echo_lines, safe_text


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__)
    parser.add_argument('video', help='a video file')
    parser.add_argument('checkpoint', help='a folder, owner/name, hf://owner/name@revision, a file')
    parser.add_argument('--device', help='cpu, cuda, cuda:1; the first GPU if there is one')
    parser.add_argument('--topk', type=int, default=5, help='classes whose logits are shown (5)')
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    return parse(parser, argv)


def compare(args: argparse.Namespace) -> None:
    """Run the systems and print the table."""
    require_mmaction()
    from mmtimesformer.inference.system_comparison import compare_systems

    found = compare_systems(args.video, args.checkpoint, args.device)
    if args.json:
        echo_lines(json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
        return
    rows = [[safe_text(cell) for cell in row] for row in found.rows(args.topk)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        echo('  '.join(cells).rstrip())
    echo('\nDifferences from mmtimesformer:')
    for line in found.differences:
        echo_lines(f'- {line}')


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code (see ``mmtimesformer.cli``)."""
    args = parse_args(argv)
    return run_tool(lambda: compare(args), args.debug)


if __name__ == '__main__':
    sys.exit(main())
