"""Strangers at the RTSP server: they lock nobody out, guess slowly, and break nothing."""

from __future__ import annotations

import socket
import threading
import time

import av
import pytest
from facestream.pipeline.rtsp import guessing
from facestream.pipeline.rtsp.guessing import LoginGuard
from facestream.pipeline.rtsp.player import Limits
from facestream.pipeline.rtsp.server import RtspServer

from tests.feed import Feed
from tests.servers import until

OPTIONS = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 5)
    connection.settimeout(10)
    return connection


def call(connection: socket.socket, text: str) -> str:
    connection.sendall(text.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    return connection.recv(65536).decode()


def test_strangers_who_say_something_again_and_again_lock_no_viewer_out() -> None:
    server = RtspServer("127.0.0.1", 0, Limits(connections=64, strangers=16, login_s=2.0))
    mount = server.mount("door", {"viewer": "word"})
    server.start()
    over = threading.Event()
    strangers = [connect(server.port) for _ in range(64)]

    def keep_asking() -> None:
        while not over.wait(0.2):
            for connection in strangers:
                try:
                    connection.sendall(OPTIONS)
                except OSError:
                    continue

    thread = threading.Thread(target=keep_asking, daemon=True)
    thread.start()
    try:
        with Feed(lambda unit: server.send(mount, unit), mount.packetizer):
            url = f"rtsp://viewer:word@127.0.0.1:{server.port}/door"
            with av.open(url, options={"rtsp_transport": "tcp"}, timeout=(10.0, 5.0)) as player:
                began = time.monotonic()
                for picture in player.decode(video=0):
                    assert picture.width == 320
                    if time.monotonic() - began > 4:  # also those that were there first have to prove themselves
                        break
            until(lambda: len([player for player in server.connections if player.is_stranger]) == 0, 15)
    finally:
        over.set()
        thread.join(5)
        for connection in strangers:
            connection.close()
        server.stop()


def test_guesses_of_one_address_become_slow_are_counted_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guessing, "FIRST_S", 0.2)
    said: list[str] = []
    server = RtspServer("127.0.0.1", 0, on_event=said.append)
    server.mount("door", {"viewer": "word"})
    server.start()
    proof = 'Authorization: Digest username="viewer", realm="facestream", nonce="x", uri="/door", response="1"'
    began = time.monotonic()
    answers = []
    try:
        for n in range(6):
            with connect(server.port) as connection:
                answers.append(call(connection, f"DESCRIBE rtsp://h/door RTSP/1.0\nCSeq: {n}\n{proof}"))
        assert all("401" in answer for answer in answers)
        assert time.monotonic() - began >= 0.2 + 0.4 + 0.8
        assert server.logins.failed == 6
        assert said == ["1 failed log-in from 127.0.0.1"]
    finally:
        server.stop()


def test_guesses_at_the_same_time_wait_one_after_the_other() -> None:
    guard = LoginGuard()
    waits = [guard.fail("a") for _ in range(8)]
    assert waits[:3] == [0.0, 0.0, 0.0]
    assert waits[3:] == sorted(waits[3:])
    assert waits[-1] > 12
    assert guard.fail("b") == 0.0
    guard.succeed("a")
    assert guard.fail("a") == 0.0


@pytest.mark.parametrize(
    "text",
    [
        'DESCRIBE rtsp://h/door RTSP/1.0\nCSeq: 1\nAuthorization: Digest username="ü", nonce="ö", response="ä"',
        'DESCRIBE rtsp://h/door RTSP/1.0\nCSeq: 1\nAuthorization: Digest realm="facestream", nonce="Ж"',
        "SETUP rtsp://h/open RTSP/1.0\nCSeq: 1\nTransport: RTP/AVP;unicast;client_port=²-³",
        "SETUP rtsp://h/open RTSP/1.0\nCSeq: 1\nTransport: RTP/AVP/TCP;interleaved=\u0661-\u0662",
        "DESCRIBE rtsp://[::1/door RTSP/1.0\nCSeq: 1",
        "OPTIONS * RTSP/1.0\nCSeq: 1\nContent-Length: ²",
    ],
)
def test_odd_letters_are_answered_and_raise_nothing(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    server = RtspServer("127.0.0.1", 0)
    server.mount("door", {"viewer": "word"})
    server.mount("open")
    server.start()
    try:
        with connect(server.port) as connection:
            assert call(connection, text).startswith("RTSP/1.0 4")
        with connect(server.port) as connection:
            assert "200 OK" in call(connection, "OPTIONS * RTSP/1.0\nCSeq: 1")
    finally:
        server.stop()
    assert "Traceback" not in capfd.readouterr().err
