"""The skeleton of a figure: from angles of the limbs to joints in metres.

Body axes: x forward, y to the figure's left, z up. A limb hangs down at an angle of zero. ``swing``
turns it forward, ``spread`` turns it sideways, away from the body.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

UPPER_ARM, FOREARM, HAND = 0.29, 0.25, 0.09  # metres, of a figure of 1.75 m
THIGH, SHIN, FOOT, ANKLE = 0.44, 0.42, 0.20, 0.08
TORSO, NECK, HEAD = 0.50, 0.10, 0.115
SHOULDERS, HIPS = 0.185, 0.095  # half of the width
SIDES = {'left': 1, 'right': -1}


@dataclass(frozen=True)
class Pose:
    """Angles in radians of the limbs at an instant: arms from the torso, legs from the hips.

    Attributes:
        arms: Swing and spread of the upper arm, then of the forearm; left and right, ``(2, 4)``.
        legs: Swing and spread of the thigh, then swing of the shin; left and right, ``(2, 3)``.
        lean: Of the torso, forward.
        tilt: Of the torso, to the left.
        nod: Of the head, forward, further than the torso.
        jump: Height of the lower foot above the ground, in metres.
        ahead: How far the figure has moved forward, in metres.
        planted: Whether the feet stay where they are and the hips move.
    """

    arms: np.ndarray
    legs: np.ndarray
    lean: float = 0.0
    tilt: float = 0.0
    nod: float = 0.0
    jump: float = 0.0
    ahead: float = 0.0
    planted: float = 1.0

    def blend(self, other: 'Pose', weight: float) -> 'Pose':
        """Return the pose between two: 0 is this one, 1 the other."""
        mixed = {
            field.name: getattr(self, field.name) * (1 - weight)
            + getattr(other, field.name) * weight
            for field in fields(self)
        }
        return replace(self, **mixed)


def direction(swing: float, spread: float, side: int) -> np.ndarray:
    """Return the unit vector of a limb: forward, left, up."""
    return np.array(
        [np.sin(swing) * np.cos(spread), side * np.sin(spread), -np.cos(swing) * np.cos(spread)]
    )


def rotation(lean: float, tilt: float) -> np.ndarray:
    """Return the rotation of the torso, ``(3, 3)``: forward by ``lean``, then left by ``tilt``."""
    forward = np.array(
        [[np.cos(lean), 0, np.sin(lean)], [0, 1, 0], [-np.sin(lean), 0, np.cos(lean)]]
    )
    sideways = np.array(
        [[1, 0, 0], [0, np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]]
    )
    return sideways @ forward


def joints_of(pose: Pose) -> dict[str, np.ndarray]:
    """Return the joints in metres, the lower foot at the height of the jump above the ground."""
    joints = {'hips': np.zeros(3)}
    torso = rotation(pose.lean, pose.tilt)
    joints['chest'] = torso @ [0, 0, TORSO]
    joints['neck'] = joints['chest'] + torso @ [0, 0, NECK]
    joints['head'] = joints['neck'] + rotation(pose.lean + pose.nod, pose.tilt) @ [0.02, 0, HEAD]
    joints['nose'] = joints['head'] + rotation(pose.lean + pose.nod, pose.tilt) @ [HEAD, 0, -0.01]
    for number, (name, side) in enumerate(SIDES.items()):
        joints |= _arm(name, side, pose.arms[number], joints['chest'], torso)
        joints |= _leg(name, side, pose.legs[number])
    return _on_the_ground(joints, pose)


def _arm(
    name: str, side: int, angles: np.ndarray, chest: np.ndarray, torso: np.ndarray
) -> dict[str, np.ndarray]:
    shoulder = chest + torso @ [0, side * SHOULDERS, -0.03]
    elbow = shoulder + UPPER_ARM * torso @ direction(angles[0], angles[1], side)
    wrist = elbow + FOREARM * torso @ direction(angles[2], angles[3], side)
    hand = wrist + HAND * torso @ direction(angles[2], angles[3], side)
    return {
        f'{name} shoulder': shoulder,
        f'{name} elbow': elbow,
        f'{name} wrist': wrist,
        f'{name} hand': hand,
    }


def _leg(name: str, side: int, angles: np.ndarray) -> dict[str, np.ndarray]:
    hip = np.array([0, side * HIPS, -0.02])
    knee = hip + THIGH * direction(angles[0], angles[1], side)
    ankle = knee + SHIN * direction(angles[2], angles[1], side)
    turn = np.clip(angles[2] * 0.7, -0.9, 0.4)  # of the foot: the heel lifts behind the body
    toe = ankle + FOOT * np.array([np.cos(turn), 0.15 * side, np.sin(turn) - 0.25])
    return {f'{name} hip': hip, f'{name} knee': knee, f'{name} ankle': ankle, f'{name} toe': toe}


def _on_the_ground(joints: dict[str, np.ndarray], pose: Pose) -> dict[str, np.ndarray]:
    lowest = min(joints[f'{name} ankle'][2] for name in SIDES) - ANKLE
    lowest = min(lowest, *(joints[f'{name} toe'][2] - 0.02 for name in SIDES))
    feet = np.mean([joints[f'{name} ankle'][0] for name in SIDES])
    shift = np.array([pose.ahead - pose.planted * feet, 0, pose.jump - lowest])
    return {name: joint + shift for name, joint in joints.items()}
