"""One covered frame for several sinks, each on a thread of its own.

FFmpeg's frames are not made to be shared between threads: PyAV keeps a scaler on the frame, clears its colour tags
while it converts, and encoders write times and picture types into it. So what several threads share is the pixels
alone, which nobody writes any more; each sink gets a frame of its own around them. What most sinks want, upright 4:2:0,
is converted once before the frames are given out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
from av.filter import Graph
from av.video.reformatter import VideoReformatter
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.live.encode import to_stream_format
from facestream.pipeline.types import CoveredFrame


class FrameSplitter:
    """Creates frames that share the same pixels, by FFmpeg's `split` filter, without copying.

    A splitter belongs to one thread; the frames that it gives may go to one thread each.
    """

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._graph: Any = None
        self._source: Any = None
        self._ends: list[Any] = []

    def split(self, picture: av.VideoFrame, count: int) -> list[av.VideoFrame]:
        """`count` frames with the pixels, the times and the tags of picture."""
        if count == 0:
            return []
        key = (picture.width, picture.height, picture.format.name, picture.colorspace, picture.color_range, count)
        if key != self._key:
            self._build(picture, count)
            self._key = key
        pts = picture.pts
        unit = picture.time_base or TICK
        self._source.push(picture)
        frames: list[av.VideoFrame] = [end.pull() for end in self._ends]
        for frame in frames:
            frame.pts = pts
            frame.time_base = unit
        return frames

    def _build(self, picture: av.VideoFrame, count: int) -> None:
        graph = Graph()
        self._source = graph.add_buffer(
            width=picture.width,
            height=picture.height,
            format=picture.format,
            time_base=Fraction(picture.time_base or TICK),
        )
        split = graph.add("split", f"outputs={count}")
        self._source.link_to(split)
        self._ends = []
        for index in range(count):
            end = graph.add("buffersink")
            split.link_to(end, index, 0)
            self._ends.append(end)
        graph.configure()
        self._graph = graph


class FanOut:
    """Gives a covered frame to sinks as frames of their own. It belongs to the pipeline's thread."""

    def __init__(self) -> None:
        self._scaler = VideoReformatter()
        self._as_stored = FrameSplitter()
        self._upright = FrameSplitter()

    def share(self, covered: CoveredFrame, upright: Sequence[bool]) -> list[CoveredFrame]:
        """A covered frame for each sink.

        upright: for each sink, whether it takes the picture as streams and screens do, in 4:2:0, upright and with even
        sides (its frame's rotation is then 0), instead of as it was stored.
        """
        frame = covered.tracked.frame
        stored = self._as_stored.split(covered.picture, upright.count(False))
        playable: list[av.VideoFrame] = []
        if any(upright):
            playable = self._upright.split(to_stream_format(covered, self._scaler), upright.count(True))
        shared = []
        for is_upright in upright:
            picture = playable.pop() if is_upright else stored.pop()
            rotation = 0 if is_upright else frame.rotation
            mirrored = frame.mirrored and not is_upright
            own = replace(frame, picture=picture, rotation=rotation, mirrored=mirrored)
            shared.append(replace(covered, picture=picture, tracked=replace(covered.tracked, frame=own)))
        return shared
