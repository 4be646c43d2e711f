"""Draw figures, balls, stools and their shadows into a picture."""

from dataclasses import dataclass

import cv2
import numpy as np

from mmtimesformer.datasets.preparation.moving_figures.camera import Camera
from mmtimesformer.datasets.preparation.moving_figures.skeleton import SIDES

HALF = np.linspace(-np.pi / 2, np.pi / 2, 7)  # of a circle, for the ends of a limb
FRACTION = 4  # bits of a pixel's coordinate behind the point
BALL = 0.115  # radius in metres
STOOL = 0.40  # height in metres

#: Limb: the joints of its ends, their radii in metres, and a colour of :class:`Appearance`.
LIMBS = {
    'thigh': ('hip', 'knee', 0.085, 0.062, 'trousers'),
    'shin': ('knee', 'ankle', 0.06, 0.042, 'shins'),
    'shoe': ('ankle', 'toe', 0.05, 0.04, 'shoes'),
    'upper arm': ('shoulder', 'elbow', 0.056, 0.045, 'shirt'),
    'forearm': ('elbow', 'wrist', 0.043, 0.034, 'forearms'),
    'palm': ('wrist', 'hand', 0.034, 0.038, 'skin'),
}
SKINS = ((240, 200, 170), (224, 172, 132), (190, 132, 92), (141, 92, 62), (96, 64, 46))
HAIR = ((40, 30, 26), (70, 46, 30), (120, 84, 48), (190, 150, 90), (110, 108, 106))
CLOTHES = (
    (200, 48, 44), (232, 120, 40), (240, 200, 60), (60, 140, 70), (40, 130, 150), (50, 90, 190),
    (110, 70, 160), (220, 110, 150), (230, 230, 225), (60, 62, 70),
)  # fmt: skip
TROUSERS = ((44, 56, 92), (50, 50, 54), (120, 104, 82), (90, 94, 100), (70, 44, 40), (36, 70, 66))


@dataclass(frozen=True)
class Appearance:
    """Colours of a figure as RGB, 0..255, and its height and width relative to the usual."""

    skin: np.ndarray
    hair: np.ndarray
    shirt: np.ndarray
    trousers: np.ndarray
    shins: np.ndarray
    forearms: np.ndarray
    shoes: np.ndarray
    size: float = 1.0
    build: float = 1.0
    long_hair: bool = False


def draw_appearance(rng: np.random.Generator) -> Appearance:
    """Draw clothes, skin, hair and size."""
    skin = np.array(SKINS[rng.integers(len(SKINS))], float)
    shirt = np.array(CLOTHES[rng.integers(len(CLOTHES))], float)
    trousers = np.array(TROUSERS[rng.integers(len(TROUSERS))], float)
    return Appearance(
        skin=skin,
        hair=np.array(HAIR[rng.integers(len(HAIR))], float),
        shirt=shirt,
        trousers=trousers,
        shins=trousers if rng.random() < 0.65 else skin,
        forearms=shirt if rng.random() < 0.5 else skin,
        shoes=np.array([(235, 235, 235), (40, 40, 44), (180, 60, 50)][rng.integers(3)], float),
        size=rng.uniform(0.92, 1.06),
        build=rng.uniform(0.92, 1.18),
        long_hair=bool(rng.random() < 0.4),
    )


def place_joints(
    joints: dict[str, np.ndarray], at: np.ndarray, facing: float, size: float
) -> dict[str, np.ndarray]:
    """Return joints in the world: scaled, turned to ``facing`` (0 is to the camera), moved."""
    sin, cos = np.sin(facing), np.cos(facing)
    turn = np.array([[sin, cos, 0], [-cos, sin, 0], [0, 0, 1.0]])  # columns: forward, left, up
    return {name: at + size * (turn @ joint) for name, joint in joints.items()}


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.rint(np.asarray(points) * (1 << FRACTION)).astype(np.int32)


def fill(picture: np.ndarray, points: np.ndarray, colour: np.ndarray) -> None:
    """Fill a polygon, ``(n, 2)`` in pixels, with smooth edges."""
    paint = tuple(float(value) for value in np.atleast_1d(colour))
    cv2.fillPoly(picture, [_fixed(points)], paint, cv2.LINE_AA, FRACTION)


def disc(picture: np.ndarray, centre: np.ndarray, radius: float, colour: np.ndarray) -> None:
    """Fill a circle with smooth edges."""
    paint = tuple(float(value) for value in np.atleast_1d(colour))
    u, v = _fixed(centre)
    radius = round(max(radius, 0.5) * (1 << FRACTION))
    cv2.circle(picture, (int(u), int(v)), radius, paint, cv2.FILLED, cv2.LINE_AA, FRACTION)


