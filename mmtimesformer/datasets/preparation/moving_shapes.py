"""*Moving Shapes*: short videos that differ in nothing but motion.

A shape moves over a still background in one of eight ways: left, right, up, down, clockwise,
counter-clockwise, growing, shrinking. Every clip is a walk along a closed loop of pictures,

    picture(t) = draw(scene, phase(t)),    phase(t) = start ± loops * t,

on a torus: what leaves on the right comes back on the left, and what has grown to its full size
begins small again. The start is uniform over the loop, so only the order of frames shows the
direction: no single frame does, nor a set of frames.

Clips come in twins: the same pictures forwards and backwards, with opposite labels. Frames are
encoded each by itself (:data:`.generated_videos.ENCODER`), so twins are each other's reverse to the
last bit. A model that ignores the order of frames is right on one of them at most: its top-1
accuracy is at most 50 % (given frames that read the same from both ends, as the test pipeline takes
them).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmtimesformer.datasets.preparation.generated_videos import (
    ENCODER,
    SPLITS,
    holds,
    make_once,
    write_pairs,
)

#: Class name → axis of its loop, and the direction in which the loop is walked.
MOTIONS = {
    'left': ('horizontal', -1),
    'right': ('horizontal', +1),
    'up': ('vertical', -1),
    'down': ('vertical', +1),
    'clockwise': ('orbit', +1),
    'counter-clockwise': ('orbit', -1),
    'growing': ('size', +1),
    'shrinking': ('size', -1),
}
CLASSES = tuple(MOTIONS)
AXES = tuple(dict.fromkeys(axis for axis, _ in MOTIONS.values()))

VERSION = 1  # of the drawing; another number makes every data set again

WIDTH, HEIGHT = 80, 64  # pixels; wider than high, so that three square crops differ
NUM_FRAMES, FPS = 21, 10  # at 0.0, 0.1, ..., 2.0 seconds
SIZES = (8.0, 15.0)  # radius of a shape that keeps its size, in pixels
GROWTH = (4.0, 22.0)  # radius of a shape that does not: the ends of its loop
LOOPS = (0.5, 0.9)  # how much of its loop a clip walks
ORBITS = (14.0, 22.0)  # radius of an orbit in pixels
NEAR = 4.0  # pixels from the middle of the frame, at most, to what is near it
DARK, BRIGHT = (20, 110), (140, 255)  # each of the RGB values of a background, of a shape


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(u, v / 0.4), np.maximum(u / 0.4, v))


#: A shape is a gauge over the plane: below 1 is inside, and the shape has a radius of about 1.
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    'circle': np.hypot,
    'square': lambda u, v: np.maximum(abs(u), abs(v)) / 0.85,
    'triangle': lambda u, v: 1.8 * np.maximum(v, abs(u) * 0.75**0.5 - v / 2),
    'star': lambda u, v: np.hypot(u, v) / (0.72 + 0.28 * np.cos(5 * np.arctan2(v, u))),
    'ring': lambda u, v: abs(np.hypot(u, v) - 0.72) / 0.28,
    'cross': lambda u, v: _cross(abs(u), abs(v)),
}


@dataclass(frozen=True)
class Scene:
    """All that a clip shows, but for its motion.

    Attributes:
        background: Still picture, ``(HEIGHT, WIDTH, 3)``, 0..255.
        shape: A key of :data:`SHAPES`.
        colour: RGB of the shape, 0..255.
        x, y: A place in pixels, for motion along a line.
        near_x, near_y: A place near the middle of the frame, to orbit around or to grow at.
        size: Radius of the shape in pixels, unless it grows or shrinks.
        turn: How the shape is turned, in radians.
        orbit: Radius of the orbit in pixels.
        start: Phase of the first frame, uniform over the loop.
        loops: Part of the loop that the clip walks.
    """

    background: np.ndarray
    shape: str
    colour: np.ndarray
    x: float
    y: float
    near_x: float
    near_y: float
    size: float
    turn: float
    orbit: float
    start: float
    loops: float


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene; nothing in it depends on the class that will be played in it."""
    tints = rng.uniform(*DARK, (2, 3))
    return Scene(
        background=_draw_background(rng, tints),
        shape=str(rng.choice(list(SHAPES))),
        colour=rng.uniform(*BRIGHT, 3),
        x=rng.uniform(0, WIDTH),
        y=rng.uniform(0, HEIGHT),
        near_x=WIDTH / 2 + rng.uniform(-NEAR, NEAR),
        near_y=HEIGHT / 2 + rng.uniform(-NEAR, NEAR),
        size=rng.uniform(*SIZES),
        turn=rng.uniform(0, 2 * np.pi),
        orbit=rng.uniform(*ORBITS),
        start=rng.uniform(0, 1),
        loops=rng.uniform(*LOOPS),
    )


