"""Kalman filters of box positions and sizes, with a constant-velocity model."""

from __future__ import annotations

import numpy as np
from facestream.engines.boxes import Array, Bool
from facestream.pipeline.stages.settings import DEFAULTS, KalmanSettings
from numpy.typing import NDArray

TICK_S = 1 / 30  # seconds: the unit of time in which the noise is given


class Kalman:
    """Constant-velocity filters for N boxes: centre x, centre y, width and height independently.

    With diagonal noise the usual 8-dimensional filter separates into four filters of position and speed,
    so everything is elementwise. table: float64 [5, N, 4] with the values (pixels), the speeds (pixels/s), and
    the entries position-position, position-speed and speed-speed of each 2x2 covariance.
    """

    def __init__(self, settings: KalmanSettings = DEFAULTS.kalman) -> None:
        self.settings = settings
        self.table = np.zeros((5, 0, 4))

    def add(self, cxcywh: Array) -> None:
        """Add filters at boxes cxcywh [N, 4], with speed 0."""
        sides = _sides(cxcywh)
        new = np.zeros((5, *cxcywh.shape))
        new[0] = cxcywh
        new[2] = (2 * self.settings.position_noise * sides) ** 2
        new[4] = (10 * self.settings.speed_noise / TICK_S * sides) ** 2
        self.table = np.concatenate([self.table, new], 1)

    def keep(self, which: Bool) -> None:
        self.table = self.table[:, which]

    def only(self, which: Bool) -> Kalman:
        """A copy of some of the filters."""
        some = Kalman(self.settings)
        some.table = self.table[:, which]
        return some

    def predict(self, seconds: float, missing: Bool) -> None:
        """Predict. Sizes of boxes without a detection last time stay constant: they must neither explode nor vanish."""
        value, speed, pp, ps, ss = self.table
        speed[missing, 2:] = 0
        sides = _sides(value)
        ticks = seconds / TICK_S
        value += speed * seconds
        np.maximum(value[:, 2:], 1.0, out=value[:, 2:])
        pp += 2 * seconds * ps + seconds**2 * ss + ticks * (self.settings.position_noise * sides) ** 2
        ps += seconds * ss
        ss += ticks * (self.settings.speed_noise / TICK_S * sides) ** 2

    def warp(self, affine: Array) -> None:
        """Apply the camera's motion: affine float64 [2, 3] maps a point of the frame before to this one.

        A box stays upright and is scaled by the zoom only, so the covariances stay four separate blocks.
        """
        linear = affine[:, :2]
        zoom = np.sqrt(abs(np.linalg.det(linear)))
        self.table[:2, :, :2] @= linear.T
        self.table[2:, :, :2] @= (linear**2).T
        self.table[0, :, :2] += affine[:, 2]
        self.table[:2, :, 2:] *= zoom
        self.table[2:, :, 2:] *= zoom**2

    def update(self, index: NDArray[np.intp], cxcywh: Array) -> None:
        """Correct the filters `index` with measurements."""
        value, speed, pp, ps, ss = self.table[:, index]
        total = pp + (self.settings.position_noise * _sides(value)) ** 2
        gain_p = pp / total
        gain_s = ps / total
        error = cxcywh - value
        self.table[:, index] = (
            value + gain_p * error, speed + gain_s * error, pp * (1 - gain_p), ps * (1 - gain_p), ss - gain_s * ps
        )  # fmt: skip

    def spread(self) -> Array:
        """Two standard deviations of each box's position, in units of its longer side, [N]."""
        value, _, pp, _, _ = self.table
        spread: Array = 2 * np.sqrt(pp[:, :2].max(1, initial=0.0)) / value[:, 2:].max(1, initial=1e-9)
        return spread

    def xyxy(self) -> Array:
        """The boxes, [N, 4]."""
        value = self.table[0]
        half = value[:, 2:] / 2
        return np.concatenate([value[:, :2] - half, value[:, :2] + half], 1)


def _sides(cxcywh: Array) -> Array:
    """The side that each component scales with: width, height, width, height."""
    return np.concatenate([cxcywh[:, 2:], cxcywh[:, 2:]], 1)
