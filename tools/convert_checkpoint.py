"""Convert a checkpoint between formats.

SRC is a checkpoint in any format of docs/checkpoints.md: a file, a folder, https://…,
hf://owner/name or timm://name. Prints the load report: what happened to every key. If a key is
missing or unknown, nothing is written and the exit code is 1.

Examples:
    mmtimesformer convert_checkpoint TimeSformer_divST_8x32_224_K400.pyth k400.pth
    mmtimesformer convert_checkpoint model.pth hf_folder --to huggingface
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mmtimesformer.cli import error_message, run_tool
from mmtimesformer.config.command_line import ToolParser, check_output, parse, whole_number
from mmtimesformer.terminal import echo, echo_lines

FORMATS = ('mmtimesformer', 'official', 'huggingface', 'mmaction2')
ATTENTION_TYPES = ('divided_space_time', 'joint_space_time', 'space_only')
RESIZES = ('grid', 'legacy-1d-nearest')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__)
    parser.add_argument('src', help='a file, a folder, https://…, hf://owner/name, timm://name')
    parser.add_argument('dst', help='.pth or .safetensors; a folder for --to huggingface')
    parser.add_argument('--to', choices=FORMATS, default='mmtimesformer', help='format to write')
    parser.add_argument(
        '--attention-type',
        choices=ATTENTION_TYPES,
        help="type of the model (default: the checkpoint's own, divided for an image ViT)",
    )
    parser.add_argument('--num-frames', type=whole_number(1), metavar='T', help='resize time_embed')
    parser.add_argument(
        '--img-size',
        type=whole_number(1),
        nargs='+',
        metavar='S',
        help='resize pos_embed: one number, or H W',
    )
    parser.add_argument(
        '--source-size',
        type=whole_number(1),
        nargs='+',
        metavar='S',
        help='size that pos_embed is for now, where its grid is not square: H W',
    )
    parser.add_argument(
        '--num-heads', type=whole_number(1), metavar='N', help='where the checkpoint has none'
    )
    parser.add_argument(
        '--resize',
        choices=RESIZES,
        default='grid',
        help='legacy-1d-nearest is the resize of the official code, with its error',
    )
    parser.add_argument(
        '--change-attention',
        action='store_true',
        help='let one attention type become another: drop and seed the weights for it',
    )
    head = parser.add_mutually_exclusive_group()
    head.add_argument('--keep-head', action='store_true', default=None, help='also that of images')
    head.add_argument('--drop-head', action='store_false', dest='keep_head', default=None)
    parser.add_argument('--sha256', metavar='HASH', help='hash that SRC must have')
    parser.add_argument(
        '--trust', action='store_true', help='let SRC run the code it holds; your own files only'
    )
    parser.add_argument('--json', action='store_true', help='print the load report as JSON')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    for name in ('img_size', 'source_size'):
        size = getattr(args, name)
        if size is not None:
            if len(size) > 2:
                parser.error(f'--{name.replace("_", "-")} takes one number, or height and width')
            setattr(args, name, (size[0], size[-1]))
    return args


def convert(args: argparse.Namespace) -> None:
    """Read, write, and print the load report, also that of a failure."""
    from mmtimesformer.checkpoints import CheckpointError, read_checkpoint, save_checkpoint
    from mmtimesformer.checkpoints.save import ENDINGS

    try:
        if args.dst.endswith(ENDINGS) or args.to == 'huggingface':
            check_output(args.dst, 'DST', folder=not Path(args.dst).suffix)
        both_exist = Path(args.dst).exists() and Path(args.src).exists()
        if both_exist and Path(args.dst).samefile(args.src):
            raise ValueError(
                f'DST {args.dst} is SRC itself, whose optimizer and other states would be lost; '
                'give another path'
            )
        weights = read_checkpoint(
            args.src,
            attention_type=args.attention_type,
            num_frames=args.num_frames,
            img_size=args.img_size,
            source_size=args.source_size,
            num_heads=args.num_heads,
            resize=args.resize,
            change_attention=args.change_attention,
            keep_head=args.keep_head,
            sha256=args.sha256,
            trust=args.trust,
        )
        load_report = save_checkpoint(weights, args.dst, args.to)
    except Exception as error:
        load_report = error.load_report if isinstance(error, CheckpointError) else None
        if args.json:
            output: dict[str, Any] = load_report.as_dict() if load_report else {}
            output |= {'complete': False, 'error': error_message(error)}
            echo_lines(json.dumps(output, indent=2))
        elif load_report is not None:
            echo_lines(load_report.table())
        raise
    if args.json:
        output = {**load_report.as_dict(), 'complete': True, 'written': args.dst}
        echo_lines(json.dumps(output, indent=2))
    else:
        echo_lines(load_report.table())
        echo(f'\nwrote {args.dst}')


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code (see ``mmtimesformer.cli``)."""
    args = parse_args(argv)
    return run_tool(lambda: convert(args), args.debug)


if __name__ == '__main__':
    sys.exit(main())
