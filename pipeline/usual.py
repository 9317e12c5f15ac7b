"""How large a face of a track usually is, and how surely it is seen, from its sightings around a frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.types import Box, BoxState

SHARE = 0.7  # of a track's sizes are not larger than the usual one, and of its scores not lower
Sizes = dict[int, tuple[float, float, float]]  # of each track: width and height in pixels, score


@dataclass(frozen=True, slots=True)
class Usual:
    """A track's usual width and height in pixels, and score."""

    width: float
    height: float
    score: float


def sizes_of(boxes: Iterable[Box]) -> Sizes:
    """The width, height and score of each face that was observed."""
    seen = ((box.id, box.xyxy, box.score) for box in boxes if box.state is BoxState.OBSERVED)
    return {track: (right - left, bottom - top, score) for track, (left, top, right, bottom), score in seen}


def usual_of(seen: list[tuple[float, float, float]]) -> Usual:
    """Of a track's sightings, one at least, as in Sizes."""
    place = int(SHARE * (len(seen) - 1))
    widths, heights, scores = (sorted(values) for values in zip(*seen, strict=True))
    return Usual(widths[place], heights[place], scores[-1 - place])
