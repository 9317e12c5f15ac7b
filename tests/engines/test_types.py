from __future__ import annotations

import numpy as np
from facestream.engines.types import Detections


def test_a_score_counts_from_the_threshold_on_whatever_the_size_of_the_box() -> None:
    sides = np.array([0, 4, 24, 72, 900, 30], np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], 1)
    scores = np.array([0.25, 0.24, 0.26, 0.25, 0.25, np.nan], np.float32)
    found = Detections(boxes, scores).filter_by_score(0.25)
    assert found.xyxy[:, 2].tolist() == [0, 24, 72, 900]
    assert len(Detections.empty().filter_by_score(0.25)) == 0
