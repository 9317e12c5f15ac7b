"""A webcam session's WebSocket: receives frames of the browser's camera, sends covered ones. Extra `web`.

A binary message is eight bytes that come back unchanged, then a JPEG. A text message from the page is JSON with
settings to change; to the page, JSON with message, settings or figures. `done` counts the pictures that are done with,
however they ended, so that the page never has more than a few under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from facestream.pipeline.errors import UserError
from facestream.pipeline.live.webcam_session import (
    MAX_JPEG_BYTES,
    JpegFrame,
    TooManySessions,
    WebcamSession,
    WebcamSessions,
)

try:
    from aiohttp import WSMsgType, web
except ImportError:  # the extra is not installed; preview.check_web() says so
    web = None  # type: ignore[assignment]

CORRELATION_ID_BYTES = 8  # bytes
IDLE_S = 30.0  # seconds without a frame after which a session ends
STUCK_S = 10.0  # seconds for the browser to receive one frame
TELL_S = 0.5  # seconds between two statistics messages
# RFC 6455 section 7.4.1 and its registry
TRY_LATER = 1013
POLICY = 1008


class Mailbox:
    """The newest frame and message for a session, waiting to be sent. Filled from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._jpeg_frame: JpegFrame | None = None
        self._message: dict[str, Any] = {}
        self.over = False
        self.late = 0  # frames replaced by newer ones

    def send(self, jpeg_frame: JpegFrame | None) -> None:
        self._soon(lambda: self._put(jpeg_frame))

    def notify(self, **message: Any) -> None:
        self._soon(lambda: self._message.update(message))

    def end(self) -> None:
        self._soon(lambda: setattr(self, "over", True))

    def _put(self, jpeg_frame: JpegFrame | None) -> None:
        if jpeg_frame is not None:
            self.late += self._jpeg_frame is not None
            self._jpeg_frame = jpeg_frame

    def _soon(self, task: Callable[[], object]) -> None:
        def act() -> None:
            task()
            self._news.set()

        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(act)

    async def take(self, timeout_s: float) -> tuple[JpegFrame | None, dict[str, Any]]:
        """Wait for a frame or message, for a limited time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), timeout_s)
        self._news.clear()
        jpeg_frame = self._jpeg_frame
        message = self._message
        self._jpeg_frame = None
        self._message = {}
        return jpeg_frame, message


async def serve(request: web.Request, sessions: WebcamSessions) -> web.WebSocketResponse:
    """Run one session until either side ends it."""
    socket = web.WebSocketResponse(
        max_msg_size=MAX_JPEG_BYTES + CORRELATION_ID_BYTES, heartbeat=10, timeout=1, compress=False
    )
    await socket.prepare(request)
    mailbox = Mailbox()
    try:
        session = sessions.enter(mailbox.send, lambda message: mailbox.notify(error=message), mailbox.end)
    except TooManySessions:
        await socket.close(code=TRY_LATER, message=b"too many sessions are here already")
        return socket
    mailbox.notify(settings=session.tuner.values)
    sender = asyncio.create_task(_send(socket, session, mailbox))
    receiver = asyncio.create_task(_receive(socket, session, mailbox))
    try:
        await asyncio.wait([sender, receiver], return_when=asyncio.FIRST_COMPLETED)
    finally:
        sessions.leave(session)
        for task in (sender, receiver):
            task.cancel()
        await asyncio.gather(sender, receiver, return_exceptions=True)
        with contextlib.suppress(Exception):
            why = b"nothing that is a picture came" if mailbox.over else b"no picture came for a while"
            await socket.close(code=POLICY, message=why)
    return socket


async def _receive(socket: web.WebSocketResponse, session: WebcamSession, mailbox: Mailbox) -> None:
    """Receive frames until the socket is closed or breaks, or nothing arrives any more."""
    while True:
        try:
            message = await socket.receive(IDLE_S)
        except TimeoutError:
            return
        if message.type is WSMsgType.BINARY:
            session.take(JpegFrame(message.data[:CORRELATION_ID_BYTES], message.data[CORRELATION_ID_BYTES:]))
        elif message.type is WSMsgType.TEXT:
            _change(session, mailbox, message.data)
        else:  # closed, or broken off
            return


def _change(session: WebcamSession, mailbox: Mailbox, text: str) -> None:
    try:
        settings_patch = json.loads(text) if len(text) < 4096 else None
        if not isinstance(settings_patch, dict):
            raise ValueError
        session.tune(settings_patch)
        mailbox.notify(settings=session.tuner.values)
    except UserError as error:
        mailbox.notify(error=str(error), settings=session.tuner.values)
    except (ValueError, RecursionError):
        mailbox.notify(error="settings are one JSON object")


async def _send(socket: web.WebSocketResponse, session: WebcamSession, mailbox: Mailbox) -> None:
    on_event = 0.0
    with contextlib.suppress(OSError, TimeoutError):
        while not (mailbox.over or socket.closed):
            jpeg_frame, message = await mailbox.take(TELL_S)
            stats = session.stats
            message["done"] = stats.done
            now = asyncio.get_running_loop().time()
            if now - on_event >= TELL_S:
                on_event = now
                message |= asdict(stats) | {"dropped": stats.dropped + mailbox.late}
            await asyncio.wait_for(socket.send_str(json.dumps(message)), STUCK_S)
            if jpeg_frame is not None:
                await asyncio.wait_for(socket.send_bytes(jpeg_frame.correlation_id + jpeg_frame.jpeg), STUCK_S)
