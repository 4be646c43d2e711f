"""Looking at a config before the run: what would fail later is said now, with the key to change.

Only what is cheap is looked at: text files are read, some of the videos are looked for, nothing is
decoded. What a constructor checks (an unknown attention type) is left to it.
"""

import inspect
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.runner import Runner

from mmtimesformer.cli import near_name, require_file
from mmtimesformer.config.components import check_parts
from mmtimesformer.config.label_checks import check_labels
from mmtimesformer.config.sharded_training import check_sharding

LOADERS = {'train': ('train_dataloader', 'val_dataloader'), 'test': ('test_dataloader',)}
FIRST_FILES = 65536  # bytes, about: of the config, of the first lines of the log
VIDEOS_LOOKED_FOR = 64  # a network disk answers a few hundred such questions in a second

# What is read at the top of a config: the Runner's arguments, and what it takes from the config.
SECTIONS = {
    *inspect.signature(Runner.__init__).parameters,
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'sync_bn',
} - {'self', 'cfg'}


def check_options(cfg: Any, options: dict[str, Any]) -> None:
    """Refuse a ``--cfg-options`` key that nothing would read.

    Below the top a wrong key reaches a constructor, which refuses it; at the top it would be
    ignored in silence.

    Raises:
        ValueError: An option's first word names no section.
    """
    known = SECTIONS | set(cfg)
    for option in options:
        section = option.split('.')[0]
        if section not in known:
            raise ValueError(
                f'--cfg-options {option}: the config has no section {section!r}'
                + near_name(section, known)
            )


def check_sections(cfg: Any) -> None:
    """Refuse a key at the top of a config that is nearly the name of a section.

    A config may have names of its own at its top, such as ``train_pipeline``, so that a misspelt
    section is ignored in silence.

    Raises:
        ValueError: A key is one or two letters away from a section that the config lacks.
    """
    missing = sorted(SECTIONS - set(cfg))
    for key in sorted(set(cfg) - SECTIONS):
        if near := near_name(key, missing, 0.88):
            raise ValueError(f'the config has a section {key!r}, which nothing reads{near}')


def check_config(cfg: Any, purpose: str) -> list[str]:
    """Check parts, data and sampling of a run.

    Args:
        cfg: The config, options merged.
        purpose: ``'train'`` or ``'test'``.

    Returns:
        What is legal and may yet surprise, one sentence each.

    Raises:
        FileNotFoundError: An annotation file, a video folder, a video or a checkpoint is missing.
        OSError: The ``work_dir`` cannot be written to.
        ValueError: An annotation is wrong, a clip has no frames, or a part does not exist.
        TypeError: A part does not take what it is given.
    """
    check_sections(cfg)
    notes = check_parts(cfg, purpose)
    if purpose == 'train':
        check_sharding(cfg)
    head = cfg.model.get('cls_head') or {}
    backbone = cfg.model.get('backbone') or {}
    notes += check_labels(cfg, _stages(cfg, purpose))
    for loader in LOADERS[purpose]:
        if cfg.get(loader) is None:
            continue
        if loader != 'train_dataloader' and cfg[loader].get('drop_last'):
            notes.append(
                f'{loader}.drop_last=True leaves the videos of an incomplete batch out of the '
                'scores; set it to False to count all'
            )
        for key, dataset in _datasets(cfg[loader].get('dataset'), f'{loader}.dataset'):
            # A multi-label video may have none of the classes
            labels_needed = loader != 'test_dataloader' and not dataset.get('multi_class')
            notes += _check_annotations(key, dataset, head.get('num_classes'), labels_needed)
            notes += _check_names(key, dataset, head.get('num_classes'))
            notes += _check_sampling(key, dataset, backbone)
    _check_work_dir(cfg.get('work_dir'))
    return notes


def _stages(cfg: Any, purpose: str) -> dict[str, list[tuple[str, Any]]]:
    """Return the data sets of each stage that will run, with their keys."""
    return {
        loader.partition('_')[0]: list(_datasets(cfg[loader].get('dataset'), f'{loader}.dataset'))
        for loader in LOADERS[purpose]
        if cfg.get(loader) is not None
    }


def _check_work_dir(work_dir: str | None) -> None:
    """See that a run can write where it is to write, before it has something to lose."""
    if work_dir is None:
        return
    try:
        Path(work_dir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=work_dir) as file:
            file.write(bytes(FIRST_FILES))
    except OSError as error:
        raise OSError(
            f'work_dir {work_dir} cannot be written to ({error.strerror}); make it writable, or '
            'give --work-dir another folder'
        ) from error


