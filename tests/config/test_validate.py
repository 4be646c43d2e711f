"""A config is validated before the run; tests/tools/test_errors.py holds the error messages."""

import resource
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import ConfigDict

from mmtimesformer.config.validate import VIDEOS_LOOKED_UP, check_config, check_options


def config(folder: Path, lines: list[str], loader: str = 'train_dataloader', **dataset: Any) -> Any:
    """A config with one data set whose list has these lines; videos are empty files."""
    (folder / 'list.txt').write_text('\n'.join(lines))
    for line in lines:
        (folder / line.split()[0]).touch()
    settings = {
        'type': 'VideoDataset',
        'ann_file': str(folder / 'list.txt'),
        'data_prefix': {'video': str(folder)},
        'pipeline': [],
        **dataset,
    }
    backbone = {'type': 'mmtimesformer.TimeSformer', 'num_frames': 8}
    head = {'type': 'TimeSformerHead', 'num_classes': 3, 'in_channels': 768}
    stage = loader.partition('_')[0]
    return ConfigDict(
        default_scope='mmaction',
        model={'type': 'Recognizer3D', 'backbone': backbone, 'cls_head': head},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
        test_evaluator=[],
        **{f'{stage}_cfg': {'max_epochs': 1} if stage == 'train' else {}},
        **{loader: {'dataset': settings, 'sampler': {'type': 'DefaultSampler'}}},
    )


def test_a_right_config_has_no_notes(tmp_path: Path) -> None:
    assert check_config(config(tmp_path, ['a.mp4 0', 'b.mp4 2']), 'train') == []


def test_another_number_of_frames_is_legal_and_noted(tmp_path: Path) -> None:
    cfg = config(tmp_path, ['a.mp4 0'], pipeline=[{'type': 'SampleFrames', 'clip_len': 16}])
    (note,) = check_config(cfg, 'train')
    assert note.startswith('train_dataloader.dataset takes clips of 16 frames')
    assert 'model.backbone.num_frames=8' in note


def test_videos_that_a_test_leaves_out_are_a_note(tmp_path: Path) -> None:
    cfg = config(tmp_path, ['a.mp4 0', 'b.mp4 2'], 'test_dataloader')
    before = check_config(cfg, 'test')
    cfg.test_dataloader.drop_last = True
    (note,) = [note for note in check_config(cfg, 'test') if note not in before]
    assert note.startswith('test_dataloader.drop_last=True leaves the videos')


def test_a_byte_order_mark_is_refused_in_lists_and_class_names(tmp_path: Path) -> None:
    cfg = config(tmp_path, ['a.mp4 0', 'b.mp4 2'])
    file = tmp_path / 'list.txt'
    file.write_text(file.read_text(), encoding='utf-8-sig')
    with pytest.raises(ValueError, match=r'list.txt begins with a byte order mark'):
        check_config(cfg, 'train')
    names = tmp_path / 'classes.txt'
    names.write_text('x\ny\nz\n', encoding='utf-8-sig')
    cfg = config(tmp_path, ['a.mp4 0'], metainfo={'classes': str(names)})
    with pytest.raises(ValueError, match=r'classes.txt begins with a byte order mark'):
        check_config(cfg, 'train')


def test_a_video_that_is_listed_again_with_another_label_is_noted(tmp_path: Path) -> None:
    lines = ['a.mp4 0', 'b.mp4 2', 'a.mp4 0', 'b.mp4 1']
    (note,) = check_config(config(tmp_path, lines), 'train')
    assert 'lists 1 videos again with another label, such as b.mp4' in note


def test_missing_class_names_are_noted_and_removed(tmp_path: Path) -> None:
    cfg = config(tmp_path, ['a.mp4 0'], metainfo={'classes': str(tmp_path / 'classes.txt')})
    (note,) = check_config(cfg, 'train')
    assert 'classes.txt does not exist (train_dataloader.dataset.metainfo.classes)' in note
    assert cfg.train_dataloader.dataset.metainfo == {}


@pytest.mark.parametrize(('names', 'notes'), [('a\nb\nc\n', 0), ('a\nb', 1)])
def test_class_names_are_counted(names: str, notes: int, tmp_path: Path) -> None:
    (tmp_path / 'classes.txt').write_text(names)
    cfg = config(tmp_path, ['a.mp4 0'], metainfo={'classes': str(tmp_path / 'classes.txt')})
    found = check_config(cfg, 'train')
    assert len(found) == notes
    assert all('has 2 class names and the model 3 classes' in note for note in found)


def test_a_wrapped_data_set_is_checked(tmp_path: Path) -> None:
    cfg = config(tmp_path, ['a.mp4 9'])
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = {'type': 'RepeatDataset', 'times': 2, 'dataset': inner}
    with pytest.raises(ValueError, match='label 9 is not in 0..2'):
        check_config(cfg, 'train')
    cfg.train_dataloader.dataset = {'type': 'ConcatDataset', 'datasets': [inner]}
    with pytest.raises(ValueError, match='label 9 is not in 0..2'):
        check_config(cfg, 'train')


