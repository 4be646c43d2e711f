"""Moving Shapes: twins, no single frame shows the direction, reproducible by seed, atomic."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import init_default_scope

from mmtimesformer.datasets.preparation import generated_videos, moving_shapes
from mmtimesformer.datasets.preparation.moving_shapes import (
    AXES,
    CLASSES,
    HEIGHT,
    MOTIONS,
    NUM_FRAMES,
    WIDTH,
    Settings,
    draw_clip,
    draw_scene,
    draw_twins,
    make_moving_shapes,
    place,
)
from mmtimesformer.datasets.transforms.decoding import Video

ROOT = Path(__file__).resolve().parents[3]
SMALL = Settings(num_train=16, num_val=8, seed=3)
OPPOSITES = list(zip(CLASSES[::2], CLASSES[1::2], strict=True))


@pytest.fixture(scope='module')
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'moving_shapes'
    assert make_moving_shapes(out, SMALL)
    return out


def listing(folder: Path, split: str) -> list[tuple[str, int]]:
    lines = (folder / f'{split}.txt').read_text().splitlines()
    return [(name, int(label)) for name, label in map(str.split, lines)]


# What the classes are.


@pytest.mark.parametrize('one, other', OPPOSITES)
def test_a_class_played_backwards_is_its_opposite_pixel_for_pixel(one: str, other: str) -> None:
    for seed in range(2):
        scene = draw_scene(np.random.default_rng(seed))
        assert np.array_equal(draw_clip(scene, one)[::-1], draw_clip(scene, other))


@pytest.mark.parametrize(
    'motion, moves',
    [
        ('left', lambda x, y, size: x < 0),
        ('right', lambda x, y, size: x > 0),
        ('up', lambda x, y, size: y < 0),
        ('down', lambda x, y, size: y > 0),
        ('growing', lambda x, y, size: size > 0),
        ('shrinking', lambda x, y, size: size < 0),
    ],
)
def test_a_class_moves_as_it_is_called(motion: str, moves) -> None:
    axis, direction = MOTIONS[motion]
    scene = draw_scene(np.random.default_rng(0))
    phase = np.array([0.50, 0.51])[::direction]
    steps = [float(np.diff(value)[0]) for value in place(scene, axis, phase)]
    # rows run down, and no step of a hundredth of a loop is half the world
    assert all(abs(step) < 2 for step in steps) and moves(*steps)


def test_clockwise_turns_as_a_clock_does() -> None:
    scene = draw_scene(np.random.default_rng(0))
    x, y, _ = place(scene, 'orbit', np.array([0.0, 0.25]))
    # from the right (three o'clock) to the bottom (six o'clock)
    assert x[0] > scene.near_x + 10 and y[1] > scene.near_y + 10


def gap_between_opposites(axis: str, instant: int, starts: tuple[float, float]) -> float:
    """Compare where opposite classes put the shape at one instant of 4,000 clips each, in a scene.

    Returns:
        The largest two-sample Kolmogorov-Smirnov statistic over x, y and size. Samples of one
        distribution stay below 0.044 in 99.9 % of draws, and the draws here are seeded.
    """
    rng = np.random.default_rng(0)
    scene = draw_scene(rng)
    places = []
    for direction in (+1, -1):
        start, loops = rng.uniform(*starts, 4000), rng.uniform(*moving_shapes.LOOPS, 4000)
        seconds = np.linspace(0, 1, NUM_FRAMES)[::direction]
        places.append(place(scene, axis, start + loops * seconds[instant]))
    gaps = []
    for one, other in zip(*places, strict=True):
        values = np.concatenate([one, other])
        below = [np.searchsorted(np.sort(v), values, side='right') / 4000 for v in (one, other)]
        gaps.append(abs(below[0] - below[1]).max())
    return max(gaps)


@pytest.mark.parametrize('axis', AXES)
@pytest.mark.parametrize('instant', [0, NUM_FRAMES // 2, NUM_FRAMES - 1])
def test_no_single_frame_shows_the_direction_not_even_the_first(axis: str, instant: int) -> None:
    assert gap_between_opposites(axis, instant, starts=(0, 1)) < 0.044


@pytest.mark.parametrize('axis', AXES)
def test_starts_on_half_of_the_loop_would_show_it(axis: str) -> None:
    assert gap_between_opposites(axis, 0, starts=(0, 0.5)) > 0.2


def test_all_that_varies_does() -> None:
    scenes = [draw_scene(np.random.default_rng(seed)) for seed in range(200)]
    assert {scene.shape for scene in scenes} == set(moving_shapes.SHAPES)
    for name in ('x', 'y', 'size', 'turn', 'orbit', 'start', 'loops'):
        assert len({getattr(scene, name) for scene in scenes}) == 200
    assert len({scene.background.tobytes() for scene in scenes}) == 200


@pytest.mark.parametrize('shape', moving_shapes.SHAPES)
def test_a_shape_is_seen_whole_on_the_torus(shape: str) -> None:
    """Moving the shape over the border moves its pixels over the border."""
    scene = draw_scene(np.random.default_rng(1))
    scene = replace(scene, shape=shape, background=np.zeros((HEIGHT, WIDTH, 3)))
    middle, corner = moving_shapes.draw_frames(
        scene, np.array([WIDTH / 2, 0]), np.array([HEIGHT / 2, 0]), np.array([10.0, 10.0])
    )
    assert middle.any()
    assert np.array_equal(np.roll(middle, (HEIGHT // 2, WIDTH // 2), axis=(0, 1)), corner)


# What is written.


def test_twins_stay_each_others_reverse_in_the_files(small: Path) -> None:
    for number in range(4):
        one, other = sorted((small / 'videos_train').glob(f'{number:05d}_*.mp4'))
        frames, reverse = Video(one).frames(range(21)), Video(other).frames(range(21))
        assert np.array_equal(frames, reverse[::-1])


def test_every_frame_is_a_picture_of_its_own(small: Path) -> None:
    import av

    with av.open(str(next((small / 'videos_train').iterdir()))) as container:
        assert all(frame.key_frame for frame in container.decode(video=0))


def test_a_file_shows_what_was_drawn(small: Path) -> None:
    for motion, clip in draw_twins(SMALL.seed, 'val', 0).items():
        frames = Video(small / 'videos_val' / f'00000_{motion}.mp4').frames(range(NUM_FRAMES))
        assert abs(np.stack(frames).astype(int) - clip).mean() < 6


def test_classes_are_equally_many_and_named_in_the_files(small: Path) -> None:
    assert (small / 'classes.txt').read_text().split() == list(CLASSES)
    for split, each in (('train', 2), ('val', 1)):
        lines = listing(small, split)
        assert np.bincount([label for _, label in lines], minlength=8).tolist() == [each] * 8
        assert all(name.endswith(f'_{CLASSES[label]}.mp4') for name, label in lines)


def test_mmaction2_reads_the_annotation_files(small: Path) -> None:
    from mmaction.datasets import VideoDataset

    init_default_scope('mmaction')
    dataset = VideoDataset(
        ann_file=str(small / 'val.txt'),
        data_prefix=dict(video=str(small / 'videos_val')),
        pipeline=[
            dict(type='mmtimesformer.VideoInit'),
            dict(type='SampleFrames', clip_len=8, frame_interval=2, test_mode=True),
            dict(type='mmtimesformer.VideoDecode'),
            dict(type='FormatShape', input_format='NCTHW'),
            dict(type='PackActionInputs'),
        ],
    )
    assert len(dataset) == SMALL.num_val
    assert dataset[3]['inputs'].shape == (1, 3, 8, HEIGHT, WIDTH)
    assert [dataset.get_data_info(i)['label'] for i in range(8)] == list(range(8))


def test_the_frames_of_a_test_read_the_same_from_both_ends() -> None:
    from mmaction.datasets.transforms import SampleFrames

    sample = SampleFrames(clip_len=8, frame_interval=2, test_mode=True)
    indices = sample(dict(total_frames=NUM_FRAMES, start_index=0))['frame_inds']
    assert indices.tolist() == [3, 5, 7, 9, 11, 13, 15, 17]
    assert (NUM_FRAMES - 1 - indices)[::-1].tolist() == indices.tolist()


# How it is made.


def test_the_same_seed_draws_the_same_clips_and_another_others() -> None:
    again = draw_twins(3, 'train', 1)
    for motion, clip in draw_twins(3, 'train', 1).items():
        assert np.array_equal(clip, again[motion])
        for seed, split, number in ((4, 'train', 1), (3, 'val', 1), (3, 'train', 5)):
            assert not np.array_equal(clip, draw_twins(seed, split, number)[motion])


def test_what_is_there_is_not_made_again_and_other_settings_are(small: Path, tmp_path) -> None:
    out = tmp_path / 'moving_shapes'
    assert make_moving_shapes(out, Settings(8, 8))
    video = out / 'videos_train' / '00000_left.mp4'
    written = video.stat().st_mtime_ns
    assert not make_moving_shapes(out, Settings(8, 8))
    assert video.stat().st_mtime_ns == written
    assert make_moving_shapes(out, Settings(8, 8, seed=1))
    assert json.loads((out / 'manifest.json').read_text())['seed'] == 1
    video.unlink()
    assert make_moving_shapes(out, Settings(8, 8, seed=1))
    assert video.is_file()
    assert [file.name for file in tmp_path.iterdir()] == ['moving_shapes']


def test_a_foreign_folder_is_left_alone(tmp_path) -> None:
    (tmp_path / 'thesis.txt').write_text('years of work')
    with pytest.raises(FileExistsError, match='left alone'):
        make_moving_shapes(tmp_path, SMALL)
    assert [file.name for file in tmp_path.iterdir()] == ['thesis.txt']


def test_a_failure_leaves_no_data_set(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def fail(path: Path, frames: np.ndarray) -> None:
        written.append(path)
        if len(written) == 5:
            raise OSError('No space left on device')

    monkeypatch.setattr(generated_videos, 'write_video', fail)
    with pytest.raises(OSError, match='No space left'):
        make_moving_shapes(tmp_path / 'data', Settings(num_train=800))
    assert not (tmp_path / 'data').exists()
    assert len(written) < 400  # and the rest was not tried


def test_a_killed_run_leaves_no_data_set_and_the_next_one_makes_it_whole(tmp_path) -> None:
    out = tmp_path / 'data'
    command = [
        sys.executable, str(ROOT / 'tools' / 'data' / 'moving_shapes.py'), '--out', str(out),
        '--num-train', '4000',
    ]  # fmt: skip
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    with subprocess.Popen(
        command, env={**os.environ, 'PYTHONPATH': path}, stdout=subprocess.DEVNULL
    ) as process:
        partial = tmp_path / '.data.partial' / 'videos_train'
        while process.poll() is None and (not partial.is_dir() or len(list(partial.iterdir())) < 3):
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    assert partial.is_dir() and not out.exists()
    assert make_moving_shapes(out, SMALL)
    assert [file.name for file in tmp_path.iterdir()] == ['data']


def test_of_two_that_ask_at_a_time_one_writes(tmp_path) -> None:
    with multiprocessing.get_context('spawn').Pool(2) as pool:
        made = pool.starmap(make_moving_shapes, [(tmp_path / 'data', Settings(8, 8))] * 2)
    assert sorted(made) == [False, True]


@pytest.mark.parametrize(
    'settings, sentence',
    [
        (dict(num_train=100), 'num_train=100 is not a positive multiple of 8.*set num_train to 96'),
        (dict(num_val=0), 'num_val=0 is not a positive multiple of 8.*set num_val to 8'),
        (dict(seed=-1), 'seed=-1 is negative'),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Settings(**settings)
