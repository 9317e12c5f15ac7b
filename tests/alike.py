"""Compares the results of two detectors. Without PyAV, which a machine with a GPU may lack."""

from __future__ import annotations

from collections.abc import Sequence

from facestream.engines.base import Detector
from facestream.engines.boxes import iou_xyxy
from facestream.engines.letterbox import ImageView


def found_alike(detectors: Sequence[Detector], views: Sequence[ImageView], score: float, overlap: float) -> int:
    """How many faces the first detector finds with more than a score. AssertionError unless the second one has a box
    for each of them that overlaps (IoU) more than this. The views go in as one call."""
    faces = 0
    for a, b in zip(*(detector.detect(views) for detector in detectors), strict=True):
        confident = a.xyxy[a.scores > score]
        assert not len(confident) or len(b), f"{len(confident)} faces, and none is found"
        assert (iou_xyxy(confident, b.xyxy).max(1, initial=0) > overlap).all()
        faces += len(confident)
    return faces
