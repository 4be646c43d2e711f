"""Draw predicted labels onto the frames of a video."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.fileio.atomic import write_atomically
from mmtimesformer.fileio.file_names import short_file_name
from mmtimesformer.inference import Prediction
from mmtimesformer.inference.inputs import stream_frames
from mmtimesformer.inference.prediction import LONGEST_NAME
from mmtimesformer.terminal import safe_text
from mmtimesformer.visualization.figures import font_file

SMALLEST = 240  # pixels of the short side; smaller frames are enlarged for readable labels
PANEL = (16, 22, 30)
BAR = (51, 102, 170)
BEST_BAR = (224, 130, 20)
OPACITY = 0.72
ENDINGS = {'.mp4': 'mp4', '.mkv': 'matroska', '.mov': 'mov'}  # and their containers
CLOCK = Fraction(1, 90000)  # seconds; holds the usual rates exactly
ENCODER = {'preset': 'veryfast', 'crf': '20'}


def draw_labels(frame: np.ndarray, prediction: Prediction) -> np.ndarray:
    """Draw the best classes into the lower left corner, with bars where scores are probabilities.

    Names that are too long end in ``…``.

    Shape:
        - frame: ``H W 3`` of uint8 -> the same
    """
    height, width = frame.shape[:2]
    panel = _panel(
        tuple(safe_text(label, LONGEST_NAME) for label in prediction.labels),
        tuple(prediction.shown(rank) for rank in range(len(prediction.labels))),
        tuple(prediction.scores) if prediction.is_probability else (),
        height,
        width,
    )[:height, :width]
    h, w = panel.shape[:2]
    margin = min(_margin(height), height - h, width - w)
    rows = slice(height - h - margin, height - margin)
    columns = slice(margin, margin + w)
    drawn = frame.copy()
    alpha = panel[..., 3:] / 255
    under = drawn[rows, columns] * (1 - alpha)
    drawn[rows, columns] = (under + panel[..., :3] * alpha).round().astype(np.uint8)
    return drawn


def write_labelled_video(
    video: str | Path,
    out: str | Path,
    prediction_at: Callable[[float], Prediction],
    fps: float | None = None,
) -> str:
    """Write a video with labels drawn on every frame, as H.264, without sound.

    One frame is in memory at a time. Frames whose short side is below :data:`SMALLEST` pixels are
    enlarged by a whole factor.

    Args:
        video: The file, or the folder of frames.
        out: The mp4, mkv or mov file, written atomically.
        prediction_at: Returns the prediction at a time in seconds.
        fps: Frames per second of a folder of frames.

    Returns:
        Why it is shorter than the video; empty if it is not.

    Raises:
        ValueError: The name does not end in mp4, mkv or mov, or the video cannot be read.
    """
    out = Path(out)
    if out.suffix.lower() not in ENDINGS:
        raise ValueError(f'{out} does not end in {", ".join(ENDINGS)}; choose one of these')
    if out.exists() and out.samefile(video):
        raise ValueError(f'{out} is the video itself; give another name')
    source = Video(video, fps=fps)
    rate = Fraction(source.fps or 30).limit_denominator(1001)
    note = ''
    with write_atomically(out) as part:
        with av.open(str(part), 'w', format=ENDINGS[out.suffix.lower()]) as container:
            stream = container.add_stream('libx264', rate=rate, options=ENCODER)
            stream.pix_fmt = 'yuv420p'
            stream.codec_context.time_base = CLOCK
            written, shown_at = 0, -1
            try:
                for frame in stream_frames(source):
                    pixels = enlarge(frame.pixels())
                    if not written:  # H.264 halves the colours, so sides are even
                        stream.height, stream.width = (s - s % 2 for s in pixels.shape[:2])
                    drawn = draw_labels(pixels, prediction_at(frame.time))
                    drawn = np.ascontiguousarray(drawn[: stream.height, : stream.width])
                    image = av.VideoFrame.from_ndarray(drawn, format='rgb24')
                    # Its own time, for videos of a variable frame rate.
                    shown_at = max(shown_at + 1, round(frame.time / CLOCK))
                    image.pts, image.time_base = shown_at, CLOCK
                    container.mux(stream.encode(image))
                    written += 1
            except ValueError as error:
                if not written:
                    raise
                note = f'it ends after {written} frames: {error}'
            container.mux(stream.encode())
    return note


def enlarge(frame: np.ndarray) -> np.ndarray:
    """Repeat the pixels of a small frame until its short side is :data:`SMALLEST` or more."""
    factor = -(-SMALLEST // min(frame.shape[:2]))
    return frame if factor <= 1 else frame.repeat(factor, axis=0).repeat(factor, axis=1)


@lru_cache(maxsize=4)  # a label stays for many frames
def _panel(
    labels: tuple[str, ...],
    shown: tuple[str, ...],
    fractions: tuple[float, ...],
    height: int,
    width: int,
) -> np.ndarray:
    """Draw the dark panel with its labels.

    Shape:
        - panel: ``h w 4``, RGB and opacity, of uint8
    """
    size = max(11, min(height, width) // 22)
    fonts = {label: _font(size, font_file(label)) for label in labels}
    font = _font(size, font_file(''))
    line, pad = round(size * 1.55), size // 2
    rows = max(1, min(len(labels), (height - pad - 2 * _margin(height)) // line))
    score_width = max(round(font.getlength(text)) for text in shown[:rows])
    widest = width - 2 * _margin(height)
    room = widest - 4 * pad - score_width
    names = [_shortened(label, fonts[label], room) for label in labels[:rows]]
    name_width = max(
        round(fonts[label].getlength(name)) for label, name in zip(labels, names, strict=False)
    )
    w = max(1, min(widest, name_width + score_width + 4 * pad))
    h = rows * line + pad
    image = Image.new('RGBA', (w, h), (*PANEL, round(255 * OPACITY)))
    draw = ImageDraw.Draw(image)
    for rank, (label, name, score) in enumerate(zip(labels, names, shown, strict=False)):
        top = pad // 2 + rank * line
        if fractions:
            end = pad // 2 + round((w - pad) * min(max(fractions[rank], 0), 1))
            colour = BEST_BAR if rank == 0 else BAR
            draw.rectangle((pad // 2, top + 1, end, top + line - 2), fill=(*colour, 205))
        middle = top + line / 2
        for x, text, anchor, used in (
            (pad, name, 'lm', fonts[label]),
            (w - pad, score, 'rm', font),
        ):
            draw.text(
                (x, middle), text, font=used, fill='white', anchor=anchor,
                stroke_width=max(1, size // 12), stroke_fill=(*PANEL, 255),
            )  # fmt: skip
    return np.asarray(image)


def _margin(height: int) -> int:
    """Return the pixels between the panel and the edges of the frame."""
    return max(4, height // 40)


def _shortened(label: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    if font.getlength(label) <= room:
        return label
    while label and font.getlength(f'{label}…') > room:
        label = label[:-1]
    return f'{label.rstrip()}…'


@lru_cache(maxsize=8)
def _font(size: int, path: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def output_names(videos: Sequence[str], folder: str | Path) -> list[Path]:
    """Return a unique name for each labelled video: ``clip.mp4``, then ``clip_2.mp4``.

    Long names are cut, so that the temporary name fits into the 255 bytes of file systems.

    Raises:
        ValueError: One of them would overwrite a video.
    """
    taken: set[str] = set()
    sources = {Path(video).resolve() for video in videos}
    paths = []
    for video in videos:
        stem = short_file_name(Path(video).stem) or 'video'
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f'{stem}_{number}'
        taken.add(name)
        path = Path(folder) / f'{name}.mp4'
        if path.resolve() in sources:
            raise ValueError(
                f'the labelled video {path} would overwrite the video of that name; give another '
                'folder'
            )
        paths.append(path)
    return paths