def test_a_test_needs_no_labels(tmp_path: Path) -> None:
    assert check_config(config(tmp_path, ['a.mp4'], 'test_dataloader'), 'test') == []


def test_several_labels_a_video_are_read_where_they_are_meant(tmp_path: Path) -> None:
    cfg = config(tmp_path, ['a.mp4 0 2', 'none.mp4'], multi_class=True, num_classes=3)
    cfg.model.cls_head.update(loss_cls={'type': 'BCELossWithLogits'}, multi_class=True)
    assert check_config(cfg, 'train') == []


def test_names_with_spaces_are_read_with_another_delimiter(tmp_path: Path) -> None:
    cfg = config(tmp_path, ['a.mp4 0'], delimiter=',')
    (tmp_path / 'list.txt').write_text('my video.mp4,1')
    (tmp_path / 'my video.mp4').touch()
    assert check_config(cfg, 'train') == []


def test_all_lines_of_a_long_list_are_read_and_its_videos_sampled(tmp_path: Path) -> None:
    cfg = config(tmp_path, ['a.mp4 0'])
    long = ['a.mp4 0'] * (10 * VIDEOS_LOOKED_UP)
    (tmp_path / 'list.txt').write_text('\n'.join([*long, 'nowhere.mp4 1']))
    assert check_config(cfg, 'train') == []  # one missing among many is met in training
    (tmp_path / 'list.txt').write_text('\n'.join([*long, 'a.mp4 3']))
    with pytest.raises(ValueError, match='line 641: label 3'):
        check_config(cfg, 'train')


def test_a_data_set_that_skips_unreadable_videos_may_miss_some(tmp_path: Path) -> None:
    cfg = config(tmp_path, ['a.mp4 0', 'b.mp4 1'])
    (tmp_path / 'b.mp4').unlink()
    with pytest.raises(FileNotFoundError, match=r'b\.mp4 does not exist .*line 2'):
        check_config(cfg, 'train')
    cfg.train_dataloader.dataset.type = 'mmtimesformer.VideoDataset'
    (note,) = check_config(cfg, 'train')
    assert note.startswith('1 of 2 videos that were looked up are missing: video ')
    (tmp_path / 'a.mp4').unlink()
    with pytest.raises(FileNotFoundError, match=r'a\.mp4 does not exist'):
        check_config(cfg, 'train')


def test_lists_elsewhere_and_of_other_kinds_are_left_alone(tmp_path: Path) -> None:
    cfg = config(tmp_path, ['a.mp4 9'], ann_file='s3://bucket/list.txt')
    assert check_config(cfg, 'train') == []
    assert check_config(config(tmp_path, ['a 30 9'], type='RawframeDataset'), 'train') == []


def test_options_for_what_a_runner_reads_are_taken() -> None:
    cfg = ConfigDict(model={}, my_own={})
    check_options(cfg, {'compile': True, 'randomness.seed': 3, 'my_own.x': 1, 'load_from': 'a'})
    with pytest.raises(ValueError, match='no section'):
        check_options(cfg, {'max_epochs': 3})


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    cfg = config(tmp_path, ['a.mp4 0'])
    cfg.work_dir = str(tmp_path / 'file/work')
    with pytest.raises(OSError, match=r'file/work cannot be written to \(Not a dir.*--work-dir'):
        check_config(cfg, 'train')
    cfg.work_dir = str(tmp_path / 'new/work')
    assert check_config(cfg, 'train') == []
    assert list((tmp_path / 'new/work').iterdir()) == []


