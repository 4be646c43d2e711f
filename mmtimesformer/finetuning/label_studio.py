"""Label Studio: tasks with pre-annotations, and its exports JSON and JSON-MIN.

The forms are those of https://labelstud.io/guide/predictions and
https://labelstud.io/guide/export.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import quoteattr

from mmtimesformer.fileio.atomic import write_json_atomically, write_text_atomically
from mmtimesformer.finetuning.imported_labels import Imported, dicts
from mmtimesformer.finetuning.labels_csv import Labeled, classes_of

LOCAL_FILES = '/data/local-files/?d='  # how Label Studio addresses files of its machine
UPLOAD = re.compile(r'/data/upload/\d+/[0-9a-f]{8}-(.+)')  # and files that were uploaded


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
        kept = [one for one in dicts(task['annotations']) if not one.get('was_cancelled')]
        yield from _results(kept)
    elif 'label' in task:  # JSON-MIN: a name, or several
        label = task['label']
        yield _names(label.get('choices') if isinstance(label, dict) else label)


def _results(annotations: Any) -> Iterator[list[str]]:
    for one in dicts(annotations):
        values = [r.get('value') for r in dicts(one.get('result')) if r.get('type') == 'choices']
        yield [name for value in dicts(values) for name in _names(value.get('choices'))]


def _names(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [one.strip() for one in values if isinstance(one, str) and one.strip()]
