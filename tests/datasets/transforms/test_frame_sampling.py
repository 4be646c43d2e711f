"""Each rule against a statement of its own, index for index: exact fractions in plain Python."""
# ruff: noqa: NPY002  (the global state is what is seeded)

import math
import random
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from mmaction.datasets.transforms import SampleFrames

from mmtimesformer.datasets import SegmentSampleFrames, WindowSampleFrames
from mmtimesformer.registry import TRANSFORMS

RATES = (10, 12, 15, 23.976, 24, 25, 29.97, 30, 50, 59.94, 60)
CLIPS = ((8, 32), (16, 16), (96, 4), (32, 32), (64, 32), (3, 5), (1, 1), (1, 7))
SOME_LENGTHS = [1, 2, 3, 7, 8, 9, *random.Random(7).sample(range(10, 2000), 25), 2000]


def indices_of(transform: Any, length: int, fps: float = 30.0, **more: Any) -> list[int]:
    results = transform({'total_frames': length, 'avg_fps': fps, 'start_index': 0, **more})
    return [int(index) for index in results['frame_inds']]


def whole_frames(position: Fraction, length: int, short: str) -> set[int]:
    """The frames that a position may be cut to: two where rounding errors may tip it over."""
    slack = Fraction(1, 2000) if position.denominator > 1 or position else Fraction(0)
    cut = set()
    for near in (position - slack, position + slack):
        near = max(near, Fraction(0))
        cut.add(
            min(math.floor(near), length - 1) if short == 'clamp' else math.floor(near) % length
        )
    return cut


def window_of(
    length: int, fps: float, clip: tuple[int, int], share: Fraction, short: str = 'clamp'
) -> list[set[int]]:
    """The official window, in exact fractions; ``share`` of the room is before it."""
    frames, interval = clip
    window = Fraction(frames * interval) * Fraction(str(fps)) / 30
    start = share * max(Fraction(length) - window, Fraction(0))
    step = (window - 1) / (frames - 1) if frames > 1 else Fraction(0)
    return [whole_frames(start + i * step, length, short) for i in range(frames)]


def holds(got: list[int], allowed: list[set[int]]) -> bool:
    return len(got) == len(allowed) and all(g in a for g, a in zip(got, allowed, strict=True))


def test_ten_seconds_at_30_frames_per_second() -> None:
    """The example that all systems print: 8 x 32, for testing."""
    official = WindowSampleFrames(8, 32, test_mode=True)
    expected = [0, 36, 72, 109, 145, 182, 218, 255]
    assert indices_of(official, 300) == expected
    mmaction2 = SampleFrames(clip_len=8, frame_interval=32, test_mode=True)
    assert indices_of(mmaction2, 300) == [37, 69, 101, 133, 165, 197, 229, 261]


@pytest.mark.parametrize('first', ['start', 'centre'])
def test_windows_for_testing_stand_where_fractions_say(first: str) -> None:
    seen = doubtful = 0
    for clip in CLIPS:
        for num_clips in (1, 5):
            sample = WindowSampleFrames(*clip, num_clips, first=first, test_mode=True)
            shares = [
                (k + Fraction(first == 'centre', 2)) / Fraction(num_clips) for k in range(num_clips)
            ]
            for fps in random.Random(clip[0]).sample(RATES, 3):
                for length in SOME_LENGTHS:
                    allowed = [s for share in shares for s in window_of(length, fps, clip, share)]
                    got = indices_of(sample, length, fps)
                    assert holds(got, allowed), (sample, length, fps)
                    seen += len(got)
                    doubtful += sum(len(a) > 1 for a in allowed)
    assert doubtful < seen / 50, 'nearly every index is held to one frame'


