"""A browser's own camera over its WebSocket: frames come back covered or not at all."""

from __future__ import annotations

import asyncio
import json
import random
import struct
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the extra `web` is not installed")

import aiohttp
from facestream.pipeline.errors import BadInput
from facestream.pipeline.live.webcam_session import MAX_JPEG_BYTES, JpegDecoder

from tests.live.test_fail_closed import SECRET, Moody
from tests.live.test_live import Run
from tests.servers import free_port, until


def jpeg(width: int = 160, height: int = 120) -> bytes:
    """A grey picture with stripes in the place that Moody finds."""
    gray = np.full((height, width), 120, np.uint8)
    gray[SECRET, SECRET] = np.where(np.arange(20) % 2, 255, 0)[None, :]
    return bytes(cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())


PICTURE = jpeg()


def spread(data: bytes) -> float:
    """How much of the stripes a returned picture shows."""
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert shown.shape == (120, 160)
    return float(np.ptp(shown[SECRET, SECRET].astype(int)))


class Guest:
    """A session of a page, as a browser would be one."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.sent = 0
        self.pictures: dict[int, bytes] = {}  # number -> covered JPEG
        self.words: dict[str, Any] = {}  # the newest of each kind
        self.errors: list[str] = []

    async def send(self, data: bytes = PICTURE) -> None:
        await self.socket.send_bytes(struct.pack("<q", self.sent) + data)
        self.sent += 1

    async def on_audio(self) -> bool:
        """One message; False at the end."""
        message = await self.socket.receive(20)
        if message.type is aiohttp.WSMsgType.BINARY:
            self.pictures[struct.unpack("<q", message.data[:8])[0]] = message.data[8:]
        elif message.type is aiohttp.WSMsgType.TEXT:
            self.words |= json.loads(message.data)
            self.errors += [self.words.pop("error")] if "error" in self.words else []
        return message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT)

    async def until(self, condition: Callable[[], bool], data: bytes | None = PICTURE) -> None:
        """Send a picture whenever the last one is done with, until something comes true."""
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, "never came true"
            if data is not None and self.words.get("done", 0) >= self.sent:
                await self.send(data)
            assert await self.on_audio(), f"closed: {self.socket.close_code}"


def visit(port: int, act: Callable[[Guest], Awaitable[None]], path: str = "/webcam", **headers: str) -> None:
    async def go() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{port}{path}", headers=headers) as socket,
        ):
            await act(Guest(socket))

    asyncio.run(go())


@pytest.fixture
def served() -> Any:
    """served(detector, **settings): a page for sessions alone."""
    runs: list[Run] = []

    def serve(detector: Moody, token: str = "", **flags: Any) -> tuple[int, Run]:
        port = free_port()
        flags = {"cover__hide": "pixelate"} | flags
        run = Run({}, [f"http://{token}127.0.0.1:{port}"], detector, **flags)
        runs.append(run)
        run.__enter__()
        return port, run

    yield serve
    for run in runs:
        run.__exit__()


def test_pictures_come_back_covered_with_their_stamps(served: Any) -> None:
    port, run = served(Moody())

    async def act(guest: Guest) -> None:
        await guest.until(lambda: len(guest.pictures) >= 12)
        assert sorted(guest.pictures) == list(range(12))
        assert guest.words["settings"]["hide"] == "pixelate"
        await guest.until(lambda: guest.words.get("left", 0) > 5)
        assert guest.words["faces"] == 1
        assert all(spread(data) < 60 for data in guest.pictures.values())
        assert run.live.webcam_sessions.active == 1

    assert spread(PICTURE) > 150
    visit(port, act)
    until(lambda: run.live.webcam_sessions.active == 0)


@pytest.mark.parametrize("mood", ["raise", "hang"])
def test_what_nobody_looked_at_comes_back_covered_all_over(served: Any, mood: str) -> None:
    moody = Moody()
    port, _ = served(moody, run__deadline_s=0.2)

    async def act(guest: Guest) -> None:
        await guest.until(lambda: len(guest.pictures) >= 5)
        moody.mood = mood
        await guest.until(lambda: guest.words.get("fully_covered", 0) > 8)
        assert "fully covered" in guest.words["trouble"]
        newest = cv2.imdecode(np.frombuffer(guest.pictures[max(guest.pictures)], np.uint8), cv2.IMREAD_GRAYSCALE)
        assert len({int(v) // 16 for v in newest[:8, :8].ravel()}) == 1
        moody.mood = ""
        moody.awake.set()
        seen = guest.words["fully_covered"]
        await guest.until(lambda: guest.words["trouble"] == "" and guest.words["left"] > seen + 30)
        assert all(spread(data) < 60 for data in guest.pictures.values())

    visit(port, act)


def test_what_cannot_be_covered_does_not_come_back(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of order")

    port, _ = served(Moody())
    monkeypatch.setattr("facestream.pipeline.stages.anonymise.Anonymizer._apply", broken)

    async def act(guest: Guest) -> None:
        await guest.until(lambda: guest.words.get("withheld", 0) > 5)
        assert not guest.pictures
        assert "withheld" in guest.words["trouble"]

    visit(port, act)


def test_rubbish_is_answered_by_words_and_after_much_of_it_by_the_door(served: Any) -> None:
    port, run = served(Moody())
    random.seed(1)
    rubbish = [
        b"",
        b"\xff",
        b"rubbish" * 99,
        PICTURE[:25],
        jpeg(2400, 1400),
        random.randbytes(5000),
        b"\x89PNG\r\n\x1a\n",
    ]

    async def act(guest: Guest) -> None:
        for number, data in enumerate(rubbish, 1):
            await guest.send(data)
            await guest.until(lambda number=number: guest.words.get("done", 0) >= number, None)
        await guest.until(lambda: guest.words.get("broken", 0) == len(rubbish), None)
        assert len(guest.errors) > 0
        assert all("no JPEG" in words for words in guest.errors)
        await guest.until(lambda: len(guest.pictures) > 3)  # it goes on
        for text in ("no json", "[1]", '{"scale": 1}', '{"hide": "blur"}', "[" * 3000, "x" * 5000):
            said = len(guest.errors)
            await guest.socket.send_str(text)
            await guest.until(lambda said=said: len(guest.errors) > said)
        while await guest.on_audio():
            if guest.words.get("done", 0) >= guest.sent:
                await guest.send(b"rubbish")
        assert guest.socket.close_code == 1008

    visit(port, act)
    until(lambda: run.live.webcam_sessions.active == 0)


def test_a_message_too_large_ends_the_visit(served: Any) -> None:
    port, run = served(Moody())

    async def act(guest: Guest) -> None:
        await guest.send(b"x" * (MAX_JPEG_BYTES + 10))
        while await guest.on_audio():
            pass
        assert guest.socket.close_code == 1009

    visit(port, act)
    until(lambda: run.live.webcam_sessions.active == 0)


def test_damaged_pictures_break_nothing() -> None:
    decoder, chance = JpegDecoder(), random.Random(2)
    for _ in range(300):
        data = bytearray(PICTURE)
        for _ in range(chance.randint(1, 20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            picture = decoder.decode(bytes(data[: chance.randint(1, len(data))]))
        except BadInput:
            continue
        assert picture.width * picture.height <= 1920 * 1088
    assert decoder.decode(PICTURE).width == 160


def test_sessions_are_limited_and_a_place_becomes_free(served: Any) -> None:
    port, run = served(Moody(), run__webcam_sessions=1)

    async def second(guest: Guest) -> None:
        assert not await guest.on_audio()
        assert guest.socket.close_code == 1013

    async def first(guest: Guest) -> None:
        await guest.until(lambda: len(guest.pictures) > 2)
        await asyncio.to_thread(visit, port, second)
        assert run.live.webcam_sessions.refused == 1
        await guest.until(lambda: len(guest.pictures) > 5)

    async def third(guest: Guest) -> None:
        await guest.until(lambda: len(guest.pictures) > 2)

    visit(port, first)
    until(lambda: run.live.webcam_sessions.active == 0)
    visit(port, third)


def test_each_session_has_its_own_settings(served: Any) -> None:
    port, _ = served(Moody())

    async def other(guest: Guest) -> None:
        await guest.until(lambda: "settings" in guest.words)
        assert guest.words["settings"]["hide"] == "pixelate"

    async def act(guest: Guest) -> None:
        await guest.socket.send_str('{"hide": "solid", "mode": "boxes"}')
        await guest.until(lambda: guest.words.get("settings", {}).get("hide") == "solid")
        count = len(guest.pictures)
        await guest.until(lambda: len(guest.pictures) > count + 6)
        shown = cv2.imdecode(np.frombuffer(guest.pictures[max(guest.pictures)], np.uint8), cv2.IMREAD_COLOR).astype(int)
        assert np.ptp(shown[46:54, 46:54]) < 60
        assert (shown[38, 45:55, 1] - shown[38, 45:55, 2]).min() > 40  # a green line
        await asyncio.to_thread(visit, port, other)

    visit(port, act)


def test_a_session_who_breaks_off_in_mid_frame_leaves_nothing_behind(served: Any) -> None:
    moody = Moody()
    port, run = served(moody, run__deadline_s=30.0)
    moody.mood = "hang"

    async def act(guest: Guest) -> None:
        for _ in range(3):
            await guest.send()
        await asyncio.to_thread(until, lambda: moody.seen > 1)
        guest.socket._response.connection.transport.abort()  # no closing handshake: a reset

    visit(port, act)
    until(lambda: run.live.webcam_sessions.active == 0)
    moody.mood = ""
    moody.awake.set()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "webcam session"])

    async def again(guest: Guest) -> None:
        await guest.until(lambda: len(guest.pictures) > 2)

    visit(port, again)


def test_strangers_do_not_come_in(served: Any) -> None:
    async def nothing(guest: Guest) -> None:
        raise AssertionError("let in")

    def refused(port: int, path: str = "/webcam", **headers: str) -> int:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            visit(port, nothing, path, **headers)
        return caught.value.status

    port, run = served(Moody(), token="word@")
    assert refused(port) == 401
    assert refused(port, "/webcam?token=wrong") == 401
    assert refused(port, "/webcam?token=word", Origin="http://evil.example") == 403
    assert refused(port, "/webcam?token=word", Origin="null") == 403

    async def act(guest: Guest) -> None:
        await guest.until(lambda: len(guest.pictures) > 2)

    visit(port, act, "/webcam?token=word", Origin=f"http://127.0.0.1:{port}")
    assert run.live.webcam_sessions.total == 1
    port, _ = served(Moody(), run__webcam_sessions=0)
    assert refused(port) == 404
