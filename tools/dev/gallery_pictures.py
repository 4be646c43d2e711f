"""Draw the film strips of docs/gallery.md: the actions, the scenes and a longer video.

python tools/dev/gallery_pictures.py --out docs/images
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import ToolParser, parse
from mmtimesformer.datasets.preparation.moving_figures import CLASSES, draw_clip, draw_video
from mmtimesformer.fileio.atomic import write_atomically
from mmtimesformer.terminal import echo

WIDTH, HEIGHT = 128, 96  # of a frame in a strip, in pixels
MARGIN, GAP = 108, 3  # for the name of a row; between frames
COLUMNS = 7
SEEDS = dict(zip(CLASSES, (31, 12, 24, 4, 14, 6, 7, 15, 9, 10), strict=True))
STORY = ('walking', 'waving', 'jumping jacks', 'sitting down', 'standing up', 'throwing')
STORY_SEED = 9


def film_strips(rows: dict[str, np.ndarray], columns: int = COLUMNS) -> Image.Image:
    """Return a picture with a row of evenly spaced frames for each name and clip."""
    size = MARGIN + columns * (WIDTH + GAP) - GAP, len(rows) * (HEIGHT + GAP) - GAP
    sheet = Image.new('RGB', size, 'white')
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for row, (name, clip) in enumerate(rows.items()):
        top = row * (HEIGHT + GAP)
        pen.text((MARGIN - 8, top + HEIGHT / 2), name, 'black', font, anchor='rm')
        for column, place in enumerate(np.linspace(0, len(clip) - 1, columns).round().astype(int)):
            sheet.paste(Image.fromarray(clip[place]), (MARGIN + column * (WIDTH + GAP), top))
    return sheet


def save(picture: Image.Image, path: Path) -> None:
    """Write a JPG picture."""
    with write_atomically(path) as partial:
        picture.save(partial, format='JPEG', quality=85, optimize=True)
    echo(f'wrote {path}: {picture.width} x {picture.height}, {path.stat().st_size / 1e3:.0f} kB')


def write(out: Path) -> None:
    """Write all pictures."""
    size = {'width': WIDTH, 'height': HEIGHT}
    actions = {label: draw_clip(label, SEEDS[label], **size) for label in CLASSES}
    save(film_strips(actions), out / 'gallery_actions.jpg')
    video = draw_video(STORY, STORY_SEED, **size)
    parts = np.split(video, len(STORY))
    story = {f'{number}. {label}': part for number, (label, part) in
             enumerate(zip(STORY, parts, strict=True), 1)}  # fmt: skip
    save(film_strips(story), out / 'gallery_video.jpg')


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = ToolParser(__doc__)
    parser.add_argument('--out', type=Path, required=True, help='folder of the pictures')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    return run_tool(lambda: write(args.out), args.debug)


if __name__ == '__main__':
    sys.exit(main())