def _datasets(dataset: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Walk through wrappers such as ``RepeatDataset`` to the data sets themselves."""
    if not isinstance(dataset, dict):
        return
    yield key, dataset
    yield from _datasets(dataset.get('dataset'), f'{key}.dataset')
    for i, part in enumerate(dataset.get('datasets') or ()):
        yield from _datasets(part, f'{key}.datasets.{i}')


def _check_annotations(
    key: str, dataset: Any, num_classes: int | None, labels_needed: bool
) -> list[str]:
    ann_file = dataset.get('ann_file')
    if not isinstance(ann_file, str | Path):
        if ann_file is not None:
            raise TypeError(f'{key}.ann_file={ann_file!r} is no path')
        return []
    if not ann_file or '://' in str(ann_file):
        return []
    root = Path(dataset.get('data_root') or '')
    path = root / ann_file
    require_file(path, 'annotation file', f'set {key}.ann_file', Path.is_file)
    if not str(dataset.get('type')).rpartition('.')[2].startswith('VideoDataset'):
        return []  # other data sets have other lines
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except UnicodeDecodeError:
        raise ValueError(
            f'annotation file {path} is no text; write one "video label" a line, or set '
            f'{key}.ann_file'
        ) from None
    _check_no_mark(path, lines)
    if not any(line.strip() for line in lines):
        raise ValueError(
            f'annotation file {path} is empty; write one "video label" a line, or set '
            f'{key}.ann_file'
        )
    prefix = dataset.get('data_prefix') or {}
    folder = root / (prefix.get('video') or '')
    if '://' not in str(prefix.get('video')):
        require_file(folder, 'video folder', f'set {key}.data_prefix.video', Path.is_dir)
    videos = [
        (f'{path}, line {number}', _check_line(f'{path}, line {number}', line, dataset))
        for number, line in enumerate(lines, 1)
    ]
    for where, (_, labels) in videos:
        _check_labels(where, labels, num_classes, labels_needed)
    notes = list(_contradicting(path, [video for _, video in videos]))
    if '://' in str(prefix.get('video')):
        return notes
    some = videos[:: -(-len(videos) // VIDEOS_LOOKED_FOR)]
    missing = [(where, name) for where, (name, _) in some if not (folder / name).exists()]
    if not missing:
        return notes
    where, name = missing[0]
    letter = (
        f'video {folder / name} does not exist ({where}); '
        f'correct the line or {key}.data_prefix.video'
    )
    resume_hint = dataset['type'] == 'mmtimesformer.VideoDataset' and len(missing) <= len(some) / 2
    if not resume_hint:
        raise FileNotFoundError(letter)
    missing_videos = f'{len(missing)} of {len(some)} videos that were looked for are missing'
    return [*notes, f'{missing_videos}: {letter}']


def _check_no_mark(path: Path, lines: list[str]) -> None:
    """Refuse a byte order mark, which would become part of the first name."""
    if lines and lines[0].startswith('\ufeff'):
        raise ValueError(
            f'{path} begins with a byte order mark (BOM), which would be read as part of its first '
            'name; save it as UTF-8 without BOM'
        )


def _contradicting(path: Path, videos: list[tuple[str, list[int]]]) -> Iterator[str]:
    """Note videos that an annotation file lists again with other labels."""
    labels: dict[str, list[int]] = {}
    found = [name for name, numbers in videos if labels.setdefault(name, numbers) != numbers]
    if found:
        yield (
            f'{path} lists {len(found)} videos again with another label, such as {found[0]}: at '
            'most one of them is right; correct the list, or set multi_class=True and write all '
            'labels of a video in one line'
        )


def _check_names(key: str, dataset: Any, num_classes: int | None) -> Iterator[str]:
    """Look for the file of class names; without it MMEngine would take its path for the names."""
    path = (dataset.get('metainfo') or {}).get('classes')
    if not isinstance(path, str):
        return
    if not Path(path).is_file():
        del dataset['metainfo']['classes']
        yield f'{path} does not exist ({key}.metainfo.classes): classes are numbers, not names'
        return
    names = Path(path).read_text(encoding='utf-8').split('\n')
    _check_no_mark(Path(path), names)
    count = len([name for name in names if name.strip()])
    if num_classes is not None and count != num_classes:
        yield (
            f'{path} has {count} class names and the model {num_classes} classes; set '
            f'model.cls_head.num_classes, or {key}.metainfo.classes'
        )


def _check_line(where: str, line: str, dataset: Any) -> tuple[str, list[int]]:
    """Split a line into the video and its labels, as MMAction2's ``VideoDataset`` does."""
    delimiter = dataset.get('delimiter', ' ')
    name, *labels = line.strip().split(delimiter)
    if not name:
        raise ValueError(f'{where} is blank; remove it')
    if len(labels) > 1 and not dataset.get('multi_class', False):
        raise ValueError(
            f'{where} has {len(labels) + 1} parts, {line.strip()!r}, where a video and its label '
            'are wanted; a video name with spaces needs another `delimiter` in the dataset'
        )
    for label in labels:
        if not re.fullmatch(r'\s*[+-]?\d{1,18}\s*', label):
            raise ValueError(
                f'{where}: label {label!r} is not a whole number; write one label'
                + (f', or several, split by {delimiter!r}' if dataset.get('multi_class') else '')
            )
    return name, [int(label) for label in labels]


def _check_labels(
    where: str, labels: list[int], num_classes: int | None, labels_needed: bool
) -> None:
    if labels_needed and not labels:
        raise ValueError(f'{where} has no label; write "video label"')
    for label in labels:
        if label < 0 or (num_classes is not None and label >= num_classes):
            raise ValueError(
                f'{where}: label {label} is not in 0..{(num_classes or 0) - 1}; '
                f'correct it, or set model.cls_head.num_classes (now {num_classes})'
            )


def _check_sampling(key: str, dataset: Any, backbone: Any) -> list[str]:
    """Compare the frames that a pipeline takes with those that the model was built for."""
    built_for = backbone.get('num_frames')
    notes = []
    for i, transform in enumerate(dataset.get('pipeline') or ()):
        for name in ('clip_len', 'num_clips', 'frame_interval'):
            value = transform.get(name, 1)
            if isinstance(value, dict):
                continue  # a number for each modality
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f'{name}={value!r} is not a positive whole number; '
                    f'set {key}.pipeline.{i}.{name}'
                )
        frames = transform.get('clip_len')
        if isinstance(frames, int) and built_for and frames != built_for:
            notes.append(
                f'{key} takes clips of {frames} frames, model.backbone.num_frames={built_for}: '
                'the time embedding is resized at run time'
            )
    return notes
