"""A visitor's WebSocket: pictures of its camera come in, covered ones go out. Extra `web`.

A binary message is eight bytes that come back unchanged, then a JPEG. A text message from the page is JSON with
settings to change; to the page, JSON with words, settings or figures. `done` counts the pictures that are done with,
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
from facestream.pipeline.live.visitor import MOST_BYTES, Full, Shot, Visitor, Visitors

try:
    from aiohttp import WSMsgType, web
except ImportError:  # the extra is not installed; preview.check_web() says so
    web = None  # type: ignore[assignment]

STAMP = 8  # bytes
IDLE_S = 30.0  # without a picture, after which a visitor's place is given to others
STUCK_S = 10.0  # for one picture to be taken by the browser
TELL_S = 0.5  # between figures
TRY_LATER, POLICY = 1013, 1008  # RFC 6455 section 7.4.1 and its registry


class Mailbox:
    """What waits to go to one visitor: the newest picture, and words. Filled from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._shot: Shot | None = None
        self._words: dict[str, Any] = {}
        self.over = False
        self.late = 0  # pictures that gave way to newer ones

    def send(self, shot: Shot | None) -> None:
        self._soon(lambda: self._put(shot))

    def say(self, **words: Any) -> None:
        self._soon(lambda: self._words.update(words))

    def end(self) -> None:
        self._soon(lambda: setattr(self, "over", True))

    def _put(self, shot: Shot | None) -> None:
        if shot is not None:
            self.late += self._shot is not None
            self._shot = shot

    def _soon(self, task: Callable[[], object]) -> None:
        def act() -> None:
            task()
            self._news.set()

        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(act)

    async def take(self, timeout_s: float) -> tuple[Shot | None, dict[str, Any]]:
        """What has come, after a while at the latest."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), timeout_s)
        self._news.clear()
        shot, words, self._shot, self._words = self._shot, self._words, None, {}
        return shot, words


async def serve(request: web.Request, visitors: Visitors) -> web.WebSocketResponse:
    """One visitor, until either side ends it."""
    socket = web.WebSocketResponse(max_msg_size=MOST_BYTES + STAMP, heartbeat=10, timeout=1, compress=False)
    await socket.prepare(request)
    mailbox = Mailbox()
    try:
        visitor = visitors.enter(mailbox.send, lambda words: mailbox.say(error=words), mailbox.end)
    except Full:
        await socket.close(code=TRY_LATER, message=b"too many visitors are here already")
        return socket
    mailbox.say(settings=visitor.tuner.shown)
    sender = asyncio.create_task(_send(socket, visitor, mailbox))
    receiver = asyncio.create_task(_receive(socket, visitor, mailbox))
    try:
        await asyncio.wait([sender, receiver], return_when=asyncio.FIRST_COMPLETED)
    finally:
        visitors.leave(visitor)
        for task in (sender, receiver):
            task.cancel()
        await asyncio.gather(sender, receiver, return_exceptions=True)
        with contextlib.suppress(Exception):
            why = b"nothing that is a picture came" if mailbox.over else b"no picture came for a while"
            await socket.close(code=POLICY, message=why)
    return socket


async def _receive(socket: web.WebSocketResponse, visitor: Visitor, mailbox: Mailbox) -> None:
    """Until it is closed, breaks off, or nothing comes any more."""
    while True:
        try:
            message = await socket.receive(IDLE_S)
        except TimeoutError:
            return
        if message.type is WSMsgType.BINARY:
            visitor.take(Shot(message.data[:STAMP], message.data[STAMP:]))
        elif message.type is WSMsgType.TEXT:
            _change(visitor, mailbox, message.data)
        else:  # closed, or broken off
            return


def _change(visitor: Visitor, mailbox: Mailbox, text: str) -> None:
    try:
        wish = json.loads(text) if len(text) < 4096 else None
        if not isinstance(wish, dict):
            raise ValueError
        visitor.tune(wish)
        mailbox.say(settings=visitor.tuner.shown)
    except UserError as error:
        mailbox.say(error=str(error), settings=visitor.tuner.shown)
    except (ValueError, RecursionError):
        mailbox.say(error="settings are one JSON object")


async def _send(socket: web.WebSocketResponse, visitor: Visitor, mailbox: Mailbox) -> None:
    told = 0.0
    with contextlib.suppress(OSError, TimeoutError):
        while not (mailbox.over or socket.closed):
            shot, words = await mailbox.take(TELL_S)
            seen = visitor.seen
            words["done"] = seen.done
            now = asyncio.get_running_loop().time()
            if now - told >= TELL_S:
                told = now
                words |= asdict(seen) | {"dropped": seen.dropped + mailbox.late}
            await asyncio.wait_for(socket.send_str(json.dumps(words)), STUCK_S)
            if shot is not None:
                await asyncio.wait_for(socket.send_bytes(shot.stamp + shot.jpeg), STUCK_S)
