"""Places for figures to be in: ground, sky, walls, trees and buildings, drawn from noise."""

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from mmtimesformer.datasets.preparation.moving_figures.camera import Camera
from mmtimesformer.datasets.preparation.moving_figures.drawing import capsule, disc, fill

GROUND_PIXELS, GROUND_METRES = 512, 16.0  # the ground repeats, mirrored
SKY_SIZE = (160, 640)  # rows of elevation from 0 to 45 degrees, columns of 180 degrees around
PIXELS = 160  # height of a board's picture
RAYS = 32  # sky and haze are computed for as many pixels along each side, and enlarged


@dataclass(frozen=True)
class Board:
    """A flat picture that stands in the world and faces the camera.

    Attributes:
        picture: ``(H, W, 4)`` of uint8: RGB and opacity.
        x, y: The middle of its foot in metres.
        width, height: In metres.
        shadow: Whether it throws a round shadow on the ground.
    """

    picture: np.ndarray
    x: float
    y: float
    width: float
    height: float
    shadow: bool = True


@dataclass(frozen=True)
class Scenery:
    """All of a place that stays still.

    Attributes:
        kind: A key of :data:`KINDS`.
        ground: Texture of the ground seen from above, ``(GROUND_PIXELS, GROUND_PIXELS, 3)``.
        sky: Sky with the horizon, ``(*SKY_SIZE, 3)``; the first row is at the horizon.
        haze: RGB of what is far away.
        boards: What stands there, the farthest first.
        tint: RGB factors of the light.
        sun: How far a point of 1 m above the ground throws its shadow: x and y in metres.
        shade: How dark a shadow is, 0 to 1.
    """

    kind: str
    ground: np.ndarray
    sky: np.ndarray
    haze: np.ndarray
    tint: np.ndarray
    sun: np.ndarray
    shade: float
    boards: list[Board] = field(default_factory=list)


def noise(rng: np.random.Generator, shape: tuple[int, int], roughness: float) -> np.ndarray:
    """Return noise with a spectrum of ``1 / f**roughness``, 0..1, that repeats at its edges."""
    spectrum = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    frequency[0, 0] = np.inf
    values = np.fft.irfft2(spectrum / frequency**roughness, s=shape)
    low, high = np.percentile(values, [1, 99])
    return np.clip((values - low) / (high - low), 0, 1).astype(np.float32)


