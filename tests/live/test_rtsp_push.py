"""Pushing to third-party servers: Debian's ffmpeg, GStreamer's RTSP server, and some that misbehave."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest
from facestream.pipeline.connection import State
from facestream.pipeline.errors import BadInput
from facestream.pipeline.rtsp.auth import Gate, answer, digest
from facestream.pipeline.rtsp.client import PushOptions, target_of
from facestream.pipeline.rtsp.push import Pusher

from tests.feed import Feed, number_of
from tests.servers import free_port, talking, until

QUICK = PushOptions(timeout_s=1.0, refused_wait_s=0.5, max_backoff_s=0.5)


@contextlib.contextmanager
def pushing(url: str, options: PushOptions = QUICK) -> Iterator[tuple[Pusher, Feed, list[tuple[State, str]]]]:
    events: list[tuple[State, str]] = []
    with Feed(lambda unit: pusher.send(unit)) as feed:
        pusher = Pusher(url, feed.packetizer, options, lambda *s: events.append(s), feed.encoder.request_keyframe)
        pusher.start()
        try:
            yield pusher, feed, events
        finally:
            pusher.stop()
            assert pusher.join(15), "the pusher hangs"
    assert "secret" not in str(events)


@contextlib.contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(5)
        assert process.stdout is not None
        process.stdout.close()


def listening(port: int, out: Path) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """Debian's ffmpeg as a server that takes one stream."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    url = f"rtsp://127.0.0.1:{port}/live"
    words = ["-nostdin", "-v", "error", "-rtsp_flags", "listen", "-i", url, "-c", "copy", "-flush_packets", "1"]
    return running("ffmpeg", *words, "-y", "-f", "h264", str(out))


