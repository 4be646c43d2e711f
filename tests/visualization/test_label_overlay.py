"""Labels are readable on any frame, and the rest of the video does not change."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.inference import Prediction
from mmtimesformer.visualization.label_overlay import (
    draw_labels,
    enlarge,
    output_names,
    write_labelled_video,
)

LONG = 'a very long name of a class that no narrow picture has room for'


def prediction(*labels: str, fusion: str = 'mean of softmax') -> Prediction:
    scores = [0.9 / 2**rank for rank in range(len(labels))]
    return Prediction('v', list(labels), scores, list(range(len(labels))), np.ones(5), fusion)


@pytest.mark.parametrize('brightness', [0, 128, 255])
def test_white_stands_on_dark_whatever_the_frame(brightness: int) -> None:
    frame = np.full((240, 320, 3), brightness, np.uint8)
    drawn = draw_labels(frame, prediction('one', 'two', fusion='sum of logits'))
    corner = drawn[195:234, 6:120].astype(int).mean(axis=2)
    assert corner.max() > 230  # text
    assert np.median(corner) < 110  # the veil
    assert np.array_equal(drawn[:150], frame[:150])
    assert frame.min() == frame.max() == brightness  # untouched


@pytest.mark.parametrize('shape', [(240, 320), (640, 241), (240, 1920), (17, 23), (1080, 608)])
def test_labels_stay_inside_any_frame(shape: tuple[int, int]) -> None:
    frame = np.zeros((*shape, 3), np.uint8)
    drawn = draw_labels(frame, prediction(LONG, 'two', 'three', 'four', 'five'))
    assert drawn.shape == frame.shape
    assert (drawn != frame).any()
    if min(shape) > 200:  # the edges are free on every side
        edges = [drawn[:3], drawn[-3:], drawn[:, :3], drawn[:, -3:]]
        assert not any(edge.any() for edge in edges)


def test_small_frames_are_enlarged_by_a_whole_factor() -> None:
    assert enlarge(np.zeros((64, 80, 3), np.uint8)).shape == (256, 320, 3)
    assert enlarge(np.zeros((240, 320, 3), np.uint8)).shape == (240, 320, 3)


def test_every_frame_is_written_with_the_labels_of_its_time(
    tiny_videos: Path, tmp_path: Path
) -> None:
    asked = []

    def at(time: float) -> Prediction:
        asked.append(time)
        return prediction('early' if time < 0.3 else 'late')

    out = tmp_path / 'deep' / 'out.mp4'
    assert write_labelled_video(tiny_videos / '0.mp4', out, at) == ''
    written = Video(out)
    assert (len(written), written.fps) == (20, 30)
    assert asked == pytest.approx([i / 30 for i in range(20)], abs=1e-3)
    assert written.frames([0])[0].shape == (256, 384, 3)  # of 64 x 96
    assert [path.name for path in out.parent.iterdir()] == ['out.mp4']


def test_odd_sides_lose_a_pixel(tmp_path: Path) -> None:
    source = tmp_path / 'odd.avi'
    with av.open(str(source), 'w') as container:
        stream = container.add_stream('rawvideo', rate=5)
        stream.width, stream.height, stream.pix_fmt = 301, 251, 'bgr24'
        frame = av.VideoFrame.from_ndarray(np.zeros((251, 301, 3), np.uint8), format='bgr24')
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    write_labelled_video(source, tmp_path / 'out.mp4', lambda _: prediction('one'))
    assert Video(tmp_path / 'out.mp4').frames([0])[0].shape == (250, 300, 3)


def test_the_video_itself_is_not_overwritten(tiny_videos: Path) -> None:
    with pytest.raises(ValueError, match='is the video itself'):
        write_labelled_video(
            tiny_videos / '0.mp4', tiny_videos / '0.mp4', lambda _: prediction('one')
        )


def test_an_unknown_ending_is_refused(tiny_videos: Path) -> None:
    with pytest.raises(ValueError, match=r'does not end in \.mp4'):
        write_labelled_video(tiny_videos / '0.mp4', 'out.gif', lambda _: prediction('one'))


def test_videos_of_one_name_get_two() -> None:
    names = output_names(['a/x.mp4', 'b/x.avi', 'y.mp4'], 'out')
    assert [path.name for path in names] == ['x.mp4', 'x_2.mp4', 'y.mp4']


def test_no_labelled_video_takes_the_place_of_another_source(tmp_path: Path) -> None:
    videos = [str(tmp_path / name) for name in ('a.avi', 'a.mp4')]
    with pytest.raises(ValueError, match='would overwrite the video of that name'):
        output_names(videos, tmp_path)


def test_frames_of_a_variable_rate_keep_their_times(tmp_path: Path) -> None:
    source, out = tmp_path / 'variable.mkv', tmp_path / 'out.mp4'
    times = [0, 100, 200, 300, 800, 1800, 2800]  # ms
    with av.open(str(source), 'w') as container:
        stream = container.add_stream('mpeg4', rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, 'yuv420p'
        stream.codec_context.time_base = Fraction(1, 1000)
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.zeros((240, 320, 3), np.uint8), format='rgb24')
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    write_labelled_video(source, out, lambda _: prediction('one'))
    with av.open(str(out)) as container:
        written = [frame.time for frame in container.decode(video=0)]
    assert written == pytest.approx([time / 1000 for time in times], abs=1e-3)
