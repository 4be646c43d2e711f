"""A pinhole camera: from metres in the world to pixels.

World axes: x right, y away from the camera, z up; the ground is z = 0. Pixels: u right, v down.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A camera at an instant.

    Attributes:
        width, height: Of the picture, in pixels.
        x, y, z: Its place in metres.
        pan, pitch, roll: Its angles in radians; positive pans right, looks up, turns clockwise.
        zoom: Focal length in heights of the picture.
    """

    width: int
    height: int
    x: float = 0.0
    y: float = 0.0
    z: float = 1.5
    pan: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    zoom: float = 1.2

    @cached_property
    def rotation(self) -> np.ndarray:
        """World to camera, ``(3, 3)``: rows are right, down, ahead."""
        sin, cos = np.sin(self.pan), np.cos(self.pan)
        right, ahead = np.array([cos, -sin, 0.0]), np.array([sin, cos, 0.0])
        up = np.array([0.0, 0.0, 1.0])
        sin, cos = np.sin(self.pitch), np.cos(self.pitch)
        ahead, up = cos * ahead + sin * up, cos * up - sin * ahead
        sin, cos = np.sin(self.roll), np.cos(self.roll)
        return np.stack([cos * right - sin * up, -cos * up - sin * right, ahead])

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return self.zoom * self.height

    @property
    def intrinsics(self) -> np.ndarray:
        """Camera to pixels, ``(3, 3)``."""
        return np.array(
            [[self.focal, 0, self.width / 2], [0, self.focal, self.height / 2], [0, 0, 1.0]]
        )

    def project(self, point: np.ndarray) -> tuple[float, float, float]:
        """Return the pixel of a point in metres, and the pixels of a metre at its depth."""
        right, down, ahead = self.rotation @ (point - [self.x, self.y, self.z])
        scale = self.focal / max(ahead, 0.3)
        return self.width / 2 + right * scale, self.height / 2 + down * scale, scale

    def plane(self, origin: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the homography of a plane: ``(a, b)`` → ``origin + a * first + b * second``."""
        place = np.array([self.x, self.y, self.z])
        columns = [first, second, origin - place]
        return self.intrinsics @ self.rotation @ np.stack(columns, axis=1)

    def rays(self, rows: int, columns: int) -> np.ndarray:
        """Return directions in the world, ``(rows, columns, 3)``, evenly over the picture."""
        v = ((np.arange(rows) + 0.5) / rows - 0.5) / self.zoom
        u = ((np.arange(columns) + 0.5) / columns - 0.5) * self.width / self.height / self.zoom
        right, down, ahead = self.rotation
        return u[:, None] * right + v[:, None, None] * down + ahead
