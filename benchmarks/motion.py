"""Motion of sprites and cameras for `scene`: poses, which are 2 x 3 matrices over time.

A pose is a function of the seconds since the shot began. Points are in pixels, counted from pixel edges; scales are
frame pixels per sprite or world pixel; degrees are clockwise.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from scipy.interpolate import PchipInterpolator

Pose = Callable[[float], np.ndarray]  # seconds -> float64 [2, 3]


class Sized(Protocol):
    size: tuple[float, float]  # width, height


def similarity(a: object, b: object, scale: float, degrees: float = 0.0) -> np.ndarray:
    """The similarity transform [2, 3] that scales, rotates (clockwise) and maps point a to point b."""
    cos = scale * np.cos(np.radians(degrees))
    sin = scale * np.sin(np.radians(degrees))
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([turn, np.asarray(b) - turn @ np.asarray(a)])


def path(*keys: tuple[float, ...]) -> Callable[[float], np.ndarray]:
    """Smooth interpolation of keyframes (seconds, value, ...); constant before the first and after the last."""
    table = np.array(keys, float)
    if len(table) == 1:
        return lambda t: table[0, 1:]
    way = PchipInterpolator(table[:, 0], table[:, 1:])
    return lambda t: way(np.clip(t, table[0, 0], table[-1, 0]))


def view(sprite: Sized, size: tuple[int, int], *keys: tuple[float, ...], margin: float = 0.0) -> Pose:
    """A camera whose view stays inside the sprite. keys: (seconds, x, y, zoom); x and y from 0 (leftmost, topmost) to
    1; zoom 1 shows as much as possible. margin: frame pixels kept free on all sides, for a shake."""
    way = path(*((t, x, y, np.log(zoom)) for t, x, y, zoom in keys))
    half = np.divide(size, 2)
    min_scale = float((np.add(size, 2 * margin) / sprite.size).max())

    def pose(t: float) -> np.ndarray:
        x, y, nearer = way(t)
        scale = min_scale * float(np.exp(nearer))
        reach = (half + margin) / scale
        return similarity(reach + (sprite.size - 2 * reach) * (x, y), half, scale)

    return pose


def placed(anchor: object, *keys: tuple[float, ...]) -> Pose:
    """Sprite to world. keys: (seconds, x, y, scale[, degrees]), the position of the sprite's point `anchor`."""
    way = path(*keys)
    return lambda t: similarity(anchor, way(t)[:2], *way(t)[2:])


def seen_by(view: Pose, pose: Pose) -> Pose:
    """Sprite to world to frame."""
    return lambda t: view(t) @ np.vstack([pose(t), (0, 0, 1)])


def shaken(view: Pose, size: tuple[int, int], pixels: float, degrees: float, rng: np.random.Generator) -> Pose:
    """A hand-held view that trembles at 0.7 to 5 Hz, by at most so many pixels and degrees to either side."""
    phase = rng.uniform(0, 2 * np.pi, (3, 3))
    hertz = rng.uniform((0.7, 1.5, 3.5), (1.3, 2.5, 5.0), (3, 3))
    middle = np.divide(size, 2)
    limits = np.array([pixels, pixels, degrees])

    def pose(t: float) -> np.ndarray:
        x, y, angle = limits * (np.sin(2 * np.pi * hertz * t + phase) @ (0.55, 0.3, 0.15))
        return similarity(middle, np.add(middle, (x, y)), 1.0, angle) @ np.vstack([view(t), (0, 0, 1)])

    return pose
