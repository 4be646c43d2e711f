"""Lay out the demo page with Gradio: its headings, controls, names, style and script."""

import base64
import html
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.terminal import safe_text
from mmtimesformer.visualization.demo_page import LONGEST, Answer, DemoPage, sentence
from mmtimesformer.visualization.page_guard import API
from mmtimesformer.visualization.templates import render, render_part

PARTS = 'demo_parts.html.jinja'
THUMBNAIL = 160  # pixels of the longer side
# Press a button of an example: its name is sent.
ON_EXAMPLE = (
    'element.addEventListener("click", (event) => {'
    ' const button = event.target.closest("button[data-name]");'
    ' if (button) trigger("click", { name: button.dataset.name }); })'
)


@dataclass(frozen=True)
class Limits:
    """What one page accepts."""

    megabytes: int = 1000  # of a file, of 1,000,000 bytes
    seconds: float = LONGEST  # of a video
    waiting: int = 8  # requests; more are refused at once

    @property
    def bytes(self) -> int:
        """The size of the largest file."""
        return self.megabytes * 10**6

    def __str__(self) -> str:
        minutes = f'{self.seconds / 60:g} minutes' if self.seconds >= 120 else f'{self.seconds:g} s'
        return (
            f'At most {self.megabytes:,} MB and {minutes}. '
            f'One video is computed at a time, and at most {self.waiting} wait.'
        )


def lay_out(
    gradio: Any,
    answers: DemoPage,
    examples: Mapping[str, Path],
    name: str,
    waits: Callable[[str | None, str | None], bool],
    limits: Limits,
) -> Any:
    """Build the page, a ``gradio.Blocks``.

    Args:
        gradio: The module.
        answers: Predicts and draws.
        examples: Example videos by their names.
        name: Of the model.
        waits: Whether a session still waits for an answer, see ``page_guard.Waiting``.
        limits: Stated on the page.
    """
    context = importlib.import_module('gradio.context').LocalContext

    def answer(video: str | None, method: str, request: Any) -> tuple[str, ...]:
        event = context.event_id.get(None)
        still = partial(waits, request.session_hash, event)
        return parts_of(answers(video, answers.methods()[method], still))

    def choose(event: Any) -> str | None:
        path = examples.get(event.name)
        return str(path) if path else None

    answer.__annotations__['request'] = gradio.Request
    choose.__annotations__['event'] = gradio.EventData
    methods = list(answers.methods())
    model = f'{safe_text(name, 100)}, {answers.classifier.num_classes} classes'
    with gradio.Blocks(
        title='mmtimesformer', analytics_enabled=False, delete_cache=(3600, 86400)
    ) as page:
        gradio.HTML(render_part(PARTS, 'head', model))
        with gradio.Row():
            with gradio.Column(scale=5):
                gradio.HTML(render_part(PARTS, 'input', limits))
                video = gradio.Video(
                    show_label=False, sources=['upload', 'webcam'], include_audio=True,
                    buttons=[], elem_id='video', webcam_options=gradio.WebcamOptions(mirror=False),
                )  # fmt: skip
                if examples:
                    pictures = [(one, thumbnail(path)) for one, path in examples.items()]
                    chosen = gradio.HTML(
                        render_part(PARTS, 'examples', pictures), js_on_load=ON_EXAMPLE
                    )
                    chosen.click(choose, None, video, queue=False, show_progress='hidden')
            with gradio.Column(scale=4):
                gradio.HTML(render_part(PARTS, 'heading', 'Predicted classes'))
                words = gradio.HTML(parts_of(Answer(''))[0], elem_id='words')
                stop = gradio.Button('Stop the prediction', elem_id='stop')
        gradio.HTML(render_part(PARTS, 'heading', 'Attention maps'))
        method = gradio.Radio(methods, value=methods[0], show_label=False, elem_id='method')
        with gradio.Tab('Frames'):
            grid = gradio.HTML(elem_id='grid')
        with gradio.Tab('Video'):
            overlay = gradio.HTML(elem_id='overlay')
        with gradio.Tab('Layers and heads'):
            walk = gradio.HTML(elem_id='walk')
        parts = [words, grid, overlay, walk]
        running = [
            changed.change(
                answer, [video, method], parts, concurrency_id='model', concurrency_limit=1,
                show_progress_on=words,
            )
            for changed in (video, method)
        ]  # fmt: skip
        stop.click(
            partial(parts_of, Answer(sentence('Stopped.'))), None, parts, cancels=running,
            queue=False, show_progress='hidden',
        )  # fmt: skip
    return page


def parts_of(answer: Answer) -> tuple[str, ...]:
    """Return the HTML of an answer: labels, frames, video, layers."""
    words = answer.words or sentence('The five most probable classes of the video appear here.')
    if answer.grid is None or answer.overlay is None:
        return words, '', '', ''
    grid, overlay = (f'.{API}/file={quote(str(one))}' for one in (answer.grid, answer.overlay))
    return (
        words,
        render_part(PARTS, 'frames', grid, answer.meaning),
        render_part(PARTS, 'video', overlay, answer.meaning),
        answer.walk,
    )


def thumbnail(path: Path) -> str:
    """Return the middle frame of a video as a small JPEG, a data URI.

    Raises:
        ValueError: The video cannot be read.
    """
    import cv2

    video = Video(path)
    frame = np.ascontiguousarray(video.frames([len(video) // 2])[0][..., ::-1])
    factor = THUMBNAIL / max(frame.shape[:2])
    size = [max(1, round(factor * side)) for side in frame.shape[1::-1]]
    _, data = cv2.imencode('.jpg', cv2.resize(frame, size, interpolation=cv2.INTER_AREA))
    return f'data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode("ascii")}'


def style() -> str:
    """Return the style sheet of the page."""
    return html.unescape(render('demo_style.css.jinja'))


def script(limits: Limits) -> str:
    """Return the script of the page, as an element of its head."""
    return f'<script>{render("demo_script.js.jinja", largest=limits.bytes)}</script>'


def theme(gradio: Any) -> Any:
    """Return Gradio's theme in the system's fonts, with contrasts of at least 4.5."""
    soft = gradio.themes.Soft(
        primary_hue='blue', font=['system-ui', 'sans-serif'], font_mono=['monospace']
    )
    return soft.set(
        body_text_color_subdued='*neutral_600',
        body_text_color_subdued_dark='*neutral_300',
        block_label_text_color='*primary_800',
        block_title_text_color='*primary_800',
        link_text_color='*primary_700',
        link_text_color_dark='*primary_300',
        checkbox_label_background_fill_selected='*primary_700',
        checkbox_label_background_fill_selected_dark='*primary_700',
        checkbox_border_color='*neutral_500',
        checkbox_border_color_dark='*neutral_400',
    )