@contextlib.contextmanager
def gstreamer(port: int, out: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    script = Path(__file__).parents[1].joinpath("gst_record.py")
    probe = "import gi; gi.require_version('GstRtspServer', '1.0')"
    python = "/usr/bin/python3"
    if subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode:
        pytest.skip("gst-rtsp-server's bindings are not installed")
    with running(python, str(script), str(port), str(out), *more) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def numbers(path: Path) -> list[int]:
    """The pictures' numbers, as far as the file goes: whoever wrote it was killed."""
    seen = []
    with av.open(str(path), format="h264") as container, contextlib.suppress(av.error.InvalidDataError):
        for picture in container.decode(video=0):
            seen.append(number_of(picture))  # noqa: PERF401
    return seen[:-1]


def grown(path: Path, size: int) -> Callable[[], bool]:
    return lambda: path.exists() and path.stat().st_size > size


def test_ffmpeg_takes_the_stream_and_again_after_it_was_killed(tmp_path: Path) -> None:
    port = free_port()
    first, second = tmp_path / "1.h264", tmp_path / "2.h264"
    with pushing(f"rtsp://127.0.0.1:{port}/live") as (pusher, _, events):
        with listening(port, first):
            until(grown(first, 20_000))
        until(lambda: pusher.state is State.RECONNECTING)
        with listening(port, second):
            until(grown(second, 20_000))
            assert pusher.state is State.LIVE
        assert pusher.counts.connects == 2
        assert pusher.counts.losses >= 1
    for path in (first, second):
        seen = numbers(path)
        assert seen == list(range(seen[0], seen[0] + len(seen)))
    states = [state for state, _ in events]
    assert states.count(State.LIVE) == 2


@pytest.mark.parametrize("word", ["", "digest"])
def test_gstreamer_takes_the_stream_and_again_after_it_was_killed(tmp_path: Path, word: str) -> None:
    port, first, second = free_port(), tmp_path / "1.h264", tmp_path / "2.h264"
    more = [word] if word else []
    with pushing(f"rtsp://{'viewer:secret@' if word else ''}127.0.0.1:{port}/live") as (pusher, _, _):
        with gstreamer(port, first, *more) as process:
            until(grown(first, 20_000))
            process.send_signal(signal.SIGKILL)
            until(lambda: pusher.state is State.RECONNECTING)
        with gstreamer(port, second, *more):
            until(grown(second, 20_000))
            assert pusher.state is State.LIVE
    seen = numbers(second)
    assert seen == list(range(seen[0], seen[0] + len(seen)))


def test_gstreamer_refuses_a_wrong_password(tmp_path: Path) -> None:
    port = free_port()
    url = f"rtsp://viewer:secretly@127.0.0.1:{port}/live"
    with gstreamer(port, tmp_path / "1.h264", "digest"), pushing(url) as (pusher, _, _):
        until(lambda: pusher.state is State.FAILED)
        assert "401" in pusher.message
        assert "tried again every" in pusher.message


def test_a_server_that_stops_taking_is_left_and_come_back_to(tmp_path: Path) -> None:
    """SIGSTOP: the connection stands, and nothing moves."""
    port, out = free_port(), tmp_path / "1.h264"
    options = PushOptions(timeout_s=1.0, max_backoff_s=0.5, buffer=30_000)
    with gstreamer(port, out) as process, pushing(f"rtsp://127.0.0.1:{port}/live", options) as (pusher, feed, _):
        feed.noise = True
        until(grown(out, 20_000))
        process.send_signal(signal.SIGSTOP)
        began = feed.sent
        until(lambda: pusher.state is State.RECONNECTING)
        assert feed.sent > began + 25  # who makes the pictures was never held up
        assert pusher.counts.dropped > 0
        process.send_signal(signal.SIGCONT)
        until(lambda: pusher.state is State.LIVE)


def say(reply: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        while request := connection.recv(65536):
            sequence = next((w for w in request.split(b"\r\n") if w.lower().startswith(b"cseq")), b"CSeq: 1")
            connection.sendall(reply.replace(b"CSEQ", sequence))

    return talk


@pytest.mark.parametrize(
    ("behave", "state", "words"),
    [
        (say(b"RTSP/1.0 404 Not Found\r\nCSEQ\r\n\r\n"), State.FAILED, "does not take the stream"),
        (say(b"RTSP/1.0 500 Oh\r\nCSEQ\r\n\r\n"), State.RECONNECTING, "500"),
        (say(b"HTTP/1.1 200 OK\r\n\r\n"), State.RECONNECTING, "no RTSP"),
        (say(b"\0" * 20_000), State.RECONNECTING, "no RTSP"),
        (lambda connection: time.sleep(20), State.RECONNECTING, "in time"),
        (lambda connection: None, State.RECONNECTING, "closed|broke off"),
    ],
    ids=["404", "500", "http", "zeros", "silence", "hang up"],
)
def test_a_server_that_makes_no_sense(behave: Callable[[socket.socket], None], state: State, words: str) -> None:
    with talking(behave) as port, pushing(f"rtsp://viewer:secret@127.0.0.1:{port}/live") as (pusher, _, events):
        until(lambda: pusher.state is state)
        assert any(re.search(words, message) for _, message in events), events


def test_nobody_there_and_tls_to_a_plain_port() -> None:
    with pushing(f"rtsp://viewer:secret@127.0.0.1:{free_port()}/live") as (pusher, _, _):
        until(lambda: "refused" in pusher.message)
    answering = talking(say(b"RTSP/1.0 200 OK\r\nCSEQ\r\n\r\n"))
    with answering as port, pushing(f"rtsps://viewer:secret@127.0.0.1:{port}/live") as (pusher, _, _):
        until(lambda: "TLS" in pusher.message)


def test_addresses_are_taken_apart() -> None:
    for text, user, password, host, port, url in [
        ("rtsp://h/a", "", "", "h", 554, "rtsp://h/a"),
        ("rtsps://u:p@h/a", "u", "p", "h", 322, "rtsps://h/a"),
        ("rtsp://u:p%40x@h:8554/a/b", "u", "p@x", "h", 8554, "rtsp://h:8554/a/b"),
        ("rtsp://u:p@s/w@h:8554/a", "u", "p@s/w", "h", 8554, "rtsp://h:8554/a"),
        ("rtsp://h:8554/a@b", "", "", "h", 8554, "rtsp://h:8554/a@b"),
        ("rtsp://[::1]:8554/a", "", "", "::1", 8554, "rtsp://[::1]:8554/a"),
    ]:
        target = target_of(text)
        assert (target.user, target.password, target.host, target.port, target.url) == (user, password, host, port, url)
    for bad in ("http://h/a", "rtsp://", "rtsp://h:99999/a"):
        with pytest.raises(BadInput):
            target_of(bad)


def test_both_sides_of_digest_agree() -> None:
    gate = Gate()
    proof = answer(gate.challenge(), "viewer", 'se"cret', "DESCRIBE", "rtsp://h/a")
    assert proof is not None
    assert gate.admits({"viewer": 'se"cret'}, "DESCRIBE", proof)
    assert not gate.admits({"viewer": "other"}, "DESCRIBE", proof)
    assert not gate.admits({"viewer": 'se"cret'}, "SETUP", proof)
    assert not Gate().admits({"viewer": 'se"cret'}, "DESCRIBE", proof)  # another connection's
    assert not gate.admits({"viewer": 'se"cret'}, "DESCRIBE", "Basic dmlld2VyOnNlY3JldA==")
    assert gate.admits({}, "DESCRIBE", "")


def test_digest_is_that_of_the_rfc() -> None:
    """RFC 7616 section 3.9.1, MD5 and SHA-256, with its cnonce."""
    proof = {"realm": "http-auth@example.org", "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"}
    proof |= {"qop": "auth", "nc": "00000001", "cnonce": "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"}
    md5 = digest("Mufasa", "Circle of Life", "GET", "/dir/index.html", proof)
    assert md5 == "8ca523f5e9506fed4657c9700eebdbec"
    sha = digest("Mufasa", "Circle of Life", "GET", "/dir/index.html", proof | {"algorithm": "SHA-256"})
    assert sha == "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
    basic = answer('Basic realm="x"', "viewer", "secret", "DESCRIBE", "rtsp://h/a")
    assert basic == "Basic dmlld2VyOnNlY3JldA=="
    assert answer('NTLM realm="x"', "viewer", "secret", "DESCRIBE", "rtsp://h/a") is None
