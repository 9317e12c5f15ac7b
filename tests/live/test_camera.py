"""Cameras that fail: the right state and message, no hang, and recovery."""

from __future__ import annotations

import gc
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import av.container
import pytest
from facestream.pipeline.connection import Backoff, State
from facestream.pipeline.live.clock import LiveClock
from facestream.pipeline.video.options import SourceOptions, live_options
from facestream.pipeline.video.uri import parse

from tests.neighbour import neighbour  # noqa: F401
from tests.servers import QUICK, Stream, Watched, free_port, talking, until

Clip = Callable[..., Path]
TS = {"audio": (), "options": {"g": "10", "bf": "0"}}


@pytest.fixture
def stream(clip: Clip) -> Stream:
    return Stream(clip("camera.ts", **TS))


def test_backoff_doubles_with_jitter_up_to_its_limit() -> None:
    backoff = Backoff()
    waits = [backoff.next() for _ in range(40)]
    assert min(waits) >= 0.25
    assert waits[0] == 0.25
    assert max(waits) <= 10
    assert len(set(waits[10:])) > 20
    assert 5 <= waits[20] <= 10
    assert backoff.next(refused=True) >= 24
    backoff.reset()
    assert backoff.next() == 0.25


def test_the_clock_follows_the_source_and_survives_its_jumps() -> None:
    clock = LiveClock(100.0)
    assert clock.tick(None, 100.5) == 45000  # the first time stamp may be missing
    assert [clock.tick(7 + n / 10, 101 + n / 10 + 0.03 * (n % 2)) for n in range(3)] == [90000, 99000, 108000]
    late = clock.tick(7.3, 103.0)  # held up on the way: the source's own times go on
    assert late == 117000
    back = clock.tick(0.0, 104.0)  # it started anew
    assert back == 360000
    assert clock.tick(0.0, 104.0) == back + 1  # twice the same time
    clock.restart()
    assert clock.tick(1e6, 110.0) == 900000


