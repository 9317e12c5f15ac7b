"""Estimates the share of visible faces without ground truth, by capture-recapture with two detectors on a sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from facestream.pipeline.review.document import Document
from facestream.pipeline.review.geometry import grown, iou
from facestream.pipeline.review.scout import Notes, SecondDetection
from scipy.special import gammaincinv

SURE = 0.5  # best score of a track from which it counts as a face
# Probability that a detection of the second detector alone is a face: ramps from 0 at the first score to this value at
# 1. Measured on rendered and real clips, see docs/review.md.
FROM_SCORE = 0.3
REAL = 0.7
HETEROGENEITY = 2.0  # both detectors miss hard faces up to this many times as often as if they were independent
CERTAIN = 0.8  # score from which a detection of the second detector counts towards the interval's lower bound
FLOOR = 0.5  # faces that even a sample without one open face may have missed, in runs
PARTLY = 0.5  # weight of a face that extends beyond its cover
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """Share of face-frames that may be visible, 0..1: best guess, and an interval that holds the truth in about nine of
    ten videos. frames: that were looked at twice; faces: in them; open: by the second detector, weighed."""

    share: float
    low: float
    high: float
    frames: int
    faces: float
    open: float

    def describe(self) -> str:
        """As it is printed."""
        return f"{percent(self.share)} % ({percent(self.low)} to {percent(self.high)}) of face-frames may be visible"


def percent(share: float) -> str:
    """A share in per cent, two digits of it."""
    value = 100 * share
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 0.095 or value == 0 else f"{value:.2f}"


def estimate(document: Document, notes: Notes, found_open: dict[int, list[tuple[SecondDetection, float]]]) -> Estimate:
    """found_open: faces of the second detector that are not covered, by frame, with their covered shares."""
    best = {
        track: max(document.by_frame[f][track].score for f in span)
        for track, span in document.spans.items() if track > 0
    }  # fmt: skip
    first = again = 0
    certain = 0.0
    weights: list[float] = []
    runs: list[tuple[int, SecondDetection]] = []  # the last sighting of each face that seems open
    frames = sorted(notes.second)
    step = frames[1] - frames[0] if len(frames) > 1 else 1
    for frame in frames:
        faces = [face for track, face in document.boxes(frame).items() if best.get(track, 0.0) >= SURE]
        seen = notes.second[frame]
        first += len(faces)
        again += sum(any(iou(face.xyxy, other.xyxy) > 0.3 for other in seen) for face in faces)
        for one, share in found_open.get(frame, ()):
            real = REAL * float(np.clip((one.score - FROM_SCORE) / (1 - FROM_SCORE), 0.02, 1))
            weights.append(real * (1.0 if share < 0.5 else PARTLY))
            if one.score >= CERTAIN:
                certain += 1.0 if share < 0.5 else PARTLY
            for number, (last, other) in enumerate(runs):
                if frame - last <= 2 * step and iou(grown(one.xyxy, 2), grown(other.xyxy, 2)) > 0.1:
                    runs[number] = (frame, one)
                    break
            else:
                runs.append((frame, one))
    recall = (again + 1) / (first + 1)  # of the second detector, by the faces that the first one knows
    expected = float(sum(weights)) / max(recall, 0.2)
    total = first + expected
    if not total:
        return Estimate(0.0, 0.0, 0.0, len(frames), 0.0, 0.0)
    length = max(1.0, len(weights) / max(1, len(runs)))  # of a run, in samples: its frames say the same thing
    count = float(sum(weights)) / length
    tail = (1 - CONFIDENCE) / 2
    low = float(gammaincinv(certain / length, tail)) * length if certain else 0.0
    high = float(gammaincinv(count + FLOOR, 1 - tail)) * length * HETEROGENEITY / max(recall, 0.2)
    share = expected / total
    high = min(1.0, high / total)
    return Estimate(min(share, high), min(low / total, share), high, len(frames), round(total, 1), round(expected, 2))
