"""From a video stream's packets to numbered frames with their times, and a count of what could not be decoded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TypeAlias

import av
import av.container
import av.stream
from av.codec.context import ThreadType
from facestream.pipeline.cores import half_of_cores
from facestream.pipeline.types import Frame
from facestream.pipeline.video.alpha import split
from facestream.pipeline.video.picture import display_matrix, orientation_of
from facestream.pipeline.video.wall_clock import CameraClock

_BACKWARD = Fraction(1, 10)  # seconds; less than that is jitter
_DAY_S = 86400  # seconds; no recording has a gap that long
_SANE_ASPECT = (0.2, 5.0)  # of pixels; anything beyond is a mistake in the file
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_WAIT = 64  # pictures without a time that are kept at a file's beginning until one has it
Packet: TypeAlias = "av.Packet[av.stream.Stream]"  # PyAV's class takes no [] when it runs


def pixel_aspect_of(video: av.VideoStream) -> float:
    """Width over height of a stored pixel, as a player takes it."""
    aspect = float(video.sample_aspect_ratio or 1)
    return aspect if _SANE_ASPECT[0] <= aspect <= _SANE_ASPECT[1] else 1.0


def frame_of(
    picture: av.VideoFrame,
    index: int,
    pts: int | None,
    time_base: Fraction,
    pixel_aspect: float,
    wall_s: float | None = None,
    orientation: tuple[int, bool] | None = None,
) -> Frame:
    """A decoded picture as a frame: in a planar format, with the way in which a player shows it.

    orientation: see `orientation_of`; None: read from the picture.
    """
    rotation, mirrored = orientation or orientation_of(display_matrix(picture))
    planar, alpha = split(picture)
    return Frame(index, pts, time_base, planar, rotation, wall_s, mirrored, pixel_aspect, alpha)


def context_of(video: av.VideoStream) -> av.VideoCodecContext:
    """The stream's decoder; FFmpeg's own for VP8 and VP9 leaves out the transparency, and would show what it hides."""
    name = _ALPHA_DECODERS.get(video.codec_context.name)
    tags = {key.lower(): value for key, value in video.metadata.items()}
    if name is None or tags.get("alpha_mode") != "1" or name not in av.codecs_available:
        return video.codec_context
    context = av.CodecContext.create(name, "r")
    assert isinstance(context, av.VideoCodecContext)
    context.extradata = video.codec_context.extradata
    return context


class OrientationCache:
    """The orientation of one stream's pictures, read once for each rotation: PyAV's side data and the picture that they
    were read from refer to each other, so that each such picture stays in memory until the next garbage collection."""

    def __init__(self) -> None:
        self._known: dict[float, tuple[int, bool]] = {}

    def of(self, picture: av.VideoFrame) -> tuple[int, bool]:
        """See `orientation_of`."""
        rotation = picture.rotation
        if rotation not in self._known:
            self._known[rotation] = orientation_of(display_matrix(picture))
        return self._known[rotation]


def scaled_to(picture: av.VideoFrame, size: tuple[int, int]) -> av.VideoFrame:
    """The picture in this stored width and height, with its duration."""
    scaled = picture.reformat(width=size[0], height=size[1])
    scaled.duration = picture.duration
    return scaled


class Decoder:
    """Decodes one video stream, going on after errors.

    undecodable: packets that gave no picture. damaged: pictures that were decoded with errors in them.
    """

    def __init__(
        self,
        video: av.VideoStream,
        threads: int,
        low_delay: bool,
        reopen: Callable[[], av.container.InputContainer] | None,
    ) -> None:
        """low_delay: keep no frame back for the sake of threads. reopen: opens the source again, where that can be."""
        self.undecodable = self.damaged = self.frames = 0
        self._video = video
        self._clock = CameraClock()
        self._time_base = Fraction(video.time_base or Fraction(1, 1000))
        self._pixel_aspect = pixel_aspect_of(video)
        self._avi = video.container.format.name == "avi"
        # In AVI the tail cannot be told by its times, see _decode_tail().
        video.thread_type = ThreadType.SLICE if low_delay or self._avi else ThreadType.AUTO
        video.thread_count = threads or half_of_cores()
        self._context = context_of(video)
        self.reopen = None if self._avi or self._context is not video.codec_context else reopen
        self._orientations = OrientationCache()
        self.resized: list[str] = []  # sizes other than the first that pictures came in
        self._size: tuple[int, int] | None = None if not low_delay else (0, 0)
        self._waiting: list[av.VideoFrame] | None = None if low_delay else []
        self._fed = 0
        self._sound = False  # a picture without damage has come
        self._last_pts: int | None = None
        self._step = 1  # between the last two pictures
        self._first_dts: int | None = None
        self._delay: int | None = None  # by which the decoder's clock runs ahead of the pictures

    def decode(self, packet: Packet) -> Iterator[Frame]:
        """The frames that a packet completes."""
        self._fed += 1
        self._clock.note(packet)
        if self._first_dts is None:
            self._first_dts = packet.dts
        try:
            pictures = self._context.decode(packet)
        except av.FFmpegError:
            self.undecodable += 1
            return
        for picture in pictures:
            yield from self._lead_in(picture)

    def _lead_in(self, picture: av.VideoFrame) -> Iterator[Frame]:
        """A picture's frame. Files may begin with pictures without a time (Matroska before zero): they are counted back
        from the first that has one."""
        if self._waiting is None or self._avi:
            yield self._frame(picture)
            return
        self._waiting.append(picture)
        timed = picture.pts is not None or picture.dts is not None
        if timed or len(self._waiting) > _WAIT:
            yield from self._let_in(picture)

    def _let_in(self, last: av.VideoFrame) -> Iterator[Frame]:
        waiting = self._waiting or []
        self._waiting = None
        at = last.pts if last.pts is not None else last.dts
        step = max(1, last.duration)
        for back, picture in zip(range(len(waiting) - 1, -1, -1), waiting, strict=True):
            if picture.pts is None and picture.dts is None:
                picture.pts = (len(waiting) - 1 - back) * step if at is None else at - back * step
            yield self._frame(picture)

    def flush(self) -> Iterator[Frame]:
        """The remaining frames, at the end."""
        pictures: list[av.VideoFrame] = []
        failed = False
        try:
            pictures = self._context.decode(None)
        except av.FFmpegError:
            failed = True
        # It still holds what it would predict from: five pictures or so, which cover() would have to copy.
        self._context.flush_buffers()
        for picture in pictures:
            yield from self._lead_in(picture)
        if self._waiting:
            yield from self._let_in(self._waiting[-1])
        if self.reopen is not None and self._fed > self.frames + self.undecodable:
            yield from self._decode_tail(self.reopen)
        elif failed:
            self.undecodable += 1

    def _decode_tail(self, reopen: Callable[[], av.container.InputContainer]) -> Iterator[Frame]:
        """What a threaded decoder still held when a broken packet near the end stopped its flush.

        PyAV neither asks it for more then nor always says so. The last group of pictures is decoded again, without
        threads, and what comes behind the last frame is taken. Mostly nothing does: some codecs have packets that hold
        no frame of their own.
        """
        last = self._last_pts
        if last is None:
            return
        with contextlib.suppress(av.FFmpegError), reopen() as again:
            stream = again.streams[self._video.index]
            assert isinstance(stream, av.VideoStream)
            stream.thread_type = ThreadType.SLICE
            again.seek(last, stream=stream)
            for packet in again.demux(stream):
                try:
                    pictures = stream.codec_context.decode(packet)
                except av.FFmpegError:
                    self.undecodable += packet.pts is not None and packet.pts > last
                    continue
                for picture in pictures:
                    if picture.pts is not None and picture.pts > last:
                        yield self._frame(picture)

    def _frame(self, picture: av.VideoFrame) -> Frame:
        """Number a picture, settle its time and bring it into a planar format."""
        pts = self._time(picture)
        if pts is not None:
            self._step = max(1, pts - self._last_pts) if self._last_pts is not None else max(1, picture.duration)
            self._last_pts = pts
        picture = self._as_first(picture)
        # pictures from a flush come without
        picture.pts = pts
        picture.time_base = self._time_base
        if picture.is_corrupt:
            self.damaged += self._sound  # a recording may start amid a group of pictures: that is no damage
        else:
            self._sound = True
        wall_s = self._clock.at(pts)
        orientation = self._orientations.of(picture)
        frame = frame_of(picture, self.frames, pts, self._time_base, self._pixel_aspect, wall_s, orientation)
        self.frames += 1
        return frame

    def _as_first(self, picture: av.VideoFrame) -> av.VideoFrame:
        """A file's picture in the size of its first: a video has one size, and so have its boxes. Live sources change
        as they like: what takes their frames scales them."""
        size = picture.width, picture.height
        if self._size is None:
            self._size = size
        if size == self._size or self._size == (0, 0):
            return picture
        change = f"{size[0]}x{size[1]}"
        if change not in self.resized:
            self.resized.append(change)
        return scaled_to(picture, self._size)

    def _time(self, picture: av.VideoFrame) -> int | None:
        """A picture's time in the stream's units.

        AVI stores decoding times only. They come out evenly with the pictures, but late by as many frames as the
        decoder holds back to bring them into order, and not at all with the last ones.
        """
        if not self._avi:
            return picture.pts if picture.pts is not None else picture.dts
        if self._delay is None and picture.dts is not None:
            self._delay = picture.dts - (self._first_dts or 0)
        if picture.dts is not None and self._delay is not None:
            return picture.dts - self._delay
        return None if self._last_pts is None else self._last_pts + self._step


class TimestampUnwrapper:
    """Lets time run on where a recording is put together from several, each of which begins anew.

    A stream that jumps back, or ahead by more than a day (what FFmpeg makes of a reset that it takes for an overflow),
    begins a new part, which follows the last one. Subtitles and data come seldom and out of order: they go along with
    the newest part.
    """

    def __init__(self, possible: bool = True) -> None:
        """possible: False leaves all times as they are."""
        self.found = False
        self._possible = possible
        self._last: dict[int, Fraction] = {}  # seconds: the newest time of each stream,
        self._ends: dict[int, tuple[Fraction, Fraction]] = {}  # and how long its newest packet lasts from then on
        self._offsets = [Fraction(0)]  # of each part
        self._part: dict[int, int] = {}  # in which each stream is: they do not cross a seam together

    def unwrap(self, packet: Packet) -> None:
        """Move a packet's times to behind the last seam."""
        if not self._possible or packet.dts is None or not packet.time_base:
            return
        unit = packet.time_base
        index = packet.stream_index
        newest = len(self._offsets) - 1
        if packet.stream.type not in ("video", "audio"):
            self._shift(packet, newest)
            return
        part = self._part.setdefault(index, newest)
        dts = packet.dts * unit
        if part:
            dts += self._offsets[part]
        last = self._last.get(index, dts)
        if dts < last - _BACKWARD or dts > last + _DAY_S:
            part = self._part[index] = part + 1
            if part == len(self._offsets):
                ends = (dts + duration for dts, duration in self._ends.values())
                self._offsets.append(max(ends) - packet.dts * unit)
            dts = packet.dts * unit + self._offsets[part]
            self.found = True
        self._last[index] = dts
        self._ends[index] = dts, (packet.duration or 0) * unit
        self._shift(packet, part)

    def _shift(self, packet: Packet, part: int) -> None:
        if not part:
            return
        shift = round(self._offsets[part] / packet.time_base)
        if shift:
            assert packet.dts is not None
            packet.dts += shift
            packet.pts = None if packet.pts is None else packet.pts + shift
