"""Fixed places in the picture: always covered (masks), or where faces stay as they are (allow)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite

from facestream.pipeline.types import XYXY, Box


def region(value: XYXY) -> XYXY:
    """A region of a configuration: x1, y1, x2, y2. Raises ValueError for one without an area, or left of or above 0."""
    finite = all(isfinite(v) for v in value)
    if not finite or min(value) < 0 or value[2] <= value[0] or value[3] <= value[1]:
        raise ValueError("must be x1, y1, x2, y2 from 0, with x1 < x2 and y1 < y2")
    return value


def in_pixels(region: XYXY, size: tuple[int, int]) -> XYXY:
    """A region on a displayed picture of this width and height: numbers of at most 1 are shares of it."""
    if max(region) > 1:
        return region
    width, height = size
    return region[0] * width, region[1] * height, region[2] * width, region[3] * height


def to_cover(boxes: Iterable[Box], allow: Sequence[XYXY], size: tuple[int, int]) -> list[Box]:
    """The boxes less those that lie in an allowed region with all of them: what reaches out of it is covered."""
    places = [in_pixels(place, size) for place in allow]
    return [box for box in boxes if not any(_inside(box.xyxy, place) for place in places)]


def _inside(box: XYXY, place: XYXY) -> bool:
    return box[0] >= place[0] and box[1] >= place[1] and box[2] <= place[2] and box[3] <= place[3]
