"""Write a trained model as ONNX: python tools/export.py CONFIG CHECKPOINT [options].

Also as torch.export or TorchScript. The file is then run, and kept only if no score differs from
PyTorch by more than 1e-4. Its metadata (input, output, test pipeline) is in the file, as JSON.
"""

import argparse
import json
import sys
from pathlib import Path

from mmtimesformer.cli import require_mmaction, run_tool
from mmtimesformer.config.command_line import check_order, check_output, parse
from mmtimesformer.fileio.atomic import write_atomically
from mmtimesformer.terminal import ArgumentParser, echo

OLDEST_OPSET = 18  # of torch's exporter


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'config',
        nargs='?',
        help='a config file, or the name of a shipped config; a checkpoint of tools/train.py needs '
        'none: give that alone',
    )
    parser.add_argument('checkpoint', help='the weights')
    parser.add_argument('--format', choices=['onnx', 'torch-export', 'torchscript'], default='onnx')
    parser.add_argument(
        '--out', type=Path, metavar='FILE', help="here, under the checkpoint's name, if not given"
    )
    parser.add_argument(
        '--batch', default='dynamic', metavar='N|dynamic', help='videos at a time; any, by default'
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        '--logits',
        dest='output',
        action='store_const',
        const='logits',
        help='output the logits of each clip (the default)',
    )
    output.add_argument(
        '--probabilities',
        dest='output',
        action='store_const',
        const='probabilities',
        help='output the softmax of each clip (for a multi-label model the sigmoid)',
    )
    output.add_argument(
        '--views',
        dest='output',
        action='store_const',
        const='fused',
        help="input all views of a video, output their fused scores, as in the config's test",
    )
    parser.add_argument(
        '--with-preprocessing',
        action='store_true',
        help='pixels of uint8 go in, RGB, and are normalised inside',
    )
    parser.add_argument('--opset', type=int, help='of ONNX; 18 by default and at least')
    parser.add_argument('--classes', metavar='NAMES.txt', help='names of the classes, one a line')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    parser.set_defaults(output='logits')
    args = parse(parser, argv)
    if args.batch != 'dynamic' and not (args.batch.isdecimal() and int(args.batch) > 0):
        parser.error(f'--batch {args.batch} is neither a positive number nor dynamic')
    if args.opset is not None and args.format != 'onnx':
        parser.error('--opset goes with --format onnx')
    if args.opset is not None and args.opset < OLDEST_OPSET:
        parser.error(f'--opset {args.opset} is older than torch can write; give {OLDEST_OPSET}')
    return args


def export(args: argparse.Namespace) -> None:
    """Write the file, run it, and keep it if its scores are those of PyTorch."""
    require_mmaction()
    from mmtimesformer.export import (
        FORMATS,
        OPSET,
        TOLERANCE,
        ClipScores,
        clip_shape,
        compare,
        describe,
        require_onnx,
    )
    from mmtimesformer.inference import VideoClassifier

    if args.format == 'onnx':
        require_onnx()
    kind = FORMATS[args.format]
    out = args.out or Path(Path(args.checkpoint).stem + kind.ending)
    if out.suffix != kind.ending:
        raise ValueError(f'--out {out} does not end in {kind.ending}, as {args.format} does')
    check_order(args.config, args.checkpoint)
    check_output(out, '--out')
    classifier = VideoClassifier(args.config, args.checkpoint, 'cpu', args.classes)
    shape = clip_shape(classifier)
    graph = ClipScores(classifier, shape, args.output, args.with_preprocessing)
    dynamic = args.batch == 'dynamic'
    batch = None if dynamic else int(args.batch)
    metadata = describe(classifier, graph, shape, batch)
    if args.format == 'onnx':
        metadata['opset'] = args.opset or OPSET

    with write_atomically(out) as part:
        # Of two videos: torch.export takes a batch of one for a constant.
        kind.write(graph, example(metadata, batch or 2), dynamic, metadata, part)
        run, stored = kind.read(part)
        if stored != json.loads(json.dumps(metadata)):
            raise ValueError(
                'the file does not hold the metadata that was written; it was not kept'
            )
        batches = (1, 3) if batch is None else (batch,)
        differences = list(compare(run, classifier, graph, shape, batches))
    report(out, args.format, metadata, differences, TOLERANCE)


def example(metadata: dict, batch: int):
    """Return an input to trace the model with."""
    import torch

    entry = metadata['input']
    return torch.zeros(batch, *entry['shape'][1:], dtype=getattr(torch, entry['dtype']))


def report(out: Path, kind: str, metadata: dict, differences: list, tolerance: float) -> None:
    """Say what was written, and how far it is from PyTorch."""
    entry = metadata['input']
    sizes = ', '.join('b' if size is None else str(size) for size in entry['shape'])
    pixels = 'pixels' if entry['mean'] is None else 'normalised'
    opset = f', opset {metadata["opset"]}' if 'opset' in metadata else ''
    colour = entry['colour'] or 'channels of test_pipeline'
    echo(f'in    {entry["name"]}: ({sizes}) of {entry["dtype"]}, {colour}, {pixels}')
    echo(f'out   {metadata["output"]["name"]}: {metadata["output"]["meaning"]}')
    for one in differences:
        echo(
            f'check {one.what}, batch {one.batch}: scores up to {one.scale:.3g}, largest '
            f'difference from PyTorch {one.largest:.1e} (allowed {tolerance:.0e})'
        )
    echo(f'wrote {out}: {kind}{opset}, {out.stat().st_size / 1e6:.1f} MB')


def main(argv: list[str] | None = None) -> int:
    """Do the job; return the exit code."""
    args = parse_args(argv)
    return run_tool(lambda: export(args), args.debug)


if __name__ == '__main__':
    sys.exit(main())
