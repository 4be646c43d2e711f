"""Validate a config before the run: sections, components, labels, annotation files and videos.

Annotation files are read and some of the videos are looked up; no video is decoded.
"""

import inspect
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from mmtimesformer.cli import near_name, require_file
from mmtimesformer.config.channels import check_channels
from mmtimesformer.config.components import check_components
from mmtimesformer.config.label_checks import check_labels
from mmtimesformer.config.sharded_training import check_sharding
from mmtimesformer.fileio.targets import parse_targets

LOADERS = {'train': ('train_dataloader', 'val_dataloader'), 'test': ('test_dataloader',)}
FIRST_FILES = 65536  # bytes, about: of the config, of the first lines of the log
VIDEOS_LOOKED_UP = 64  # a network disk finds a few hundred files in a second

# Keys at the top of a config: the Runner's arguments, and what it reads from the config.
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


def check_options(cfg: Config, options: dict[str, Any]) -> None:
    """Refuse a ``--cfg-options`` key whose section nothing reads.

    Raises:
        ValueError: The first word of an option names no section.
    """
    known = SECTIONS | set(cfg)
    for option in options:
        section = option.split('.')[0]
        if section not in known:
            near = near_name(section, known)
            raise ValueError(f'--cfg-options {option}: the config has no section {section!r}{near}')


def check_sections(cfg: Config) -> None:
    """Refuse a key at the top of a config that is nearly the name of a missing section.

    Other names are legal there, such as ``train_pipeline``.

    Raises:
        ValueError: A key differs from a missing section by one or two characters.
    """
    for key in sorted(set(cfg) - SECTIONS):
        near = near_name(key, SECTIONS - set(cfg), 0.88)
        if near:
            raise ValueError(f'the config has a section {key!r}, which nothing reads{near}')


def check_config(cfg: Config, purpose: str) -> list[str]:
    """Check a config for a run, to ``'train'`` or to ``'test'``.

    Return notes on what is legal and may surprise, one sentence each. ``model.cls_head`` may be
    changed, see ``check_labels``.

    Raises:
        FileNotFoundError: An annotation file, a video folder, a video or a checkpoint is missing.
        OSError: The ``work_dir`` cannot be written to.
        ValueError: An annotation is wrong, a clip has no frames, or a component is refused.
        TypeError: A component does not take an argument, or a value has the wrong type.
    """
    check_sections(cfg)
    notes = check_components(cfg, purpose)
    if purpose == 'train':
        check_sharding(cfg)
    head = cfg.model.get('cls_head') or {}
    backbone = cfg.model.get('backbone') or {}
    stages = {
        loader.partition('_')[0]: list(_datasets(cfg[loader].get('dataset'), f'{loader}.dataset'))
        for loader in LOADERS[purpose]
        if cfg.get(loader) is not None
    }
    notes += check_labels(cfg, stages)
    check_channels(cfg.model, [one for datasets in stages.values() for one in datasets])
    for stage, datasets in stages.items():
        loader = f'{stage}_dataloader'
        if stage != 'train' and cfg[loader].get('drop_last'):
            notes.append(
                f'{loader}.drop_last=True leaves the videos of an incomplete batch out of the '
                'scores; set it to False to count all'
            )
        for key, dataset in datasets:
            # A multi-label video may have none of the classes
            labels_needed = stage != 'test' and not dataset.get('multi_class')
            notes += _check_annotations(key, dataset, head.get('num_classes'), labels_needed)
            notes += _check_names(key, dataset, head.get('num_classes'))
            notes += _check_sampling(key, dataset, backbone)
    _check_work_dir(cfg.get('work_dir'))
    return notes


def _check_work_dir(work_dir: str | None) -> None:
    """Check that the run can write to its folder."""
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
    """Walk through a data set and those inside wrappers such as ``RepeatDataset``, with keys."""
    if not isinstance(dataset, dict):
        return
    yield key, dataset
    yield from _datasets(dataset.get('dataset'), f'{key}.dataset')
    for i, inner in enumerate(dataset.get('datasets') or ()):
        yield from _datasets(inner, f'{key}.datasets.{i}')


