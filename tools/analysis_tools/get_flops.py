"""Print FLOPs and parameters of models.

Multiply-adds of one clip (which papers call FLOPs) and parameters, of the given configs or of all
shipped ones.

Examples:
    mmtimesformer get_flops
    mmtimesformer get_flops CONFIG --shape 448
"""

import argparse
import sys

from mmtimesformer.cli import require_mmaction, run_tool
from mmtimesformer.config.command_line import ConfigOptions, ToolParser, parse, whole_number
from mmtimesformer.terminal import echo


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__)
    parser.add_argument(
        'config',
        nargs='*',
        help='config files or names of shipped configs; all shipped ones if none is given',
    )
    parser.add_argument(
        '--shape',
        type=whole_number(1),
        nargs='+',
        metavar='S',
        help='frames in pixels: one number, or H W',
    )
    parser.add_argument('--exact', action='store_true', help='do not round')
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions, metavar='KEY=VALUE')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    if args.shape and len(args.shape) > 2:
        parser.error(f'--shape takes one number or two, not {len(args.shape)}')
    return args


def show(args: argparse.Namespace) -> None:
    """Print a line for each config."""
    require_mmaction()
    from mmtimesformer.analysis.complexity import in_billions, in_millions, measure_complexity
    from mmtimesformer.config.find import find_config, read_config, shipped_configs

    names = args.config or sorted(shipped_configs())
    paths = [find_config(name) for name in names]
    width = max(max(map(len, names)), len('config'))
    echo(f'{"config":<{width}}  {"clip":>16}  {"multiply-adds":>17}  {"parameters":>11}')
    size = None if args.shape is None else (args.shape[0], args.shape[-1])
    for name, path in zip(names, paths, strict=True):
        cfg = read_config(str(path), args.cfg_options)
        cost = measure_complexity(cfg, size)
        clip = ' x '.join(map(str, cost.shape[1:]))
        numbers = in_billions(cost.multiply_adds), in_millions(cost.parameters)
        if args.exact:
            numbers = f'{cost.multiply_adds:,}', f'{cost.parameters:,}'
        echo(f'{name:<{width}}  {clip:>16}  {numbers[0]:>17}  {numbers[1]:>11}', flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = parse_args(argv)
    return run_tool(lambda: show(args), args.debug)


if __name__ == '__main__':
    sys.exit(main())
