"""The camera's motion from one picture to the next, from the flow of its corners."""

from __future__ import annotations

import cv2
import numpy as np
from facestream.engines.boxes import Array

WIDTH = 320  # pixels of the longer side at which the flow is measured
CELL = 24  # pixels of the squares of which each lends a corner: some 90 of them
FOLLOWED, KEPT = 3, 0.8  # corners are found anew at every so many pictures, and where no such share of them is left
STEPS, EXACT = 10, 0.03  # of the flow, at most: steps, and pixels by which the last one may have changed it
CORNER = 1e-4  # least eigenvalue of the gradients' covariance from which something is a corner
LEAST = 12  # corners without which nothing is said
QUIET = 1.0  # grey levels; a picture whose pixels differ by less on average has not moved
STILL = 0.15  # pixels by which a corner that stands still may seem to move
STANDING = 0.4  # share of standing corners from which the camera stands: what moves is in front of it
FIT = 1.0  # pixels by which a corner may miss the motion and still speak for it
AGREED = 0.5  # share of corners that must speak for it
ABROAD = 0.17  # their standard deviation at least, as a share of the width, and of the height (0.29: all over it)
ZOOM, TURN = 1.25, 0.35  # factor and radians which no camera exceeds between two pictures


class CameraMotionEstimator:
    """Feed it every picture of a stream, in order."""

    def __init__(self) -> None:
        self.last: Array | None = None  # the small picture to which the next one is compared
        self.corners: Array | None = None  # its corners, as far as they are known
        self.followed = 0  # pictures through which they were followed

    def update(self, luma: Array, size: tuple[int, int]) -> Array | None:
        """The affine, float64 [2, 3], that takes points of the picture before to their place in this one.

        luma: the displayed picture's brightness, uint8 [h, w], of any scale. size: the displayed picture's
        width and height: the affine is in its pixels, counted from its upper left corner. None when the
        camera stands, or nothing certain can be said: too little texture, no common motion, a cut.

        While the camera seems to stand, the older picture stays the one that is compared to, so a slow pan
        is not lost: it is told as soon as it is large enough, all at once.
        """
        scale = min(1.0, WIDTH / max(luma.shape))
        width, height = (max(1, round(n * scale)) for n in luma.shape[::-1])
        small = cv2.resize(luma, (width, height), interpolation=cv2.INTER_AREA)
        last, self.last = self.last, small
        if last is None or last.shape != small.shape:
            self.corners = None
            return None
        if float(cv2.norm(last, small, cv2.NORM_L1)) < QUIET * small.size:
            self.last = last
            return None
        corners = self._corners_of(last)
        before, after = _flow(last, small, corners)
        if len(before) >= LEAST and (np.abs(after - before).max(1) < STILL).mean() >= STANDING:
            self.last = last
            return None
        inside = after[((after >= 0) & (after < (width, height))).all(1)]
        self.corners = inside.astype(np.float32) if len(inside) > KEPT * len(corners) else None
        if len(before) < LEAST:
            return None
        # Points are pixel centres, and a centre lies half a pixel from its pixel's corner.
        step = np.array([size[0] / width, size[1] / height])
        return _fit((before + 0.5) * step, (after + 0.5) * step, np.array(size), FIT * float(step.max()))

    def _corners_of(self, last: Array) -> Array:
        """The corners of the picture before: those that were followed into it, now and then found anew."""
        self.followed += 1
        if self.corners is None or self.followed >= FOLLOWED:
            self.corners, self.followed = _corners(last), 0
        return self.corners


def _flow(before: Array, after: Array, corners: Array) -> tuple[Array, Array]:
    """Corners of one picture, float32 [N, 2], as far as they are found in the other one, and where they are there:
    float64 [N, 2] each, as pixel centres."""
    if not len(corners):
        return corners, corners
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        before, after, corners, corners.copy(), winSize=(15, 15), maxLevel=3, criteria=(3, STEPS, EXACT)
    )
    good = found.ravel() > 0
    return corners[good].astype(np.float64), moved[good].astype(np.float64)


def _corners(small: Array) -> Array:
    """The best corner of each cell, if it is one: float32 [N, 2]. Evenly spread, so that every part of the picture
    has its say, not only somebody in front of it with the most contrast."""
    rows, columns = small.shape[0] // CELL, small.shape[1] // CELL
    quality = cv2.cornerMinEigenVal(small, 3)[: rows * CELL, : columns * CELL]
    cells = quality.reshape(rows, CELL, columns, CELL).swapaxes(1, 2).reshape(-1, CELL * CELL)
    best = cells.argmax(1)
    cell = np.flatnonzero(cells[np.arange(len(cells)), best] > CORNER)
    x, y = cell % columns * CELL + best[cell] % CELL, cell // columns * CELL + best[cell] // CELL
    return np.stack([x, y], 1).astype(np.float32)


def _fit(before: Array, after: Array, size: Array, tolerance: float) -> Array | None:
    """Shift, turn and zoom between point sets [N, 2] on which most agree, all over the picture: what a few near ones
    agree on is the motion of somebody in front of the camera."""
    affine, speaks = cv2.estimateAffinePartial2D(before, after, ransacReprojThreshold=tolerance)
    if affine is None or speaks.mean() < AGREED:
        return None
    spread = before[speaks.ravel() > 0].std(0) / size
    zoom, turn = np.hypot(affine[0, 0], affine[1, 0]), np.arctan2(affine[1, 0], affine[0, 0])
    if spread.min() < ABROAD or not 1 / ZOOM < zoom < ZOOM or abs(turn) > TURN:
        return None
    motion: Array = affine
    return motion
