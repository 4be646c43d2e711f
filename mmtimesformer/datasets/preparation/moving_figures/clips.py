"""Draw clips: a figure that does something in a place, seen by a moving camera."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from mmtimesformer.datasets.preparation.moving_figures.actions import (
    ACTIONS,
    BALLS,
    CLASSES,
    Action,
    Style,
    draw_style,
    ease,
    sit_down,
    stand,
)
from mmtimesformer.datasets.preparation.moving_figures.camera import Camera
from mmtimesformer.datasets.preparation.moving_figures.drawing import (
    BALL,
    STOOL,
    Appearance,
    draw_appearance,
    draw_ball,
    draw_figure,
    draw_stool,
    limbs_of,
    place_joints,
    shadow_mask,
)
from mmtimesformer.datasets.preparation.moving_figures.scenery import (
    KINDS,
    Scenery,
    draw_background,
    draw_scenery,
)
from mmtimesformer.datasets.preparation.moving_figures.skeleton import Pose, joints_of

WIDTH, HEIGHT = 128, 96  # pixels
NUM_FRAMES, FPS = 24, 10
FINER = 2  # figures are drawn this much larger, and reduced
DISTANCE = 4.6  # metres from the camera to the figure
BLEND = 0.4  # seconds between two actions of a longer video


@dataclass(frozen=True)
class Shot:
    """How the camera moves: all of it changes with time, and nothing depends on the action.

    Attributes:
        follow: How much of the figure's way the camera pans along, 0 to 1.
        pan, rise, zoom: First and last value of the camera's pan and pitch in radians, and zoom.
        shake: Size of the shake in radians.
        phases: Of the shake, ``(3, 3)``.
        height: Of the camera above the ground, in metres.
    """

    follow: float
    pan: tuple[float, float]
    rise: tuple[float, float]
    zoom: tuple[float, float]
    shake: float
    phases: np.ndarray
    height: float


@dataclass(frozen=True)
class Scene:
    """All that a clip shows, but for its action: see :func:`draw_scene`."""

    scenery: Scenery
    shot: Shot
    look: Appearance
    facing: float
    at: np.ndarray
    colour: np.ndarray
    bystander: Appearance
    bystander_at: np.ndarray
    bystander_facing: float
    prop_at: np.ndarray
    has_stool: bool
    has_ball: bool
    grain: float
    seed: int


def draw_shot(rng: np.random.Generator) -> Shot:
    """Draw a camera motion."""
    pan, zoom = rng.uniform(-0.09, 0.09), rng.uniform(1.4, 1.65)
    rise = rng.uniform(-0.13, -0.08)
    return Shot(
        follow=rng.uniform(0.7, 1.0),
        pan=(pan, -pan * rng.uniform(0.2, 1)),
        rise=(rise, rise + rng.uniform(-0.02, 0.02)),
        zoom=(zoom, zoom * rng.uniform(0.88, 1.12)),
        shake=float(rng.choice([0.0, 0.003, 0.007])),
        phases=rng.uniform(0, 2 * np.pi, (3, 3)),
        height=rng.uniform(1.3, 1.75),
    )


def draw_scene(seed: int | Sequence[int]) -> Scene:
    """Draw a scene from a seed; nothing in it depends on the action that will be played in it."""
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(list(KINDS)))
    side = rng.choice([-1, 1])
    return Scene(
        scenery=draw_scenery(rng, kind),
        shot=draw_shot(rng),
        look=draw_appearance(rng),
        facing=float(side * np.radians(rng.uniform(48, 84))),
        at=np.array([rng.uniform(-0.25, 0.25), DISTANCE, 0.0]),
        colour=rng.uniform(80, 250, 3),
        bystander=draw_appearance(rng),
        bystander_at=np.array([rng.choice([-1, 1]) * rng.uniform(1.5, 3.2), 7.2, 0.0]),
        bystander_facing=float(rng.uniform(-1.5, 1.5)),
        prop_at=np.array([-side * rng.uniform(1.0, 1.6), rng.uniform(5.4, 6.4), 0.0]),
        has_stool=bool(rng.random() < 0.5),
        has_ball=bool(rng.random() < 0.5),
        grain=rng.uniform(1.0, 4.0),
        seed=int(rng.integers(2**32)),
    )


def draw_clip(
    label: str,
    seed: int | Sequence[int] = 0,
    num_frames: int = NUM_FRAMES,
    width: int = WIDTH,
    height: int = HEIGHT,
    fps: float = FPS,
) -> np.ndarray:
    """Return a clip of a figure that does what the label is, ``(num_frames, height, width, 3)``.

    The scene depends on the seed alone. ``catching`` is exactly the time-reversed ``throwing``, and
    ``standing up`` the time-reversed ``sitting down`` of the same seed.

    Args:
        label: One of :data:`CLASSES`.
        seed: The same seed draws the same frames.
        num_frames: Length of the clip.
        width: In pixels.
        height: In pixels.
        fps: Frames per second.

    Returns:
        RGB frames, uint8.

    Raises:
        ValueError: There is no such label, or a number is not positive.
    """
    check_clip([label], num_frames, width, height, fps)
    return play(draw_scene(seed), label, num_frames, width, height, fps)


def play(
    scene: Scene, label: str, num_frames: int, width: int, height: int, fps: float = FPS
) -> np.ndarray:
    """Return the clip of an action in a scene, see :func:`draw_clip`."""
    action, direction = ACTIONS[label]
    style = draw_style(np.random.default_rng([scene.seed, 1]), num_frames / fps)
    moments = [Moment(action, number / fps, style) for number in range(num_frames)]
    return _draw_frames(scene, moments, fps, width, height)[::direction]


def draw_video(
    labels: Sequence[str],
    seed: int | Sequence[int] = 0,
    num_frames: int = NUM_FRAMES,
    width: int = WIDTH,
    height: int = HEIGHT,
    fps: float = FPS,
) -> np.ndarray:
    """Return a long video of one figure that does several actions, one after the other.

    Args:
        labels: Names of :data:`CLASSES`, in order.
        seed: The same seed draws the same frames.
        num_frames: Length of each action.
        width: In pixels.
        height: In pixels.
        fps: Frames per second.

    Returns:
        RGB frames, ``(len(labels) * num_frames, height, width, 3)`` of uint8.

    Raises:
        ValueError: There is no such label, no label at all, or a number is not positive.
    """
    check_clip(labels, num_frames, width, height, fps)
    if not labels:
        raise ValueError('labels is empty; name at least one action')
    scene, seconds = draw_scene(seed), num_frames / fps
    style = draw_style(np.random.default_rng([scene.seed, 1]), seconds)
    moments: list[Moment] = []
    last = None
    for label in labels:
        moments += [_next_moment(label, n / fps, style, last) for n in range(num_frames)]
        last = _next_moment(label, seconds, style, last)
    return _draw_frames(scene, moments, fps, width, height)


def _next_moment(label: str, time: float, style: Style, last: 'Moment | None') -> 'Moment':
    """Return a moment of an action that follows on another one, of which ``last`` is the end."""
    action, direction = ACTIONS[label]
    begin = 0.0 if direction > 0 else style.seconds
    here = last.pose.ahead - action(begin, style).ahead if last else 0.0
    return Moment(action, begin + direction * time, style, here, last, ease(time, 0, BLEND))


def _draw_frames(
    scene: Scene, moments: Sequence['Moment'], fps: float, width: int, height: int
) -> np.ndarray:
    """Draw a frame for each moment, while the camera moves from its first place to its last."""
    last = max(len(moments) - 1, 1)
    frames = [
        draw_frame(scene, moment, number / last, number / fps, width, height)
        for number, moment in enumerate(moments)
    ]
    return np.stack(frames)


def check_clip(labels: Sequence[str], num_frames: int, width: int, height: int, fps: float) -> None:
    """Raise a ValueError for what cannot be drawn."""
    for label in labels:
        if label not in ACTIONS:
            raise ValueError(f'label={label!r} is not one of {", ".join(CLASSES)}')
    sizes = {'num_frames': num_frames, 'width': width, 'height': height, 'fps': fps}
    for name, value in sizes.items():
        if value <= 0:
            raise ValueError(f'{name}={value} is not positive; set {name} to 1 or more')


@dataclass(frozen=True)
class Moment:
    """What the figure does at an instant.

    Attributes:
        action: The action.
        time: Seconds from its beginning.
        style: How it is done.
        offset: How far ahead in metres the figure was when it began.
        before: The end of the action before, in a video of several.
        weight: 0 where the figure is still in the pose of ``before``, 1 later.
    """

    action: Action
    time: float
    style: Style
    offset: float = 0.0
    before: 'Moment | None' = None
    weight: float = 1.0

    @cached_property
    def pose(self) -> Pose:
        """The pose of the figure."""
        pose = self.action(self.time, self.style)
        pose = replace(pose, ahead=pose.ahead + self.offset)
        return self.before.pose.blend(pose, self.weight) if self.before else pose


def camera_at(
    scene: Scene, part: float, seconds: float, ahead: float, width: int, height: int
) -> Camera:
    """Return the camera at a part of the clip, 0 to 1, when the figure has moved ``ahead``."""
    shot = scene.shot
    x = scene.at[0] + shot.follow * ahead * np.sin(scene.facing)
    times = 2 * np.pi * seconds * np.array([0.9, 2.3, 4.1])
    shake = shot.shake * (np.sin(times + shot.phases) * [1, 0.5, 0.3]).sum(axis=1)

    def between(ends: tuple[float, float]) -> float:
        return ends[0] + (ends[1] - ends[0]) * ease(part, 0, 1)

    return Camera(
        width=width,
        height=height,
        x=0.75 * x,
        y=-0.8 * ahead * np.cos(scene.facing),
        z=shot.height,
        pan=float(np.arctan2(0.25 * x, DISTANCE)) + between(shot.pan) + shake[0],
        pitch=between(shot.rise) + shake[1],
        roll=0.6 * shake[2],
        zoom=between(shot.zoom) * min(1.0, 0.75 + 0.25 * width / height),
    )


def draw_frame(
    scene: Scene, moment: Moment, part: float, clock: float, width: int, height: int
) -> np.ndarray:
    """Return one frame, ``(height, width, 3)`` of uint8.

    Args:
        scene: The scene.
        moment: What the figure does.
        part: How much of the video is over, 0 to 1.
        clock: Seconds from the beginning of the video.
        width: In pixels.
        height: In pixels.
    """
    pose = moment.pose
    camera = camera_at(scene, part, clock, pose.ahead, width, height)
    background = draw_background(scene.scenery, camera)
    finer = replace(camera, width=width * FINER, height=height * FINER)
    picture = cv2.resize(background, (finer.width, finer.height), interpolation=cv2.INTER_LINEAR)
    _draw_actors(scene, moment, clock, finer, picture)
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return _develop(scene, clock, small)


def _draw_actors(
    scene: Scene, moment: Moment, clock: float, camera: Camera, picture: np.ndarray
) -> None:
    """Draw the figures, what they use, and their shadows."""
    joints = place_joints(joints_of(moment.pose), scene.at, scene.facing, scene.look.size)
    idle = joints_of(stand(clock, moment.style))
    behind = place_joints(idle, scene.bystander_at, scene.bystander_facing, scene.bystander.size)
    stool = _stool_of(scene, moment)
    ball = _ball_of(scene, moment, joints)
    light = _light(scene)
    limbs = [*limbs_of(joints, scene.look), *limbs_of(behind, scene.bystander)]
    limbs += [(ball, ball, BALL, BALL)] if ball is not None else []
    if stool is not None:
        limbs.append((stool + np.array([0, 0, 0.1]), stool + np.array([0, 0, STOOL]), 0.26, 0.26))
    dark = shadow_mask(picture.shape[:2], limbs, camera, scene.scenery.sun)
    picture[:] = picture * (1 - np.float32(scene.scenery.shade) * dark[..., None])
    draw_figure(picture, behind, scene.bystander, camera, light)
    parts = [(joints['hips'][1], lambda: draw_figure(picture, joints, scene.look, camera, light))]
    if stool is not None:
        paint = scene.look.trousers * 0.3 + np.array([150.0, 110, 70]) * 0.7
        parts.append((stool[1] + 0.15, lambda: draw_stool(picture, stool, paint, camera)))
    if ball is not None:
        parts.append((ball[1], lambda: draw_ball(picture, ball, scene.colour, camera, light)))
    for _, draw in sorted(parts, key=lambda part: -part[0]):
        draw()


def _light(scene: Scene) -> np.ndarray:
    """Return the side from which light comes, in pixels, of length 1."""
    side = np.array([-scene.scenery.sun[0], -0.8])
    return side / np.hypot(*side)


def _world(scene: Scene, forward: float, left: float, up: float) -> np.ndarray:
    point = {'point': np.array([forward, left, up])}
    return place_joints(point, scene.at, scene.facing, scene.look.size)['point']


def _stool_of(scene: Scene, moment: Moment) -> np.ndarray | None:
    """Return where the stool is: behind who sits down, else to the side, if there is one."""
    if moment.action is sit_down:
        return _world(scene, moment.offset - 0.5, 0.0, 0.0)
    return scene.prop_at if scene.has_stool else None


def _ball_of(scene: Scene, moment: Moment, joints: dict[str, np.ndarray]) -> np.ndarray | None:
    """Return where the ball is: in play, else on the ground, if there is one."""
    if moment.action not in BALLS:
        return scene.prop_at + np.array([0.5, 0.3, BALL]) if scene.has_ball else None
    place = BALLS[moment.action](moment.time, moment.style)
    if place is None:
        return (joints['left hand'] + joints['right hand']) / 2
    forward, left, up = place
    return _world(scene, moment.offset + forward, left, up)


def _develop(scene: Scene, time: float, picture: np.ndarray) -> np.ndarray:
    """Apply light, vignette and the grain of a sensor."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    away = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2)[..., None]
    light = scene.scenery.tint * (1.12 - 0.42 * away)
    rng = np.random.default_rng([scene.seed, round(1000 * time)])
    grain = scene.grain * rng.standard_normal((height, width, 1), dtype=np.float32)
    return np.clip(picture * light + grain, 0, 255).astype(np.uint8)
