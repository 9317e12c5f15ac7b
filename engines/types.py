"""What flows into and out of a detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engines.boxes import F32


@dataclass(frozen=True, slots=True)
class Detections:
    """Faces found in one image, best first.

    xyxy: float32 [N, 4], left, top, right, bottom in pixels of the *source* image (the one the
    caller described, not the resized detector input); may reach past its edges.
    scores: float32 [N] in 0..1.
    """

    xyxy: F32
    scores: F32

    def __len__(self) -> int:
        return len(self.scores)

    def at_least(self, score: float) -> Detections:
        """Those with at least this score."""
        sure = self.scores >= score
        return Detections(self.xyxy[sure], self.scores[sure])

    @staticmethod
    def none() -> Detections:
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
