"""Random access to frames by number, exactly as a run from the start counts them."""

from __future__ import annotations

import contextlib
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
from facestream.pipeline.errors import BadInput, SourceLost
from facestream.pipeline.types import Frame
from facestream.pipeline.video.decode import OrientationCache, context_of, frame_of, pixel_aspect_of, scaled_to
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.source import Source, open_source

KEPT = 48  # decoded pictures that are kept, in millions of pixels: 1080p has two
NEAR = 40  # frames ahead up to which decoding on is quicker than looking for a keyframe
# Containers whose times are those of the pictures, and which have an index.
SEEKABLE = ("mov", "matroska", "webm")


class FrameReader:
    """Decoded frames by number. For several threads; one reads at a time.

    Where the container has an index and every frame a time of its own, a picture is looked up: from the keyframe before
    it on, and taken only when its time is the wanted one, to the tick. Everywhere else, and where that fails, the video
    is decoded from its start.

    times: pts by frame, in the video's time base, None where it is not known.
    """

    def __init__(self, video: Path, times: list[int | None]) -> None:
        self.video = video
        self.times = times
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Frame] = OrderedDict()
        self._pixels = 0
        self._seeker: Iterator[Frame] | None = None
        self._container: av.container.InputContainer | None = None
        self._context: av.VideoCodecContext | None = None
        self._orientations = OrientationCache()
        self._size = (0, 0)  # as stored, of every frame: that of the first
        self._source: Source | None = None
        self._runner: Iterator[Frame] | None = None
        self._at = -1  # the frame that came last
        known = [t for t in times if t is not None]
        self.can_seek = len(known) == len(times) and all(a < b for a, b in pairwise(known))
        self._known = known if self.can_seek else []
        if self.can_seek:
            self.can_seek = self._is_indexed()

    def __len__(self) -> int:
        return len(self.times)

    def get(self, index: int) -> Frame:
        """A frame; its picture must not be written into. Raises BadInput where it cannot be had."""
        if not 0 <= index < len(self.times):
            raise BadInput(f"there is no frame {index}", str(self.video))
        with self._lock:
            frame = self._kept.get(index)
            if frame is None:
                frame = self._sought(index) if self.can_seek else None
                frame = frame or self._run_to(index)
            self._keep(frame)
            return frame

    def close(self) -> None:
        with self._lock:
            self._close()
            self._kept.clear()
            self._pixels = 0

    def _keep(self, frame: Frame) -> None:
        if frame.index not in self._kept:
            self._kept[frame.index] = frame
            self._pixels += frame.picture.width * frame.picture.height
        self._kept.move_to_end(frame.index)
        while self._pixels > KEPT * 1_000_000 and len(self._kept) > 2:
            _, old = self._kept.popitem(last=False)
            self._pixels -= old.picture.width * old.picture.height

    def _is_indexed(self) -> bool:
        try:
            with av.open(str(self.video.absolute()), metadata_errors="replace") as container:
                names = container.format.name.split(",")
                return len(container.streams.video) == 1 and any(name in names for name in SEEKABLE)
        except (av.FFmpegError, OSError):
            return False

    def _sought(self, index: int) -> Frame | None:
        """A frame by its time; None where it does not come."""
        with contextlib.suppress(av.FFmpegError, StopIteration):
            if self._seeker is None or not self._at < index <= self._at + NEAR:
                self._at = -1
                self._seeker = self._from(index, *self._opened(anew=not index))
            while True:
                frame = next(self._seeker)
                self._at = frame.index
                if frame.index == index:
                    return frame
                if frame.index > index:
                    break
                self._keep(frame)
        self._close()
        return None

    def _opened(self, anew: bool) -> tuple[av.container.InputContainer, av.VideoStream, av.VideoCodecContext]:
        """The container, its video and the decoder. They stay open: of two hours, the index alone takes a while."""
        if anew or self._container is None or self._context is None:
            self._close()
            self._container = av.open(str(self.video.absolute()), metadata_errors="replace")
            stream = self._container.streams.video[0]
            stream.thread_type = "AUTO"
            self._context = context_of(stream)
            self._size = stream.codec_context.width, stream.codec_context.height
        return self._container, self._container.streams.video[0], self._context

    def _from(
        self,
        index: int,
        container: av.container.InputContainer,
        stream: av.VideoStream,
        context: av.VideoCodecContext,
    ) -> Iterator[Frame]:
        """Frames from the keyframe before `index` on; of the first one, the container must be fresh."""
        wanted = self.times[index]
        assert wanted is not None
        if index:
            container.seek(wanted, stream=stream)
            context.flush_buffers()
        pixel_aspect = pixel_aspect_of(stream)
        first: int | None = None
        for packet in container.demux(stream):
            if first is None and packet.pts is not None:
                first = packet.pts
            for picture in context.decode(packet):
                if picture.pts is None or first is None or picture.pts < first:
                    continue  # what a keyframe's leading pictures are predicted from was not read
                number = bisect_left(self._known, picture.pts)
                if number < len(self._known) and self._known[number] == picture.pts:
                    unit = picture.time_base or stream.time_base
                    assert unit is not None
                    yield self._frame(picture, number, Fraction(unit), pixel_aspect)

    def _frame(self, picture: av.VideoFrame, number: int, unit: Fraction, pixel_aspect: float) -> Frame:
        pts = picture.pts
        orientation = self._orientations.of(picture)
        if (picture.width, picture.height) != self._size:
            picture = scaled_to(picture, self._size)
        return frame_of(picture, number, pts, unit, pixel_aspect, None, orientation)

    def _run_to(self, index: int) -> Frame:
        """A frame by decoding all that come before it."""
        if self._runner is None or index <= self._at:
            self._close()
            self._source = open_source(str(self.video), SourceOptions())
            self._source.open()
            self._runner = (item for item in self._source.items() if isinstance(item, Frame))
        try:
            for frame in self._runner:
                self._at = frame.index
                self._keep(frame)
                if frame.index == index:
                    return frame
        except SourceLost:
            pass
        self._close()
        raise BadInput(f"frame {index} cannot be read any more", str(self.video), "was the file changed?")

    def _close(self) -> None:
        self._at = -1
        self._seeker = self._runner = self._context = None
        if self._container is not None:
            self._container.close()
            self._container = None
        if self._source is not None:
            self._source.close()
            self._source = None