def test_a_stream_is_live_and_its_frames_are_numbered_through(stream: Stream) -> None:
    with talking(stream) as port, Watched(f"http://user:secret@127.0.0.1:{port}/live.ts") as seen:
        status = seen.wait(State.LIVE)
        assert (status.width, status.height) == (160, 120)
        seen.wait_frames(40)
    assert [index for index, _, _ in seen.frames] == list(range(len(seen.frames)))
    steps = [b[1] - a[1] for a, b in zip(seen.frames, seen.frames[1:], strict=False)]
    assert min(steps) > 0
    assert sorted(steps)[len(steps) // 2] == 3000  # 1/30 s, not the jitter of the arrival


def test_a_server_that_is_killed_and_comes_back(stream: Stream) -> None:
    with Watched(f"http://user:secret@127.0.0.1:{(port := free_port())}/live.ts") as seen:
        status = seen.wait(State.RECONNECTING)
        assert "refused" in status.message
        with talking(stream, port):
            seen.wait(State.LIVE)
            seen.wait_frames(10)
        seen.wait(State.RECONNECTING)
        with talking(stream, port):
            seen.wait_back(0.4)
            status = seen.wait(State.LIVE)
    assert status.losses == 1
    assert status.connects == 2
    assert [index for index, _, _ in seen.frames] == list(range(len(seen.frames)))
    assert all(a[1] < b[1] for a, b in zip(seen.frames, seen.frames[1:], strict=False))


def test_a_server_that_stalls_and_goes_on(stream: Stream) -> None:
    with talking(stream) as port, Watched(f"http://user:secret@127.0.0.1:{port}/live.ts") as seen:
        seen.wait_frames(10)
        stream.stalled = True
        status = seen.wait(State.STALLED)
        assert "no picture for" in status.message
        assert status.stalls == 1
        seen.wait(State.RECONNECTING)
        stream.stalled = False
        seen.wait_back(0.4)
        seen.wait(State.LIVE)
    # The last picture before the stall may come out only when the connection is given up.
    states = [state for state in seen.states if state is not State.LIVE]
    assert states[:2] == [State.STALLED, State.RECONNECTING]


def test_data_without_pictures_is_not_life(stream: Stream, clip: Clip) -> None:
    both = clip("both.ts", options=TS["options"])
    stream.data = both.read_bytes()
    with talking(stream) as port, Watched(f"http://127.0.0.1:{port}/live.ts", dead_s=0.8) as seen:
        seen.wait_frames(10)
        stream.data = only_sound(both)
        assert len(stream.data) > 1000
        seen.wait(State.STALLED)
        until(lambda: any("no picture" in s.message and s.state is State.RECONNECTING for s in seen.statuses))


def only_sound(path: Path) -> bytes:
    """A transport stream's packets without those of its video (PID 0x100, FFmpeg's first)."""
    data = path.read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    return b"".join(p for p in packets if (p[1] & 0x1F) << 8 | p[2] != 0x100)


def test_a_new_size_in_mid_stream_goes_on(stream: Stream, clip: Clip) -> None:
    with talking(stream) as port, Watched(f"http://127.0.0.1:{port}/live.ts") as seen:
        seen.wait_frames(10)
        stream.data = clip("larger.ts", size=(320, 240), **TS).read_bytes()
        until(lambda: seen.camera.status.width == 320)
        seen.wait_frames(10)
    assert {size for _, _, size in seen.frames} == {(160, 120), (320, 240)}
    assert "320x240" in [status.message for status in seen.statuses]


def answer(reply: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        while request := connection.recv(4096):
            sequence = next((w for w in request.split(b"\r\n") if w.lower().startswith(b"cseq")), b"CSeq: 1")
            connection.sendall(reply.replace(b"CSEQ", sequence))

    return talk


def zeros(connection: socket.socket) -> None:
    connection.recv(4096)
    while True:
        connection.sendall(bytes(1000))


RTSP = b"RTSP/1.0 %s\r\nCSEQ\r\n%s\r\n"
CHALLENGE = b'WWW-Authenticate: Digest realm="door", nonce="abc"\r\n'


@pytest.mark.parametrize(
    ("reply", "state", "words"),
    [
        (RTSP % (b"401 Unauthorized", CHALLENGE), State.FAILED, "401.*tried again every"),
        (RTSP % (b"404 Not Found", b""), State.FAILED, "404.*tried again every"),
        (RTSP % (b"409 Conflict", b""), State.RECONNECTING, "4xx"),
        (RTSP % (b"500 Oh", b""), State.RECONNECTING, "5xx"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", State.RECONNECTING, "no video|in time"),
        (b"\x07\xffgarbage" * 50, State.RECONNECTING, "no video|in time"),
    ],
)
def test_what_a_server_says_becomes_a_state(reply: bytes, state: State, words: str) -> None:
    with talking(answer(reply)) as port, Watched(f"rtsp://user:secret@127.0.0.1:{port}/live") as seen:
        status = seen.wait(state)
        assert re.search(words, status.message), status.message


@pytest.mark.parametrize("behave", [lambda c: time.sleep(30), zeros], ids=["silence", "zeros"])
@pytest.mark.parametrize("scheme", ["rtsp", "http", "rtsps"])
def test_a_server_that_makes_no_sense_is_left_in_time(behave: Callable[[socket.socket], None], scheme: str) -> None:
    with talking(behave) as port, Watched(f"{scheme}://user:secret@127.0.0.1:{port}/live") as seen:
        status = seen.wait(State.RECONNECTING)
        assert status.message
        assert not status.hangs


def test_a_host_that_does_not_exist_says_so() -> None:
    with Watched("rtsp://user:secret@camera.invalid/live") as seen:
        assert "cannot be found" in seen.wait(State.RECONNECTING).message


def test_a_missing_webcam_is_looked_for_again() -> None:
    with Watched("/dev/video99") as seen:
        assert "no such camera" in seen.wait(State.RECONNECTING).message


def test_a_file_is_looped_as_a_camera_at_its_own_pace(clip: Clip) -> None:
    began = time.monotonic()
    with Watched(str(clip("short.mp4", frames=10, audio=())), loop=True) as seen:
        seen.wait_frames(35)
    assert time.monotonic() - began > 0.9
    assert [index for index, _, _ in seen.frames] == list(range(len(seen.frames)))
    assert seen.camera.status.connects >= 3


def test_a_file_ends_once_and_a_missing_one_fails_for_good(clip: Clip, tmp_path: Path) -> None:
    with Watched(str(clip("short.mp4", frames=10, audio=())), paced=False) as seen:
        assert seen.wait(State.ENDED).frames == 10
    with Watched(str(tmp_path / "none.mp4")) as missing:
        assert missing.wait(State.FAILED).message == "no such file"


def test_a_graph_is_paced() -> None:
    began = time.monotonic()
    with Watched("lavfi:testsrc2=size=64x48:rate=20:duration=1") as seen:
        seen.wait(State.ENDED)
    assert time.monotonic() - began > 0.9
    assert len(seen.frames) == 20


def test_threads_that_hang_are_left_behind_but_not_without_end(tmp_path: Path) -> None:
    """Opening a pipe that nobody writes into blocks in the kernel, out of reach of any time-out."""
    pipe = tmp_path / "hang.ts"
    os.mkfifo(pipe)
    with Watched(str(pipe), hang_s=0.3) as seen:
        status = seen.wait(State.FAILED)
        assert status.hangs == 3
        assert "hangs" in status.message
        time.sleep(0.5)
        stuck = [t for t in threading.enumerate() if t.name == "camera door"]
        assert len(stuck) == 3
        os.close(os.open(pipe, os.O_WRONLY))  # a writer that leaves lets all of them go
        until(lambda: not any(t.is_alive() for t in stuck))
        until(lambda: seen.camera.status.hangs > 3)  # it is tried again
    os.close(os.open(pipe, os.O_WRONLY))


def test_stop_ends_a_blocked_read_in_time(stream: Stream) -> None:
    with talking(stream) as port:
        seen = Watched(f"http://127.0.0.1:{port}/live.ts")
        with seen:
            seen.wait_frames(5)
            stream.stalled = True
            time.sleep(0.1)
            began = time.monotonic()
        assert time.monotonic() - began < 15


def test_other_threads_run_while_a_camera_hangs() -> None:
    """FFmpeg must not hold the interpreter while it waits for a server."""
    gaps: list[float] = []
    source = replace(QUICK, open_timeout_s=4.0)
    with talking(lambda c: time.sleep(30)) as port, Watched(f"rtsp://127.0.0.1:{port}/live", source=source):
        last = time.monotonic()
        for _ in range(100):
            time.sleep(0.01)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()
    assert max(gaps) < 3


def test_certificates_are_checked_unless_told_otherwise() -> None:
    secure = live_options(parse("rtsps://h/live"), SourceOptions())
    assert secure["tls_verify"] == "1"
    assert secure.get("ca_file") == ssl.get_default_verify_paths().cafile
    assert live_options(parse("rtsps://h/live"), SourceOptions(ca_file="my.pem"))["ca_file"] == "my.pem"
    assert "tls_verify" not in live_options(parse("rtsps://h/live"), SourceOptions(tls_verify=False))
    chosen = live_options(parse("rtsp://h/live"), SourceOptions())
    assert (chosen["rtsp_transport"], chosen["rtsp_flags"]) == ("tcp+udp", "prefer_tcp")
    assert live_options(parse("rtsp://h/live"), SourceOptions(rtsp_transport="udp"))["rtsp_transport"] == "udp"


def test_a_webcam_is_asked_for_what_was_chosen() -> None:
    chosen = live_options(parse("0"), SourceOptions(camera_size=(1280, 720), camera_fps=30, camera_format="mjpeg"))
    assert chosen | {"video_size": "1280x720", "framerate": "30", "input_format": "mjpeg"} == chosen
    assert not {"video_size", "framerate", "input_format"} & set(live_options(parse("0"), SourceOptions()))


def test_closed_connections_are_freed_without_waiting_for_the_collector(clip: Clip) -> None:
    path = clip("short.mp4", frames=6, audio=())
    gc.collect()
    before = _containers()
    gc.disable()
    try:
        with Watched(str(path), loop=True, paced=False) as seen:
            until(lambda: seen.camera.status.connects >= 12, 60)
            assert _containers() - before <= 6  # of the open source and of the one before
    finally:
        gc.enable()


def _containers() -> int:
    return sum(isinstance(one, av.container.Container) for one in gc.get_objects())