def _draw_background(rng: np.random.Generator, tints: np.ndarray) -> np.ndarray:
    """Blend two tints by a field of clouds, a gradient, stripes or checks."""
    kind = rng.choice(['noise', 'gradient', 'stripes', 'checks'])
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    angle, scale = rng.uniform(0, 2 * np.pi), rng.uniform(8, 32)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    if kind == 'noise':  # from clouds to grain: noise with a spectrum of 1 / f**roughness
        spectrum = np.fft.rfft2(rng.standard_normal((HEIGHT, WIDTH)))
        frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH))
        frequency[0, 0] = np.inf
        field = np.fft.irfft2(spectrum / frequency ** rng.uniform(0.5, 2), s=(HEIGHT, WIDTH))
    elif kind == 'gradient':
        field = along
    elif kind == 'stripes':
        field = np.sin(2 * np.pi * along / scale)
    else:
        field = np.sin(2 * np.pi * along / scale) * np.sin(2 * np.pi * across / scale)
    field = (field - field.min()) / (field.max() - field.min())
    return tints[0] + (tints[1] - tints[0]) * field[..., None]


def place(scene: Scene, axis: str, phase: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y and radius of the shape in pixels at each ``phase`` of the loop of an axis.

    Args:
        scene: The scene.
        axis: One of :data:`AXES`.
        phase: Of any shape; 1 is once around, and the same as 0.
    """
    x, y, size = (np.full(np.shape(phase), value) for value in (scene.x, scene.y, scene.size))
    if axis == 'horizontal':
        x = x + phase * WIDTH
    elif axis == 'vertical':
        y = y + phase * HEIGHT
    elif axis == 'orbit':
        angle = 2 * np.pi * phase  # rows run down, so a growing angle turns clockwise
        x = scene.near_x + scene.orbit * np.cos(angle)
        y = scene.near_y + scene.orbit * np.sin(angle)
    elif axis == 'size':
        x, y = np.full_like(x, scene.near_x), np.full_like(y, scene.near_y)
        size = GROWTH[0] + (GROWTH[1] - GROWTH[0]) * (phase % 1)
    else:
        raise ValueError(f'axis={axis!r} is not one of {AXES}')
    return x % WIDTH, y % HEIGHT, size


def draw_frames(scene: Scene, x: np.ndarray, y: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Draw the shape at each place, anti-aliased: ``t, t, t`` → ``t HEIGHT WIDTH 3`` of uint8."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    dx = (columns - x[:, None, None] + WIDTH / 2) % WIDTH - WIDTH / 2  # (t, HEIGHT, WIDTH)
    dy = (rows - y[:, None, None] + HEIGHT / 2) % HEIGHT - HEIGHT / 2
    radius = size[:, None, None]
    u = (dx * np.cos(scene.turn) + dy * np.sin(scene.turn)) / radius
    v = (dy * np.cos(scene.turn) - dx * np.sin(scene.turn)) / radius
    inside = np.clip((1 - SHAPES[scene.shape](u, v)) * radius + 0.5, 0, 1)[..., None]
    frames = scene.background + (scene.colour - scene.background) * inside
    return np.rint(frames).astype(np.uint8)


def draw_clip(scene: Scene, motion: str) -> np.ndarray:
    """Return the clip of a class in a scene, ``NUM_FRAMES HEIGHT WIDTH 3`` of uint8.

    It is exactly the time-reversed clip of the opposite class.
    """
    axis, direction = MOTIONS[motion]
    phase = scene.start + scene.loops * np.linspace(0, 1, NUM_FRAMES)
    return draw_frames(scene, *place(scene, axis, phase))[::direction]


@dataclass(frozen=True)
class Settings:
    """What the user decides about the data set.

    Attributes:
        num_train: Videos to train on; a multiple of 8, so that every class has equally many.
        num_val: Videos to validate and test on; likewise.
        seed: Each pair of twins has a generator of its own, of this seed, the split and its number.
    """

    num_train: int = 1600
    num_val: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ('num_train', 'num_val'):
            number = getattr(self, name)
            if number < len(CLASSES) or number % len(CLASSES):
                nearest = max(1, round(number / len(CLASSES))) * len(CLASSES)
                raise ValueError(
                    f'{name}={number} is not a positive multiple of {len(CLASSES)}, the number of '
                    f'classes; set {name} to {nearest}, say'
                )
        if self.seed < 0:
            raise ValueError(f'seed={self.seed} is negative; set seed to 0 or more')

    def recipe(self) -> dict[str, Any]:
        """Return all that decides the content, as it is written into ``manifest.json``."""
        return {
            'moving_shapes': VERSION,
            **asdict(self),
            'classes': list(CLASSES),
            'frames': [NUM_FRAMES, HEIGHT, WIDTH],
            'fps': FPS,
            'sizes': list(SIZES),
            'loops': list(LOOPS),
            'orbits': list(ORBITS),
            'encoder': ENCODER,
        }


def draw_twins(seed: int, split: str, number: int) -> dict[str, np.ndarray]:
    """Return the clips of two opposite classes in one scene, see :func:`draw_clip`.

    Args:
        seed: Of the data set.
        split: ``'train'`` or ``'val'``.
        number: Of the pair within its split; consecutive pairs take turns at the four axes.
    """
    scene = draw_scene(np.random.default_rng([seed, SPLITS.index(split), number]))
    axis = AXES[number % len(AXES)]
    return {motion: draw_clip(scene, motion) for motion in CLASSES if MOTIONS[motion][0] == axis}


def make_moving_shapes(
    out: str | Path, settings: Settings | None = None, num_workers: int = 2
) -> bool:
    """Write the data set, unless it is there already.

    ::

        out/
        ├── classes.txt      class names, one a line; the label is the line number from 0
        ├── train.txt        "video label" a line, as MMAction2's VideoDataset reads it
        ├── val.txt
        ├── videos_train/    00000_left.mp4, 00000_right.mp4 (its twin), 00001_up.mp4, ...
        ├── videos_val/
        └── manifest.json    the settings

    It is written next to ``out`` and renamed at the end. A data set of other settings, or with
    files missing, is made again. Of several processes, one writes and the others wait.

    Args:
        out: Folder of the data set.
        settings: Number of videos and seed.
        num_workers: Threads.

    Returns:
        Whether it was written; False when it was there.

    Raises:
        FileExistsError: ``out`` holds something else, which is left alone.
    """
    settings = settings or Settings()

    pairs = {'train': settings.num_train // 2, 'val': settings.num_val // 2}

    def draw(split: str, number: int) -> dict[str, np.ndarray]:
        return draw_twins(settings.seed, split, number)

    def write(folder: Path) -> None:
        write_pairs(folder, 'Moving Shapes', CLASSES, pairs, draw, num_workers)

    return make_once(Path(out), settings.recipe(), 'Moving Shapes', write)


def is_made(out: str | Path, settings: Settings) -> bool:
    """Whether ``out`` holds the data set of these settings, with every video."""
    return holds(Path(out), settings.recipe())