def capsule(
    picture: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    radii: tuple[float, float],
    colour: np.ndarray,
) -> None:
    """Fill a rounded limb between two points in pixels."""
    one, other = ends
    turn = np.arctan2(other[1] - one[1], other[0] - one[0])
    around = np.array([np.cos(HALF + turn), np.sin(HALF + turn)]).T
    outline = np.concatenate([other + radii[1] * around, one - radii[0] * around])
    paint = tuple(float(value) for value in np.atleast_1d(colour))
    cv2.fillConvexPoly(picture, _fixed(outline), paint, cv2.LINE_AA, FRACTION)


#: Layers of a rounded body in the light: brightness, part of its radius, shift to the light.
SHADES = ((0.62, 1.0, 0.0), (0.84, 0.84, 0.14), (1.0, 0.62, 0.3), (1.1, 0.3, 0.46))
FLAT = ((0.72, 1.0, 0.0), (1.0, 0.7, 0.25))  # the same for what is narrower than
FEW_PIXELS = 4.5


def shaded_capsule(
    picture: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    radii: tuple[float, float],
    colour: np.ndarray,
    light: np.ndarray,
) -> None:
    """Fill a limb that is brighter on the side of the light, ``light`` in pixels of length 1."""
    for brightness, part, shift in SHADES if min(radii) > FEW_PIXELS else FLAT:
        offset = light * shift * min(radii)
        moved = ends[0] + offset, ends[1] + offset
        smaller = radii[0] * part, radii[1] * part
        capsule(picture, moved, smaller, np.minimum(colour * brightness, 255))


def draw_figure(
    picture: np.ndarray,
    joints: dict[str, np.ndarray],
    look: Appearance,
    camera: Camera,
    light: np.ndarray,
) -> None:
    """Draw a figure of joints in the world, the parts far from the camera first."""
    pixels = {name: camera.project(joint) for name, joint in joints.items()}
    points = {name: np.array(pixel[:2]) for name, pixel in pixels.items()}
    scale = pixels['chest'][2] * look.size
    far = sorted(SIDES, key=lambda side: joints[f'{side} shoulder'][1], reverse=True)

    def limbs(side: str, names: tuple[str, ...], shade: float) -> None:
        for name in names:
            one, other, wide, narrow, part = LIMBS[name]
            ends = points[f'{side} {one}'], points[f'{side} {other}']
            radii = wide * scale * look.build, narrow * scale * look.build
            shaded_capsule(picture, ends, radii, getattr(look, part) * shade, light)

    legs, arms = ('shoe', 'shin', 'thigh'), ('upper arm', 'forearm', 'palm')
    arms_behind = [side for side in far if _behind(joints, side)]
    for side in arms_behind:
        limbs(side, arms, 0.78)
    limbs(far[0], legs, 0.8)
    limbs(far[1], legs, 1.0)
    _draw_torso(picture, points, look, scale, light)
    _draw_head(picture, joints, points, look, scale, light)
    for side in far:
        if side not in arms_behind:
            limbs(side, arms, 0.95)


def _behind(joints: dict[str, np.ndarray], side: str) -> bool:
    """Whether an arm is farther from the camera than the middle of the body."""
    arm = np.mean([joints[f'{side} {part}'][1] for part in ('shoulder', 'elbow', 'hand')])
    return bool(arm > (joints['chest'][1] + joints['hips'][1]) / 2)


def _draw_torso(
    picture: np.ndarray,
    points: dict[str, np.ndarray],
    look: Appearance,
    scale: float,
    light: np.ndarray,
) -> None:
    build = scale * look.build
    hips = points['left hip'], points['right hip']
    shaded_capsule(picture, hips, (0.1 * build, 0.1 * build), look.trousers, light)
    shoulders = [points[f'{side} shoulder'] for side in SIDES]
    for brightness, part, shift in SHADES[:3]:
        offset = light * shift * 0.09 * build
        colour = np.minimum(look.shirt * brightness, 255)
        waist = [points['hips'] + (hip - points['hips']) * 0.6 for hip in hips]
        for shoulder, low in zip(shoulders, waist, strict=True):
            middle = 0.3 * points['chest'] + 0.7 * shoulder
            capsule(picture, (middle + offset, low + offset),
                    (0.098 * build * part, 0.098 * build * part), colour)  # fmt: skip
        centre = points['chest'] * 0.9 + points['hips'] * 0.1
        capsule(picture, (centre + offset, points['hips'] + offset),
                (0.125 * build * part, 0.115 * build * part), colour)  # fmt: skip


