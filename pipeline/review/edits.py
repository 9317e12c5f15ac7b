"""What a reviewer can change, as small records: they make up the draft, and can be applied again and undone."""

from __future__ import annotations

from bisect import bisect_right
from math import isfinite
from typing import Annotated, Literal

from facestream.engines.checked import Wrong
from facestream.pipeline.types import XYXY, Polygon
from msgspec import Meta, Struct

Frame = Annotated[int, Meta(ge=0)]
TrackId = int
MAX_TEXT = 2000  # characters of a reason
MAX_POINTS = 200  # corners of a polygon
Points = Annotated[tuple[tuple[float, float], ...], Meta(min_length=2, max_length=MAX_POINTS)]


class Edit(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """at: when it was made, ISO 8601 in UTC. by: who made it."""

    at: str = ""
    by: Annotated[str, Meta(max_length=200)] = ""


class Ranged(Edit, frozen=True):
    """Of these tracks in the frames from start to end, both included."""

    tracks: tuple[TrackId, ...] = ()
    start: Frame = 0
    end: Frame = 0

    def __post_init__(self) -> None:
        if self.end < self.start:
            raise Wrong("end", "must not lie before start")


class Cover(Ranged, frozen=True, tag="cover"):
    """Take back that these faces stay open."""


class LeaveOpen(Ranged, frozen=True, tag="open"):
    """These faces stay as they are wherever their track is beyond doubt."""

    reason: Annotated[str, Meta(max_length=MAX_TEXT)] = ""


class Delete(Ranged, frozen=True, tag="delete"):
    """There is no face: the boxes go."""


class Split(Edit, frozen=True, tag="split"):
    """From `frame` on the track is another one, `new`."""

    track: TrackId = 0
    frame: Frame = 0
    new: TrackId = 0


class Merge(Edit, frozen=True, tag="merge"):
    """These tracks are one: the first. Where two of them have a box in the same frame, both boxes stay as they are."""

    tracks: tuple[TrackId, ...] = ()


class Boxes(Edit, frozen=True, tag="boxes"):
    """Boxes that were drawn or moved, and what following made of them.

    frame: the one in which the user set the box. boxes: frame and box of each, xyxy in displayed pixels; they replace
    the track's own, or begin a new track. drawn: the track is new.
    """

    track: TrackId = 0
    frame: Frame = 0
    boxes: tuple[tuple[Frame, XYXY], ...] = ()
    drawn: bool = False

    def __post_init__(self) -> None:
        for number, (_, box) in enumerate(self.boxes):
            if not all(isfinite(v) for v in box) or box[2] <= box[0] or box[3] <= box[1]:
                raise Wrong(f"boxes.{number}", "x1, y1 must lie left of and above x2, y2")


class Mask(Edit, frozen=True, tag="mask"):
    """A region that is covered whole in the frames from start to end: points in displayed pixels, three or more; two
    are opposite corners of a rectangle. label: its number. frame: the key frame of these points, None: start.
    keys: further key frames with as many points each. Between two key frames the corners move evenly; before the first
    and after the last they stand still.
    """

    label: int = 0
    start: Frame = 0
    end: Frame = 0
    points: Points = ((0, 0), (1, 1))
    frame: Frame | None = None
    keys: tuple[tuple[Frame, Points], ...] = ()

    def __post_init__(self) -> None:
        if self.end < self.start:
            raise Wrong("end", "must not lie before start")
        for points in (self.points, *(points for _, points in self.keys)):
            if not all(isfinite(v) for point in points for v in point):
                raise Wrong("points", "must be finite numbers")
            if len(points) != len(self.points):
                raise Wrong("keys", f"must have {len(self.points)} points each, as the mask")

    def key_frames(self) -> dict[int, Polygon]:
        """The polygon's corners at each key frame, in order."""
        first = self.start if self.frame is None else self.frame
        return {frame: corners_of(points) for frame, points in sorted({first: self.points, **dict(self.keys)}.items())}

    def corners_at(self, frame: int) -> Polygon:
        """The polygon's corners in a frame."""
        keys = self.key_frames()
        frames = list(keys)
        after = bisect_right(frames, frame)
        if after == 0 or after == len(frames):
            return keys[frames[min(after, len(frames) - 1)]]
        before, behind = frames[after - 1], frames[after]
        share = (frame - before) / (behind - before)
        return tuple(
            (x0 + share * (x1 - x0), y0 + share * (y1 - y0))
            for (x0, y0), (x1, y1) in zip(keys[before], keys[behind], strict=True)
        )


class MoveMask(Edit, frozen=True, tag="move_mask"):
    """From this key frame on the mask lies here, and moves evenly to the next one. points: as many corners as it has;
    for a rectangle two or four."""

    label: int = 0
    frame: Frame = 0
    points: Points = ((0, 0), (1, 1))

    def __post_init__(self) -> None:
        if not all(isfinite(v) for point in self.points for v in point):
            raise Wrong("points", "must be finite numbers")


def corners_of(points: Points) -> Polygon:
    """A polygon's corners; two points are a rectangle's."""
    if len(points) > 2:
        return points
    (x0, y0), (x1, y1) = points
    left, right = sorted((x0, x1))
    top, bottom = sorted((y0, y1))
    return (left, top), (right, top), (right, bottom), (left, bottom)


class Unmask(Edit, frozen=True, tag="unmask"):
    """Take a mask away."""

    label: int = 0


class Accept(Edit, frozen=True, tag="accept"):
    """A moment of the list was looked at and is fine. key: the moment's."""

    key: Annotated[str, Meta(max_length=200)] = ""


class Audio(Edit, frozen=True, tag="audio"):
    """What happens to the sound when the video is written."""

    audio: Literal["keep", "transcode", "drop", "distort"] = "keep"


AnyEdit = Cover | LeaveOpen | Delete | Split | Merge | Boxes | Mask | MoveMask | Unmask | Accept | Audio
