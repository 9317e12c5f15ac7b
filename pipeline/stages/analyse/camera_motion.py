"""The camera's motion from one picture to the next, from the flow of its corners."""

from __future__ import annotations

import cv2
import numpy as np
from facestream.engines.boxes import Array
from facestream.pipeline.stages.settings import DEFAULTS, CameraMotionSettings


class CameraMotionEstimator:
    """Feed it every picture of a stream, in order."""

    def __init__(self, settings: CameraMotionSettings = DEFAULTS.camera_motion) -> None:
        self.settings = settings
        self.last: Array | None = None  # the small picture to which the next one is compared
        self.corners: Array | None = None  # its corners, as far as they are known
        self.followed = 0  # pictures through which they were followed

    def update(self, luma: Array, size: tuple[int, int]) -> Array | None:
        """The affine, float64 [2, 3], that takes points of the picture before to their place in this one.

        luma: the displayed picture's brightness, uint8 [h, w], of any scale. size: the displayed picture's
        width and height: the affine is in its pixels, counted from its upper left corner. None when the
        camera stands, or nothing certain can be said: too little texture, no common motion, a cut.

        While the camera seems to stand, the older picture stays the one that is compared to, so a slow pan
        is not lost: it is reported as soon as it is large enough, all at once.
        """
        settings = self.settings
        scale = min(1.0, settings.side / max(luma.shape))
        width, height = (max(1, round(n * scale)) for n in luma.shape[::-1])
        small = cv2.resize(luma, (width, height), interpolation=cv2.INTER_AREA)
        last = self.last
        self.last = small
        if last is None or last.shape != small.shape:
            self.corners = None
            return None
        if float(cv2.norm(last, small, cv2.NORM_L1)) < settings.min_change * small.size:
            self.last = last
            return None
        corners = self._corners_of(last)
        before, after = _flow(last, small, corners, settings)
        standing = np.abs(after - before).max(1) < settings.standing_shift
        if len(before) >= settings.min_corners and standing.mean() >= settings.standing_share:
            self.last = last
            return None
        inside = after[((after >= 0) & (after < (width, height))).all(1)]
        self.corners = inside.astype(np.float32) if len(inside) > settings.min_kept * len(corners) else None
        if len(before) < settings.min_corners:
            return None
        # Points are pixel centres, and a centre lies half a pixel from its pixel's corner.
        step = np.array([size[0] / width, size[1] / height])
        tolerance = settings.inlier_distance * float(step.max())
        return _fit((before + 0.5) * step, (after + 0.5) * step, np.array(size), tolerance, settings)

    def _corners_of(self, last: Array) -> Array:
        """The corners of the picture before: those that were followed into it, now and then found anew."""
        self.followed += 1
        if self.corners is None or self.followed >= self.settings.refresh_interval:
            self.corners = _corners(last, self.settings)
            self.followed = 0
        return self.corners


def _flow(before: Array, after: Array, corners: Array, settings: CameraMotionSettings) -> tuple[Array, Array]:
    """Corners of one picture, float32 [N, 2], as far as they are found in the other one, and where they are there:
    float64 [N, 2] each, as pixel centres."""
    if not len(corners):
        return corners, corners
    stop = (3, settings.max_iterations, settings.epsilon)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        before, after, corners, corners.copy(), winSize=(15, 15), maxLevel=3, criteria=stop
    )
    good = found.ravel() > 0
    return corners[good].astype(np.float64), moved[good].astype(np.float64)


def _corners(small: Array, settings: CameraMotionSettings) -> Array:
    """The best corner of each cell, if it is one: float32 [N, 2]. Evenly spread, so that every part of the picture
    contributes, not only a person in front of it with the most contrast."""
    side = settings.cell
    rows = small.shape[0] // side
    columns = small.shape[1] // side
    quality = cv2.cornerMinEigenVal(small, 3)[: rows * side, : columns * side]
    cells = quality.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side * side)
    best = cells.argmax(1)
    cell = np.flatnonzero(cells[np.arange(len(cells)), best] > settings.min_corner_quality)
    x = cell % columns * side + best[cell] % side
    y = cell // columns * side + best[cell] // side
    return np.stack([x, y], 1).astype(np.float32)


def _fit(before: Array, after: Array, size: Array, tolerance: float, settings: CameraMotionSettings) -> Array | None:
    """Shift, turn and zoom between point sets [N, 2] on which most agree, all over the picture: what a few near ones
    agree on is the motion of somebody in front of the camera."""
    affine, speaks = cv2.estimateAffinePartial2D(before, after, ransacReprojThreshold=tolerance)
    if affine is None or speaks.mean() < settings.min_inliers:
        return None
    spread = before[speaks.ravel() > 0].std(0) / size
    zoom = np.hypot(affine[0, 0], affine[1, 0])
    turn = np.arctan2(affine[1, 0], affine[0, 0])
    plausible = 1 / settings.max_zoom < zoom < settings.max_zoom and abs(turn) <= settings.max_turn
    if spread.min() < settings.min_spread or not plausible:
        return None
    motion: Array = affine
    return motion