def mix(one: np.ndarray, other: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Blend two colours, or pictures, by a weight of 0 to 1 at each pixel."""
    return one + (other - one) * weight[..., None]


def rgb(*values: float) -> np.ndarray:
    """Return a colour as an array."""
    return np.array(values, np.float32)


# Ground, seen from above: rows away from the camera, columns to the right.


def _square() -> tuple[int, int]:
    return GROUND_PIXELS, GROUND_PIXELS


def _metres() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:GROUND_PIXELS, :GROUND_PIXELS].astype(np.float32)
    return y * GROUND_METRES / GROUND_PIXELS, x * GROUND_METRES / GROUND_PIXELS


def _grass(rng: np.random.Generator) -> np.ndarray:
    green = rgb(*(rng.uniform(0.85, 1.1, 3) * [96, 134, 58]))
    ground = mix(green * 0.62, green * 1.2, noise(rng, _square(), 1.4))
    ground = mix(ground, rgb(168, 156, 92), 0.35 * noise(rng, _square(), 1.8) ** 2)
    ground *= 0.72 + 0.5 * noise(rng, _square(), 0.4)[..., None]
    y, _ = _metres()
    path = np.clip(1.2 - abs(y - 9 + 1.2 * noise(rng, _square(), 2.5)), 0, 0.25) * 4
    gravel = mix(rgb(150, 136, 112), rgb(196, 182, 156), noise(rng, _square(), 0.5))
    return mix(ground, gravel, path * (rng.random() < 0.6))


def _pavement(rng: np.random.Generator) -> np.ndarray:
    y, x = _metres()
    grey = rgb(*(rng.uniform(0.9, 1.08, 3) * 148))
    slabs = rng.uniform(0.86, 1.1, (40, 40)).astype(np.float32)
    side = float(rng.choice([0.8, 1.0, 1.6]))
    row, column = (y // side).astype(int), (x // side).astype(int)
    ground = grey * slabs[row, column][..., None]
    joint = (np.minimum(y % side, side - y % side) < 0.03) | (
        np.minimum(x % side, side - x % side) < 0.03
    )
    ground = mix(ground, grey * 0.5, joint.astype(np.float32))
    ground *= 0.8 + 0.35 * noise(rng, _square(), 0.6)[..., None]
    road = np.clip((y - 8.5) * 6, 0, 1)  # behind the figure
    asphalt = mix(rgb(66, 68, 72), rgb(98, 98, 102), noise(rng, _square(), 0.5))
    dashes = ((abs(y - 12.5) < 0.09) & (x % 4 < 2)).astype(np.float32)
    kerb = (abs(y - 8.5) < 0.12).astype(np.float32)
    asphalt = mix(asphalt, rgb(214, 212, 200), dashes)
    return mix(mix(ground, asphalt, road), rgb(190, 188, 182), kerb)


def _floor(rng: np.random.Generator) -> np.ndarray:
    y, x = _metres()
    wood = rgb(*(rng.uniform(0.9, 1.06, 3) * [196, 146, 92]))
    row = (y // 0.2).astype(int)
    plank = ((x + row * 0.73) // 1.6).astype(int)
    tones = rng.uniform(0.84, 1.08, (90, 60)).astype(np.float32)
    ground = wood * tones[row % 90, plank % 60][..., None]
    grain = cv2.GaussianBlur(noise(rng, _square(), 0.2), (31, 1), 0)
    ground *= 0.7 + 0.6 * grain[..., None]
    ground = mix(ground, wood * 0.45, (y % 0.2 < 0.03).astype(np.float32) * 0.7)
    paint = rgb(*rng.choice([(236, 236, 230), (60, 90, 170), (180, 50, 48)]))
    rings = abs(np.hypot(x - rng.uniform(5, 11), y - 6.5) - 1.8) < 0.05
    lines = rings | (abs(y - 4) < 0.05) | (abs(y - 9.4) < 0.05) | (abs(x - 2) < 0.05)
    return mix(ground, paint, lines.astype(np.float32) * 0.85)


def _asphalt(rng: np.random.Generator) -> np.ndarray:
    grey = rgb(*(rng.uniform(0.92, 1.05, 3) * [118, 112, 110]))
    ground = mix(grey * 0.7, grey * 1.15, noise(rng, _square(), 1.6))
    ground *= 0.8 + 0.4 * noise(rng, _square(), 0.3)[..., None]
    crack = abs(noise(rng, _square(), 1.9) - 0.5) < 0.006
    ground = mix(ground, grey * 0.45, crack.astype(np.float32))
    y, x = _metres()
    white = (abs(x - 8) < 0.05) | (abs(y - 5.5) < 0.05) | (abs(np.hypot(x - 8, y - 5.5) - 2) < 0.05)
    worn = white * (noise(rng, _square(), 0.8) > 0.4)
    return mix(ground, rgb(216, 214, 200), worn.astype(np.float32) * 0.8)


# Sky: the first row is the horizon.


def _sky(rng: np.random.Generator, warm: float, clouds: float) -> np.ndarray:
    rows, columns = SKY_SIZE
    height = np.linspace(0, 1, rows, dtype=np.float32)[:, None] * np.ones(columns, np.float32)
    low = mix(rgb(206, 222, 236), rgb(250, 206, 160), np.full((), warm, np.float32))
    high = mix(rgb(78, 136, 208), rgb(110, 128, 180), np.full((), warm, np.float32))
    sky = mix(low, high, height**0.6)
    field_ = cv2.resize(noise(rng, (rows, columns // 4), 1.7), (columns, rows))
    cover = np.clip((field_ - 1 + clouds) * 3.5, 0, 1)
    shaded = mix(rgb(196, 202, 212), rgb(252, 250, 246), np.clip(field_ * 1.3, 0, 1))
    return mix(sky, shaded, cover * (0.45 + 0.5 * height))


def _hills(rng: np.random.Generator, sky: np.ndarray, haze: np.ndarray) -> np.ndarray:
    """Put two ranges of hills on the horizon."""
    rows, columns = SKY_SIZE
    up = np.arange(rows, dtype=np.float32)[:, None]
    for part, tone in ((0.6, 0.62), (1.0, 0.38)):
        line = noise(rng, (4, columns), 2.2)[0]
        top = (6 + 26 * line) * (1.35 - part * 0.7)
        green = rgb(64, 88, 66) * (1 - tone) + haze * tone
        texture = 0.9 + 0.2 * noise(rng, SKY_SIZE, 0.8)[..., None]
        sky = mix(sky, green * texture, np.clip(top - up, 0, 1))
    return sky


def _skyline(rng: np.random.Generator, sky: np.ndarray, haze: np.ndarray) -> np.ndarray:
    """Put far buildings on the horizon."""
    sky = sky.copy()
    column = 0
    while column < SKY_SIZE[1]:
        width, top = int(rng.integers(8, 26)), int(rng.integers(8, 46))
        tone = rng.uniform(0.45, 0.7)
        block = sky[:top, column : column + width]
        block[:] = (rgb(96, 100, 112) * rng.uniform(0.8, 1.2)) * (1 - tone) + haze * tone
        block[2::4, 1::3] *= 0.86
        column += width
    return sky


# Boards: what stands in a place.


def _blank(width: float, height: float) -> tuple[np.ndarray, float]:
    """Return an empty picture of a board of metres, and its pixels per metre."""
    scale = PIXELS / height
    return np.zeros((PIXELS, max(8, round(width * scale)), 4), np.uint8), scale


def _opaque(colour: np.ndarray) -> np.ndarray:
    return np.append(np.clip(colour, 0, 255), 255.0)


def _tree(rng: np.random.Generator, x: float, y: float) -> Board:
    height = rng.uniform(4.2, 7.0)
    width = height * rng.uniform(0.6, 0.85)
    picture, scale = _blank(width, height)
    middle, foot = picture.shape[1] / 2, float(PIXELS)
    bark = rgb(92, 70, 52) * rng.uniform(0.8, 1.15)
    crown = PIXELS * 0.42
    for shift, tone in ((0.0, 0.75), (-0.03, 1.0)):
        ends = np.array([middle + shift * scale, foot]), np.array([middle, crown])
        capsule(picture, ends, (0.17 * scale, 0.08 * scale), _opaque(bark * tone))
    for side in (-1, 1):
        branch = (
            np.array([middle, PIXELS * 0.62]),
            np.array([middle + side * width * 0.22 * scale, crown]),
        )
        capsule(picture, branch, (0.06 * scale, 0.04 * scale), _opaque(bark * 0.85))
    leaf = rgb(*(rng.uniform(0.8, 1.15, 3) * [70, 112, 48]))
    for depth in np.linspace(0, 1, 90):
        angle, away = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1))
        spot = (
            np.array([np.cos(angle) * width * 0.36 * scale, np.sin(angle) * PIXELS * 0.25]) * away
        )
        radius = rng.uniform(0.05, 0.11) * PIXELS * (1.25 - 0.6 * depth)
        centre = np.array([middle, PIXELS * 0.36]) + spot
        light = 0.5 + 0.42 * depth + 0.22 * (-spot[1] / PIXELS * 2) + rng.uniform(-0.08, 0.08)
        disc(picture, centre, radius, _opaque(leaf * light))
    return Board(picture, x, y, width, height)


def _pine(rng: np.random.Generator, x: float, y: float) -> Board:
    height = rng.uniform(5, 8)
    width = height * rng.uniform(0.36, 0.46)
    picture, scale = _blank(width, height)
    middle = picture.shape[1] / 2
    trunk = np.array([middle, PIXELS]), np.array([middle, PIXELS * 0.5])
    capsule(picture, trunk, (0.13 * scale, 0.1 * scale), _opaque(rgb(84, 62, 46)))
    green = rgb(40, 82, 56) * rng.uniform(0.85, 1.2)
    for low in np.linspace(0.9, 0.16, 9):
        half = picture.shape[1] * 0.48 * (low + 0.08)
        for part, tone in ((1.0, 0.72), (0.62, 1.0), (0.28, 1.2)):
            jag = rng.uniform(-0.02, 0.02, 2) * PIXELS
            triangle = np.array([
                [middle - half * part, PIXELS * low + jag[0]],
                [middle + half * part * 0.9, PIXELS * low + jag[1]],
                [middle, PIXELS * (low - 0.26)],
            ])  # fmt: skip
            fill(picture, triangle, _opaque(green * tone * (1.05 - 0.2 * low)))
    return Board(picture, x, y, width, height)


def _bush(rng: np.random.Generator, x: float, y: float) -> Board:
    height, width = rng.uniform(0.7, 1.2), rng.uniform(1.4, 2.6)
    picture, _ = _blank(width, height)
    green = rgb(*(rng.uniform(0.8, 1.15, 3) * [62, 104, 52]))
    for depth in np.linspace(0, 1, 60):
        u = rng.uniform(0.14, 0.86)
        tall = np.sin(np.pi * u) ** 0.5
        centre = np.array([u * picture.shape[1], PIXELS * (1 - 0.72 * tall * rng.uniform(0.1, 1))])
        radius = rng.uniform(0.1, 0.17) * PIXELS
        disc(
            picture,
            centre,
            radius,
            _opaque(green * (0.5 + 0.6 * depth * (1.2 - centre[1] / PIXELS * 0.5))),
        )
    return Board(picture, x, y, width, height)


def _building(rng: np.random.Generator, x: float, y: float, width: float) -> Board:
    height = rng.uniform(7, 13)
    picture, scale = _blank(width, height)
    walls = [(178, 92, 70), (206, 184, 150), (150, 152, 156), (222, 212, 192), (126, 140, 152)]
    wall = rgb(*walls[rng.integers(len(walls))]) * rng.uniform(0.85, 1.1)
    grain = noise(rng, (PIXELS, picture.shape[1]), 0.9)
    picture[..., :3] = np.clip(wall * (0.84 + 0.3 * grain[..., None]), 0, 255)
    picture[..., 3] = 255
    picture[: max(2, round(0.3 * scale)), :, :3] = np.clip(wall * 0.6, 0, 255)
    step, storey = rng.uniform(1.7, 2.4), 3.0
    glass = rgb(88, 112, 136) * rng.uniform(0.7, 1.2)
    for up in np.arange(storey, height - 2, storey):
        for left in np.arange(0.7, width - 1.4, step):
            lit = rng.random() < 0.15
            _window(
                picture,
                scale,
                (left, height - up - 2.0),
                (1.0, 1.5),
                rgb(250, 220, 150) if lit else glass,
            )
    door = rng.uniform(1, max(1.2, width - 2.2))
    _rectangle(picture, scale, (0.5, height - 2.7), (width - 1, 2.2), glass * 0.75)
    _rectangle(
        picture, scale, (0.3, height - 3.0), (width - 0.6, 0.4), rgb(*rng.uniform(60, 200, 3))
    )
    _rectangle(picture, scale, (door, height - 2.4), (1.1, 2.4), rgb(66, 48, 40))
    return Board(picture, x, y, width, height, shadow=False)


def _rectangle(
    picture: np.ndarray,
    scale: float,
    corner: tuple[float, float],
    size: tuple[float, float],
    colour: np.ndarray,
) -> None:
    (left, top), (width, height) = np.multiply(corner, scale), np.multiply(size, scale)
    box = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
    fill(picture, np.array(box), _opaque(colour))


def _window(
    picture: np.ndarray,
    scale: float,
    corner: tuple[float, float],
    size: tuple[float, float],
    glass: np.ndarray,
) -> None:
    (left, top), (width, height) = corner, size
    _rectangle(
        picture, scale, (left - 0.1, top - 0.1), (width + 0.2, height + 0.2), rgb(228, 224, 214)
    )
    _rectangle(picture, scale, corner, size, glass)
    _rectangle(picture, scale, corner, (width, height * 0.35), glass * 1.25)
    _rectangle(picture, scale, (left + width / 2 - 0.04, top), (0.08, height), rgb(228, 224, 214))


def _lamp(rng: np.random.Generator, x: float, y: float) -> Board:
    height, width = 4.6, 1.2
    picture, scale = _blank(width, height)
    metal = rgb(58, 62, 66)
    pole = np.array([0.3 * scale, PIXELS]), np.array([0.3 * scale, 0.3 * scale])
    capsule(picture, pole, (0.06 * scale, 0.04 * scale), _opaque(metal))
    arm = pole[1], np.array([0.95 * scale, 0.18 * scale])
    capsule(picture, arm, (0.04 * scale, 0.04 * scale), _opaque(metal))
    disc(picture, arm[1], 0.13 * scale, _opaque(rgb(250, 240, 200)))
    return Board(picture, x, y, width, height)


def _car(rng: np.random.Generator, x: float, y: float) -> Board:
    height, width = 1.5, 4.2
    picture, scale = _blank(width, height)
    paints = [(190, 40, 40), (40, 80, 150), (210, 210, 214), (46, 50, 56), (210, 170, 60)]
    paint = rgb(*paints[rng.integers(len(paints))])
    cabin = [(0.9, 0.75), (1.35, 0.12), (2.75, 0.12), (3.4, 0.75)]
    body = [(0.08, 0.85), (0.3, 0.7), (3.5, 0.66), (4.1, 0.82), (4.12, 1.22), (0.08, 1.22)]
    fill(picture, np.multiply(cabin, scale), _opaque(paint * 0.9))
    fill(picture, np.multiply(body, scale), _opaque(paint))
    _rectangle(picture, scale, (0.1, 1.02), (4.0, 0.2), paint * 0.6)
    for glass in ([(1.1, 0.7), (1.45, 0.22), (2.0, 0.22), (2.0, 0.7)],
                  [(2.1, 0.7), (2.1, 0.22), (2.7, 0.22), (3.2, 0.7)]):  # fmt: skip
        fill(picture, np.multiply(glass, scale), _opaque(rgb(150, 176, 192)))
    for wheel in (0.9, 3.3):
        centre = np.array([wheel, 1.18]) * scale
        disc(picture, centre, 0.32 * scale, _opaque(rgb(28, 28, 30)))
        disc(picture, centre, 0.16 * scale, _opaque(rgb(160, 162, 166)))
    return Board(picture, x, y, width, height)


def _bench(rng: np.random.Generator, x: float, y: float) -> Board:
    height, width = 0.9, 1.8
    picture, scale = _blank(width, height)
    wood = rgb(140, 92, 52) * rng.uniform(0.8, 1.2)
    for left in (0.2, 1.5):
        _rectangle(picture, scale, (left, 0.1), (0.09, 0.8), rgb(60, 60, 62))
    for top in (0.08, 0.24, 0.48):
        _rectangle(picture, scale, (0.04, top), (1.72, 0.11), wood)
        _rectangle(picture, scale, (0.04, top + 0.08), (1.72, 0.03), wood * 0.6)
    return Board(picture, x, y, width, height)


def _wall(rng: np.random.Generator, height: float, y: float) -> Board:
    """Return a wall of bricks as wide as a street."""
    width = 40.0
    scale = 30
    picture = np.zeros((round(height * scale), round(width * scale), 4), np.uint8)
    v, u = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32) / scale
    brick = rgb(*(rng.uniform(0.88, 1.1, 3) * [166, 96, 76]))
    row = (v // 0.2).astype(int)
    column = ((u + (row % 2) * 0.3) // 0.6).astype(int)
    tones = rng.uniform(0.72, 1.12, (80, 90)).astype(np.float32)
    paint = brick * tones[row % 80, column % 90][..., None]
    mortar = (v % 0.2 < 0.035) | ((u + (row % 2) * 0.3) % 0.6 < 0.035)
    paint = mix(paint, rgb(190, 182, 170), mortar.astype(np.float32) * 0.75)
    picture[..., :3] = np.clip(paint * (0.8 + 0.35 * noise(rng, v.shape, 1.2)[..., None]), 0, 255)
    picture[..., 3] = 255
    _rectangle(picture, scale, (0, 0), (width, 0.22), rgb(150, 146, 140))
    for _ in range(6):  # painted boards on the wall
        left, top = rng.uniform(0, width - 3), rng.uniform(0.5, 1.2)
        _rectangle(
            picture, scale, (left, top), (rng.uniform(1, 2.4), 0.9), rgb(*rng.uniform(50, 230, 3))
        )
    return Board(picture, 0.0, y, width, height, shadow=False)


def _gym_wall(rng: np.random.Generator, y: float) -> Board:
    """Return the wall of a sports hall: panels, a band of colour, and high windows."""
    width, height, scale = 40.0, 9.0, 26
    picture = np.zeros((round(height * scale), round(width * scale), 4), np.uint8)
    v, u = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32) / scale
    plaster = rgb(*(rng.uniform(0.93, 1.04, 3) * [206, 200, 186]))
    paint = plaster * (0.9 + 0.14 * noise(rng, v.shape, 1.0)[..., None])
    below = height - v
    panel = rgb(*rng.choice([(176, 128, 84), (70, 104, 140), (96, 132, 110)]))
    grain = 0.86 + 0.24 * noise(rng, v.shape, 0.7)[..., None]
    paint = mix(paint, panel * grain, (below < 2.2).astype(np.float32))
    paint = mix(paint, panel * 0.6, ((below < 2.2) & (u % 1.2 < 0.06)).astype(np.float32))
    paint = mix(paint, rgb(*rng.uniform(60, 220, 3)), (abs(below - 2.5) < 0.12).astype(np.float32))
    picture[..., :3], picture[..., 3] = np.clip(paint, 0, 255), 255
    for left in np.arange(1, width - 3, 4.0):
        _window(picture, scale, (left, 2.4), (2.6, 1.9), rgb(196, 220, 236))
    for left in np.arange(rng.uniform(1, 6), width - 3, 9.0):  # wall bars
        for up in np.arange(0.3, 2.9, 0.28):
            _rectangle(picture, scale, (left, height - up), (2.0, 0.08), rgb(222, 178, 116))
        for post in (0.0, 0.97, 1.94):
            _rectangle(picture, scale, (left + post, height - 3.0), (0.08, 3.0), rgb(150, 106, 62))
    return Board(picture, 0.0, y, width, height, shadow=False)


# Places.


def _spread(
    rng: np.random.Generator, count: int, near: float, far: float
) -> list[tuple[float, float]]:
    """Return places that do not crowd, to the left and right of the middle."""
    across = (np.arange(count) + rng.uniform(0.15, 0.85, count)) / count * 2 - 1
    return [
        (float(u * depth * 1.1), float(depth)) for u in across for depth in [rng.uniform(near, far)]
    ]


def _park(rng: np.random.Generator) -> list[Board]:
    plant = [_tree, _tree, _pine]
    boards = [plant[rng.integers(3)](rng, *spot) for spot in _spread(rng, 7, 9, 17)]
    boards += [_bush(rng, *spot) for spot in _spread(rng, 4, 8, 11)]
    return [*boards, _bench(rng, rng.uniform(-3, 3), 7.8)]


def _street(rng: np.random.Generator) -> list[Board]:
    boards, left = [], -22.0
    while left < 22:
        width = rng.uniform(5, 9)
        boards.append(_building(rng, left + width / 2, 17.0, width))
        left += width
    boards += [_car(rng, *spot) for spot in _spread(rng, 2, 10.5, 13)]
    boards += [_lamp(rng, *spot) for spot in _spread(rng, 2, 8, 8.3)]
    return [*boards, _tree(rng, rng.uniform(-5, 5), 15.0)]


def _hall(rng: np.random.Generator) -> list[Board]:
    return [_gym_wall(rng, 10.0), *[_bench(rng, *spot) for spot in _spread(rng, 2, 9.4, 9.6)]]


def _yard(rng: np.random.Generator) -> list[Board]:
    height = rng.uniform(2.2, 3.2)
    boards = [_tree(rng, *spot) for spot in _spread(rng, 4, 12.5, 15)]
    boards += [_wall(rng, height, 10.0)]
    boards += [_bush(rng, *spot) for spot in _spread(rng, 2, 9.3, 9.7)]
    return [*boards, _bench(rng, rng.uniform(-3, 3), 8.6)]


Ground = Callable[[np.random.Generator], np.ndarray]
Boards = Callable[[np.random.Generator], list[Board]]
KINDS: dict[str, tuple[Ground, Boards]] = {
    'park': (_grass, _park),
    'street': (_pavement, _street),
    'sports hall': (_floor, _hall),
    'school yard': (_asphalt, _yard),
}


def draw_scenery(rng: np.random.Generator, kind: str) -> Scenery:
    """Draw a place of a kind of :data:`KINDS`: its ground, what stands there, sky and light."""
    ground, boards = KINDS[kind]
    warm, clouds = float(rng.uniform(0, 1) ** 2), float(rng.uniform(0.15, 0.75))
    indoors = kind == 'sports hall'
    sky = _sky(rng, warm, clouds)
    haze = mix(rgb(200, 214, 226), rgb(238, 208, 178), np.full((), warm, np.float32))
    horizon = _skyline if kind == 'street' else _hills
    angle, length = rng.uniform(-1.2, 1.2) * np.pi / 2, rng.uniform(0.5, 1.5)
    side = np.array([np.sin(angle), 0.25 + 0.6 * abs(np.cos(angle))])
    bright = rng.uniform(0.86, 1.06)
    return Scenery(
        kind=kind,
        ground=np.clip(ground(rng), 0, 255).astype(np.uint8),
        sky=np.clip(horizon(rng, sky, haze), 0, 255).astype(np.uint8),
        haze=haze,
        tint=bright * mix(rgb(1, 1, 1), rgb(1.08, 0.97, 0.84), np.full((), warm, np.float32)),
        sun=side * length * (0.3 if indoors else 1.0),
        shade=0.25 if indoors else float(0.6 - 0.35 * clouds),
        boards=sorted(boards(rng), key=lambda board: -board.y),
    )


# Into a picture.


def draw_background(scenery: Scenery, camera: Camera) -> np.ndarray:
    """Return ground, sky and boards as the camera sees them, ``(height, width, 3)`` of uint8."""
    rays = camera.rays(RAYS, RAYS).astype(np.float32)
    picture = _draw_ground(scenery, camera, rays)
    _draw_sky(scenery, camera, rays, picture)
    for board in scenery.boards:
        _draw_board(board, scenery, camera, picture)
    return picture


def _enlarged(values: np.ndarray, camera: Camera) -> np.ndarray:
    """Return what was computed for few pixels for all of them."""
    return cv2.resize(values, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)


def _draw_ground(scenery: Scenery, camera: Camera, rays: np.ndarray) -> np.ndarray:
    step = GROUND_METRES / GROUND_PIXELS
    origin = np.array([-GROUND_METRES / 2, 0.0, 0.0])
    plane = camera.plane(origin, np.array([step, 0, 0.0]), np.array([0, step, 0.0]))
    picture = cv2.warpPerspective(
        scenery.ground, plane, (camera.width, camera.height),
        flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT,
    )  # fmt: skip
    distance = camera.z / np.maximum(-rays[..., 2], 1e-3)
    clear = _enlarged(np.exp(-np.maximum(distance - 8, 0) / 40), camera)[..., None]
    return (picture * clear + scenery.haze * (1 - clear)).astype(np.uint8)


def _draw_sky(scenery: Scenery, camera: Camera, rays: np.ndarray, picture: np.ndarray) -> None:
    rows, columns = SKY_SIZE
    around = np.arctan2(rays[..., 0], rays[..., 1])
    up = np.arctan2(rays[..., 2], np.hypot(rays[..., 0], rays[..., 1]))
    u = _enlarged((around / np.pi + 0.5) * columns, camera)
    v = _enlarged(up / (np.pi / 4) * rows, camera)
    above = v > 0
    end = int(np.flatnonzero(above.any(axis=1)).max(initial=-1)) + 1
    if end:
        sky = cv2.remap(
            scenery.sky, u[:end], v[:end], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        cv2.copyTo(sky, above[:end].astype(np.uint8), picture[:end])


def _draw_board(board: Board, scenery: Scenery, camera: Camera, picture: np.ndarray) -> None:
    rows, columns = board.picture.shape[:2]
    origin = np.array([board.x - board.width / 2, board.y, board.height])
    right, down = np.array([board.width / columns, 0, 0]), np.array([0, 0, -board.height / rows])
    plane = camera.plane(origin, right, down)
    corners = plane @ np.array([[0, columns, columns, 0], [0, 0, rows, rows], [1, 1, 1, 1.0]])
    if (corners[2] <= 0.2).any():
        return
    u, v = corners[:2] / corners[2]
    left, top = max(0, int(u.min())), max(0, int(v.min()))
    end, bottom = min(camera.width, int(u.max()) + 2), min(camera.height, int(v.max()) + 2)
    if left >= end or top >= bottom:
        return
    if board.shadow:
        _draw_contact(board, scenery, camera, picture)
    moved = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]]) @ plane
    shown = cv2.warpPerspective(
        board.picture, moved, (end - left, bottom - top), flags=cv2.INTER_LINEAR
    )
    haze = 1 - np.exp(-max(board.y - 8, 0) / 40)
    alpha = shown[..., 3:] * np.float32(1 / 255)
    part = picture[top:bottom, left:end]
    colour = shown[..., :3] * np.float32(1 - haze) + (scenery.haze * np.float32(haze)) * alpha
    part[:] = np.clip(part * (1 - alpha) + colour, 0, 255)


def _draw_contact(board: Board, scenery: Scenery, camera: Camera, picture: np.ndarray) -> None:
    """Darken the ground below a board."""
    u, v, scale = camera.project(np.array([board.x, board.y - 0.05, 0.0]))
    half = board.width * 0.42 * scale, max(1.0, board.width * 0.05 * scale)
    reach = [round(1.3 * side) + 2 for side in half]
    left, top = max(0, round(u) - reach[0]), max(0, round(v) - reach[1])
    part = picture[top : max(0, round(v) + reach[1]), left : max(0, round(u) + reach[0])]
    y, x = np.mgrid[top : top + part.shape[0], left : left + part.shape[1]]
    inside = np.clip(1.3 - np.hypot((x - u) / half[0], (y - v) / half[1]), 0, 1)
    part[:] = part * (1 - scenery.shade * 0.8 * inside[..., None])
