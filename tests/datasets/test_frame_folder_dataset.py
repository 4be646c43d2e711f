"""The three kinds of lists of frame folders, and the official loader of Something-Something-V2."""
# ruff: noqa: NPY002  (the global state is what is seeded)

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.registry import DATASETS, DefaultScope
from torch.nn import functional as F

from mmtimesformer.compat.data_samples import label_of, targets_of
from mmtimesformer.config.validate import check_config
from mmtimesformer.datasets.frame_folder_dataset import FrameFolderDataset
from mmtimesformer.datasets.samplers import ClassBalancedSampler
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.datasets.video_dataset import VideoDataset

CONFIGS = Path(__file__).parents[2] / 'configs'
PIPELINE = [
    dict(type='mmtimesformer.VideoInit'),
    dict(type='mmtimesformer.SegmentSampleFrames', clip_len=4, test_mode=True),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
H, W = 20, 28


def write_frames(folder: Path, count: int, name: str = 'img_{:05}.jpg', start: int = 1) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(count)
    for i in range(count):
        bgr = rng.integers(0, 255, (H, W, 3), np.uint8)
        assert cv2.imwrite(str(folder / name.format(start + i)), bgr)
    return folder


def write(path: Path, *lines: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')
    return str(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three folders of 10, 1 and 7 frames."""
    for name, count in (('a', 10), ('b', 1), ('c', 7)):
        write_frames(tmp_path / 'frames' / name, count)
    return tmp_path


def dataset(root: Path, ann_file: str, **options: Any) -> FrameFolderDataset:
    options = {'pipeline': PIPELINE, 'data_prefix': {'video': str(root / 'frames')}, **options}
    options['serialize_data'] = False  # it collects garbage each time, half a second
    with DefaultScope.overwrite_default_scope('mmaction'):
        return FrameFolderDataset(ann_file, **options)


def label(sample: dict[str, Any]) -> int:
    return int(label_of(sample['data_samples'].to_dict()))


def test_it_is_registered() -> None:
    assert DATASETS.get('mmtimesformer.FrameFolderDataset') is FrameFolderDataset


@pytest.mark.parametrize('prefix', ['video', 'img'])
def test_rawframe_lists_and_plain_ones_give_the_same(root: Path, prefix: str) -> None:
    raw = write(root / 'raw.txt', 'a 10 2', 'b 1 0', 'c 7 1')
    plain = write(root / 'plain.txt', 'a 2', 'b 0', 'c 1')
    options = {'data_prefix': {prefix: str(root / 'frames')}, 'test_mode': True}
    one = dataset(root, raw, filename_tmpl='img_{:05}.jpg', start_index=1, **options)
    other = dataset(root, plain, **options)
    for i, count in enumerate((10, 1, 7)):
        sample, same = one[i], other[i]
        assert torch.equal(sample['inputs'], same['inputs'])
        assert label(sample) == label(same) == (2, 0, 1)[i]
        indices = np.asarray(
            [1, 3, 5, 8] if count == 10 else [0] * 4 if count == 1 else [1, 2, 3, 5]
        )
        paths = [root / 'frames' / 'abc'[i] / f'img_{k + 1:05}.jpg' for k in indices]
        frames = np.stack([cv2.imread(str(path))[..., ::-1] for path in paths])
        assert np.array_equal(sample['inputs'][0].permute(1, 2, 3, 0).numpy(), frames)


def test_several_labels(root: Path) -> None:
    several = {'multi_class': True, 'num_classes': 4}
    raw = write(root / 'raw.txt', 'a 10 2 3', 'b 1')
    data = dataset(root, raw, list_format='rawframes', **several)
    assert [data.get_data_info(i)['label'].tolist() for i in (0, 1)] == [[0, 0, 1, 1], [0] * 4]
    plain = dataset(root, write(root / 'p.txt', 'a 2 3'), list_format='plain', **several)
    assert plain.get_data_info(0)['label'].tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"several labels, .*set list_format='rawframes'"):
        dataset(root, raw, **several)


def test_numbers_of_a_regression(root: Path) -> None:
    numbers = [[0.5, 10.0], [-1e-3, 1.0], [2.0, 7.0]]
    plain = write(root / 'plain.txt', 'a 0.5 10', 'b -1e-3 1', 'c 2 7')
    raw = write(root / 'raw.txt', 'a 10 0.5 10', 'b 1 -1e-3 1', 'c 7 2 7')
    for lists, form in ((plain, 'auto'), (raw, 'auto'), (plain, 'plain'), (raw, 'rawframes')):
        data = dataset(root, lists, num_targets=2, list_format=form, test_mode=True)
        assert [data.get_data_info(i)['label'] for i in range(3)] == numbers
        sample = data[1]['data_samples']
        assert targets_of(sample.to_dict()).tolist() == pytest.approx(numbers[1])
        assert sample.num_targets == 2
    one = dataset(root, write(root / 'one.txt', 'a 10 0.5'), num_targets=1)
    assert one.get_data_info(0)['label'] == [0.5], 'its second column is the number of frames'
    with pytest.raises(TypeError, match='num_targets=1: videos have numbers and no classes'):
        one.get_cat_ids(0)


def test_classes_are_balanced_as_of_videos(root: Path) -> None:
    lists = write(root / 'l.txt', 'a 10 0', 'b 1 0', 'c 7 1', 'a 10 0')
    options = {'data_prefix': {'video': str(root / 'frames')}, 'pipeline': PIPELINE}
    ours = dict(type='mmtimesformer.FrameFolderDataset', ann_file=lists, **options)
    with DefaultScope.overwrite_default_scope('mmaction'):
        data = DATASETS.build(dict(type='ClassBalancedDataset', dataset=ours, oversample_thr=0.9))
    assert [data.dataset.get_cat_ids(i) for i in range(4)] == [[0], [0], [1], [0]]
    labels = [data.get_data_info(i)['label'] for i in range(len(data))]
    assert (labels.count(0), labels.count(1)) == (6, 2), 'oversampled by ceil(sqrt(0.9 / share))'
    assert label(data[len(data) - 1]) == labels[-1]
    drawn = [data.dataset.get_data_info(i)['label'] for i in ClassBalancedSampler(data.dataset)]
    assert drawn.count(0) == drawn.count(1) == len(drawn) / 2
    several = {'multi_class': True, 'num_classes': 4, 'list_format': 'rawframes'}
    data = dataset(root, write(root / 'm.txt', 'a 10 2 3', 'b 1'), **several)
    assert [data.get_cat_ids(i) for i in (0, 1)] == [[2, 3], []]


def test_videos_and_folders_in_one_list(root: Path, tiny_videos: Path) -> None:
    shutil.copy(tiny_videos / '0.mp4', root / 'frames' / 'v.mp4')
    lists = write(root / 'l.txt', 'a 0', 'v.mp4 1')
    with DefaultScope.overwrite_default_scope('mmaction'):
        videos = VideoDataset(lists, PIPELINE, {'video': str(root / 'frames')}, test_mode=True)
    for data in (dataset(root, lists, test_mode=True), videos):
        assert [data[i]['inputs'].shape[-2:] for i in (0, 1)] == [(H, W), (64, 96)]
    raw = write(root / 'r.txt', 'a 10 0', 'v.mp4 20 1', 'v.mp4 21 1')
    data = dataset(root, raw, test_mode=True)
    assert 'failed' not in data[1]['data_samples']
    assert data[2]['data_samples'].failed == 'the list gives 21 frames, and there are 20'


def test_a_bad_frame_is_a_bad_video_and_no_other_frame_takes_its_place(root: Path) -> None:
    lists = write(root / 'l.txt', 'a 10 0', 'b 1 1', 'c 7 2', 'nowhere 7 1')
    (root / 'frames/a/img_00004.jpg').unlink()
    content = (root / 'frames/c/img_00003.jpg').read_bytes()
    (root / 'frames/c/img_00003.jpg').write_bytes(content[: len(content) // 2])
    tested = dataset(root, lists, test_mode=True)
    reasons = [tested[i]['data_samples'].get('failed') for i in range(4)]
    assert reasons == [
        'frames are missing: 4 (there are 1 to 10)',
        None,
        'its frame img_00003.jpg cannot be decoded: it is cut short',
        'it does not exist',
    ]
    replaced = dataset(root, lists)[0]
    assert replaced['data_samples'].replaces[0]['file'].endswith('frames/a')
    assert label(replaced) == 1, 'the only good video'


def test_frames_per_second_are_those_of_the_argument(root: Path) -> None:
    lists = write(root / 'l.txt', 'a 0')
    window = dict(
        type='mmtimesformer.WindowSampleFrames', clip_len=4, frame_interval=2, test_mode=True
    )
    for fps, indices in ((None, [0, 2, 4, 7]), (30, [0, 2, 4, 7]), (15, [0, 1, 2, 3])):
        data = dataset(root, lists, fps=fps, test_mode=True, pipeline=[PIPELINE[0], window])
        assert data[0]['frame_inds'].tolist() == indices
        assert data[0]['avg_fps'] == (fps or 30)


@pytest.mark.parametrize(
    ('lines', 'options', 'message'),
    [
        ([], {}, 'is empty'),
        (['a 1', '', 'b 1'], {}, 'line 2 is blank; remove it'),
        (['\ufeffa 1'], {}, 'byte order mark'),
        (['a one'], {}, "line 1: 'one' is not a whole number"),
        (['a 10 0', 'b 0'], {}, r'lines of 2 to 3 columns, .*set list_format'),
        (['a 10 0 1'], {'list_format': 'rawframes'}, 'line 1 has 2 labels; set multi_class=True'),
        (
            ['a'],
            {'list_format': 'rawframes'},
            'line 1 does not have the number of frames behind the folder',
        ),
        (['a 0.5'], {}, "line 1: '0.5' is not a whole number; .* set num_targets"),
        (['a 10 0.5', 'b 1'], {'num_targets': 1}, r'2 to 3 columns and num_targets=1, so a line'),
        (['a'], {'num_targets': 1}, r'has 1 columns and num_targets=1, so a line has 2 \(folder'),
        (['a 10 x'], {'num_targets': 1}, "line 1: 'x' is no finite number; write one such as"),
        (['a nan'], {'num_targets': 1}, "line 1: 'nan' is no finite number"),
        (['a ten 1'], {'num_targets': 1}, "line 1: 'ten' is not a whole number"),
        (
            ['a 1 2'],
            {'num_targets': 1, 'list_format': 'plain'},
            'line 1 has 2 numbers after the video and num_targets=1',
        ),
        (
            ['a 1'],
            {'num_targets': 1, 'label_file': 'x.json', 'frame_list': 'x.csv'},
            'num_targets=1 is for numbers and frame_list gives classes',
        ),
        (['a 0 1'], {}, 'line 1 does not have the number of frames behind the folder'),
        (['../a 1'], {}, r"'../a' leads out of the folder of the videos; correct it"),
        (['/etc 1'], {}, r"'/etc' leads out of the folder of the videos"),
        (['a 1'], {'list_format': 'csv'}, "list_format='csv' is not known; set it to one of auto"),
        (['a 1'], {'fps': 0}, 'fps=0 is not positive; set fps'),
        (['a 1'], {'label_file': 'x.json'}, 'label_file and frame_list belong together'),
        (
            ['a 1'],
            {'filename_tmpl': 'img.jpg'},
            "filename_tmpl='img.jpg' is not the name of a file",
        ),
        (
            ['a 1'],
            {'pipeline': PIPELINE[1:]},
            'opens videos by nothing; begin it with mmtimesformer',
        ),
    ],
)
def test_a_wrong_list_or_argument_gets_a_sentence(
    root: Path, lines: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dataset(root, write(root / 'l.txt', *lines), **options)


# -- before the start ------------------------------------------------------------------------------


HEAD = dict(type='TimeSformerHead', num_classes=3, in_channels=24, average_clips='prob')
REGRESSION = dict(type='mmtimesformer.RegressionHead', num_targets=1, in_channels=24)


def checked(
    root: Path,
    lines: list[str],
    head: dict[str, Any] = HEAD,
    metric: str = 'AccMetric',
    **options: Any,
) -> list[str]:
    """Check a config that tests on a list."""
    data = {'type': 'mmtimesformer.FrameFolderDataset', 'pipeline': PIPELINE, 'test_mode': True,
            'ann_file': write(root / 'l.txt', *lines),
            'data_prefix': {'video': str(root / 'frames')}, **options}  # fmt: skip
    backbone = dict(
        type='mmtimesformer.TimeSformer', num_frames=4, img_size=16, embed_dims=24, num_layers=1,
        num_heads=2,
    )  # fmt: skip
    cfg = dict(
        default_scope='mmaction',
        model=dict(
            type='Recognizer3D',
            backbone=backbone,
            cls_head=head,
        ),
        test_dataloader=dict(
            batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler'), dataset=data
        ),
        test_evaluator=dict(type=metric),
        test_cfg=dict(type='TestLoop'),
    )
    return check_config(Config(cfg), 'test')


def test_a_good_list_passes_the_check(root: Path) -> None:
    assert checked(root, ['a 10 2', 'b 1 0', 'c 7 1']) == []


@pytest.mark.parametrize(
    ('lines', 'message'),
    [
        (['a 10 3'], r'line 1: label 3 is not in 0\.\.2; correct it, or set model.cls_head'),
        (['a 10 -1'], r'line 1: label -1 is not in 0\.\.2'),
        (['a 9 0'], r'video .*frames/a: the list gives 9 frames, and there are 10 \(.*line 1\)'),
        (['x 9 0'], r'video .*frames/x: it does not exist \(.*line 1\); correct the line or'),
    ],
)
def test_a_bad_list_is_refused_before_the_start(root: Path, lines: list[str], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        checked(root, lines)


@pytest.mark.parametrize('scope', ['mmtimesformer.', ''])
def test_a_subclass_is_checked_too(root: Path, scope: str) -> None:
    """Of ours, or registered by MMAction2; not one that reads lists in another way."""
    place = DATASETS.children['mmtimesformer' if scope else 'mmaction']
    mine = type('Mine', (FrameFolderDataset,), {})
    other = type('Other', (FrameFolderDataset,), {'load_data_list': lambda self: []})
    for one in (mine, other):
        place.register_module(module=one)
    try:
        with pytest.raises(FileNotFoundError, match='the list gives 9 frames, and there are 10'):
            checked(root, ['a 9 0'], type=f'{scope}Mine')
        assert checked(root, ['a 10 2'], type=f'{scope}Mine') == []
        assert checked(root, ['in words of its own'], type=f'{scope}Other') == []
    finally:
        for one in (mine, other):
            del place._module_dict[one.__name__]


def test_a_list_of_a_regression_is_checked(root: Path) -> None:
    numbers = {'head': REGRESSION, 'metric': 'mmtimesformer.RegressionMetric', 'num_targets': 1}
    assert checked(root, ['a 10 -2.5', 'c 7 100'], **numbers) == []
    with pytest.raises(ValueError, match="line 2: 'inf' is no finite number"):
        checked(root, ['a 10 -2.5', 'c 7 inf'], **numbers)
    with pytest.raises(FileNotFoundError, match='the list gives 9 frames'):
        checked(root, ['a 9 -2.5'], **numbers)


def test_a_few_missing_videos_are_noted(root: Path) -> None:
    (note,) = checked(root, ['a 10 0', 'b 1 0', 'c 8 1'])
    assert re.search(r'1 of 3 videos .* are missing: .*c: frames are missing: 8 \(there', note)


# -- the official loader of Something-Something-V2 -------------------------------------------------

TEMPLATES = ['Holding [something]', 'Pushing [something] left']
VIDEOS = {'174': 37, '5': 9, '88': 1, '12': 64}


@pytest.fixture
def ssv2(tmp_path: Path) -> Path:
    """Lists as published, frames named ``174/174_000001.jpg``; rows in another order than JSON."""
    folder = tmp_path / 'lists'
    labels = {re.sub(r'[][]', '', name): str(1 - i) for i, name in enumerate(TEMPLATES)}
    write(folder / 'something-something-v2-labels.json', json.dumps(labels))
    entries = [{'id': name, 'template': TEMPLATES[i % 2]} for i, name in enumerate(VIDEOS)]
    rows = ['original_vido_id video_id frame_id path labels']
    for number, (name, count) in enumerate(reversed(VIDEOS.items())):
        write_frames(tmp_path / 'frames' / name, count, name + '_{:06}.jpg')
        rows += [f'{name} {number} {i} {name}/{name}_{i + 1:06}.jpg ""' for i in range(count)]
    for stem, csv in (('train', 'train'), ('validation', 'val')):
        write(folder / f'something-something-v2-{stem}.json', json.dumps(entries))
        write(folder / f'{csv}.csv', *rows)
    return tmp_path


def official(root: Path, stage: str, pipeline: list[Any], **options: Any) -> FrameFolderDataset:
    stem = {'train': 'train', 'val': 'validation'}[stage]
    lists = root / 'lists'
    return dataset(
        root,
        str(lists / f'something-something-v2-{stem}.json'),
        label_file=str(lists / 'something-something-v2-labels.json'),
        frame_list=str(lists / f'{stage}.csv'),
        pipeline=pipeline,
        **options,
    )


def stated(paths: list[Path], t: int, train: bool, sides: tuple[int, int], crop: int) -> Any:
    """What the official loader gives, by its rules alone: indices, and views ``v c t H W``.

    BGR by ``cv2.imread``, normalised, then resized by bilinear interpolation, then cropped.
    """
    step = (len(paths) - 1) / t
    indices = []
    for i in range(t):
        start, end = int(np.round(step * i)), int(np.round(step * (i + 1)))
        indices.append(np.random.randint(start, end + 1) if train else (start + end) // 2)
    pixels = np.stack([cv2.imread(str(paths[i])) for i in indices]).astype(np.float32)
    video = torch.from_numpy((pixels / 255 - 0.45) / 0.225).permute(3, 0, 1, 2)
    side = sides[0]
    if train:
        side = round(1 / np.random.uniform(1 / sides[1], 1 / sides[0]))
    height, width = video.shape[2:]
    assert height < width
    size = side, int(np.floor(width / height * side))
    if side != height:
        video = F.interpolate(video, size, mode='bilinear', align_corners=False)
    views = []
    if train:
        y = np.random.randint(0, size[0] - crop) if size[0] > crop else 0
        x = np.random.randint(0, size[1] - crop) if size[1] > crop else 0
        views.append(video[:, :, y : y + crop, x : x + crop])
    lefts = () if train else (0, -(-(size[1] - crop) // 2), size[1] - crop)
    views += [video[:, :, :crop, x : x + crop] for x in lefts]
    return indices, torch.stack(views)


@pytest.fixture
def config() -> Callable[[str], Config]:
    return lambda name: Config.fromfile(CONFIGS / 'timesformer' / f'{name}.py')


FRAMES = {
    8: 'timesformer_divST_8xb8-u8-15e_sthv2-frames-rgb_official',
    16: 'timesformer_divST-HR_8xb1-u16-15e_sthv2-frames-rgb_official',
    64: 'timesformer_divST-L_8xb1-u64-15e_sthv2-frames-rgb_official',
}


@pytest.mark.parametrize('t', [8, *(pytest.param(t, marks=pytest.mark.slow) for t in (16, 64))])
@pytest.mark.parametrize('stage', ['train', 'test'])
def test_frames_and_pixels_are_those_of_the_official_loader(
    ssv2: Path, config: Callable[[str], Config], t: int, stage: str
) -> None:
    """Index for index; pixels to the rounding of single precision."""
    from mmaction.registry import MODELS

    cfg = config(FRAMES[t])
    train = stage == 'train'
    loader = cfg[f'{stage}_dataloader'].dataset
    assert loader.type == 'mmtimesformer.FrameFolderDataset'
    assert Path(loader.frame_list).name == ('train.csv' if train else 'val.csv')
    pipeline = [step.to_dict() for step in loader.pipeline]
    sides, crop = ((256, 320), 224) if t == 8 else ((52, 64), 45)  # smaller, for speed
    pipeline[3].update({'scale_range': sides} if train else {'size': crop})
    pipeline[4].update({'size': crop} if train else {'crop_size': crop})
    data = official(ssv2, 'train' if train else 'val', pipeline, test_mode=not train)
    with DefaultScope.overwrite_default_scope('mmaction'):
        prepare = MODELS.build(cfg.model.data_preprocessor)
    for i, (name, count) in enumerate(VIDEOS.items()):
        paths = [ssv2 / f'frames/{name}/{name}_{k + 1:06}.jpg' for k in range(count)]
        np.random.seed(i)
        indices, views = stated(paths, t, train, sides if train else (crop, crop), crop)
        np.random.seed(i)
        info = data.get_data_info(i)
        chosen = data.pipeline.transforms[1](data.pipeline.transforms[0](info))['frame_inds']
        assert chosen.tolist() == indices
        np.random.seed(i)
        sample = data[i]
        assert label(sample) == 1 - i % 2
        inputs = prepare({'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]})
        assert inputs['inputs'][0].shape == views.shape
        assert torch.allclose(inputs['inputs'][0], views, atol=2e-5)


def test_dense_clips_of_kinetics_on_frames(root: Path, config: Callable[[str], Config]) -> None:
    """The views of the official Kinetics protocol, of a folder and of a video of its frames."""
    cfg = config('timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb_official')
    write_frames(root / 'frames' / 'long', 300, '{}.png', 0)
    data = dataset(
        root, write(root / 'l.txt', 'long 0'), pipeline=cfg.test_pipeline[:2], test_mode=True
    )
    assert data[0]['frame_inds'].tolist() == [0, 36, 72, 109, 145, 182, 218, 255]


def break_list(root: Path, file: str, change: Callable[[str], str]) -> None:
    path = root / 'lists' / file
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ('file', 'change', 'message'),
    [
        ('val.csv', lambda text: text.replace('vido', 'video', 1), 'begins with .*_vido_id'),
        ('val.csv', lambda text: text.replace(' ', ',', 4), 'split by spaces'),
        ('val.csv', lambda text: text.replace(' ""', '', 1), 'line 2 has 4 columns, not 5'),
        ('val.csv', lambda text: text.replace('12 0 3 ', '12 0 4 '), 'frame_id 4 .*where 3 is'),
        ('val.csv', lambda text: text.replace('12/12_000003', '../x'), 'line 4: .*leads out of'),
        ('val.csv', lambda text: text.replace('12/12_000003', '/x'), 'line 4: .*leads out of'),
        ('val.csv', lambda text: text.replace('12/12_000003', '5/x'), 'lie in several folders'),
        ('val.csv', lambda text: text + '12 0 0 12/12_000001.jpg ""\n', 'do not lie together'),
        ('val.csv', lambda text: text + '9 0 0 9/9_000001.jpg ""\n', 'has 4 videos and .* 5; give'),
        ('something-something-v2-validation.json', lambda text: text[:-9], 'is not complete JSON'),
        ('something-something-v2-validation.json', lambda text: '{}', 'holds a dict, not a list'),
        (
            'something-something-v2-validation.json',
            lambda text: text.replace('"174"', '"175"'),
            'entry 1: the video 175 has no row in .*val.csv',
        ),
        (
            'something-something-v2-validation.json',
            lambda text: text.replace('Holding', 'Hiding'),
            "entry 1: the template 'Hiding something' is not in .*labels.json",
        ),
        (
            'something-something-v2-validation.json',
            lambda text: text.replace('template', 'label'),
            'entry 1 has no id or no template',
        ),
    ],
)  # fmt: skip
def test_lists_that_do_not_agree_get_a_sentence(
    ssv2: Path, file: str, change: Callable[[str], str], message: str
) -> None:
    break_list(ssv2, file, change)
    with pytest.raises(ValueError, match=message):
        official(ssv2, 'val', PIPELINE)


def test_a_missing_frame_of_the_official_list_is_a_bad_video(ssv2: Path) -> None:
    (ssv2 / 'frames/174/174_000005.jpg').unlink()
    data = official(ssv2, 'val', PIPELINE, test_mode=True)
    assert data[0]['data_samples'].failed == 'its frame 174_000005.jpg does not exist'
    assert Path(data[0]['data_samples'].filename) == ssv2 / 'frames/174'
    assert 'failed' not in data[1]['data_samples']
    assert len(Video(ssv2 / 'frames/5')) == 9, 'the folder alone is the same video'
