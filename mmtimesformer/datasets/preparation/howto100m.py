"""HowTo100M as TimeSformer's long-term task: which of 1,059 tasks does a video show?

HowTo100M is published as ``HowTo100M_v1.csv`` (1.2 million YouTube ids, each with its task) and the
names of the tasks. The paper's authors published the split of the 120 thousand videos they used;
scores on any other split cannot be compared with the paper's.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from mmtimesformer.datasets.preparation.listing import DataSet, Listed, Published, Split
from mmtimesformer.datasets.preparation.own_data import split_by_class
from mmtimesformer.datasets.preparation.reading import read_lines, read_rows, read_table

NUM_TASKS = 1_059
PAPER = 'section 4.6 of the TimeSformer paper, arXiv 2102.05095'
PUBLISHED = {'train': Published(85_000, PAPER, True), 'val': Published(35_000, PAPER, True)}


def read_split_lists(
    train: Path, test: Path, videos: Path, task_names: Path | None = None
) -> DataSet:
    """Read the lists of the paper's authors: a video and its label a line.

    Whole numbers below 1,059 are labels as they stand; anything else, such as the ids of the tasks,
    is numbered in its order.

    Args:
        train: List of the training videos.
        test: List of the test videos.
        videos: Folder of the videos, ``<youtube id>.mp4`` or another ending.
        task_names: ``task_ids.csv``, to name the classes.
    """
    rows = {'train': read_rows(train, (2,)), 'val': read_rows(test, (2,))}
    tasks = {label for part in rows.values() for _, label in part}
    if not all(task.isdecimal() for task in tasks):
        classes = sorted(tasks)
    elif max(map(int, tasks), default=0) < NUM_TASKS:
        classes = [str(number) for number in range(NUM_TASKS)]
    else:
        classes = sorted(tasks, key=int)
    return _data_set(
        {
            name: {video.rsplit('/', 1)[-1]: label for video, label in part}
            for name, part in rows.items()
        },
        classes,
        videos,
        task_names,
        [train, test],
    )


def make_split(
    table: Path, videos: Path, task_names: Path | None = None, min_videos: int = 100, seed: int = 0
) -> DataSet:
    """Make a split of the paper's kind from ``HowTo100M_v1.csv``: tasks with 100 videos or more.

    NOTE: Not the paper's split, which was drawn at random once. Nor need its tasks be the same:
    the paper leaves open whether it counted videos that were gone from YouTube.

    Args:
        table: CSV file with the columns ``video_id`` and ``task_id``.
        videos: Folder of the videos.
        task_names: ``task_ids.csv``, to name the classes.
        min_videos: Tasks with fewer are left out.
        seed: Of the split.
    """
    task_of = {
        row['video_id']: row['task_id'] for row in read_table(table, ('video_id', 'task_id'))
    }
    counts = Counter(task_of.values())
    tasks = {task for task, count in counts.items() if count >= min_videos}
    if not tasks:
        raise ValueError(
            f'{table} has no task with {min_videos} videos (at most {max(counts.values())}); lower '
            '--min-videos'
        )
    kept = {video: task for video, task in task_of.items() if task in tasks}
    parts = split_by_class(kept, {'val': 35 / 120}, seed)
    return _data_set(
        {name: {video: kept[video] for video in part} for name, part in parts.items()},
        sorted(tasks, key=lambda task: (len(task), task)),  # 10 after 9
        videos,
        task_names,
        [table],
    )


def _data_set(
    parts: Mapping[str, Mapping[str, str]],
    tasks: list[str],
    videos: Path,
    task_names: Path | None,
    sources: list[Path],
) -> DataSet:
    labels = {task: i for i, task in enumerate(tasks)}
    splits = {
        name: Split(
            f'howto100m_{name}_list_videos.txt',
            videos,
            [
                Listed((video, video.rpartition('.')[0] or video), labels[part[video]])
                for video in part
            ],
            published=PUBLISHED[name],
        )
        for name, part in parts.items()
    }
    names = _read_task_names(task_names) if task_names else {}
    classes = [names.get(task, task) for task in tasks]
    sources = [*sources, *([task_names] if task_names else [])]
    return DataSet('howto100m', classes, splits, sources, num_classes=NUM_TASKS)


def _read_task_names(path: Path) -> dict[str, str]:
    """Read ``id<tab>name`` lines (or with a comma); a heading is no id and does no harm."""
    names = {}
    for line in read_lines(path):
        sign = '\t' if '\t' in line else ','
        task, _, name = line.partition(sign)
        names[task.strip()] = name.strip()
    return names
