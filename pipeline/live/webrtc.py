"""The preview page's video over WebRTC. Extra `webrtc`.

Without STUN or TURN servers: a browser that opens the page must reach this machine over UDP too.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import av
from facestream.pipeline.errors import BadConfig
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.live.screen import PictureFeed

try:
    import aiortc
    from aiortc.mediastreams import MediaStreamError, VideoStreamTrack
except ImportError:  # the extra is not installed; check_webrtc() says so
    aiortc = None  # type: ignore[assignment]
    VideoStreamTrack = object  # type: ignore[assignment,misc]

CALLS = 8  # sessions at a time: each is encoded separately
HEAD_S = 20.0  # seconds for a session to connect


def check_webrtc() -> None:
    """Raises BadConfig if the libraries are missing."""
    if aiortc is None:
        raise BadConfig("WebRTC needs more libraries", "run.webrtc", "pip install 'facestream[webrtc]'")


class PictureTrack(VideoStreamTrack):  # type: ignore[misc]
    """A WebRTC video track of a camera's output: always the newest frame."""

    def __init__(self, pictures: PictureFeed, news: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._pictures = pictures
        self._news = news
        self._last, self._start_s = pictures.number, time.monotonic()

    async def recv(self) -> av.VideoFrame:
        pictures = self._pictures
        while pictures.number == self._last or pictures.bgr is None:
            if self.readyState != "live":
                raise MediaStreamError
            await self._news()
        self._last = pictures.number
        bgr = pictures.bgr
        height = bgr.shape[0] // 2 * 2
        width = bgr.shape[1] // 2 * 2
        frame = av.VideoFrame.from_ndarray(bgr[:height, :width].copy(), format="bgr24")
        frame.pts = round((time.monotonic() - self._start_s) / TICK)
        frame.time_base = TICK
        return frame


class WebRtcSessions:
    """The WebRTC connections. Runs on the page's event loop. news: waits for a new frame."""

    def __init__(self, news: Callable[[], Awaitable[None]]) -> None:
        check_webrtc()
        self._news = news
        self._open: dict[Any, PictureFeed] = {}
        self._numbers: dict[str, Any] = {}
        self._ending: set[asyncio.Future[None]] = set()

    @property
    def full(self) -> bool:
        return len(self._open) >= CALLS

    async def answer(self, pictures: PictureFeed, sdp: str) -> tuple[str, str]:
        """Answer an SDP offer and start sending. Raises ValueError for an invalid offer."""
        # Not None: aiortc would then use a public STUN server.
        peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        self._open[peer] = pictures
        pictures.callers += 1
        try:
            await peer.setRemoteDescription(aiortc.RTCSessionDescription(sdp, "offer"))
            if not any(one.kind == "video" for one in peer.getTransceivers()):
                raise ValueError("the offer does not ask for video")
            peer.addTrack(PictureTrack(pictures, self._news))
            await peer.setLocalDescription(await peer.createAnswer())
        except BaseException as error:
            await self._end(peer)
            if isinstance(error, asyncio.CancelledError):
                raise
            raise ValueError(f"the offer cannot be answered ({error})") from None

        @peer.on("connectionstatechange")
        async def changed() -> None:
            if peer.connectionState in ("failed", "closed", "disconnected"):
                await self._end(peer)

        self._watch = asyncio.get_running_loop().call_later(HEAD_S, self._check, peer)
        number = secrets.token_urlsafe(16)
        self._numbers[number] = peer
        return number, str(peer.localDescription.sdp)

    async def end(self, number: str) -> bool:
        """End a session by its id; False where there is none."""
        peer = self._numbers.pop(number, None)
        if peer is None or peer not in self._open:
            return False
        await self._end(peer)
        return True

    def end_of(self, pictures: PictureFeed) -> None:
        """End the sessions that show this camera, which is gone."""
        for peer in [peer for peer, shown in self._open.items() if shown is pictures]:
            self._end_soon(peer)

    def _end_soon(self, peer: Any) -> None:
        task = asyncio.ensure_future(self._end(peer))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _check(self, peer: Any) -> None:
        if peer in self._open and peer.connectionState != "connected":
            self._end_soon(peer)

    async def _end(self, peer: Any) -> None:
        pictures = self._open.pop(peer, None)
        self._numbers = {number: other for number, other in self._numbers.items() if other is not peer}
        if pictures is not None:
            pictures.callers -= 1
            with contextlib.suppress(Exception):
                await peer.close()

    async def close(self) -> None:
        """Close all connections, within two seconds."""
        if self._open:
            await asyncio.wait([asyncio.ensure_future(self._end(peer)) for peer in tuple(self._open)], timeout=2)