def test_a_full_disk_is_refused_before_the_run(tmp_path: Path) -> None:
    """No file may grow beyond a kilobyte, as if there were no more room."""
    cfg = config(tmp_path, ['a.mp4 0'])
    cfg.work_dir = str(tmp_path / 'work')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r'/work cannot be written to \(File too large\); make'):
            check_config(cfg, 'train')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    ('content', 'message'),
    [(b'\x89PNG', 'is not text'), (b' \n', 'is empty'), (None, 'is not a path')],
)
def test_a_list_that_is_not_text_or_empty_is_refused(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    cfg = config(tmp_path, ['a.mp4 0'])
    if content is None:
        cfg.train_dataloader.dataset.ann_file = [cfg.train_dataloader.dataset.ann_file]
    else:
        (tmp_path / 'list.txt').write_bytes(content)
    with pytest.raises((ValueError, TypeError), match=message):
        check_config(cfg, 'train')


BCE = {'loss_cls': {'type': 'BCELossWithLogits'}}
MAP = {'type': 'AccMetric', 'metric_list': 'mean_average_precision'}
ROWS = {'multi_class': True, 'num_classes': 3}


def test_labels_that_are_not_numbers_are_named(tmp_path: Path) -> None:
    cfg = config(tmp_path, ['a.mp4 0 1-2'], **ROWS)
    cfg.model.cls_head.update(BCE)
    with pytest.raises(ValueError, match=r"line 1: label '1-2' is not a whole number; .* several"):
        check_config(cfg, 'train')


@pytest.mark.parametrize(
    ('head', 'dataset', 'metric'),
    [
        ({'average_clips': 'prob'}, {}, {'type': 'AccMetric'}),
        ({'average_clips': 'sum', 'type': 'mmtimesformer.TimeSformerHead'}, {}, {}),
        ({'average_clips': 'score', **BCE}, ROWS, MAP),  # ranks as the sigmoids do
        ({'average_clips': 'prob'}, ROWS, MAP),  # trained as a softmax on rows, and tested so
        ({'average_clips': 'prob', **BCE}, ROWS | {'type': 'HVUDataset'}, {'type': 'Own'}),
    ],
)
def test_tests_that_fit_their_labels_are_taken(
    tmp_path: Path, head: Any, dataset: Any, metric: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('mmtimesformer.config.validate.check_components', lambda *args: [])
    cfg = config(tmp_path, ['a.mp4 1'], 'test_dataloader', **dataset)
    cfg.model.cls_head.update(head)
    if dataset.get('type') == 'HVUDataset':
        cfg.model.cls_head.type = 'I3DHead'  # the fusion of other heads is not checked
    cfg.test_evaluator = [metric] if metric else []
    assert check_config(cfg, 'test') == []


@pytest.mark.parametrize(
    ('head', 'preprocessor'),
    [
        ({**BCE, 'label_smooth_eps': 0.1}, {}),  # makes rows of single labels
        (BCE, {'blending': {'type': 'MixupBlending', 'num_classes': 3}}),
        ({'loss_cls': {'type': 'CBFocalLoss', 'samples_per_cls': [1, 1, 1]}}, {}),
        ({'label_smooth_eps': 0.1}, {}),
    ],
)
def test_trainings_that_fit_their_labels_are_taken(
    tmp_path: Path, head: Any, preprocessor: Any
) -> None:
    cfg = config(tmp_path, ['a.mp4 1'])
    cfg.model.cls_head.update(head)
    cfg.model.data_preprocessor = {'type': 'ActionDataPreprocessor', **preprocessor}
    assert check_config(cfg, 'train') == []


@pytest.mark.parametrize(
    ('head', 'dataset', 'words'),
    [
        (BCE, {}, 'BCELossWithLogits needs a row of 0 and 1 for each video'),
        ({'multi_class': True}, {}, 'model.cls_head.multi_class=True and train_dataloader'),
        ({}, ROWS, 'CrossEntropyLoss is for one'),
        (BCE, {'multi_class': True}, 'set train_dataloader.dataset.num_classes=3'),
        (BCE, ROWS | {'num_classes': 5}, 'num_classes=5 and the model has 3 classes'),
        (BCE, ROWS | {'num_classes': 1}, 'a row of one number as a single label'),
    ],
)
@pytest.mark.parametrize('wrapped', [False, True])
def test_trainings_that_mix_kinds_of_labels_are_refused(
    tmp_path: Path, head: Any, dataset: Any, words: str, wrapped: bool
) -> None:
    cfg = config(tmp_path, ['a.mp4 1'], **dataset)
    cfg.model.cls_head.update(head)
    if wrapped:
        inner = cfg.train_dataloader.dataset
        cfg.train_dataloader.dataset = {'type': 'RepeatDataset', 'times': 2, 'dataset': inner}
        words = words.replace('train_dataloader.dataset', 'train_dataloader.dataset.dataset')
    with pytest.raises(ValueError, match=words):
        check_config(cfg, 'train')


def test_a_metric_needs_one_row_of_scores_for_each_video(tmp_path: Path) -> None:
    """Of views that keep their scores MMAction2 computes a "top-1" above 1."""
    cfg = config(tmp_path, ['a.mp4 1'], 'test_dataloader')
    cfg.test_evaluator = {'type': 'AccMetric'}
    with pytest.raises(ValueError, match="average_clips is not set.*set average_clips='prob'"):
        check_config(cfg, 'test')


def test_shards_of_several_labels_need_the_number_of_classes(tmp_path: Path) -> None:
    cfg = config(tmp_path, ['a.mp4 1'], type='mmtimesformer.TarShardVideoDataset', multi_class=True)
    cfg.model.cls_head.update(BCE)
    with pytest.raises(ValueError, match=r'set train_dataloader\.dataset\.num_classes=3'):
        check_config(cfg, 'train')


def test_a_best_score_that_no_metric_gives_is_refused(tmp_path: Path) -> None:
    cfg = config(tmp_path, ['a.mp4 1'], 'val_dataloader')
    cfg.train_dataloader, cfg.train_cfg = cfg.val_dataloader, {'max_epochs': 1}
    cfg.val_cfg, cfg.model.cls_head.average_clips = {}, 'prob'
    cfg.val_evaluator = {'type': 'AccMetric'}
    cfg.default_hooks = {'checkpoint': {'type': 'CheckpointHook', 'save_best': 'acc/mAP'}}
    with pytest.raises(ValueError, match='which gives acc/top1, acc/top5, acc/mean1'):
        check_config(cfg, 'train')
    for name in ('acc/top5', 'auto', ['acc/top1', 'acc/mean1']):
        cfg.default_hooks.checkpoint.save_best = name
        assert check_config(cfg, 'train') == []
