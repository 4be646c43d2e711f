"""Windows cover a long video in order, each is a video of its own, and few frames are held."""

from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from mmtimesformer import VideoClassifier
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.inference import Moment, Prediction, Timeline
from mmtimesformer.inference.inputs import Frame, as_shown, stream_frames
from mmtimesformer.inference.sliding_window import Windows, clock

COUNT, FPS = 47, 10


@pytest.fixture
def clf(checkpoint: Path) -> VideoClassifier:
    return VideoClassifier(checkpoint=checkpoint, device='cpu')


def write(path: Path, count: int = COUNT, seconds_late: int = 0) -> Path:
    """Write a video whose every frame is another grey; its sound may begin before it."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=FPS, options={'preset': 'ultrafast'})
        stream.width, stream.height, stream.pix_fmt = 48, 32, 'yuv420p'
        if seconds_late:
            sound = container.add_stream('aac', rate=44100)
            for i in range(3):
                part = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
                part.sample_rate, part.pts = 44100, i * 1024
                container.mux(sound.encode(part))
            container.mux(sound.encode())
        for i in range(count):
            grey = np.full((32, 48, 3), 16 + 4 * i, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format='rgb24')
            frame.pts = i + seconds_late * FPS
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def long_video(tmp_path: Path) -> Path:
    return write(tmp_path / 'long.mp4')


def frames_of(path: Path) -> np.ndarray:
    return np.stack([frame.pixels() for frame in stream_frames(Video(path))])


def test_every_window_gets_the_scores_of_its_frames(clf: VideoClassifier, long_video: Path) -> None:
    found = clf.timeline(long_video, window=1.6, stride=0.7)
    frames = frames_of(long_video)
    starts = [0, 7, 14, 21, 28, 31]  # the last one is moved back to the end
    assert [round(one.start * FPS) for one in found.moments] == starts
    assert [round(one.end * FPS) for one in found.moments] == [start + 16 for start in starts]
    for start, moment in zip(starts, found.moments, strict=True):
        expected = clf(frames[start : start + 16]).all_scores
        assert np.abs(moment.prediction.all_scores - expected).max() < 1e-6
    assert not found.note


@pytest.mark.parametrize('seconds', [4.7, 60.0])
def test_a_short_video_is_one_window(
    clf: VideoClassifier, long_video: Path, seconds: float
) -> None:
    (moment,) = clf.timeline(long_video, window=seconds).moments
    assert (moment.start, round(moment.end, 3)) == (0, 4.7)
    assert np.allclose(moment.prediction.all_scores, clf(long_video).all_scores, atol=1e-6)


def test_a_single_frame_is_a_window(clf: VideoClassifier, tmp_path: Path) -> None:
    video = write(tmp_path / 'one.mp4', count=1)
    assert len(clf.timeline(video, window=2).moments) == 1
    assert clf(video).labels == clf.timeline(video, window=2).moments[0].prediction.labels


def test_times_are_those_of_a_player_where_sound_begins_first(
    clf: VideoClassifier, tmp_path: Path
) -> None:
    found = clf.timeline(write(tmp_path / 'late.mp4', seconds_late=3), window=2, stride=1)
    assert found.moments[0].start == pytest.approx(3, abs=0.1)
    assert found.moments[-1].end == pytest.approx(3 + 4.7, abs=0.1)


def test_frames_are_held_while_a_window_needs_them(
    clf: VideoClassifier, long_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of windows of 16 frames, the model uses 4: so 4 of each window are converted, not 47."""
    converted = []
    pixels = Frame.pixels
    monkeypatch.setattr(Frame, 'pixels', lambda self: converted.append(self.number) or pixels(self))
    windows = Windows(Video(long_video), clf.views, 1.6, 1.6)
    for number, _ in enumerate(windows, 1):
        assert len(converted) <= 4 * (number + 1)
    assert len(windows) == 3
    assert len(set(converted)) == len(converted) == 12


def test_a_video_cut_short_gives_its_windows_and_a_note(
    clf: VideoClassifier, long_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Video, '__len__', lambda self: 200)  # as a header may promise
    found = clf.timeline(long_video, window=1, stride=1)
    assert len(found.moments) == 4
    assert (
        found.note
        == 'windows missing at the end: 16 of 20; it has fewer frames than its header gives'
    )
    assert found.note in str(found)


def prediction(label: str, score: float) -> Prediction:
    return Prediction('v', [label], [score], [0], np.array([score]), 'mean of softmax')


def test_neighbours_with_one_label_become_a_segment() -> None:
    moments = [
        Moment(float(i), i + 2.0, prediction(label, score))
        for i, (label, score) in enumerate([('a', 0.5), ('a', 0.7), ('b', 0.9), ('a', 0.4)])
    ]
    found = Timeline('v', 2, 1, moments)
    segments = [(one.start, one.end, one.label, round(one.score, 3)) for one in found.segments()]
    assert segments == [(0, 2.5, 'a', 0.6), (2.5, 3.5, 'b', 0.9), (3.5, 5, 'a', 0.4)]
    assert found.prediction_at(3.1).top == 'b'
    assert str(found).splitlines()[1] == '  0:00.0 - 0:02.5  a  60.0 %'
    assert Timeline('v', 2, 1).segments() == []


def test_a_clock_counts_minutes() -> None:
    assert [clock(x) for x in (0, 59.96, 65.24, 600)] == ['0:00.0', '1:00.0', '1:05.2', '10:00.0']


@pytest.mark.parametrize('numbers', [dict(window=0), dict(window=1, stride=0)])
def test_windows_without_length_are_told(
    clf: VideoClassifier, long_video: Path, numbers: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match='is not positive'):
        clf.timeline(long_video, **numbers)


def test_a_file_that_is_no_video_is_told(clf: VideoClassifier, tmp_path: Path) -> None:
    (tmp_path / 'no.mp4').write_bytes(b'none')
    with pytest.raises(ValueError, match=r'no.mp4 \(4 bytes\) cannot be read'):
        clf.timeline(tmp_path / 'no.mp4', window=1)


@pytest.mark.parametrize('rotation', [0, 90, -90, 180])
def test_frames_are_turned_as_a_player_turns_them(rotation: int) -> None:
    stored = np.random.default_rng(0).integers(0, 255, (2, 5, 3), np.uint8)
    converted = SimpleNamespace(to_ndarray=lambda: stored)
    converter = SimpleNamespace(reformat=lambda frame, format: converted)
    pixels = as_shown(SimpleNamespace(rotation=rotation), converter)
    assert np.array_equal(pixels, np.rot90(stored, rotation // 90))
