"""Moving Figures: the same seed draws the same clips, pairs are reversed, and lists can be read."""

from pathlib import Path

import numpy as np
import pytest
from mmengine import Config

from mmtimesformer.datasets.preparation.moving_figures import (
    CLASSES,
    PAIRS,
    Settings,
    draw_clip,
    draw_pair,
    draw_video,
    make_moving_figures,
)
from mmtimesformer.datasets.preparation.moving_figures.actions import ACTIONS, Style
from mmtimesformer.datasets.preparation.moving_figures.camera import Camera
from mmtimesformer.datasets.preparation.moving_figures.clips import draw_scene, play
from mmtimesformer.datasets.preparation.moving_figures.scenery import KINDS
from mmtimesformer.datasets.preparation.moving_figures.skeleton import (
    FOREARM,
    SHIN,
    THIGH,
    UPPER_ARM,
    joints_of,
)
from mmtimesformer.datasets.transforms.decoding import Video

ROOT = Path(__file__).resolve().parents[3]
SMALL = Settings(num_train=10, num_val=10, seed=3, width=48, height=32, num_frames=6)
TINY = dict(num_frames=5, width=47, height=31)


@pytest.fixture(scope='module')
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'moving_figures'
    assert make_moving_figures(out, SMALL)
    return out


# What is drawn.


def test_the_same_seed_draws_the_same_frames_and_another_seed_others() -> None:
    clip = draw_clip('walking', seed=5, **TINY)
    assert clip.dtype == np.uint8 and clip.shape == (5, 31, 47, 3)
    assert np.array_equal(clip, draw_clip('walking', seed=5, **TINY))
    assert not np.array_equal(clip, draw_clip('walking', seed=6, **TINY))


@pytest.mark.parametrize('one, other', [('throwing', 'catching'), ('sitting down', 'standing up')])
def test_reversed_classes_are_exactly_reversed(one: str, other: str) -> None:
    clip = draw_clip(one, seed=4, **TINY)
    assert np.array_equal(clip[::-1], draw_clip(other, seed=4, **TINY))
    assert not np.array_equal(clip, clip[::-1])


def test_every_class_moves_and_none_is_drawn_as_another() -> None:
    scene = draw_scene(2)
    clips = {label: play(scene, label, **TINY).astype(int) for label in CLASSES}
    for label, clip in clips.items():
        assert (abs(np.diff(clip, axis=0)).max(axis=(1, 2, 3)) > 20).all()
        others = [other for name, other in clips.items() if name != label]
        assert all(abs(clip - other).max() > 40 for other in others)


def test_seeds_draw_all_kinds_of_scenes() -> None:
    assert {draw_scene(seed).scenery.kind for seed in range(16)} == set(KINDS)


def test_a_scene_does_not_depend_on_the_action() -> None:
    """The first pixels of the sky and the ground, far from the figure, are the same."""
    one, other = (draw_clip(label, seed=7, **TINY)[0] for label in ('waving', 'bowing'))
    assert np.array_equal(one[:2], other[:2])


@pytest.mark.parametrize(('width', 'height'), [(96, 96), (64, 112), (200, 50)])
def test_any_size_can_be_drawn(width: int, height: int) -> None:
    clip = draw_clip('kicking', seed=1, num_frames=2, width=width, height=height)
    assert clip.shape == (2, height, width, 3)
    assert clip.std() > 15


