"""Exchange video labels with annotation tools: Label Studio and CVAT, in their JSON forms.

The other side is the CSV file of ``finetune``: path, label and, if wanted, review. Formats:

- Label Studio: tasks with pre-annotations (https://labelstud.io/guide/predictions), and its exports
  JSON and JSON-MIN (https://labelstud.io/guide/export).
- CVAT: the Datumaro format, of which tags are read and written
  (https://docs.cvat.ai/docs/dataset_management/formats/format-datumaro).
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import quoteattr

from mmtimesformer.datasets.preparation.own_data import in_label_order
from mmtimesformer.fileio.atomic import write_json_atomically, write_text_atomically
from mmtimesformer.fileio.safe_text import read_json
from mmtimesformer.finetuning.video_list import read_csv_rows

LARGEST = 256 << 20  # bytes of an export
SEPARATOR = ';'  # of several labels in a cell
LOCAL_FILES = '/data/local-files/?d='  # how Label Studio addresses files of its machine
UPLOAD = re.compile(r'/data/upload/\d+/[0-9a-f]{8}-(.+)')  # and files that were uploaded


@dataclass(frozen=True)
class Labeled:
    """A video and its labels.

    Attributes:
        path: As in the CSV file.
        labels: Names of its classes.
        review: ``'corrected'``, ``'unsure'`` or ``''``.
    """

    path: str
    labels: tuple[str, ...]
    review: str = ''


@dataclass
class Imported:
    """The videos of an export of an annotation tool.

    Attributes:
        videos: Those with labels.
        left_out: Paths of those without an annotation.
    """

    videos: list[Labeled] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def read_labels(path: Path, separator: str = SEPARATOR) -> list[Labeled]:
    """Read a CSV file with a heading that names the columns path and label.

    Args:
        path: The file.
        separator: Between several labels in a cell; ``''`` for cells of one label.

    Raises:
        ValueError: A column is missing or named twice, a row has more or fewer cells than the
            heading, or a video has two rows.
    """
    rows, _ = read_csv_rows(path)
    heading = [cell.strip().lower() for cell in rows[0][1]]
    if not {'path', 'label'} <= set(heading):
        raise ValueError(f'{path} needs a first line with the columns path and label')
    if len(set(heading)) < len(heading):
        raise ValueError(f'{path} has a column name twice: {", ".join(heading)}; rename one')
    found: dict[str, Labeled] = {}
    for line, row in rows[1:]:
        if len(row) != len(heading):
            raise ValueError(
                f'{path}, line {line} has {len(row)} columns, and its heading {len(heading)}; put '
                'cells that hold the separator into double quotes'
            )
        cells = dict(zip(heading, row, strict=True))
        video = cells['path'].strip()
        names = cells['label'].split(separator) if separator else [cells['label']]
        labels = tuple(name.strip() for name in names if name.strip())
        if video in found:
            raise ValueError(f'{path}, line {line} has {video} again; write each video once')
        found[video] = Labeled(video, labels, cells.get('review', '').strip())
    if not found:
        raise ValueError(f'{path} lists no video')
    return list(found.values())


def write_labels(videos: Sequence[Labeled], path: Path) -> None:
    """Write a CSV file of path, label and review, as ``finetune`` and ``prepare folder`` read it.

    Raises:
        ValueError: A video has several labels, and a name has the separator.
    """
    several = any(len(video.labels) > 1 for video in videos)
    for name in {label for video in videos for label in video.labels}:
        if several and SEPARATOR in name:
            raise ValueError(
                f'the class {name!r} has {SEPARATOR!r}, which separates labels; rename it'
            )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['path', 'label', 'review'])
    writer.writerows([v.path, SEPARATOR.join(v.labels), v.review] for v in videos)
    write_text_atomically(path, text.getvalue())


def classes_of(videos: Sequence[Labeled]) -> list[str]:
    """Return the classes of videos, in the order of the labels."""
    return in_label_order({label for video in videos for label in video.labels})


# -- Label Studio ------------------------------------------------------------------------------


def export_label_studio(videos: Sequence[Labeled], path: Path, prefix: str = LOCAL_FILES) -> Path:
    """Write tasks for Label Studio, the labels as pre-annotations; return the labeling config.

    Args:
        videos: The videos.
        path: The JSON file; the labeling config is next to it, with the ending ``.xml``.
        prefix: What Label Studio puts before a path.
    """
    tasks = [
        {
            'data': {'video': _address(video.path, prefix), 'review': video.review},
            'predictions': [{'model_version': 'exported labels', 'result': [_choices(video)]}],
        }
        for video in videos
    ]
    write_json_atomically(path, tasks)
    kind = 'multiple' if any(len(video.labels) > 1 for video in videos) else 'single'
    choices = ''.join(f'    <Choice value={quoteattr(name)}/>\n' for name in classes_of(videos))
    head = f'<Choices name="label" toName="video" choice="{kind}">'
    config = path.with_suffix('.xml')
    write_text_atomically(
        config,
        '<View>\n  <Video name="video" value="$video"/>\n'
        f'  {head}\n{choices}  </Choices>\n</View>\n',
    )
    return config


def _choices(video: Labeled) -> dict[str, Any]:
    return {
        'from_name': 'label',
        'to_name': 'video',
        'type': 'choices',
        'value': {'choices': list(video.labels)},
    }


def _address(path: str, prefix: str) -> str:
    return prefix + (quote(path) if '?' in prefix else path)


def import_label_studio(tasks: Sequence[Any], prefix: str, unreviewed: bool) -> Imported:
    """Read an export of Label Studio, JSON or JSON-MIN.

    Args:
        tasks: Its content.
        prefix: What stands before a path, as for :func:`export_label_studio`.
        unreviewed: Take the exported label of a task that has no annotation.

    Raises:
        ValueError: A task has no video, or annotations that differ.
    """
    imported = Imported()
    for number, task in enumerate(tasks):
        if not isinstance(task, dict):
            raise ValueError(f'task {number} is no object; export JSON or JSON-MIN')
        nested = task.get('data')
        data: dict[str, Any] = nested if isinstance(nested, dict) else task
        video = _path_of(data, number, prefix)
        exported = {tuple(one) for one in _results(task.get('predictions'))}
        given = {tuple(one) for one in _annotations(task)}
        if len(given) > 1:
            raise ValueError(
                f'{video} has {len(given)} annotations that differ; keep one in Label Studio'
            )
        if not given and not (unreviewed and len(exported) == 1):
            imported.left_out.append(video)
            continue
        labels = next(iter(given or exported))
        changed = bool(given and exported and set(labels) not in map(set, exported))
        review = 'corrected' if changed else str(data.get('review') or '') if not given else ''
        imported.videos.append(Labeled(video, labels, review))
    return imported


def _path_of(data: Mapping[str, Any], number: int, prefix: str) -> str:
    value = data.get('video')
    if not isinstance(value, str) or not value:
        raise ValueError(f'task {number} has no video; name the data of a task "video"')
    if value.startswith(LOCAL_FILES):
        return parse_qs(urlsplit(value).query, keep_blank_values=True)['d'][0]
    if upload := UPLOAD.fullmatch(value):
        return upload[1]
    return value.removeprefix(prefix)


def _annotations(task: Mapping[str, Any]) -> Iterator[list[str]]:
    if 'annotations' in task:
        kept = [one for one in _dicts(task['annotations']) if not one.get('was_cancelled')]
        yield from _results(kept)
    elif 'label' in task:  # JSON-MIN: a name, or several
        label = task['label']
        yield _names(label.get('choices') if isinstance(label, dict) else label)


def _results(annotations: Any) -> Iterator[list[str]]:
    for one in _dicts(annotations):
        values = [r.get('value') for r in _dicts(one.get('result')) if r.get('type') == 'choices']
        yield [name for value in _dicts(values) for name in _names(value.get('choices'))]


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _names(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [one.strip() for one in values if isinstance(one, str) and one.strip()]


# -- CVAT --------------------------------------------------------------------------------------


def export_cvat(videos: Sequence[Labeled], path: Path) -> Path:
    """Write tags in the Datumaro format for CVAT; return the file of labels for its task.

    CVAT tags images: a task has an image for each video, such as a frame, of the same path with
    another ending.

    Args:
        videos: The videos.
        path: The JSON file; the labels, for the field *Raw* of a CVAT task, are next to it, with
            the ending ``.labels.json``.

    Raises:
        ValueError: Two videos differ in their endings alone.
    """
    classes = classes_of(videos)
    numbers = {name: i for i, name in enumerate(classes)}
    names = [PurePosixPath(video.path).with_suffix('').as_posix() for video in videos]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f'two videos are called {twice}, without the ending; rename one')
    items = [
        {
            'id': name,
            'annotations': [_tag(i, numbers[label]) for i, label in enumerate(video.labels)],
            'attr': {'path': video.path, 'review': video.review},
        }
        for name, video in zip(names, videos, strict=True)
    ]
    labels = [{'name': name, 'parent': '', 'attributes': []} for name in classes]
    categories = {'label': {'labels': labels, 'attributes': []}}
    write_json_atomically(path, {'info': {}, 'categories': categories, 'items': items})
    config = path.with_suffix('.labels.json')
    write_json_atomically(
        config, [{'name': name, 'type': 'tag', 'attributes': []} for name in classes]
    )
    return config


def _tag(number: int, label: int) -> dict[str, Any]:
    return {'id': number, 'type': 'label', 'attributes': {}, 'group': 0, 'label_id': label}


def import_cvat(content: Mapping[str, Any], suffix: str) -> Imported:
    """Read the tags of a Datumaro file that CVAT exported.

    Args:
        content: Of ``annotations/default.json``.
        suffix: The ending of the videos, where an item has none.

    Raises:
        ValueError: It is no such file, or a tag has an unknown label.
    """
    try:
        classes = [str(one['name']) for one in content['categories']['label']['labels']]
        items = [(str(one['id']), one) for one in content['items']]
    except (KeyError, TypeError):
        raise ValueError(
            'categories.label.labels or items is missing; export "Datumaro" in CVAT and give '
            'annotations/default.json'
        ) from None
    imported = Imported()
    for name, item in items:
        attributes = item.get('attr')
        known = attributes.get('path') if isinstance(attributes, dict) else None
        video = known if isinstance(known, str) else name + suffix
        tags = [one for one in _dicts(item.get('annotations')) if one.get('type') == 'label']
        labels = tuple(dict.fromkeys(_class_of(tag, classes, name) for tag in tags))
        if labels:
            imported.videos.append(Labeled(video, labels))
        else:
            imported.left_out.append(video)
    return imported


def _class_of(tag: Mapping[str, Any], classes: Sequence[str], name: str) -> str:
    number = tag.get('label_id')
    if type(number) is not int or not 0 <= number < len(classes):
        raise ValueError(f'{name} has the label_id {number!r}, and there are {len(classes)} labels')
    return classes[number]


def import_labels(
    path: Path, prefix: str = LOCAL_FILES, suffix: str = '.mp4', unreviewed: bool = False
) -> Imported:
    """Read an export of Label Studio (JSON, JSON-MIN) or CVAT (Datumaro), by its content.

    Raises:
        ValueError: It is neither, or has a video twice, or no labels.
    """
    content = read_json(path, LARGEST)
    try:
        if isinstance(content, list):
            imported = import_label_studio(content, prefix, unreviewed)
        elif isinstance(content, dict):
            imported = import_cvat(content, suffix)
        else:
            raise ValueError('it is no export of Label Studio or CVAT')
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    paths = [video.path for video in imported.videos]
    if len(set(paths)) < len(paths):
        twice = next(one for i, one in enumerate(paths) if one in paths[:i])
        raise ValueError(f'{path}: {twice} is labeled twice; keep one')
    if not paths:
        raise ValueError(f'{path}: none of the {len(imported.left_out):,} videos has a label')
    return imported
