"""RTSP cameras that fail: killed, frozen, a new frame size, packet loss, certificates."""

from __future__ import annotations

import contextlib
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import pytest
from facestream.pipeline.connection import State
from facestream.pipeline.rtsp.rtp import Unit
from facestream.pipeline.rtsp.server import RtspServer
from facestream.pipeline.video.uri import explain, parse

from tests.feed import Feed
from tests.live.test_rtsp_server import USERS, address, certificate, serving  # noqa: F401
from tests.neighbour import neighbour  # noqa: F401
from tests.servers import QUICK, Watched, free_port, until


@contextlib.contextmanager
def gstreamer(port: int, *more: str) -> Iterator[subprocess.Popen[str]]:
    script, python = Path(__file__).parents[1].joinpath("gst_play.py"), "/usr/bin/python3"
    probe = "import gi; gi.require_version('GstRtspServer', '1.0')"
    if subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode:
        pytest.skip("gst-rtsp-server's bindings are not installed")
    if (
        not shutil.which("gst-inspect-1.0")
        or subprocess.run(["gst-inspect-1.0", "openh264enc"], capture_output=True).returncode
    ):
        pytest.skip("GStreamer's openh264enc is not installed")
    process = subprocess.Popen([python, str(script), str(port), *more], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait(5)
        process.stdout.close()


def test_a_server_that_is_killed_and_started_again() -> None:
    with Watched(f"rtsp://viewer:secret@127.0.0.1:{(port := free_port())}/live") as seen:
        with gstreamer(port):
            seen.wait_frames(10)
        assert "went away" in seen.wait(State.RECONNECTING).message
        with gstreamer(port):
            seen.wait_back(1.0)
            assert seen.wait(State.LIVE).losses == 1


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_server_that_freezes_and_thaws(transport: str) -> None:
    """SIGSTOP: the connection stands and nothing comes."""
    port, source = free_port(), replace(QUICK, rtsp_transport=transport)
    with gstreamer(port) as process, Watched(f"rtsp://viewer:secret@127.0.0.1:{port}/live", source=source) as seen:
        seen.wait_frames(10)
        process.send_signal(signal.SIGSTOP)
        assert "no picture for" in seen.wait(State.STALLED).message
        assert "in time" in seen.wait(State.RECONNECTING).message
        process.send_signal(signal.SIGCONT)
        seen.wait_back(1.0)
        assert seen.wait(State.LIVE).hangs == 0


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_new_size_in_mid_stream(transport: str) -> None:
    with serving(USERS) as (server, _, feed):
        source = replace(QUICK, rtsp_transport=transport)
        with Watched(address(server, "viewer:secret"), source=source) as seen:
            seen.wait_frames(10)
            feed.size = (480, 256)
            until(lambda: seen.camera.status.width == 480)
            seen.wait_frames(10)
            assert seen.camera.status.losses == 0


def test_lost_packets_over_udp_are_counted_as_damage() -> None:
    server = RtspServer("127.0.0.1", 0)
    mount = server.mount("door")
    server.start()
    count = 0

    def lossy(unit: Unit) -> None:
        """Every eighth packet of pictures that are no key pictures goes nowhere."""
        nonlocal count
        kept = []
        for packet in unit.packets:
            count += not unit.key
            if unit.key or count % 8:
                kept.append(packet)
        server.send(mount, Unit(tuple(kept), unit.key, unit.report))

    with Feed(lossy, mount.packetizer) as feed:
        feed.noise = True
        mount.request_keyframe = feed.encoder.request_keyframe
        with Watched(address(server), source=replace(QUICK, rtsp_transport="udp")) as seen:
            until(lambda: seen.camera.status.damaged > 3)
            assert seen.wait(State.LIVE).losses == 0
    server.stop()


def test_a_camera_with_a_long_wait_between_key_pictures_starts_with_the_first() -> None:
    with serving() as (server, _, feed):
        object.__setattr__(feed.encoder.options, "gop_s", 20.0)
        with Watched(address(server), first_frame_s=15.0) as seen:
            seen.wait_frames(1, 15)


def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: tuple[Path, Path]) -> None:  # noqa: F811
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serving(USERS, tls=context) as (server, _, _):
        url = address(server, "viewer:secret").replace("127.0.0.1", "localhost")
        with Watched(url) as seen:
            assert seen.wait(State.RECONNECTING).message
            assert seen.camera.status.frames == 0
        with Watched(url, source=replace(QUICK, ca_file=str(certificate[0]))) as seen:
            seen.wait_frames(5)
        with Watched(url, source=replace(QUICK, tls_verify=False)) as seen:
            seen.wait_frames(5)


def test_a_wrong_password_is_tried_again_slowly_and_works_once_it_is_right() -> None:
    with serving({"viewer": "another"}) as (server, mount, _), Watched(address(server, "viewer:secret")) as seen:
        assert "401" in seen.wait(State.FAILED).message
        mount.users["viewer"] = "secret"
        seen.wait_frames(5)
        seen.wait(State.LIVE)


@pytest.mark.parametrize(
    ("number", "words"),
    [(16, "another program"), (25, "not a camera"), (2, "no such camera"), (22, "does not have this size")],
)
def test_a_webcams_errors_have_words(number: int, words: str) -> None:
    error = av.error.FFmpegError(number, "x")
    assert words in explain(error, parse("/dev/video9")).what
