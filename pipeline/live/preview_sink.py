"""What the page shows of each camera, and its viewers, each with one connection for all of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from av.video.reformatter import VideoReformatter
from facestream.engines.boxes import Array
from facestream.pipeline.live.screen import draw_boxes, encode, scaled_bgr
from facestream.pipeline.live.tuning import Tuner
from facestream.pipeline.types import CoveredFrame

if TYPE_CHECKING:
    from aiohttp import web

WIDTH = 960  # pixels at most


class PreviewSink:
    """The newest covered picture of one camera, as JPEG or for WebRTC, for its viewers."""

    upright = True

    def __init__(self, name: str, tuner: Tuner) -> None:
        self.name = name
        self._tuner = tuner
        self.viewers = self.callers = 0
        self.jpeg = b""
        self.bgr: Array | None = None
        self.number = 0
        self.gone = False  # its camera is no longer there
        self.woken: Callable[[], None] = lambda: None
        self._scaler = VideoReformatter()  # of the sink's thread

    def wants(self, size: tuple[int, int]) -> bool:
        return bool(self.viewers or self.callers)

    def write(self, covered: CoveredFrame) -> None:
        viewers = self.viewers
        callers = self.callers
        if not viewers and not callers:
            return
        bgr = scaled_bgr(covered, WIDTH, scaler=self._scaler)
        bgr = draw_boxes(bgr, covered) if self._tuner.boxes else bgr
        self.jpeg = encode(bgr) if viewers else b""
        self.bgr = bgr if callers else None
        self.number += 1
        self.woken()

    def close(self) -> None:
        """Nothing is kept."""

    def abort(self) -> None:
        """Nothing is kept."""


class PictureViewer:
    """A viewer of all cameras over one connection: which it wants, and the frame that it got last of each."""

    def __init__(self, sinks: dict[str, PreviewSink]) -> None:
        self._sinks = sinks
        self._wanted: set[str] | None = None  # None: all
        self._seen: dict[PreviewSink, int] = {}

    async def listen(self, socket: web.WebSocketResponse) -> None:
        """Until the page ends it."""
        async for message in socket:
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                names = json.loads(message.data)
                self._wanted = {str(name) for name in names} if isinstance(names, list) else None

    def follow(self) -> None:
        """Take up cameras that came, and leave those that went, since the last call."""
        wanted = {sink for name, sink in self._sinks.items() if self._wanted is None or name in self._wanted}
        for sink in wanted - set(self._seen):
            self._seen[sink] = sink.number
            sink.viewers += 1
        for sink in set(self._seen) - wanted:
            del self._seen[sink]
            sink.viewers -= 1

    def fresh(self) -> list[tuple[str, bytes]]:
        """The newest picture of each camera that has a new one."""
        found = []
        for sink, number in self._seen.items():
            if sink.number != number:
                self._seen[sink] = sink.number
                if sink.jpeg:  # else it was for others
                    found.append((sink.name, sink.jpeg))
        return found

    def leave(self) -> None:
        for sink in self._seen:
            sink.viewers -= 1
        self._seen.clear()
