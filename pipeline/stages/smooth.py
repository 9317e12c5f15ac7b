"""How large a face of a track usually is, and how surely it is seen, from its sightings around a frame; its cover."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from facestream.pipeline.types import Box, BoxState

SHARE = 0.7  # of a track's sizes are not larger than the usual one, and of its scores not lower
# A box's score under which its place is doubtful, the one at which it is grown by all of DOUBT (by less where its track
# was never sure: that may be no face at all).
CLEAR, DIM, DOUBT, WEAK_DOUBT = 0.65, 0.45, 0.45, 0.25
Sizes = dict[int, tuple[float, float, float]]  # of each track: width and height in pixels, score


@dataclass(frozen=True, slots=True)
class TrackStatistics:
    """A track's usual width and height in pixels, and score."""

    width: float
    height: float
    score: float


def sightings_of(boxes: Iterable[Box]) -> Sizes:
    """The width, height and score of each face that was observed."""
    seen = ((box.id, box.xyxy, box.score) for box in boxes if box.state is BoxState.OBSERVED)
    return {track: (right - left, bottom - top, score) for track, (left, top, right, bottom), score in seen}


def statistics_of(seen: list[tuple[float, float, float]]) -> TrackStatistics:
    """Of a track's sightings, one at least, as in Sizes."""
    place = int(SHARE * (len(seen) - 1))
    widths, heights, scores = (sorted(values) for values in zip(*seen, strict=True))
    return TrackStatistics(widths[place], heights[place], scores[-1 - place])


def smooth_box(box: Box, path: list[float], usual: TrackStatistics | None, sure: bool) -> Box:
    """A box, enlarged as its score or its track's usual one is doubtful, and to its track's usual width and height,
    grown over the weighted mean of its track's boxes around it. path: sums of weights and of weighted corners. sure:
    its track once was."""
    left, top, right, bottom = box.xyxy
    score = box.score if usual is None else min(box.score, usual.score)
    grown = 1 + (DOUBT if sure else WEAK_DOUBT) * min(max((CLEAR - score) / (CLEAR - DIM), 0.0), 1.0)
    width, height = (right - left) * grown, (bottom - top) * grown
    if usual is not None:
        width, height = max(width, usual.width), max(height, usual.height)
    x, y = (left + right) / 2, (top + bottom) / 2
    mean = [total / path[0] for total in path[1:]]
    left, top = min(x - width / 2, mean[0]), min(y - height / 2, mean[1])
    right, bottom = max(x + width / 2, mean[2]), max(y + height / 2, mean[3])
    return Box(box.id, (left, top, right, bottom), box.score, box.state, box.sight)
