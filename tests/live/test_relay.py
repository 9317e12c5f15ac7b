"""The relay between FFmpeg and a camera: units of the connection, and who is asked what."""

from __future__ import annotations

import pytest
from facestream.pipeline.rtsp.message import Malformed
from facestream.pipeline.rtsp.relay import RtspRelay, Units
from facestream.pipeline.url import parse_url


def test_packets_and_messages_are_told_apart_wherever_they_are_cut() -> None:
    answer = b"RTSP/1.0 200 OK\r\nCSeq: 3\r\nContent-Length: 4\r\n\r\nbody"
    packet = b"$\x00\x00\x05\r\n\r\n$"
    stream = packet + answer + packet + packet + answer
    for step in (1, 3, 7, len(stream)):
        units = Units()
        found = []
        for at in range(0, len(stream), step):
            found += units.feed(stream[at : at + step])
        assert b"".join(unit for _, unit in found) == stream
        assert [message is None for message, _ in found] == [True, False, True, True, False]


def test_an_endless_head_is_refused() -> None:
    with pytest.raises(Malformed):
        Units().feed(b"RTSP/1.0 200 OK\r\n" + b"x" * 20_000)


def test_what_ffmpeg_opens_holds_no_password() -> None:
    relay = RtspRelay(parse_url("rtsp://admin:secret@10.0.0.5:8554/live?channel=1"))
    try:
        assert relay.address.startswith("rtsp://127.0.0.1:")
        assert relay.address.endswith("/live?channel=1")
        assert "secret" not in relay.address
    finally:
        relay._listener.close()
