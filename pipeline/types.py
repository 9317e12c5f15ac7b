"""What flows from stage to stage. Each stage takes the former's type and returns its own:

Source -> Frame -> (detect, track) -> TrackedFrame -> (cover) -> CoveredFrame -> Sink
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import av.stream

if TYPE_CHECKING:
    from facestream.pipeline.video.container_metadata import Attachment, Chapter, HdrMetadata
    from facestream.pipeline.video.still import ImageSource


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What is known of a source once it is open.

    width, height: the displayed picture, after rotation, in pixels.
    rotation: degrees counter-clockwise (0, 90, 180, 270) by which players turn the stored picture.
    rate: average frames/s, None when unknown. frames: expected count, None when unknown (live).
    video, side_streams: the source's own streams, templates for a sink that keeps codec parameters;
    `side_streams` are the audio and subtitle streams whose packets will come along as SidePacket. All are copies that
    stay valid after the source is closed.
    matrix: the stored display matrix, nine numbers, which can mirror as well as turn.
    left_out: streams of the source that do not come along, in words. container: FFmpeg's names for its format.
    still: the source, where it is a still image. interlaced: its pictures are made of two half-pictures each.
    chapters, attachments: of the file. hdr: of HDR pictures, None where nothing is said.
    pixel_aspect: width over height of a stored pixel, None where nothing is said.
    """

    source: str
    width: int
    height: int
    rotation: int
    time_base: Fraction
    rate: Fraction | None
    frames: int | None
    live: bool
    video: av.VideoStream | None = None
    side_streams: tuple[av.stream.Stream, ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    matrix: tuple[int, ...] | None = None
    left_out: tuple[str, ...] = ()
    container: str = ""
    still: ImageSource | None = None
    interlaced: bool = False
    chapters: tuple[Chapter, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    hdr: HdrMetadata | None = None
    pixel_aspect: Fraction | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture, as stored (before rotation), untouched.

    index counts from 0. pts is in units of time_base and may be None on a live stream's first frame.
    Displayed, the picture is mirrored first (left to right) where `mirrored`, then turned by `rotation` degrees
    counter-clockwise. pixel_aspect: width over height of a stored pixel.
    wall_s: when it was taken, Unix seconds by the camera's own clock; None where the camera does not say.
    """

    index: int
    pts: int | None
    time_base: Fraction
    picture: av.VideoFrame
    rotation: int = 0
    wall_s: float | None = None
    mirrored: bool = False
    pixel_aspect: float = 1.0

    @property
    def time_s(self) -> float | None:
        return None if self.pts is None else float(self.pts * self.time_base)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as displayed, in pixels."""
        w, h = self.picture.width, self.picture.height
        return (h, w) if self.rotation in (90, 270) else (w, h)

    @property
    def stretch(self) -> tuple[float, float]:
        """Factors, 1 or more, by which the displayed picture's width and height grow where its pixels are made square:
        the detector sees faces as a player shows them."""
        aspect = 1 / self.pixel_aspect if self.rotation in (90, 270) else self.pixel_aspect
        return max(1.0, aspect), max(1.0, 1 / aspect)

    @property
    def square_size(self) -> tuple[int, int]:
        """Width and height as displayed, in square pixels."""
        (width, height), (across, down) = self.size, self.stretch
        return round(width * across), round(height * down)


@dataclass(frozen=True, slots=True)
class SidePacket:
    """An audio or subtitle packet that travels beside the frames; `packet.stream` is one of StreamInfo.side_streams."""

    packet: av.Packet[av.stream.Stream]


class BoxState(StrEnum):
    """Why a face is covered in a frame."""

    OBSERVED = "observed"  # the detector saw it in this frame
    COASTED = "coasted"  # it was seen before and is predicted here
    BACKFILLED = "backfilled"  # it was seen later and is inferred here


class AssociationStage(StrEnum):
    """What the tracker makes of a detection."""

    HIGH = "high"  # a high score, of a face that is known
    LOW = "low"  # a low score that goes on with a face that is known
    TENTATIVE = "tentative"  # of a face that was never seen beyond doubt so far


XYXY = tuple[float, float, float, float]
Polygon = tuple[tuple[float, float], ...]


def xyxy(values: Iterable[float]) -> XYXY:
    """Four numbers of any kind as a box's corners."""
    left, top, right, bottom = (float(v) for v in values)
    return left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Box:
    """A face in a frame: xyxy in pixels of the displayed picture, id stable over the track's life.

    sight: the tracker's opinion of it, where it was observed.
    """

    id: int
    xyxy: XYXY
    score: float
    state: BoxState
    sight: AssociationStage | None = None


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """A frame with its faces: the only thing that can be covered.

    masks: regions of this frame that are covered too, the corners of each in displayed pixels.
    """

    frame: Frame
    boxes: tuple[Box, ...]
    masks: tuple[Polygon, ...] = ()


@dataclass(frozen=True, slots=True)
class CoveredFrame:
    """A picture that may leave. Only `cover.py` (and `draw.py`, on explicit `--hide none`) makes one.

    picture: the finished picture (stored orientation), its pts and time_base set.
    tracked: where it came from; sinks take boxes and times from here and never its raw picture.
    """

    picture: av.VideoFrame
    tracked: TrackedFrame

    @property
    def index(self) -> int:
        return self.tracked.frame.index
