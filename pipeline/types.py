"""Data types of the pipeline. Each step takes the previous one's type and returns its own:

Source -> Frame -> (detect, track) -> TrackedFrame -> (cover) -> CoveredFrame -> Sink
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av
    import av.stream
    from facestream.engines.boxes import Array
    from facestream.pipeline.video.container_metadata import Attachment, Chapter, HdrMetadata
    from facestream.pipeline.video.marks import Marks
    from facestream.pipeline.video.still import ImageSource


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Properties of an opened source.

    width, height: the displayed picture, after rotation, in pixels.
    rotation: degrees counter-clockwise (0, 90, 180, 270) by which players turn the stored picture.
    rate: average frames/s, None if unknown. frames: expected count, None if unknown (live).
    video, side_streams: the source's own streams, templates for a sink that keeps codec parameters;
    `side_streams` are the audio and subtitle streams whose packets will come along as SidePacket. All are copies that
    stay valid after the source is closed.
    matrix: the stored display matrix, nine numbers (rotation and mirroring).
    left_out: descriptions of streams that are not copied. container: FFmpeg's names for its format.
    still: the source, if it is a still image. interlaced: its frames consist of two fields.
    chapters, attachments: of the file. hdr: HDR metadata, None if there is none.
    pixel_aspect: width over height of a stored pixel, None if undeclared. alpha: it may be transparent.
    marks: of 360-degree and stereoscopic pictures. chroma_location: where the chroma samples of 4:2:0 pictures lie, by
    FFmpeg's name; None if unknown. captions: closed captions come with the pictures.
    loops: of a GIF: how often it is repeated, 0 for ever, -1 never; None for other sources.
    audio_decoders: for the audio streams among side_streams, by their index. samples: the first packets of side
    streams, by their index, where the source could be read twice.
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
    marks: Marks | None = None
    chroma_location: str | None = None
    captions: bool = False
    alpha: bool = False
    loops: int | None = None
    audio_decoders: dict[int, av.AudioCodecContext] = field(default_factory=dict)
    samples: dict[int, tuple[av.Packet[av.stream.Stream], ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture, as stored (before rotation), untouched.

    index counts from 0. pts is in units of time_base and may be None on a live stream's first frame.
    For display, the picture is first mirrored left to right if `mirrored`, then rotated by `rotation` degrees
    counter-clockwise. pixel_aspect: width over height of a stored pixel. alpha: opacity, uint8 [h, w], as stored; None
    if opaque. Fully transparent pixels are white in `picture`.
    wall_s: capture time, Unix seconds by the camera's own clock; None if the camera does not send it.
    arrived_s: when a live source gave it, in seconds of time.monotonic(); None for files.
    """

    index: int
    pts: int | None
    time_base: Fraction
    picture: av.VideoFrame
    rotation: int = 0
    wall_s: float | None = None
    mirrored: bool = False
    pixel_aspect: float = 1.0
    alpha: Array | None = None
    arrived_s: float | None = None

    @property
    def time_s(self) -> float | None:
        return None if self.pts is None else float(self.pts * self.time_base)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as displayed, in pixels."""
        w = self.picture.width
        h = self.picture.height
        return (h, w) if self.rotation in (90, 270) else (w, h)

    @property
    def stretch(self) -> tuple[float, float]:
        """Factors, at least 1, by which the displayed width and height grow to make pixels square, so that the detector
        sees faces as a player shows them."""
        aspect = 1 / self.pixel_aspect if self.rotation in (90, 270) else self.pixel_aspect
        return max(1.0, aspect), max(1.0, 1 / aspect)

    @property
    def square_size(self) -> tuple[int, int]:
        """Width and height as displayed, in square pixels."""
        (width, height), (across, down) = self.size, self.stretch
        return round(width * across), round(height * down)


@dataclass(frozen=True, slots=True)
class SidePacket:
    """An audio or subtitle packet that passes beside the frames; `packet.stream` is one of StreamInfo.side_streams."""

    packet: av.Packet[av.stream.Stream]


class BoxState(StrEnum):
    """Why a face is covered in a frame."""

    OBSERVED = "observed"  # detected in this frame
    COASTED = "coasted"  # predicted from earlier frames
    BACKFILLED = "backfilled"  # inferred from later frames


class BoxKind(StrEnum):
    """The kind of a box."""

    FACE = "face"  # a track's face
    ALTERNATE = "alternate"  # another place where the face of that track may be, covered as well
    WHOLE_FRAME = "whole_frame"  # a cover of the whole frame: no track, its id is 0


class AssociationStage(StrEnum):
    """How the tracker associated a detection."""

    HIGH = "high"  # a high score, with a known track
    LOW = "low"  # a low score, with a known track
    TENTATIVE = "tentative"  # with a track that never had a high score so far


XYXY = tuple[float, float, float, float]
Polygon = tuple[tuple[float, float], ...]


def xyxy(values: Iterable[float]) -> XYXY:
    """Convert four numbers of any type to a box's corners."""
    left, top, right, bottom = (float(v) for v in values)
    return left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Box:
    """A box in a frame: xyxy in pixels of the displayed frame; id: of its track, from 1.

    association: how the tracker associated it, if observed. kind: whether it is a face.
    """

    id: int
    xyxy: XYXY
    score: float
    state: BoxState
    association: AssociationStage | None = None
    kind: BoxKind = BoxKind.FACE

    @property
    def key(self) -> tuple[int, BoxKind]:
        """A key that is unique in a frame."""
        return self.id, self.kind


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """A frame with its faces: the only input of covering.

    masks: regions of this frame that are covered too, the corners of each in displayed pixels.
    """

    frame: Frame
    boxes: tuple[Box, ...]
    masks: tuple[Polygon, ...] = ()


@dataclass(frozen=True, slots=True)
class CoveredFrame:
    """A frame that may leave. Only `anonymise.py` (and `overlay.py`, on explicit `--hide none`) creates one.

    picture: the finished picture (stored orientation), with pts and time_base set.
    tracked: its origin; sinks take boxes and times from here, and never the uncovered picture.
    """

    picture: av.VideoFrame
    tracked: TrackedFrame

    @property
    def index(self) -> int:
        return self.tracked.frame.index
