"""Put overlay videos of tools/visualize_attention.py side by side in an animated GIF.

The picture of README.md was made with the model of `make demo`:

    for clip in 00002_clockwise 00000_left; do
        python tools/visualize_attention.py data/moving_shapes/videos_val/$clip.mp4 \
            work_dirs/demo/divST/epoch_28.pth --out attention/$clip
    done
    python tools/dev/attention_animation.py attention/00002_clockwise/overlay.mp4 \
        attention/00000_left/overlay.mp4 --out docs/images/attention.gif
"""

import sys
from pathlib import Path

from PIL import Image

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import ToolParser, parse
from mmtimesformer.datasets.video_io.safe_open import open_container
from mmtimesformer.fileio.atomic import write_atomically
from mmtimesformer.terminal import echo

MILLISECONDS = 80  # a frame; GIF counts in hundredths of a second


def frames_of(video: str, width: int) -> list[Image.Image]:
    """Return the frames of a video, one each 80 ms, `width` pixels wide."""
    chosen: list[Image.Image] = []
    with open_container(Path(video)) as container:
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time * 1000 >= len(chosen) * MILLISECONDS - 1:
                chosen.append(frame.to_image())
    height = round(chosen[0].height * width / chosen[0].width)
    return [image.resize((width, height), Image.Resampling.LANCZOS) for image in chosen]


def side_by_side(images: tuple[Image.Image, ...], gap: int = 8) -> Image.Image:
    """Return images of equal size in a row, with a white gap."""
    width, height = images[0].size
    row = Image.new('RGB', ((width + gap) * len(images) - gap, height), 'white')
    for place, image in enumerate(images):
        row.paste(image, (place * (width + gap), 0))
    return row


def write(videos: list[str], out: Path, width: int) -> None:
    """Write the GIF; it is as long as the shortest video, and repeats."""
    rows = [
        side_by_side(images) for images in zip(*(frames_of(v, width) for v in videos), strict=False)
    ]
    with write_atomically(out) as partial:
        rows[0].save(
            partial, format='GIF', save_all=True, append_images=rows[1:],
            duration=MILLISECONDS, loop=0, optimize=True,
        )  # fmt: skip
    echo(f'wrote {out}: {len(rows)} frames, {out.stat().st_size / 1e6:.2f} MB')


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = ToolParser(__doc__)
    parser.add_argument('videos', nargs='+', metavar='VIDEO', help='overlay.mp4 of a clip')
    parser.add_argument('--out', type=Path, required=True, help='the GIF file')
    parser.add_argument('--width', type=int, default=396, help='pixels of each video (396)')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    return run_tool(lambda: write(args.videos, args.out, args.width), args.debug)


if __name__ == '__main__':
    sys.exit(main())