def test_a_long_video_has_all_actions_and_no_jump_between_them() -> None:
    labels = ['walking', 'waving', 'sitting down', 'standing up']
    video = draw_video(labels, seed=3, num_frames=8, width=48, height=32)
    assert len(video) == 32
    assert np.array_equal(video, draw_video(labels, seed=3, num_frames=8, width=48, height=32))
    steps = abs(np.diff(video.astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert steps.max() < 5 * np.median(steps)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (dict(label='flying'), "label='flying' is not one of walking, running"),
        (dict(label='walking', num_frames=0), 'num_frames=0 is not positive'),
        (dict(label='walking', width=-3), 'width=-3 is not positive'),
        (dict(label='walking', fps=0), 'fps=0 is not positive'),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        draw_clip(**arguments)


def test_a_video_of_no_action_is_refused() -> None:
    with pytest.raises(ValueError, match='labels is empty'):
        draw_video([])


# Figures.


@pytest.mark.parametrize('label', CLASSES)
def test_limbs_keep_their_length_and_feet_stay_above_the_ground(label: str) -> None:
    action, _ = ACTIONS[label]
    for time in np.linspace(0, 2.4, 13):
        joints = joints_of(action(float(time), Style()))
        for side in ('left', 'right'):
            for one, other, length in (
                ('shoulder', 'elbow', UPPER_ARM),
                ('elbow', 'wrist', FOREARM),
                ('hip', 'knee', THIGH),
                ('knee', 'ankle', SHIN),
            ):
                limb = joints[f'{side} {one}'] - joints[f'{side} {other}']
                assert np.linalg.norm(limb) == pytest.approx(length)
        assert min(joint[2] for joint in joints.values()) > 0


def test_a_walking_figure_moves_ahead_and_a_waving_one_stays() -> None:
    for label, least, most in (('walking', 2, 4), ('running', 5, 8), ('waving', 0, 0.01)):
        action, _ = ACTIONS[label]
        way = action(2.4, Style()).ahead - action(0.0, Style()).ahead
        assert least <= way <= most


def test_the_camera_projects_points_and_planes_to_the_same_pixels() -> None:
    camera = Camera(width=97, height=61, x=0.3, y=-0.2, z=1.6, pan=0.2, pitch=-0.1, roll=0.05)
    origin, first, second = (
        np.array([0.1, 4.0, 0.5]),
        np.array([0.2, 0.1, 0]),
        np.array([0, 0, 1.0]),
    )
    u, v, w = camera.plane(origin, first, second) @ [3.0, 0.7, 1.0]
    expected = camera.project(origin + 3 * first + 0.7 * second)[:2]
    assert (u / w, v / w) == pytest.approx(expected)


def test_a_camera_pans_to_the_right_and_looks_up() -> None:
    point = np.array([0.0, 5.0, 1.5])
    u, v, _ = Camera(100, 80).project(point)
    assert (u, v) == pytest.approx((50, 40))
    assert Camera(100, 80, pan=0.1).project(point)[0] < 45
    assert Camera(100, 80, pitch=0.1).project(point)[1] > 45


# What is written.


def test_files_are_listed_by_class_and_pairs_follow_each_other(small: Path) -> None:
    assert (small / 'classes.txt').read_text().splitlines() == list(CLASSES)
    for split in ('train', 'val'):
        lines = [line.split() for line in (small / f'{split}.txt').read_text().splitlines()]
        assert [int(label) for _, label in lines] == list(range(10))
        for name, label in lines:
            assert name.endswith(f'_{CLASSES[int(label)].replace(" ", "_")}.mp4')
            assert (small / f'videos_{split}' / name).is_file()
        scenes = [name[:5] for name, _ in lines]
        assert scenes[::2] == scenes[1::2]


def test_a_file_shows_what_was_drawn_and_pairs_stay_reversed_in_the_files(small: Path) -> None:
    for number, labels in enumerate(PAIRS):
        drawn = draw_pair(SMALL, 'val', number)
        assert tuple(drawn) == labels
        for label, clip in drawn.items():
            name = f'{number:05d}_{label.replace(" ", "_")}.mp4'
            frames = np.stack(Video(small / 'videos_val' / name).frames(range(6)))
            assert abs(frames.astype(int) - clip).mean() < 8
    names = '00003_throwing.mp4', '00003_catching.mp4'
    one, other = (Video(small / 'videos_val' / name).frames(range(6)) for name in names)
    assert np.array_equal(one, other[::-1])


def test_each_scene_of_the_data_set_is_shown_with_all_classes() -> None:
    waving, bowing = (draw_pair(SMALL, 'train', n)[PAIRS[n][0]][0, :2] for n in (1, 2))
    assert np.array_equal(waving, bowing)  # the top of the picture, without the figure
    assert not np.array_equal(waving, draw_pair(SMALL, 'train', 6)['waving'][0, :2])


def test_what_is_there_is_not_made_again(small: Path) -> None:
    video = small / 'videos_train' / '00000_walking.mp4'
    written = video.stat().st_mtime_ns
    assert not make_moving_figures(small, SMALL)
    assert video.stat().st_mtime_ns == written


def test_the_config_reads_the_lists_of_the_command(small: Path) -> None:
    from mmaction.registry import DATASETS
    from mmengine.registry import DefaultScope

    cfg = Config.fromfile(ROOT / 'configs/timesformer/timesformer_divST-tiny_moving-figures.py')
    assert cfg.model.cls_head.num_classes == len(CLASSES)
    dataset = cfg.val_dataloader.dataset
    assert (dataset.ann_file, dataset.data_prefix.video, dataset.metainfo.classes) == (
        'data/moving_figures/val.txt',
        'data/moving_figures/videos_val',
        'data/moving_figures/classes.txt',
    )
    dataset.ann_file, dataset.data_prefix.video = f'{small}/val.txt', f'{small}/videos_val'
    dataset.metainfo.classes = f'{small}/classes.txt'
    for step in dataset.pipeline:
        if step.type.endswith('SampleFrames'):
            step.frame_interval = 1  # the small clips are short
    with DefaultScope.overwrite_default_scope('mmaction'):
        built = DATASETS.build(dataset)
        assert built[3]['inputs'].shape == (1, 3, 8, 96, 96)
    assert built.metainfo['classes'] == list(CLASSES)


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        (dict(num_train=25), 'num_train=25 is not a positive multiple of 10.*set num_train to 20'),
        (dict(num_val=0), 'num_val=0 is not a positive multiple of 10.*set num_val to 10'),
        (dict(seed=-1), 'seed=-1 is negative'),
        (dict(width=95), 'width=95 is not an even number from 16'),
        (dict(num_frames=0), 'num_frames=0 is not positive'),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Settings(**settings)
