"""Import and export labels of videos for Label Studio and CVAT.

The other side is a CSV file of path and label, as `mmtimesformer finetune` reads it and a report
downloads it.

Examples:
    mmtimesformer labels export corrected.csv --to label-studio --out tasks.json
    mmtimesformer labels import project-1.json --out labels.csv
"""

import argparse
import sys
from pathlib import Path

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import ToolParser, check_output, parse
from mmtimesformer.terminal import echo

LOCAL_FILES, SEPARATOR = '/data/local-files/?d=', ';'
SHOWN = 5  # videos without a label


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__)
    parser.add_argument('direction', choices=['import', 'export'], help='import or export')
    parser.add_argument(
        'file', type=Path, help='the export of Label Studio or CVAT (JSON); or the CSV to export'
    )
    parser.add_argument('--out', type=Path, required=True, help='the CSV, or the JSON of tasks')
    parser.add_argument('--to', choices=['label-studio', 'cvat'], help='what to export for')
    parser.add_argument(
        '--prefix',
        default=LOCAL_FILES,
        help='what Label Studio has before the path of a video (%(default)s)',
    )
    parser.add_argument(
        '--suffix', default='.mp4', help='ending of the videos, which CVAT leaves out (.mp4)'
    )
    parser.add_argument(
        '--label-separator', default=SEPARATOR, help='between labels in a cell of the CSV (";")'
    )
    parser.add_argument(
        '--unreviewed',
        action='store_true',
        help='import the exported label of tasks that nobody has annotated',
    )
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    if (args.direction == 'export') != (args.to is not None):
        parser.error('--to label-studio or --to cvat is for export, and export needs it')
    return args


def export(args: argparse.Namespace) -> None:
    """Write the labels of a CSV file for an annotation tool."""
    from mmtimesformer.finetuning.cvat import export_cvat
    from mmtimesformer.finetuning.label_studio import export_label_studio
    from mmtimesformer.finetuning.labels_csv import read_labels

    videos = read_labels(args.file, args.label_separator)
    if args.to == 'cvat':
        config = export_cvat(videos, args.out)
    else:
        config = export_label_studio(videos, args.out, args.prefix)
    echo(f'{args.out}: {len(videos):,} videos; {config}: the classes for a new project')


def import_(args: argparse.Namespace) -> None:
    """Write the labels of an annotation tool as a CSV file."""
    from mmtimesformer.finetuning.label_tools import import_labels
    from mmtimesformer.finetuning.labels_csv import write_labels

    imported = import_labels(args.file, args.prefix, args.suffix, args.unreviewed)
    write_labels(imported.videos, args.out)
    echo(f'{args.out}: {len(imported.videos):,} videos')
    if left_out := imported.left_out:
        more = f' and {len(left_out) - SHOWN:,} more' if len(left_out) > SHOWN else ''
        echo(f'without a label, left out: {", ".join(left_out[:SHOWN])}{more}')


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = parse_args(argv)

    def job() -> None:
        check_output(args.out, '--out')
        if args.out.resolve() == args.file.resolve():
            raise ValueError(f'--out {args.out} would overwrite its input; give another path')
        (export if args.direction == 'export' else import_)(args)

    return run_tool(job, args.debug)


if __name__ == '__main__':
    sys.exit(main())