def test_every_length_up_to_2000_frames() -> None:
    sample = WindowSampleFrames(8, 32, test_mode=True)
    for length in range(1, 2001):
        # Positions of a first clip are 255 i / 7, whole at both ends alone.
        assert indices_of(sample, length) == [min(255 * i // 7, length - 1) for i in range(8)]


@pytest.mark.parametrize('fps', RATES)
def test_it_is_torchs_linspace_and_for_one_clip_numpys(fps: float) -> None:
    """The official code asks torch, in single precision; PaddleVideo NumPy, in double."""
    for length in range(1, 2001, 3):
        for frames, interval in ((8, 32), (16, 16), (96, 4)):
            window = frames * interval / 30 * fps
            starts = [max(length - window, 0) * k / 4 for k in range(4)]
            torchs = torch.cat([torch.linspace(s, s + window - 1, frames) for s in starts])
            got = indices_of(WindowSampleFrames(frames, interval, 4, test_mode=True), length, fps)
            assert got == torchs.clamp(0, length - 1).long().tolist()
            numpys = np.linspace(0, window - 1, frames)
            assert got[:frames] == numpys.clip(0, length - 1).astype(int).tolist()


@pytest.mark.parametrize('seed', range(20))
def test_a_window_for_training_starts_anywhere(seed: int) -> None:
    chance = random.Random(seed)
    for clip in CLIPS:
        for fps in RATES:
            length = chance.randint(1, 2000)
            sample = WindowSampleFrames(*clip)
            np.random.seed(seed)
            got = indices_of(sample, length, fps)
            np.random.seed(seed)
            share = Fraction(np.random.random_sample())
            assert holds(got, window_of(length, fps, clip, share)), (sample, length, fps)


def test_starts_for_training_fill_the_room() -> None:
    sample = WindowSampleFrames(8, 32, num_clips=2000)
    firsts = indices_of(sample, 300)[::8]
    assert set(firsts) == set(range(44))
    assert max(indices_of(sample, 300)) == 298, 'the start is cut to whole frames, and 44 excluded'


def test_a_short_video_repeats_its_last_frame_or_begins_anew() -> None:
    clamp = WindowSampleFrames(8, 32, test_mode=True)
    loop = WindowSampleFrames(8, 32, out_of_bound='loop', test_mode=True)
    assert indices_of(clamp, 100) == [0, 36, 72, 99, 99, 99, 99, 99]
    assert indices_of(loop, 100) == [0, 36, 72, 9, 45, 82, 18, 55]
    for length in SOME_LENGTHS:
        allowed = window_of(length, 24, (16, 16), Fraction(0), 'loop')
        loop = WindowSampleFrames(16, 16, out_of_bound='loop', test_mode=True)
        assert holds(indices_of(loop, length, 24), allowed)


def test_the_window_is_as_long_in_seconds_at_any_rate() -> None:
    assert indices_of(WindowSampleFrames(8, 32, test_mode=True), 600, 60)[-1] == 511
    assert (
        indices_of(WindowSampleFrames(8, 32, target_fps=None, test_mode=True), 600, 60)[-1] == 255
    )
    assert indices_of(WindowSampleFrames(8, 32, target_fps=60, test_mode=True), 600, 60)[-1] == 255
    unknown = indices_of(WindowSampleFrames(8, 32, test_mode=True), 600, 0)
    assert unknown[-1] == 255, 'a video without a rate is taken to have the target'


def even_round(x: Fraction) -> int:
    """To the nearest whole number, a half to the even one, without float arithmetic."""
    low = x.numerator // x.denominator
    rest = x - low
    if rest == Fraction(1, 2):
        return low + low % 2
    return low + (rest > Fraction(1, 2))


@pytest.mark.parametrize('clip_len', [8, 16, 64, 3, 5, 1])
def test_segments_give_their_middle_frame_for_testing(clip_len: int) -> None:
    sample = SegmentSampleFrames(clip_len, test_mode=True)
    for length in range(1, 2001):
        edges = [even_round(Fraction((length - 1) * i, clip_len)) for i in range(clip_len + 1)]
        middles = [math.floor(Fraction(a + b, 2)) for a, b in pairwise(edges)]
        assert indices_of(sample, length) == middles


@pytest.mark.parametrize('clip_len', [8, 16, 64, 3])
@pytest.mark.parametrize('seed', range(5))
def test_segments_give_any_of_their_frames_for_training(clip_len: int, seed: int) -> None:
    sample = SegmentSampleFrames(clip_len)
    np.random.seed(seed)
    for length in SOME_LENGTHS:
        for i, index in enumerate(indices_of(sample, length)):
            low, high = (even_round(Fraction((length - 1) * j, clip_len)) for j in (i, i + 1))
            assert low <= index <= high


def test_both_ends_of_a_segment_are_drawn_as_often_as_its_inside() -> None:
    np.random.seed(0)
    sample = SegmentSampleFrames(8)
    drawn = np.array([indices_of(sample, 41) for _ in range(6000)])  # segments of 5 i .. 5 i + 5
    for i in range(8):
        counts = np.bincount(drawn[:, i], minlength=41)[5 * i : 5 * i + 6]
        assert counts.sum() == 6000
        assert abs(counts - 1000).max() < 6 * math.sqrt(1000)
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.08, 'segments draw on their own'


@pytest.mark.parametrize('test_mode', [False, True])
def test_a_video_of_one_frame_is_that_frame(test_mode: bool) -> None:
    for out_of_bound in ('clamp', 'loop'):
        window = WindowSampleFrames(8, 32, 3, out_of_bound=out_of_bound, test_mode=test_mode)
        assert indices_of(window, 1) == [0] * 24
    assert indices_of(SegmentSampleFrames(8, test_mode=test_mode), 1) == [0] * 8


@pytest.mark.parametrize('transform', [WindowSampleFrames(8, 32, 3), SegmentSampleFrames(8)])
def test_numpys_seed_decides_and_numbering_may_start_at_one(transform: Any) -> None:
    draws = []
    for seed, start_index in ((3, 0), (3, 1), (4, 0)):
        np.random.seed(seed)
        draws.append(np.array(indices_of(transform, 500, start_index=start_index)))
    assert (draws[0] + 1 == draws[1]).all()
    assert (draws[0] != draws[2]).any()


def test_what_the_next_steps_of_a_pipeline_read() -> None:
    results = WindowSampleFrames(8, 32, 3)({'total_frames': 90, 'avg_fps': 30.0})
    assert (results['clip_len'], results['frame_interval'], results['num_clips']) == (8, 32, 3)
    assert results['frame_inds'].shape == (24,)
    assert results['frame_inds'].dtype.kind == 'i'
    results = SegmentSampleFrames(8)({'total_frames': 90})
    assert (results['clip_len'], results['num_clips'], results['frame_inds'].shape) == (8, 1, (8,))


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(clip_len=0), 'clip_len=0 is not a positive whole number; set clip_len'),
        (dict(frame_interval=1.5), 'frame_interval=1.5 is not a positive whole number'),
        (dict(num_clips=-1), 'num_clips=-1 is not'),
        (dict(first='middle'), "first='middle' is not known; set it to one of start, centre"),
        (dict(out_of_bound='repeat_last'), 'set it to one of clamp, loop'),
        (dict(target_fps=0), 'target_fps=0 is not positive; set None for any rate'),
    ],
)
def test_a_wrong_argument_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowSampleFrames(**{'clip_len': 8, 'frame_interval': 32, **wrong})


def test_a_config_finds_them_by_name(default_scope: str | None) -> None:
    for kind, cls in (('Window', WindowSampleFrames), ('Segment', SegmentSampleFrames)):
        cfg = dict(type=f'mmtimesformer.{kind}SampleFrames', clip_len=8)
        more = dict(frame_interval=4) if kind == 'Window' else {}
        built = TRANSFORMS.build({**cfg, **more})
        assert isinstance(built, cls)
        assert 'clip_len=8' in repr(built)
