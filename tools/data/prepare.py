"""Write annotation files for a data set.

`mmtimesformer prepare DATASET --help` shows where its files belong, and its options. The data set's
folder gets annotation files, classes.txt, manifest.json and, if videos are missing, missing.txt.

Examples:
    mmtimesformer prepare kinetics 400 data/kinetics400
    mmtimesformer prepare folder my_videos --out data/your_own
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import ToolParser, parse, whole_number

if TYPE_CHECKING:
    from mmtimesformer.datasets.preparation.listing import DataSet

SPLITS = ('train', 'val', 'test')
KINETICS = ('400', '600', '700')

#: Data sets whose lists have one reader (read_NAME of ``publishers``) and whose videos are in one
#: folder: default root, title, and what ROOT/annotations and ROOT/videos hold.
PLAIN: dict[str, tuple[str, str, str]] = {
    'ucf101': (
        'data/ucf101',
        'UCF101, all three splits',
        'ROOT/annotations holds classInd.txt, trainlist01.txt, testlist01.txt and so on, '
        'ROOT/videos the class folders of .avi files.',
    ),
    'hmdb51': (
        'data/hmdb51',
        'HMDB51, all three splits',
        'ROOT/annotations holds <class>_test_split1.txt and so on, '
        'ROOT/videos the class folders of .avi files.',
    ),
    'ssv2': (
        'data/sthv2',
        'Something-Something V2',
        'ROOT/annotations holds labels.json, train.json, validation.json and test.json (also as '
        'something-something-v2-labels.json and so on), ROOT/videos the files <id>.webm.',
    ),
    'diving48': (
        'data/diving48',
        'Diving-48 (V2)',
        'ROOT/annotations holds Diving48_V2_train.json, Diving48_V2_test.json and '
        'Diving48_vocab.json, ROOT/videos the .mp4 files.',
    ),
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; ``read(args)`` of the result returns the :class:`DataSet`."""
    words = sys.argv[1:] if argv is None else argv
    parser = ToolParser(__doc__, {3: 'done, but some videos are missing (listed in missing.txt)'})
    commands = parser.add_subparsers(metavar='DATASET', required=True)
    for name, (root, title, layout) in PLAIN.items():
        command = commands.add_parser(name, help=title, description=f'{title}. {layout}')
        _add_root(command, root)
        _add_annotations(command)
        _add_videos(command)
        command.set_defaults(read=_read_plain, dataset=name)
    _add_kinetics(commands.add_parser('kinetics', help='Kinetics-400, -600 or -700'))
    _add_howto100m(commands.add_parser('howto100m', help='HowTo100M, long-term tasks'))
    _add_folder(commands.add_parser('folder', help='your own videos: class folders or a CSV file'))
    for command in commands.choices.values():
        command.add_argument(
            '--allow-missing', action='store_true', help='exit with 0 although videos are missing'
        )
        command.add_argument(
            '--debug', action='store_true', help='show the stack trace of an error'
        )
    named = next((i for i, word in enumerate(words) if word in commands.choices), None)
    if named is None:
        parser.parse_args(words)  # shows the help, or what is wrong with DATASET
    command = commands.choices[words[named]]
    others = [*words[:named], *words[named + 1 :]]
    return _check(command, parse(command, others))  # options and arguments in any order


def _add_root(command: argparse.ArgumentParser, root: str) -> None:
    command.add_argument(
        'root',
        type=Path,
        nargs='?',
        default=Path(root),
        metavar='ROOT',
        help=f'folder of the data set ({root})',
    )


def _add_annotations(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        '--annotations', type=Path, help="folder of the publisher's lists (ROOT/annotations)"
    )


def _add_videos(command: argparse.ArgumentParser) -> None:
    command.add_argument('--videos', type=Path, help='folder of the videos (ROOT/videos)')


def _add_classes(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        '--classes', type=Path, help='class names in the order of the labels (alphabetical)'
    )


def _read_plain(args: argparse.Namespace) -> 'DataSet':
    from mmtimesformer.datasets.preparation import publishers
    from mmtimesformer.datasets.preparation.reading import folder_of_lists

    lists = folder_of_lists(args.root, args.annotations)
    read = getattr(publishers, f'read_{args.dataset}')
    return read(lists, args.videos or args.root / 'videos')


def _add_kinetics(command: argparse.ArgumentParser) -> None:
    command.description = (
        'Kinetics-400, -600 or -700. ROOT/annotations holds train.csv, val.csv (or validate.csv) '
        'and, optionally, test.csv as published; ROOT/videos_train, videos_val and videos_test '
        'hold the files <id>_<start>_<end>.mp4 or <id>.mp4, in one folder or in subfolders.'
    )
    command.add_argument('version', choices=KINETICS, help='which Kinetics')
    _add_root(command, 'data/kinetics{version}')
    _add_annotations(command)
    for split in SPLITS:
        command.add_argument(
            f'--videos-{split}', type=Path, help=f'folder of its videos (ROOT/videos_{split})'
        )
    _add_classes(command)
    command.set_defaults(read=_read_kinetics)


