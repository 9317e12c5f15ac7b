"""Where boxes are and how they move, as far as one can know: constant-velocity filters."""

from __future__ import annotations

import numpy as np
from facestream.engines.boxes import Array, Bool
from numpy.typing import NDArray

# Random walk of position and speed, in sides of the box a tick; measurement noise as position (ByteTrack's values).
POSITION_NOISE, SPEED_NOISE = 1 / 20, 1 / 160
TICK_S = 1 / 30


class Kalman:
    """Constant-velocity filters for N boxes: centre x, centre y, width, height, each on its own.

    With diagonal noise the usual 8-dimensional filter falls apart into four of position and speed,
    so everything is elementwise. table: float64 [5, N, 4], which holds the values (pixels), the
    speeds (pixels/s), and of each 2x2 covariance the entries position-position, position-speed
    and speed-speed.
    """

    def __init__(self) -> None:
        self.table = np.zeros((5, 0, 4))

    def add(self, cxcywh: Array) -> None:
        """Begin filters at the boxes [N, 4], at rest."""
        sides = _sides(cxcywh)
        new = np.zeros((5, *cxcywh.shape))
        new[0] = cxcywh
        new[2] = (2 * POSITION_NOISE * sides) ** 2
        new[4] = (10 * SPEED_NOISE / TICK_S * sides) ** 2
        self.table = np.concatenate([self.table, new], 1)

    def keep(self, which: Bool) -> None:
        self.table = self.table[:, which]

    def only(self, which: Bool) -> Kalman:
        """Some of the filters, on their own."""
        some = Kalman()
        some.table = self.table[:, which]
        return some

    def predict(self, seconds: float, missing: Bool) -> None:
        """Move on. Sizes of boxes that were not seen last time stay, so that they neither explode nor vanish."""
        value, speed, pp, ps, ss = self.table
        speed[missing, 2:] = 0
        sides, ticks = _sides(value), seconds / TICK_S
        value += speed * seconds
        np.maximum(value[:, 2:], 1.0, out=value[:, 2:])
        pp += 2 * seconds * ps + seconds**2 * ss + ticks * (POSITION_NOISE * sides) ** 2
        ps += seconds * ss
        ss += ticks * (SPEED_NOISE / TICK_S * sides) ** 2

    def warp(self, affine: Array) -> None:
        """Move with the camera: affine float64 [2, 3] takes a point of the frame before to its place in this one.

        A box keeps its upright shape and grows by the zoom alone; so its covariances stay four blocks.
        """
        linear = affine[:, :2]
        zoom = np.sqrt(abs(np.linalg.det(linear)))
        self.table[:2, :, :2] @= linear.T
        self.table[2:, :, :2] @= (linear**2).T
        self.table[0, :, :2] += affine[:, 2]
        self.table[:2, :, 2:] *= zoom
        self.table[2:, :, 2:] *= zoom**2

    def update(self, index: NDArray[np.intp], cxcywh: Array) -> None:
        """Correct the filters `index` with what was seen."""
        value, speed, pp, ps, ss = self.table[:, index]
        total = pp + (POSITION_NOISE * _sides(value)) ** 2
        gain_p, gain_s = pp / total, ps / total
        error = cxcywh - value
        self.table[:, index] = (
            value + gain_p * error, speed + gain_s * error, pp * (1 - gain_p), ps * (1 - gain_p), ss - gain_s * ps
        )  # fmt: skip

    def spread(self) -> Array:
        """Two standard deviations of each box's place, in its longer sides, [N]."""
        value, _, pp, _, _ = self.table
        spread: Array = 2 * np.sqrt(pp[:, :2].max(1, initial=0.0)) / value[:, 2:].max(1, initial=1e-9)
        return spread

    def xyxy(self) -> Array:
        """The boxes, [N, 4]."""
        value = self.table[0]
        half = value[:, 2:] / 2
        return np.concatenate([value[:, :2] - half, value[:, :2] + half], 1)


def _sides(cxcywh: Array) -> Array:
    """The side that each number scales with: width, height, width, height."""
    return np.concatenate([cxcywh[:, 2:], cxcywh[:, 2:]], 1)
