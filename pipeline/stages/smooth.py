"""Smoothing: a box's final size and position, from its track's boxes in the frames around it.

Each box is enlarged to contain the smoothed path of its track, so that a box that jumps for a frame uncovers nothing,
and to the track's usual size, so that a box that shrinks (a face half hidden, blurred, cut by the edge) uncovers
nothing either. Boxes with a low score, or of a track with low scores, are enlarged, because they are placed less
exactly: nine of ten faces that are found with a score over 0.95 lie inside 1.2 to 1.4 times their box, with any lower
score inside 1.5 to 1.8 times (measured on labelled pictures, docs/experiments/heuristics.md).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from facestream.pipeline.stages.settings import DEFAULTS, SmoothSettings
from facestream.pipeline.types import Box, BoxKind, BoxState

Sightings = dict[int, tuple[float, float, float]]  # of each track: width and height in pixels, score


@dataclass(frozen=True, slots=True)
class TrackStatistics:
    """A track's usual width and height in pixels, and score."""

    width: float
    height: float
    score: float


def sightings_of(boxes: Iterable[Box]) -> Sightings:
    """The width, height and score of each face that was detected."""
    seen = ((box.id, box.xyxy, box.score) for box in boxes if box.state is BoxState.OBSERVED)
    return {track: (right - left, bottom - top, score) for track, (left, top, right, bottom), score in seen}


def statistics_of(
    seen: list[tuple[float, float, float]], settings: SmoothSettings = DEFAULTS.smooth
) -> TrackStatistics:
    """Of a track's detections, one at least, as in Sightings."""
    place = int(settings.percentile * (len(seen) - 1))
    widths, heights, scores = (sorted(values) for values in zip(*seen, strict=True))
    return TrackStatistics(widths[place], heights[place], scores[-1 - place])


def smooth_box(
    box: Box,
    path: list[float],
    statistics: TrackStatistics | None,
    settings: SmoothSettings = DEFAULTS.smooth,
) -> Box:
    """The box, enlarged if its score or its track's usual score is low, and to its track's usual width and height,
    merged with the weighted mean of its track's boxes around it. path: sums of weights and of weighted corners."""
    left, top, right, bottom = box.xyxy
    score = box.score if statistics is None else min(box.score, statistics.score)
    doubt = min(max((settings.clear_score - score) / (settings.clear_score - settings.dim_score), 0.0), 1.0)
    grown = 1 + settings.max_growth * doubt
    width = (right - left) * grown
    height = (bottom - top) * grown
    if statistics is not None:
        width = max(width, statistics.width)
        height = max(height, statistics.height)
    x = (left + right) / 2
    y = (top + bottom) / 2
    mean = [total / path[0] for total in path[1:]]
    corners = (
        min(x - width / 2, mean[0]),
        min(y - height / 2, mean[1]),
        max(x + width / 2, mean[2]),
        max(y + height / 2, mean[3]),
    )
    return Box(box.id, corners, box.score, box.state, box.association, box.kind)


@dataclass(frozen=True, slots=True)
class Emitted:
    """A frame that left: its number, its boxes before smoothing, and what was detected in it."""

    index: int
    boxes: list[Box]
    sightings: Sightings


class Smoother:
    """Smooths boxes; keeps the boxes of the frames that left last."""

    def __init__(self, settings: SmoothSettings = DEFAULTS.smooth) -> None:
        self.settings = settings
        self.emitted: deque[Emitted] = deque(maxlen=settings.statistics_frames)

    def statistics(self, boxes: list[Box], own: Sightings, coming: Sequence[Sightings]) -> dict[int, TrackStatistics]:
        """The usual size and score of each track of a leaving frame, from its detections around it."""
        around = [own, *(frame.sightings for frame in self.emitted), *coming]
        found = {}
        for box in boxes:
            if box.kind is not BoxKind.FACE:
                continue
            if seen := [sightings[box.id] for sightings in around if box.id in sightings]:
                found[box.id] = statistics_of(seen, self.settings)
        return found

    def smooth(
        self,
        index: int,
        boxes: list[Box],
        coming: Sequence[tuple[int, Iterable[Box]]],
        coming_sightings: Sequence[Sightings],
    ) -> tuple[Box, ...]:
        """The final boxes of the leaving frame `index`.

        coming: number and boxes of the next `path_frames` frames; coming_sightings: of the next `statistics_frames`.
        """
        settings = self.settings
        sightings = sightings_of(boxes)
        start = max(0, len(self.emitted) - settings.path_frames)
        before = ((frame.index, frame.boxes) for frame in islice(self.emitted, start, None))
        paths = {box.key: [0.0, 0.0, 0.0, 0.0, 0.0] for box in boxes}  # sums: weights, weighted corners
        statistics = self.statistics(boxes, sightings, coming_sightings)
        for at, others in [(index, boxes), *before, *coming]:
            weight = math.exp(-(((at - index) / settings.path_sigma) ** 2) / 2)
            for box in others:
                if (path := paths.get(box.key)) is not None:
                    left, top, right, bottom = box.xyxy
                    path[0] += weight
                    path[1] += weight * left
                    path[2] += weight * top
                    path[3] += weight * right
                    path[4] += weight * bottom
        self.emitted.append(Emitted(index, boxes, sightings))
        return tuple(
            smooth_box(
                box,
                paths[box.key],
                statistics.get(box.id) if box.kind is BoxKind.FACE else None,
                settings,
            )
            for box in boxes
        )