def _check_annotations(
    key: str, dataset: Any, num_classes: int | None, labels_needed: bool
) -> list[str]:
    ann_file = dataset.get('ann_file')
    if not ann_file or '://' in str(ann_file):
        return []
    root = Path(dataset.get('data_root') or '')
    path = root / ann_file
    require_file(path, 'annotation file', f'set {key}.ann_file', Path.is_file)
    if cls := _frame_folder_class(dataset.get('type')):
        return _check_frame_folders(key, dataset, cls, num_classes, labels_needed)
    if not str(dataset.get('type')).rpartition('.')[2].startswith('VideoDataset'):
        return []  # other data sets have other lines
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except UnicodeDecodeError:
        raise ValueError(
            f'annotation file {path} is not text; write one "video label" a line, or set '
            f'{key}.ann_file'
        ) from None
    _check_no_mark(path, lines)
    if not any(line.strip() for line in lines):
        raise ValueError(
            f'annotation file {path} is empty; write one "video label" a line, or set '
            f'{key}.ann_file'
        )
    prefix = (dataset.get('data_prefix') or {}).get('video') or ''
    folder, is_remote = root / prefix, '://' in str(prefix)
    if not is_remote:
        require_file(folder, 'video folder', f'set {key}.data_prefix.video', Path.is_dir)
    videos = [*_videos_of(path, lines, dataset, num_classes, labels_needed)]
    notes = list(_contradicting(path, [video for _, video in videos]))
    if is_remote:
        return notes
    some = videos[:: -(-len(videos) // VIDEOS_LOOKED_UP)]
    missing = [
        f'video {folder / name} does not exist ({where})'
        for where, (name, _) in some
        if not (folder / name).exists()
    ]
    skips_videos = dataset['type'] == 'mmtimesformer.VideoDataset'
    return [*notes, *_note_missing(key, missing, len(some), skips_videos)]


def _note_missing(key: str, missing: list[str], looked_up: int, skips_videos: bool) -> list[str]:
    """Note videos that are not there, if they are few and the data set skips them.

    Raises:
        FileNotFoundError: More than half is missing, or the data set skips none.
    """
    if not missing:
        return []
    message = f'{missing[0]}; correct the line or {key}.data_prefix.video'
    if not skips_videos or len(missing) > looked_up / 2:
        raise FileNotFoundError(message)
    count = f'{len(missing)} of {looked_up}'
    return [f'{count} videos that were looked up are missing: {message}']


def _videos_of(
    path: Path, lines: list[str], dataset: Any, num_classes: int | None, labels_needed: bool
) -> Iterator[tuple[str, tuple[str, list[Any]]]]:
    """Yield the place of each line, its video and its classes or numbers, all checked."""
    num_targets = dataset.get('num_targets')
    if num_targets is not None:
        delimiter = dataset.get('delimiter', ' ')
        for number, video in enumerate(parse_targets(lines, path, num_targets, delimiter), 1):
            yield f'{path}, line {number}', video
        return
    for number, line in enumerate(lines, 1):
        where = f'{path}, line {number}'
        name, labels = _check_line(where, line, dataset)
        _check_labels(where, labels, num_classes, labels_needed)
        yield where, (name, labels)


def _frame_folder_class(kind: Any) -> Any:
    """Return the class of a data set that reads the lists of ``FrameFolderDataset``; or ``None``.

    It is that class of ours, or a subclass with the same ``load_data_list``.
    """
    base: Any = DATASETS.get('mmtimesformer.FrameFolderDataset')
    places = (DATASETS, *DATASETS.children.values()) if isinstance(kind, str) else ()
    cls: Any = next((found for place in places if (found := place.get(kind))), kind)
    is_one = base is not None and isinstance(cls, type) and issubclass(cls, base)
    return cls if is_one and cls.load_data_list is base.load_data_list else None


def _check_frame_folders(
    key: str, dataset: Any, cls: Any, num_classes: int | None, labels_needed: bool
) -> list[str]:
    """Check the lists of a ``FrameFolderDataset``, and look up frames of some of its videos."""
    arguments = {name: dataset[name] for name in dataset if name not in ('type', '_scope_')}
    built = cls(**{**arguments, 'pipeline': [], 'lazy_init': True, 'metainfo': None})
    listed = built.listed()
    for one in listed if dataset.get('num_targets') is None else ():
        _check_labels(one.where, one.labels, num_classes, labels_needed)
    some = listed[:: -(-len(listed) // VIDEOS_LOOKED_UP)]
    faults = [f'video {fault} ({one.where})' for one in some if (fault := built.fault_of(one))]
    notes = list(_contradicting(built.ann_file, [(one.name, one.labels) for one in listed]))
    return [*notes, *_note_missing(key, faults, len(some), skips_videos=True)]


def _check_no_mark(path: Path, lines: list[str]) -> None:
    """Refuse a byte order mark, which would become part of the first name."""
    if lines and lines[0].startswith('\ufeff'):
        raise ValueError(
            f'{path} begins with a byte order mark (BOM), which would be read as part of its first '
            'name; save it as UTF-8 without BOM'
        )


def _contradicting(path: Path | str, videos: list[tuple[str, list[Any]]]) -> Iterator[str]:
    """Note videos that an annotation file lists again with other labels."""
    labels: dict[str, list[Any]] = {}
    found = [name for name, numbers in videos if labels.setdefault(name, numbers) != numbers]
    if found:
        yield (
            f'{path} lists {len(found)} videos again with another label, such as {found[0]}: at '
            'most one of them is right; correct the list, or set multi_class=True and write all '
            'labels of a video in one line'
        )


def _check_names(key: str, dataset: Any, num_classes: int | None) -> Iterator[str]:
    """Check the file of class names; MMEngine takes the path of a missing one for the names."""
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
    """Check frame sampling, and compare its clip length with that of the model."""
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
