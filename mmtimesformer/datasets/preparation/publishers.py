"""The lists that publishers hand out, each read into one :class:`DataSet`.

Every reader takes the folder of the lists and the folder (or folders) of the videos. Nothing is
looked for on the disk here but the lists themselves.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from mmtimesformer.datasets.preparation.listing import DataSet, Listed, Published, Split
from mmtimesformer.datasets.preparation.reading import (
    need,
    read_json,
    read_lines,
    read_rows,
    read_table,
)

CVDF = 'arrange_by_classes.py of github.com/cvdfoundation/kinetics-dataset'
SLOWFAST = 'the SlowFast paper, arXiv 1812.03982'
#: Kinetics-600 and -700 were released several times, each with other lists.
KINETICS: dict[str, dict[str, Published]] = {
    '400': {
        'train': Published(246_534, CVDF),
        'val': Published(19_906, CVDF),
        'test': Published(39_805, CVDF),
    },
    '600': {
        'train': Published(392_000, SLOWFAST, about=True),
        'val': Published(30_000, SLOWFAST, about=True),
    },
    '700': {},
}
KINETICS_LISTS = {
    'train': ('train', 'kinetics_train', 'kinetics{0}_train', 'kinetics-{0}_train'),
    'val': ('val', 'validate', 'kinetics_val', 'kinetics{0}_val', 'kinetics-{0}_val'),
    'test': ('test', 'kinetics_test', 'kinetics{0}_test', 'kinetics-{0}_test'),
}


def read_kinetics(
    version: str, lists: Path, folders: Mapping[str, Path], classes: Path | None = None
) -> DataSet:
    """Read the CSV files of Kinetics: ``label,youtube_id,time_start,time_end,split``.

    Files may be called ``<id>_<start>_<end>`` (six digits each, as from the usual downloaders) or
    ``<id>``. Labels are the alphabetical order of the names in the training list, or that
    of ``classes``.

    Args:
        version: ``'400'``, ``'600'`` or ``'700'``.
        lists: Folder with ``train.csv``, ``val.csv`` (or ``validate.csv``) and ``test.csv``; those
            that are not there are left out.
        folders: Split → folder of its videos; a split that is not here is left out.
        classes: File of class names, one a line, whose order is that of the labels.
    """
    files: dict[str, Path] = {}
    for split, stems in KINETICS_LISTS.items():
        for stem in stems:
            file = lists / f'{stem.format(version)}.csv'
            if file.is_file():
                files.setdefault(split, file)
    if not files or ('train' not in files and classes is None):
        raise FileNotFoundError(
            f'there is no train.csv in {lists}, which names the classes; set --annotations to the '
            'folder of the CSV files, or --classes to a file of class names'
        )
    rows = {split: read_table(file, ('youtube_id',)) for split, file in files.items()}
    if classes is None:
        need(rows['train'][0], ('label',), files['train'])
        names = sorted({row['label'].strip() for row in rows['train']})
    else:
        names = read_lines(classes, 'correct --classes')
    labels = {name: i for i, name in enumerate(names)}
    name = f'kinetics{version}'
    splits = {}
    for split, file in files.items():
        if split not in folders:
            continue
        videos = [
            Listed(_kinetics_names(row, file), _label(row.get('label'), labels, file))
            for row in rows[split]
        ]
        splits[split] = Split(
            f'{name}_{split}_list_videos.txt',
            folders[split],
            videos,
            f'--videos-{split}',
            KINETICS[version].get(split),
        )
    sources = [*files.values(), *([classes] if classes else [])]
    return DataSet(name, names, splits, sources, num_classes=int(version))


def _kinetics_names(row: Mapping[str, str], file: Path) -> tuple[str, ...]:
    video, start, end = row['youtube_id'], row.get('time_start'), row.get('time_end')
    if not start or not end:
        return (video,)
    try:
        return f'{video}_{int(float(start)):06d}_{int(float(end)):06d}', video
    except ValueError:
        raise ValueError(
            f'{file}: video {video} has the times {start!r} to {end!r}; time_start and '
            'time_end are seconds'
        ) from None


def _label(name: str | None, labels: Mapping[str, int], file: Path) -> int | None:
    name = (name or '').strip()
    if not name:
        return None
    if name not in labels:
        raise ValueError(
            f'{file} has the class {name!r}, which the list of classes has not; take lists of one '
            'release'
        )
    return labels[name]


def read_ssv2(lists: Path, videos: Path) -> DataSet:
    """Read the JSON files of Something-Something V2.

    ``labels.json`` maps a template to its label; ``train.json`` and ``validation.json`` hold videos
    with ``id`` and ``template``, in which brackets mark what was filled in; ``test.json`` has ids
    alone. Each may be called ``something-something-v2-….json``.
    """
    found = {}
    for stem in ('labels', 'train', 'validation', 'test'):
        for file in (lists / f'something-something-v2-{stem}.json', lists / f'{stem}.json'):
            if file.is_file():
                found[stem] = file
    for stem in ('labels', 'train', 'validation'):
        if stem not in found:
            raise FileNotFoundError(f'there is no {stem}.json in {lists}; set --annotations')
    labels = {name: int(label) for name, label in read_json(found['labels'], dict).items()}
    if sorted(labels.values()) != list(range(len(labels))):
        raise ValueError(f'{found["labels"]}: the labels are not 0..{len(labels) - 1}, each once')
    splits = {}
    about = {'train': ('train', 168_913), 'val': ('validation', 24_777), 'test': ('test', 27_157)}
    for split, (stem, size) in about.items():
        if stem in found:
            listed = []
            for entry in read_json(found[stem], list, ('id',)):
                template = re.sub(r'[\[\]]', '', entry.get('template') or '')
                listed.append(Listed((str(entry['id']),), _label(template, labels, found[stem])))
            splits[split] = Split(
                f'sthv2_{split}_list_videos.txt',
                videos,
                listed,
                published=Published(size, "the data set's page, Something-Something V2"),
            )
    classes = sorted(labels, key=labels.__getitem__)
    return DataSet('sthv2', classes, splits, list(found.values()), num_classes=174)


def read_ucf101(lists: Path, videos: Path) -> DataSet:
    """Read ``classInd.txt`` and the split files of UCF101: ``trainlist01.txt``, ``testlist01.txt``.

    The class is the folder in ``ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi``, whether or not a
    label follows.
    """
    index = lists / 'classInd.txt'
    labels = {}
    for position, name in read_rows(index, (2,)):
        if not position.isdecimal():
            raise ValueError(f'{index}: {position!r} is not the number of a class')
        labels[name] = int(position) - 1  # they count from 1
    splits, sources = {}, [index]
    sizes = {'train': (9_537, 9_586, 9_624), 'val': (3_783, 3_734, 3_696)}
    for number in (1, 2, 3):
        for split, kind in (('train', 'trainlist'), ('val', 'testlist')):
            file = lists / f'{kind}{number:02d}.txt'
            listed = []
            for line in read_lines(file):
                folder, _, stem = line.split()[0].rpartition('.')[0].rpartition('/')
                listed.append(Listed((f'{folder}/{stem}', stem), _label(folder, labels, file)))
            sources.append(file)
            splits[f'{split}_{number}'] = Split(
                f'ucf101_{split}_split_{number}_videos.txt',
                videos,
                listed,
                published=Published(sizes[split][number - 1], "the data set's own split files"),
            )
    classes = sorted(labels, key=labels.__getitem__)
    return DataSet('ucf101', classes, splits, sources, num_classes=101, ignore_case=True)


def read_hmdb51(lists: Path, videos: Path) -> DataSet:
    """Read the split files of HMDB51: ``<class>_test_split<1|2|3>.txt``.

    Each line is a file and 1 (train), 2 (test) or 0 (in neither). Labels are the alphabetical order
    of the classes.
    """
    files = sorted(lists.glob('*_test_split[123].txt'))
    if not files:
        raise FileNotFoundError(
            f'there is no <class>_test_split1.txt in {lists}; set --annotations to the folder of '
            "the publisher's split files"
        )
    classes = sorted({file.name.rpartition('_test_split')[0] for file in files})
    listed: dict[str, list[Listed]] = {f'{s}_{n}': [] for n in (1, 2, 3) for s in ('train', 'val')}
    for label, name in enumerate(classes):
        for number in (1, 2, 3):
            file = lists / f'{name}_test_split{number}.txt'
            for line in read_lines(file):
                video, _, role = line.rpartition(' ')
                if role not in ('0', '1', '2') or not video:
                    raise ValueError(f'{file}: {line!r} is not a file name and 0, 1 or 2')
                stem = video.strip().rpartition('.')[0]
                if role != '0':
                    split = f'{"train" if role == "1" else "val"}_{number}'
                    listed[split].append(Listed((f'{name}/{stem}', stem), label))
    splits = {
        split: Split(
            'hmdb51_{}_split_{}_videos.txt'.format(*split.split('_')),
            videos,
            entries,
            published=Published(
                3_570 if split.startswith('train') else 1_530,
                'the HMDB51 paper: 70 and 30 videos of each of 51 classes',
            ),
        )
        for split, entries in listed.items()
    }
    return DataSet('hmdb51', classes, splits, files, num_classes=51)


def read_diving48(lists: Path, videos: Path) -> DataSet:
    """Read the V2 lists of Diving-48.

    These are ``Diving48_V2_train.json``, ``Diving48_V2_test.json`` and ``Diving48_vocab.json``. A
    class of the vocabulary is a list of four words: take-off, somersaults, twists, position.
    """
    vocabulary = lists / 'Diving48_vocab.json'
    classes = [
        ' '.join(words) if isinstance(words, list) else str(words)
        for words in read_json(vocabulary, list)
    ]
    splits, sources = {}, [vocabulary]
    for split, stem, size in (('train', 'train', 15_027), ('val', 'test', 1_970)):
        file = lists / f'Diving48_V2_{stem}.json'
        listed = []
        for entry in read_json(file, list, ('vid_name', 'label')):
            if not 0 <= int(entry['label']) < len(classes):
                raise ValueError(
                    f'{file}: video {entry["vid_name"]} has label {entry["label"]}, and '
                    f'{vocabulary.name} has {len(classes)} classes'
                )
            listed.append(Listed((entry['vid_name'],), int(entry['label'])))
        sources.append(file)
        splits[split] = Split(
            f'diving48_{split}_list_videos.txt',
            videos,
            listed,
            published=Published(size, 'the V2 lists, as the literature counts them'),
        )
    return DataSet('diving48', classes, splits, sources, num_classes=48)
