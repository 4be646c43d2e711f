"""Places for figures to be in, and how a camera sees them: ground, sky, and what stands there."""

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from mmtimesformer.datasets.preparation.moving_figures.boards import (
    Board,
    bench,
    building,
    bush,
    car,
    gym_wall,
    lamp,
    pine,
    tree,
    wall,
)
from mmtimesformer.datasets.preparation.moving_figures.camera import Camera
from mmtimesformer.datasets.preparation.moving_figures.textures import (
    GROUND_METRES,
    GROUND_PIXELS,
    SKY_SIZE,
    asphalt,
    draw_sky,
    floor,
    grass,
    hills,
    mix,
    pavement,
    rgb,
    skyline,
)

RAYS = 32  # sky and haze are computed for as many pixels along each side, and enlarged


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


def _spread(
    rng: np.random.Generator, count: int, near: float, far: float
) -> list[tuple[float, float]]:
    """Return places that do not crowd, to the left and right of the middle."""
    across = (np.arange(count) + rng.uniform(0.15, 0.85, count)) / count * 2 - 1
    return [
        (float(u * depth * 1.1), float(depth)) for u in across for depth in [rng.uniform(near, far)]
    ]


def _park(rng: np.random.Generator) -> list[Board]:
    plant = [tree, tree, pine]
    boards = [plant[rng.integers(3)](rng, *spot) for spot in _spread(rng, 7, 9, 17)]
    boards += [bush(rng, *spot) for spot in _spread(rng, 4, 8, 11)]
    return [*boards, bench(rng, rng.uniform(-3, 3), 7.8)]


def _street(rng: np.random.Generator) -> list[Board]:
    boards, left = [], -22.0
    while left < 22:
        width = rng.uniform(5, 9)
        boards.append(building(rng, left + width / 2, 17.0, width))
        left += width
    boards += [car(rng, *spot) for spot in _spread(rng, 2, 10.5, 13)]
    boards += [lamp(rng, *spot) for spot in _spread(rng, 2, 8, 8.3)]
    return [*boards, tree(rng, rng.uniform(-5, 5), 15.0)]


def _hall(rng: np.random.Generator) -> list[Board]:
    return [gym_wall(rng, 10.0), *[bench(rng, *spot) for spot in _spread(rng, 2, 9.4, 9.6)]]


def _yard(rng: np.random.Generator) -> list[Board]:
    height = rng.uniform(2.2, 3.2)
    boards = [tree(rng, *spot) for spot in _spread(rng, 4, 12.5, 15)]
    boards += [wall(rng, height, 10.0)]
    boards += [bush(rng, *spot) for spot in _spread(rng, 2, 9.3, 9.7)]
    return [*boards, bench(rng, rng.uniform(-3, 3), 8.6)]


Ground = Callable[[np.random.Generator], np.ndarray]
Boards = Callable[[np.random.Generator], list[Board]]
KINDS: dict[str, tuple[Ground, Boards]] = {
    'park': (grass, _park),
    'street': (pavement, _street),
    'sports hall': (floor, _hall),
    'school yard': (asphalt, _yard),
}


def draw_scenery(rng: np.random.Generator, kind: str) -> Scenery:
    """Draw a place of a kind of :data:`KINDS`: its ground, what stands there, sky and light."""
    ground, boards = KINDS[kind]
    warm, clouds = float(rng.uniform(0, 1) ** 2), float(rng.uniform(0.15, 0.75))
    indoors = kind == 'sports hall'
    sky = draw_sky(rng, warm, clouds)
    haze = mix(rgb(200, 214, 226), rgb(238, 208, 178), np.full((), warm, np.float32))
    horizon = skyline if kind == 'street' else hills
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
