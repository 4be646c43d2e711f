"""Flat pictures of what stands in a place: trees, buildings, cars, benches, walls."""

from dataclasses import dataclass

import numpy as np

from mmtimesformer.datasets.preparation.moving_figures.drawing import capsule, disc, fill
from mmtimesformer.datasets.preparation.moving_figures.textures import mix, noise, rgb

PIXELS = 160  # height of a board's picture


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


def _blank(width: float, height: float) -> tuple[np.ndarray, float]:
    """Return an empty picture of a board of metres, and its pixels per metre."""
    scale = PIXELS / height
    return np.zeros((PIXELS, max(8, round(width * scale)), 4), np.uint8), scale


def _opaque(colour: np.ndarray) -> np.ndarray:
    return np.append(np.clip(colour, 0, 255), 255.0)


def tree(rng: np.random.Generator, x: float, y: float) -> Board:
    """Return a tree with leaves."""
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


def pine(rng: np.random.Generator, x: float, y: float) -> Board:
    """Return a fir."""
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


def bush(rng: np.random.Generator, x: float, y: float) -> Board:
    """Return a bush."""
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


def building(rng: np.random.Generator, x: float, y: float, width: float) -> Board:
    """Return the front of a building, with windows."""
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


def lamp(rng: np.random.Generator, x: float, y: float) -> Board:
    """Return a street lamp."""
    height, width = 4.6, 1.2
    picture, scale = _blank(width, height)
    metal = rgb(58, 62, 66)
    pole = np.array([0.3 * scale, PIXELS]), np.array([0.3 * scale, 0.3 * scale])
    capsule(picture, pole, (0.06 * scale, 0.04 * scale), _opaque(metal))
    arm = pole[1], np.array([0.95 * scale, 0.18 * scale])
    capsule(picture, arm, (0.04 * scale, 0.04 * scale), _opaque(metal))
    disc(picture, arm[1], 0.13 * scale, _opaque(rgb(250, 240, 200)))
    return Board(picture, x, y, width, height)


def car(rng: np.random.Generator, x: float, y: float) -> Board:
    """Return a parked car."""
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


def bench(rng: np.random.Generator, x: float, y: float) -> Board:
    """Return a bench."""
    height, width = 0.9, 1.8
    picture, scale = _blank(width, height)
    wood = rgb(140, 92, 52) * rng.uniform(0.8, 1.2)
    for left in (0.2, 1.5):
        _rectangle(picture, scale, (left, 0.1), (0.09, 0.8), rgb(60, 60, 62))
    for top in (0.08, 0.24, 0.48):
        _rectangle(picture, scale, (0.04, top), (1.72, 0.11), wood)
        _rectangle(picture, scale, (0.04, top + 0.08), (1.72, 0.03), wood * 0.6)
    return Board(picture, x, y, width, height)


def wall(rng: np.random.Generator, height: float, y: float) -> Board:
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


def gym_wall(rng: np.random.Generator, y: float) -> Board:
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