def _read_kinetics(args: argparse.Namespace) -> 'DataSet':
    from mmtimesformer.datasets.preparation.publishers import read_kinetics
    from mmtimesformer.datasets.preparation.reading import folder_of_lists

    lists = folder_of_lists(args.root, args.annotations)
    folders = {
        split: getattr(args, f'videos_{split}') or args.root / f'videos_{split}' for split in SPLITS
    }
    if args.videos_test is None and not folders['test'].is_dir():
        del folders['test']  # its list comes with the others, its videos often do not
    return read_kinetics(args.version, lists, folders, args.classes)


def _add_howto100m(command: argparse.ArgumentParser) -> None:
    command.description = (
        'HowTo100M, long-term tasks. --train and --test take the lists of the authors of the '
        "TimeSformer paper, for the paper's task. --videos-csv takes HowTo100M_v1.csv and makes a "
        'split of the same kind. ROOT/videos holds <id>.mp4.'
    )
    _add_root(command, 'data/howto100m')
    command.add_argument(
        '--train', type=Path, help='training list: a video and its label on each line'
    )
    command.add_argument('--test', type=Path, help='test list')
    command.add_argument('--videos-csv', type=Path, help='HowTo100M_v1.csv, to make a split from')
    command.add_argument('--task-names', type=Path, help='task_ids.csv, to name the classes')
    command.add_argument(
        '--min-videos',
        type=whole_number(0),
        default=100,
        help='leave out tasks with fewer (with --videos-csv)',
    )
    command.add_argument(
        '--seed', type=whole_number(0), default=0, help='of the split (with --videos-csv)'
    )
    _add_videos(command)
    command.set_defaults(read=_read_howto100m)


def _read_howto100m(args: argparse.Namespace) -> 'DataSet':
    from mmtimesformer.datasets.preparation.howto100m import make_split, read_split_lists

    videos = args.videos or args.root / 'videos'
    if args.videos_csv:
        return make_split(args.videos_csv, videos, args.task_names, args.min_videos, args.seed)
    return read_split_lists(args.train, args.test, videos, args.task_names)


def _add_folder(command: argparse.ArgumentParser) -> None:
    command.description = (
        'Your own videos. VIDEOS holds a folder per class; or folders train, val (and test) of '
        'class folders; or the videos that a CSV file of path, label (and split) names. OUT gets '
        'train.txt, val.txt, test.txt, classes.txt and manifest.json.'
    )
    command.add_argument('videos', type=Path, metavar='VIDEOS', help='folder of the videos')
    command.add_argument(
        '--out', dest='root', type=Path, required=True, help='folder of the annotation files'
    )
    command.add_argument('--csv', type=Path, help='path,label or path,label,split on each line')
    command.add_argument(
        '--val',
        type=float,
        help='part of each class to validate on (0.2, unless the split is given)',
    )
    command.add_argument('--test', type=float, help='part of each class to test on (none)')
    command.add_argument('--seed', type=whole_number(0), default=0, help='of the split')
    _add_classes(command)
    command.add_argument(
        '--multi-label',
        action='store_true',
        help='videos in the CSV may have several labels: split by ";", or in several lines',
    )
    command.set_defaults(read=_read_folder)


def _read_folder(args: argparse.Namespace) -> 'DataSet':
    from mmtimesformer.datasets.preparation.own_data import read_own_data

    parts = {'val': args.val, 'test': args.test}
    return read_own_data(args.videos, args.csv, parts, args.seed, args.classes, args.multi_label)


def _check(command: argparse.ArgumentParser, args: argparse.Namespace) -> argparse.Namespace:
    """Refuse HowTo100M without exactly one kind of list; complete the folder of Kinetics."""
    if args.read is _read_howto100m and (
        (args.train is None) != (args.test is None)
        or (args.train is None) == (args.videos_csv is None)
    ):
        command.error('give --train and --test, or --videos-csv')
    if args.read is _read_kinetics:
        args.root = Path(str(args.root).replace('{version}', args.version))
    return args


def main(argv: list[str] | None = None) -> int:
    """Read the lists, find the videos, write the annotation files; return the exit code."""
    args = parse_args(argv)
    from mmtimesformer.datasets.preparation.annotations import prepare

    codes: list[int] = []

    def job() -> None:
        codes.append(prepare(args.read(args), args.root, args.allow_missing))

    return run_tool(job, args.debug) or codes[0]


if __name__ == '__main__':
    sys.exit(main())