def _draw_head(
    picture: np.ndarray,
    joints: dict[str, np.ndarray],
    points: dict[str, np.ndarray],
    look: Appearance,
    scale: float,
    light: np.ndarray,
) -> None:
    capsule(picture, (points['chest'], points['head']), (0.055 * scale, 0.05 * scale),
            look.skin * 0.7)  # fmt: skip
    head, up = points['head'], points['head'] - points['neck']
    up = up / max(float(np.hypot(*up)), 1e-6)
    face = points['nose'] - head  # short where the figure looks to the camera or away from it
    away = joints['nose'][1] > joints['head'][1] + 0.05
    crown, chin = head + up * 0.035 * scale, head - up * 0.05 * scale + face * 0.12
    back = -face * 0.3 + up * 0.03 * scale
    if look.long_hair:
        capsule(picture, (crown + back, points['neck'] - face * 0.55),
                (0.11 * scale, 0.075 * scale), look.hair * 0.8)  # fmt: skip
    disc(picture, crown + back * 0.6, 0.122 * scale, look.hair * 0.8)
    if away:
        disc(picture, head + up * 0.01 * scale, 0.112 * scale, look.hair)
        return
    shaded_capsule(picture, (crown + face * 0.2, chin + face * 0.15),
                   (0.098 * scale, 0.078 * scale), look.skin, light)  # fmt: skip
    disc(picture, points['nose'] - up * 0.01 * scale, 0.02 * scale, look.skin * 0.9)
    across = np.array([-up[1], up[0]])
    front = 1 - min(1.0, float(np.hypot(*face)) / (0.115 * scale))
    for eye in (-1, 1):
        aside = across * eye * 0.042 * scale * (0.25 + front)
        disc(picture, head + face * 0.72 + aside, 0.012 * scale, np.array([30.0, 24, 22]))
    fringe = crown + up * 0.055 * scale - face * 0.16
    capsule(picture, (fringe - across * 0.05 * scale, fringe + across * 0.05 * scale),
            (0.058 * scale, 0.058 * scale), look.hair)  # fmt: skip


def draw_ball(
    picture: np.ndarray, place: np.ndarray, colour: np.ndarray, camera: Camera, light: np.ndarray
) -> None:
    """Draw a ball in the world, with a highlight."""
    u, v, scale = camera.project(place)
    centre, radius = np.array([u, v]), BALL * scale
    for brightness, part, shift in (*SHADES, (1.5, 0.14, 0.5)):
        paint = np.minimum(colour * brightness, 255)
        disc(picture, centre + light * shift * radius, radius * part, paint)


def draw_stool(picture: np.ndarray, place: np.ndarray, colour: np.ndarray, camera: Camera) -> None:
    """Draw a box to sit on, ``place`` in the middle of its foot."""
    half = 0.21
    corners = [(-half, -half), (half, -half), (half, half), (-half, half)]

    def face(points: list[tuple[float, float, float]], brightness: float) -> None:
        pixels = [camera.project(place + np.array(point))[:2] for point in points]
        fill(picture, np.array(pixels), np.minimum(colour * brightness, 255))

    for number in (2, 1, 3, 0):  # the front last
        (x, y), (u, v) = corners[number], corners[(number + 1) % 4]
        brightness = (0.75, 0.55, 0.4, 0.9)[number]
        face([(x, y, 0), (u, v, 0), (u, v, STOOL), (x, y, STOOL)], brightness)
    face([(x, y, STOOL) for x, y in corners], 1.15)


def shadow_mask(
    shape: tuple[int, int],
    limbs: list[tuple[np.ndarray, np.ndarray, float, float]],
    camera: Camera,
    sun: np.ndarray,
) -> np.ndarray:
    """Return how dark the shadow of limbs on the ground is, ``(H, W)``, 0..1.

    Args:
        shape: Height and width of the picture.
        limbs: Ends in the world and radii in metres.
        camera: The camera.
        sun: How far a point of 1 m above the ground throws its shadow: x and y in metres.
    """
    mask = np.zeros(shape, np.uint8)
    for one, other, wide, narrow in limbs:
        ends, radii = [], []
        for end, radius in ((one, wide), (other, narrow)):
            ground = np.array([end[0] + sun[0] * end[2], end[1] + sun[1] * end[2], 0.0])
            u, v, scale = camera.project(ground)
            ends.append(np.array([u, v]))
            radii.append(max(0.5, 0.8 * radius * scale))
        capsule(mask, (ends[0], ends[1]), (radii[0], radii[1]), np.array(255.0))
    blur = 1 + 2 * (shape[0] // 150)
    return cv2.GaussianBlur(mask, (blur, blur), 0).astype(np.float32) / 255


def limbs_of(
    joints: dict[str, np.ndarray], look: Appearance
) -> list[tuple[np.ndarray, np.ndarray, float, float]]:
    """Return the limbs of a figure for :func:`shadow_mask`."""
    width = look.size * look.build
    limbs = [
        (joints[f'{side} {one}'], joints[f'{side} {other}'], wide * width, narrow * width)
        for side in SIDES
        for one, other, wide, narrow, _ in LIMBS.values()
    ]
    limbs.append((joints['chest'], joints['hips'], 0.17 * width, 0.14 * width))
    limbs.append((joints['neck'], joints['head'], 0.08 * width, 0.11 * width))
    return limbs
