"""W13: docs/protocols.md lists which frames the official loader takes by its time stamps.

That loader (PaddleVideo's is the same) is emulated here: it turns a window of frames into one of
time stamps by the mean duration of a frame, decodes from there to the first frame beyond its end,
and then counts frames from the first one that it kept.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from mmtimesformer.datasets import VideoInit, WindowSampleFrames

PAGE = Path(__file__).parents[2] / 'docs' / 'protocols.md'
LENGTH, FINE, TICKS = 300, Fraction(1, 15360), 512  # frames; a frame at 30 a second has 512 ticks
CLIP_LEN, INTERVAL = 8, 32
EVERY = range(LENGTH)
# Name on the page: ending, time base, time stamps
VIDEOS: dict[str, tuple[str, Fraction, Sequence[int]]] = {
    'regular': ('mp4', FINE, [TICKS * i for i in EVERY]),
    'regular, in a container without a number of frames (MKV)': (
        'mkv', Fraction(1, 1000), [round(1000 * i / 30) for i in EVERY],
    ),
    'regular, a tick a frame (AVI)': ('avi', Fraction(1, 30), list(EVERY)),
    'steps that differ by a little': (
        'mp4', FINE, [TICKS * i + (i * 37 % 11 - 5) * 20 + 100 for i in EVERY],
    ),
    'fast, then slow': (
        'mp4', FINE, [TICKS // 2 * min(i, 200) + 2 * TICKS * max(i - 200, 0) for i in EVERY],
    ),
    'starts at 1 second': ('mp4', FINE, [TICKS * (i + 30) for i in EVERY]),
    'a gap of 5 seconds after 40 frames': (
        'mp4', FINE, [TICKS * (i + 150 * (i >= 40)) for i in EVERY],
    ),
    'slow, then fast': (
        'mp4', FINE, [2 * TICKS * min(i, 100) + TICKS // 2 * max(i - 100, 0) for i in EVERY],
    ),
}  # fmt: skip
ALIKE = list(VIDEOS)[:5]


@pytest.fixture(scope='module')
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each kind of video, as a file of 32 x 32 pixels."""
    folder, paths = tmp_path_factory.mktemp('stamps'), {}
    for number, (name, (ending, time_base, stamps)) in enumerate(VIDEOS.items()):
        paths[name] = folder / f'{number}.{ending}'
        with av.open(str(paths[name]), 'w') as container:
            stream = container.add_stream('mpeg4', rate=30)
            stream.width, stream.height, stream.pix_fmt = 32, 32, 'yuv420p'
            stream.codec_context.time_base = stream.time_base = time_base
            for i, stamp in enumerate(stamps):
                picture = np.full((32, 32, 3), i % 256, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, 'rgb24')
                frame.pts, frame.time_base = stamp, time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return paths


def frames_of_the_official_loader(path: Path, clip: int, num_clips: int) -> list[int]:
    """The frames of clip ``clip`` of ``num_clips``, numbered as they are shown."""

    def start_of(length: int, window: float, clip: int, num_clips: int) -> float:
        return max(length - window, 0) * clip / num_clips

    with av.open(str(path)) as container:
        shown = sorted(frame.pts for frame in container.decode(video=0))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        window = CLIP_LEN * INTERVAL / 30 * float(stream.average_rate)
        first, last = 0, math.inf
        if stream.duration is not None:
            start = start_of(stream.frames, window, clip, num_clips)
            ticks = stream.duration / stream.frames
            first, last = int(start * ticks), int((start + window - 1) * ticks)
            clip = 0
        container.seek(max(first - 1024, 0), backward=True, any_frame=False, stream=stream)
        kept = []
        for frame in container.decode(video=0):
            if frame.pts >= first:
                kept.append(frame.pts)
            if frame.pts > last:
                break
    start = start_of(len(kept), window, clip, num_clips)
    places = torch.linspace(start, start + window - 1, CLIP_LEN).clamp(0, len(kept) - 1).long()
    return [shown.index(sorted(kept)[place]) for place in places.tolist()]


def frames_of_ours(path: Path, clip: int, num_clips: int) -> list[int]:
    opened = VideoInit()({'filename': str(path)})
    video = {key: opened[key] for key in ('total_frames', 'avg_fps')}
    sample = WindowSampleFrames(CLIP_LEN, INTERVAL, num_clips=num_clips, test_mode=True)
    return sample(video)['frame_inds'].reshape(num_clips, CLIP_LEN)[clip].tolist()


@pytest.mark.parametrize('name', VIDEOS)
def test_a_test_of_one_clip_differs_where_the_page_says(name: str, videos: dict[str, Path]) -> None:
    theirs = frames_of_the_official_loader(videos[name], 0, 1)
    ours = frames_of_ours(videos[name], 0, 1)
    assert (theirs == ours) is (name in ALIKE)
    if name not in ALIKE:
        assert theirs[-1] < ours[-1], 'it stopped early'
        assert len(set(ours)) == CLIP_LEN


@pytest.mark.parametrize(('name', 'shift'), [('regular', 1), ('regular, a tick a frame (AVI)', -1)])
def test_later_clips_are_a_frame_later_or_with_a_tick_a_frame_earlier(
    name: str, shift: int, videos: dict[str, Path]
) -> None:
    differences = {
        theirs - ours
        for num_clips in (3, 7)
        for clip in range(num_clips)
        for theirs, ours in zip(
            frames_of_the_official_loader(videos[name], clip, num_clips),
            frames_of_ours(videos[name], clip, num_clips),
            strict=True,
        )
    }
    assert differences == {0, shift}


def test_the_page_prints_the_frames_of_both(videos: dict[str, Path]) -> None:
    rows = [
        '| time stamps of 300 frames | clip | official loader | here |',
        '|---|---|---|---|',
    ]
    for name in VIDEOS:
        later = [(1, 3)] if name in ('regular', 'regular, a tick a frame (AVI)') else []
        for clip, num_clips in [(0, 1), *later]:
            frames = [
                ' '.join(map(str, taken(videos[name], clip, num_clips)))
                for taken in (frames_of_the_official_loader, frames_of_ours)
            ]
            same = '**the same**' if frames[0] == frames[1] else frames[1]
            rows.append(f'| {name} | {clip + 1} of {num_clips} | {frames[0]} | {same} |')
    table = '\n'.join(rows)
    assert table in PAGE.read_text(), f'docs/protocols.md should say\n\n{table}\n'
