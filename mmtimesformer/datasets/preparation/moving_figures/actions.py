"""What a figure does: its pose, and where its ball is, at each moment of an action.

An action is a function of ``time`` in seconds and of a :class:`Style`, which is how a person does
it: how fast, how far, with which hand, and when.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mmtimesformer.datasets.preparation.moving_figures.skeleton import Pose

Ball = tuple[float, float, float] | None  # forward, left, up in metres from where the figure starts


@dataclass(frozen=True)
class Style:
    """How a person does an action.

    Attributes:
        rate: Speed; 1 is usual.
        reach: Size of the movements; 1 is usual.
        phase: Where a repeated movement begins, 0 to 1.
        start: When a single movement begins, as a part of its clip.
        left_handed: Which arm waves and which leg kicks.
        seconds: Length of the clip.
    """

    rate: float = 1.0
    reach: float = 1.0
    phase: float = 0.0
    start: float = 0.3
    left_handed: bool = False
    seconds: float = 2.4


def draw_style(rng: np.random.Generator, seconds: float) -> Style:
    """Draw a style; nothing in it depends on the action."""
    return Style(
        rate=rng.uniform(0.85, 1.15),
        reach=rng.uniform(0.85, 1.15),
        phase=rng.uniform(0, 1),
        start=rng.uniform(0.1, 0.35),
        left_handed=bool(rng.integers(2)),
        seconds=seconds,
    )


def angles(*degrees: float) -> np.ndarray:
    """Return degrees as radians."""
    return np.radians(degrees)


ARMS_DOWN = np.stack([angles(2, 9, 12, 5)] * 2)  # relaxed, next to the body
LEGS_STRAIGHT = np.stack([angles(2, 5, -2)] * 2)
STANDING = Pose(arms=ARMS_DOWN, legs=LEGS_STRAIGHT)


def ease(time: float, start: float, seconds: float) -> float:
    """Return 0 before a movement, 1 after it, and a smooth rise between."""
    part = np.clip((time - start) / seconds, 0, 1)
    return float(part * part * (3 - 2 * part))


def through(time: float, moments: list[float], poses: list[Pose]) -> Pose:
    """Return the pose at a time, from one key pose to the next."""
    pose = poses[0]
    for before, after, target in zip(moments[:-1], moments[1:], poses[1:], strict=True):
        if time >= before:
            pose = pose.blend(target, ease(time, before, after - before))
    return pose


def _handed(style: Style, acting: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.stack([acting, other] if style.left_handed else [other, acting])


def stand(time: float, style: Style) -> Pose:
    """Stand and breathe."""
    sway = 0.02 * np.sin(2 * np.pi * (0.3 * time + style.phase))
    return Pose(lean=sway, tilt=sway / 2, arms=ARMS_DOWN + sway, legs=LEGS_STRAIGHT)


def walk(time: float, style: Style) -> Pose:
    """Walk forward, with an opposite swing of arms and legs."""
    turn = 2 * np.pi * (0.95 * style.rate * time + style.phase)
    legs, arms = [], []
    for side in (0, np.pi):
        swing = np.radians(27) * style.reach * np.sin(turn + side)
        bend = np.radians(6 + 48 * max(0.0, np.cos(turn + side)) ** 1.5)
        legs.append([swing, 0.02, swing - bend])
        arm = -np.radians(26) * style.reach * np.sin(turn + side)
        arms.append([arm, 0.12, arm + np.radians(16), 0.06])
    return Pose(
        lean=0.05,
        tilt=0.02 * np.sin(turn),
        arms=np.array(arms),
        legs=np.array(legs),
        ahead=1.35 * style.rate * style.reach * (time - style.seconds / 2),
        planted=0.0,
    )


def run(time: float, style: Style) -> Pose:
    """Run forward: bent arms, heels high, both feet off the ground between steps."""
    turn = 2 * np.pi * (1.45 * style.rate * time + style.phase)
    legs, arms = [], []
    for side in (0, np.pi):
        swing = np.radians(12 + 42 * style.reach * np.sin(turn + side))
        bend = np.radians(18 + 88 * max(0.0, np.cos(turn + side - 0.35)) ** 1.3)
        legs.append([swing, 0.02, swing - bend])
        arm = np.radians(-8 - 42 * style.reach * np.sin(turn + side))
        arms.append([arm, 0.2, arm + np.radians(88), -0.15])
    return Pose(
        lean=0.2,
        tilt=0.03 * np.sin(turn),
        arms=np.array(arms),
        legs=np.array(legs),
        jump=0.07 * abs(np.cos(turn)),
        ahead=2.6 * style.rate * style.reach * (time - style.seconds / 2),
        planted=0.0,
    )


def wave(time: float, style: Style) -> Pose:
    """Wave one hand above the shoulder."""
    swing = np.sin(2 * np.pi * (1.5 * style.rate * time + style.phase))
    # forward and outward, so that it is seen from the front and from the side
    arm = angles(82, 46, 148 - 28 * style.reach * swing, 18 + 28 * style.reach * swing)
    pose = stand(time, style)
    return Pose(
        lean=pose.lean,
        tilt=0.04 * (-1 if style.left_handed else 1),
        arms=_handed(style, arm, ARMS_DOWN[0]),
        legs=LEGS_STRAIGHT,
    )


def jumping_jacks(time: float, style: Style) -> Pose:
    """Jump with legs apart and arms above the head, and back."""
    turn = 2 * np.pi * (0.95 * style.rate * time + style.phase)
    apart = (1 - np.cos(turn)) / 2
    arm = angles(0, 12 + 146 * apart, 0, 8 + 162 * apart)
    leg = angles(0, 4 + 24 * style.reach * apart, -6 * abs(np.sin(turn)))
    return Pose(
        arms=np.stack([arm, arm]),
        legs=np.stack([leg, leg]),
        jump=0.13 * style.reach * abs(np.sin(turn)),
    )


def bow(time: float, style: Style) -> Pose:
    """Bow once, and rise again."""
    begin, down = style.start * style.seconds, 0.65 / style.rate
    depth = ease(time, begin, down) - ease(time, begin + down + 0.15, down)
    low = Pose(
        lean=np.radians(72) * min(style.reach, 1.1),
        nod=0.3,
        arms=np.stack([angles(44, 8, 52, 5)] * 2),
        legs=np.stack([angles(-12, 5, -8)] * 2),
    )
    return STANDING.blend(low, depth)


_HELD = Pose(
    lean=0.02,
    arms=np.stack([angles(-12, 26, 78, -22)] * 2),
    legs=np.array([angles(6, 6, -8), angles(-4, 6, -12)]),
)
_DRAWN_BACK = Pose(
    lean=-0.1,
    arms=np.stack([angles(-30, 34, 105, -28)] * 2),
    legs=np.array([angles(14, 6, -14), angles(-4, 6, -22)]),
)
_PUSHED = Pose(
    lean=0.3,
    arms=np.stack([angles(82, 6, 88, 0)] * 2),
    legs=np.array([angles(38, 6, -2), angles(-20, 6, -34)]),
)


def throw(time: float, style: Style) -> Pose:
    """Throw a ball from the chest with both hands."""
    begin, pace = style.start * style.seconds, 1 / style.rate
    moments = [begin, begin + 0.4 * pace, begin + 0.7 * pace, begin + 1.4 * pace]
    return through(time, moments, [_HELD, _DRAWN_BACK, _PUSHED, STANDING])


def thrown_ball(time: float, style: Style) -> Ball:
    """Return the ball of :func:`throw`: between the hands, then in flight."""
    release = style.start * style.seconds + 0.66 / style.rate
    if time <= release:
        return None
    flight = time - release
    return 0.6 + 4.6 * style.reach * flight, 0.0, 1.42 + 1.5 * flight - 4.9 * flight**2


def kick(time: float, style: Style) -> Pose:
    """Kick a ball that lies on the ground."""
    begin, pace = style.start * style.seconds, 1 / style.rate
    moments = [begin, begin + 0.4 * pace, begin + 0.65 * pace, begin + 1.3 * pace]
    planted, relaxed = angles(-4, 5, -10), ARMS_DOWN[0]
    back = Pose(
        lean=0.12,
        arms=_handed(style, angles(28, 25, 40, 15), angles(-30, 30, -20, 20)),
        legs=_handed(style, angles(-34 * style.reach, 6, -100), planted),
        planted=0.0,
    )
    front = Pose(
        lean=-0.16,
        arms=_handed(style, angles(-42, 35, -30, 30), angles(46, 40, 60, 30)),
        legs=_handed(style, angles(66 * style.reach, 4, 58), planted),
        planted=0.0,
    )
    still = Pose(arms=np.stack([relaxed] * 2), legs=LEGS_STRAIGHT, planted=0.0)
    return through(time, moments, [still, back, front, still])


def kicked_ball(time: float, style: Style) -> Ball:
    """Return the ball of :func:`kick`: on the ground, then in flight."""
    contact = style.start * style.seconds + 0.55 / style.rate
    side = 0.1 if style.left_handed else -0.1
    flight = max(0.0, time - contact)
    height = max(0.11, 0.11 + 2.4 * flight - 4.9 * flight**2)
    return 0.42 + 4.4 * style.reach * flight, side, height


SITTING = Pose(
    lean=0.06,
    arms=np.stack([angles(28, 10, 62, 0)] * 2),
    legs=np.stack([angles(86, 8, -2)] * 2),
)
_LEANING = Pose(
    lean=0.72,
    nod=-0.35,
    arms=np.stack([angles(30, 12, 42, 5)] * 2),
    legs=np.stack([angles(58, 7, -22)] * 2),
)


def sit_down(time: float, style: Style) -> Pose:
    """Sit down on the stool behind the figure."""
    begin, pace = style.start * style.seconds, 1 / style.rate
    moments = [begin, begin + 0.7 * pace, begin + 1.4 * pace]
    return through(time, moments, [STANDING, _LEANING, SITTING])


Action = Callable[[float, Style], Pose]

#: Class name → its action, and the direction in which it is played.
ACTIONS: dict[str, tuple[Action, int]] = {
    'walking': (walk, +1),
    'running': (run, +1),
    'waving': (wave, +1),
    'jumping jacks': (jumping_jacks, +1),
    'bowing': (bow, +1),
    'kicking': (kick, +1),
    'throwing': (throw, +1),
    'catching': (throw, -1),
    'sitting down': (sit_down, +1),
    'standing up': (sit_down, -1),
}
#: Names of the actions, in the order of their labels.
CLASSES = tuple(ACTIONS)
BALLS: dict[Action, Callable[[float, Style], Ball]] = {throw: thrown_ball, kick: kicked_ball}
