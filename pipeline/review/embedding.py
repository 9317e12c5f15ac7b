"""Groups tracks by their faces, only where `review --group-by embedding` asks for it. Extra `embedding`.

A face's numbers are biometric data: they stay in memory until the groups are made, and are written nowhere.
"""

from __future__ import annotations

import numpy as np
from facestream.engines.boxes import Array
from facestream.pipeline.evaluate.embedder import Embedder
from facestream.pipeline.types import XYXY, Frame
from facestream.pipeline.video.planes import rgb_view

# dlib's authors take 0.6 for one person; stricter, since a stranger in a group could be left open with it
SAME = 0.5
SMALLEST = 40  # pixels of a face's longer side


class FaceEmbedding:
    """dlib's ResNet-29 on the aligned face."""

    same_from = -SAME

    def __init__(self) -> None:
        """Raises BadConfig where the extra is not installed."""
        self._embedder = Embedder(purpose="grouping by faces", extra="embedding")

    def view(self, frame: Frame) -> Array:
        return rgb_view(frame, frame.size).rgb

    def features(self, view: Array, box: XYXY) -> Array | None:
        if max(box[2] - box[0], box[3] - box[1]) < SMALLEST:
            return None
        features: Array = self._embedder.embed([self._embedder.aligned(view, np.array(box))])[0]
        return features

    def likeness(self, a: Array, b: Array) -> float:
        return -float(np.linalg.norm(a - b))
