"""Faces that the picture's edge cuts: what can be seen of them is no whole box, and no whole ellipse."""

from __future__ import annotations

import numpy as np
from facestream.engines.boxes import Array
from facestream.engines.types import Detections

NARROW, FLAT = 0.7, 1.1  # width over height, and height over width, that hardly a whole face falls under
TOUCH = 0.04  # share of a box's longer side by which it may stay away from the edge that cuts it


def extrapolate_truncated(found: Detections, size: tuple[int, int]) -> Detections:
    """The boxes with those that an edge cuts enlarged beyond it, to the shape of a face.

    A detector says what it sees. Where only a strip of a face is in the picture, an ellipse in that strip would leave
    its corners, which are face as well; and the middle of the strip moves at half the face's speed. size: width and
    height of the picture in whose pixels the boxes are.
    """
    if not len(found):
        return found
    boxes: Array = found.xyxy.astype(np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    near = TOUCH * sides.max(1)
    for axis, least in ((0, NARROW * sides[:, 1]), (1, FLAT * sides[:, 0])):
        missing = np.maximum(least - sides[:, axis], 0)
        low, high = boxes[:, axis] <= near, boxes[:, axis + 2] >= size[axis] - near
        boxes[:, axis] -= np.where(low & ~high, missing, 0)
        boxes[:, axis + 2] += np.where(high & ~low, missing, 0)
    return Detections(boxes.astype(np.float32), found.scores)
