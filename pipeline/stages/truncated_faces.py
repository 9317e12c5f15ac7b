"""Truncated faces: boxes at the frame edge are extended beyond it to the shape of a whole face."""

from __future__ import annotations

import numpy as np
from facestream.engines.boxes import Array
from facestream.engines.types import Detections
from facestream.pipeline.stages.settings import DEFAULTS, TruncatedFaceSettings


def extrapolate_truncated(
    found: Detections, size: tuple[int, int], settings: TruncatedFaceSettings = DEFAULTS.truncated_faces
) -> Detections:
    """Extend boxes that an edge of the frame cuts beyond it, to the shape of a face.

    A detection contains only the visible part. If only a strip of a face is in the frame, an ellipse in that strip
    would leave its corners uncovered; and the strip's centre moves at half the face's speed. size: width and height of
    the frame in whose pixels the boxes are.
    """
    if not len(found):
        return found
    boxes: Array = found.xyxy.astype(np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    near = settings.edge_distance * sides.max(1)
    width = settings.min_width_over_height * sides[:, 1]
    height = settings.min_height_over_width * sides[:, 0]
    for axis, minimum in ((0, width), (1, height)):
        missing = np.maximum(minimum - sides[:, axis], 0)
        low = boxes[:, axis] <= near
        high = boxes[:, axis + 2] >= size[axis] - near
        boxes[:, axis] -= np.where(low & ~high, missing, 0)
        boxes[:, axis + 2] += np.where(high & ~low, missing, 0)
    return Detections(boxes.astype(np.float32), found.scores)
