"""Figures, bars and rows that the reports of single-label and multi-label tests share."""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from mmtimesformer.analysis.calibration import calibrate
from mmtimesformer.analysis.metrics import Reliability, TestResults
from mmtimesformer.config.speed import EXACT
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.non_finite import REASON
from mmtimesformer.visualization.figures import BLUE, GREY, INK, picture
from mmtimesformer.visualization.templates import percent
from mmtimesformer.visualization.training import draw_training, read_training

MOST_VIEWS = 12  # with a bar of their own; of more, the worst and the best
Bar = tuple[str, float, str]  # name, fraction, note


def common_sections(results: TestResults) -> dict[str, Any]:
    """Return what the page of any test shows: failed videos, training curves, origin."""
    unreadable = [(file, why) for file, why in results.failed.values() if why != REASON]
    curves = read_training(results.work_dir) if results.work_dir else {}
    return {
        'subtitle': _subtitle(results),
        'failed': {
            'Videos that could not be read': unreadable,
            'Videos whose scores are not finite': [(file, REASON) for file in results.non_finite],
        },
        'curves': drawn(lambda path: draw_training(curves, path)) if curves.get('loss') else None,
        'one_view': results.about.get('views') == {'clips': 1, 'crops': 1},
        'origin': _origin(results),
    }


def _subtitle(results: TestResults) -> str:
    about, views = results.about, results.about.get('views')
    words = [
        Path(about['checkpoint']).name if about.get('checkpoint') else '',
        f'{views["clips"]} × {views["crops"]} views (clips × crops)' if views else '',
        about.get('fusion') or '',
        f'speed {speed}' if (speed := about.get('speed', EXACT)) != EXACT else '',
        str(about.get('date') or '')[:10],
    ]
    return ' · '.join(filter(None, words))


def _origin(results: TestResults) -> list[tuple[str, object]]:
    elsewhere = ('classes', 'views', 'non_finite')
    about = {key: value for key, value in results.about.items() if key not in elsewhere}
    if views := results.about.get('views'):
        about['views'] = f'{views["clips"]} clips x {views["crops"]} crops'
    return [(key, _shown(value)) for key, value in about.items() if value is not None]


def _shown(value: object) -> object:
    if isinstance(value, dict):
        return ', '.join(f'{name} {_shown(one)}' for name, one in value.items())
    return f'{value:.6g}' if isinstance(value, float) else value


def failed_tiles(results: TestResults) -> dict[str, str]:
    """Return the numbers of videos that could not be read, or have no finite scores."""
    counts = {
        'could not be read': len(results.failed) - len(results.non_finite),
        'with NaN or infinite scores': len(results.non_finite),
    }
    return {name: f'{count:,}' for name, count in counts.items() if count}


def view_bars(values: Sequence[float] | np.ndarray, fused: float) -> list[Bar]:
    """Return a bar for each view, or for the worst and the best of many, and for all fused."""
    bars = [(f'view {i} alone', float(value), '') for i, value in enumerate(values)]
    if len(bars) > MOST_VIEWS:
        worst, best = float(np.min(values)), float(np.max(values))
        bars = [('worst view', worst, ''), ('best view', best, '')]
    return [bar for bar in [*bars, ('all views fused', fused, '')] if np.isfinite(bar[1])]


def video_figure(results: TestResults, i: int, **caption: object) -> dict[str, object]:
    """Return frames and name of a video, where its file is known, with the parts of a caption."""
    if not len(results.videos):
        return {'name': f'video {i}', **caption}
    video = results.videos[i]
    return {'name': Path(video).name, 'frames': frames_of(video) or 'none', **caption}


def frames_of(video: Path, count: int = 5, height: int = 96) -> str:
    """Return frames of a video side by side, as an image; empty if it cannot be read."""
    try:
        opened = Video(video)
        indices = np.linspace(0, len(opened) - 1, count).astype(int).tolist()
        frames = [Image.fromarray(frame) for frame in opened.frames(indices)]
    except (OSError, ValueError):
        return ''
    width = round(frames[0].width * height / frames[0].height)
    sheet = Image.new('RGB', (count * (width + 4) - 4, height), 'white')
    for i, one in enumerate(frames):
        sheet.paste(one.resize((width, height)), (i * (width + 4), 0))
    buffer = io.BytesIO()
    sheet.save(buffer, 'JPEG', quality=85)
    return _data_uri(buffer.getvalue(), 'jpeg')


def drawn(draw: Callable[[Path], None]) -> str:
    """Return what a function draws as a PNG file, as the address of an image in the page."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / 'drawn.png'
        draw(path)
        return _data_uri(path.read_bytes(), 'png')


def _data_uri(content: bytes, kind: str) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'


def calibration_section(found: Reliability, x_label: str, y_label: str) -> dict[str, str]:
    """Return the reliability diagram and the expected calibration error."""
    image = drawn(lambda path: draw_calibration(*found[:3], path, x_label, y_label))
    return {'image': image, 'error': percent(found[3])}


def scaling_section(results: TestResults) -> dict[str, Any]:
    """Return what temperature scaling and label sets would bring, or why that is not known."""
    try:
        found = calibrate(results)
    except ValueError as error:
        return {'reason': str(error)}
    return {
        'temperature': f'{found.temperature:.2f}',
        'before': percent(found.before),
        'after': percent(found.after),
        'sets': [
            (percent(one.level, 0), percent(one.coverage), f'{one.size:.2f}') for one in found.sets
        ],
        'several': results.is_multi_label,
    }


def draw_calibration(
    confidence: np.ndarray,
    accuracy: np.ndarray,
    counts: np.ndarray,
    path: Path,
    x_label: str,
    y_label: str,
) -> None:
    """Draw a reliability diagram as a PNG: a point for each bin, as large as its count."""
    with picture(path, 5.2, 3.0) as (_, axes):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=':')
        axes.plot(confidence, accuracy, color=BLUE, lw=0.8, alpha=0.4)
        sizes = 20 + 380 * counts / counts.sum()
        axes.scatter(confidence, accuracy, s=sizes, color=BLUE, alpha=0.85, lw=0, clip_on=False)
        for x, y, n, size in zip(confidence, accuracy, counts, sizes, strict=True):
            away = (0, 3 + size**0.5 / 2)
            axes.annotate(
                f'{n:,}', (x, y), away, textcoords='offset points', fontsize=8, ha='center',
                color=INK,
            )  # fmt: skip
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.12)
        axes.set_yticks(np.linspace(0, 1, 6))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
