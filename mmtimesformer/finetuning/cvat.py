"""CVAT: tags of videos in the Datumaro format.

The form is that of https://docs.cvat.ai/docs/dataset_management/formats/format-datumaro.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mmtimesformer.fileio.atomic import write_json_atomically
from mmtimesformer.finetuning.imported_labels import Imported, dicts
from mmtimesformer.finetuning.labels_csv import Labeled, classes_of


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
        tags = [one for one in dicts(item.get('annotations')) if one.get('type') == 'label']
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
