"""Every known fault of a source, each from a real server or device that fails this way.

Beside each of these tests runs a healthy camera that must not notice, and what is written is searched for the password
(tests/neighbour.py); after each fault that passes, pictures must come within back-off + GOP + twice the time-out.

| what happens | where it is tested |
|---|---|
| the server is killed, and started again | test_camera, test_camera_rtsp: `a_server_that_is_killed...` |
| the connection is reset (RST) | `a_connection_that_is_reset` |
| who made the picture goes away (TEARDOWN, RTCP BYE) | `a_publisher_that_goes_away` |
| the server freezes (SIGSTOP), over TCP and UDP | test_camera_rtsp: `a_server_that_freezes_and_thaws` |
| it freezes in the middle of a picture | `a_server_that_freezes_in_the_middle_of_a_picture` |
| it sends a byte now and then | `a_server_that_sends_a_byte_now_and_then` |
| closed port, unknown host | test_camera: `a_server_that_is_killed...`, `a_host_that_does_not_exist...` |
| it accepts and never answers; zeros | test_camera: `a_server_that_makes_no_sense...` |
| garbage, HTTP, 409, 5xx | test_camera: `what_a_server_says_becomes_a_state` |
| plain RTSP to a TLS port, TLS to a plain one | `plain_words_to_a_tls...`, test_camera: `a_server_that_makes_no...` |
| no password, a wrong one, a wrong path | `a_refusal_is_tried...`, test_camera_rtsp: `a_wrong_password...` |
| a certificate that nobody vouches for, or of another host | test_camera_rtsp, `a_certificate_of_another_host` |
| webcam missing; not a camera; busy | test_camera; `a_device_that_is_no_camera`; benchmarks/vivid.sh |
| a file that is cut off, looped or not | `a_file_that_is_cut_off...` |
| packets lost over UDP | test_camera_rtsp: `lost_packets_over_udp...` |
| a new size in mid-stream (TS, RTSP, HLS) | test_camera, test_camera_rtsp, `hls_of_another_size...` |
| a new size after a reconnect | `another_size_at_the_next_connection` |
| pts missing, jumping, beginning anew | `pictures_without_times...`, test_camera: `the_clock...`, `hls_of_another...` |
| HLS: bursts, a playlist that stalls, a server that fails | `hls_...` |
| data, and no picture in it | test_camera: `data_without_pictures...` |
| a thread that hangs in the kernel | test_camera: `threads_that_hang...` |
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import pytest
from facestream.pipeline.connection import State
from facestream.pipeline.video.pace import Pace

from tests.hls import Hls, segments
from tests.live.test_camera import TS
from tests.live.test_camera_rtsp import gstreamer
from tests.live.test_rtsp_server import USERS, address, certificate, serving  # noqa: F401
from tests.neighbour import neighbour  # noqa: F401
from tests.servers import QUICK, Proxy, Stream, Watched, free_port, talking, until

Clip = Callable[..., Path]
GOP_S = 1.0


def test_a_connection_that_is_reset() -> None:
    with serving(USERS) as (server, _, _):
        proxy = Proxy(server.port)
        with talking(proxy) as port, Watched(f"rtsp://viewer:secret@127.0.0.1:{port}/door") as seen:
            seen.wait_frames(5)
            proxy.reset()
            status = seen.wait(State.RECONNECTING)
            assert "went away" in status.message or "broke off" in status.message
            assert status.losses == 1
            seen.wait_back(GOP_S)


def test_a_publisher_that_goes_away() -> None:
    """GStreamer's server says BYE at the end of what it relays, and keeps the connection."""
    port = free_port()
    with gstreamer(port, "40"), Watched(f"rtsp://user:secret@127.0.0.1:{port}/live") as seen:
        seen.wait_frames(5)
        status = seen.wait(State.RECONNECTING)
        assert status.message
        seen.wait_back(GOP_S)


@pytest.mark.parametrize("transport", ["tcp", "http"])
def test_a_server_that_freezes_in_the_middle_of_a_picture(transport: str, clip: Clip) -> None:
    """Half a packet has come, and nothing else does."""
    stream = Stream(clip("camera.ts", **TS))
    with serving(USERS) as (server, _, feed), talking(stream) as plain:
        feed.noise = True  # pictures of many packets
        proxy = Proxy(server.port if transport == "tcp" else plain)
        with talking(proxy) as port:
            url = f"rtsp://viewer:secret@127.0.0.1:{port}/door"
            if transport == "http":
                url = f"http://viewer:secret@127.0.0.1:{port}/live.ts"
            with Watched(url) as seen:
                seen.wait_frames(5)
                proxy.frozen = True
                assert "no picture for" in seen.wait(State.STALLED).message
                seen.wait(State.RECONNECTING)
                proxy.frozen = False
                seen.wait_back(GOP_S)
                seen.wait(State.LIVE)
                assert seen.camera.status.hangs == 0


def test_a_server_that_sends_a_byte_now_and_then() -> None:
    """Each byte is a sign of life for a time-out that looks at the socket alone."""
    with serving(USERS) as (server, _, _):
        proxy = Proxy(server.port)
        with talking(proxy) as port, Watched(f"rtsp://viewer:secret@127.0.0.1:{port}/door", dead_s=1.0) as seen:
            seen.wait_frames(5)
            proxy.slow = True
            seen.wait(State.STALLED)
            seen.wait(State.RECONNECTING)
            proxy.slow = False
            seen.wait_back(GOP_S)


def test_plain_words_to_a_tls_port_are_given_up(certificate: tuple[Path, Path]) -> None:  # noqa: F811
    tls = serving(USERS, tls=_tls(certificate))
    with tls as (server, _, _), Watched(address(server, "viewer:secret").replace("rtsps", "rtsp")) as seen:
        status = seen.wait(State.RECONNECTING)
        assert status.message
        assert status.hangs == 0


def test_a_certificate_of_another_host(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=other.example", "-addext", "subjectAltName=DNS:other.example"]
    subprocess.run([*words, *names, "-keyout", str(key), "-out", str(cert)], capture_output=True, check=True)
    with serving(USERS, tls=_tls((cert, key))) as (server, _, _):
        source = replace(QUICK, ca_file=str(cert))  # it is trusted, and still somebody else's
        url = address(server, "viewer:secret").replace("127.0.0.1", "localhost")
        with Watched(url, source=source) as seen:
            seen.wait(State.RECONNECTING)
            until(lambda: seen.camera.status.message)
            assert seen.camera.status.frames == 0


def _tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:  # noqa: F811
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.mark.parametrize(
    ("user", "path", "words"),
    [("", "", "401"), ("viewer:secretly", "", "401"), ("nobody:secret", "", "401"), ("viewer:secret", "way", "404")],
)
def test_a_refusal_is_tried_again_slowly_and_mends_itself(user: str, path: str, words: str) -> None:
    with serving(dict(USERS)) as (server, mount, _):
        proxy = Proxy(server.port)
        with talking(proxy) as port:
            url = address(server, user).replace(str(server.port), str(port)) + path
            with Watched(url, max_backoff_s=0.01, refused_wait_s=2.0) as seen:
                status = seen.wait(State.FAILED)
                assert words in status.message
                assert "tried again every 2 s" in status.message
                tries = proxy.taken
                time.sleep(1.2)
                assert proxy.taken == tries  # an ordinary back-off would have tried a hundred times
                mount.users.clear()  # somebody puts it right
                server.mounts.setdefault("doorway", mount)
                seen.wait_back(GOP_S)
                assert seen.wait(State.LIVE).losses == 0


def test_a_device_that_is_no_camera() -> None:
    device = Path("/dev/video77")
    try:
        os.mknod(device, 0o20600, os.makedev(1, 3))
    except OSError as error:
        pytest.skip(f"a device cannot be made here ({error.strerror})")
    try:
        with Watched(str(device)) as seen:
            assert "it is not a camera" in seen.wait(State.RECONNECTING).message
    finally:
        device.unlink()


@pytest.mark.parametrize("loop", [False, True])
def test_a_file_that_is_cut_off(clip: Clip, cut: Callable[[Path, float], Path], loop: bool) -> None:
    short = cut(clip("camera.mkv", frames=30, audio=(), options={"g": "10", "bf": "0"}), 0.6)
    with Watched(str(short), loop=loop) as seen:
        if loop:
            seen.wait_frames(40)
            assert seen.camera.status.connects >= 2
            assert any("cut off" in status.message for status in seen.statuses)
        else:
            assert "cut off" in seen.wait(State.ENDED).message
            assert 5 < len(seen.frames) < 30


def test_another_size_at_the_next_connection(clip: Clip) -> None:
    small, large = clip("camera.ts", **TS), clip("larger.ts", size=(320, 240), **TS)
    with Watched(f"http://user:secret@127.0.0.1:{(port := free_port())}/live.ts") as seen:
        for path, width in ((small, 160), (large, 320)):
            with talking(Stream(path), port):
                until(lambda width=width: seen.camera.status.width == width)
                seen.wait_frames(5)
    assert [index for index, _, _ in seen.frames] == list(range(len(seen.frames)))


def test_pictures_without_times_get_the_time_at_which_they_come(clip: Clip, tmp_path: Path) -> None:
    """A bare H.264 stream has no time stamps at all."""
    bare = tmp_path / "bare.h264"
    with av.open(str(clip("camera.ts", **TS))) as container:
        bare.write_bytes(b"".join(bytes(packet) for packet in container.demux(video=0)))
    with talking(Stream(bare)) as port, Watched(f"http://user:secret@127.0.0.1:{port}/live.h264") as seen:
        began = time.monotonic()
        seen.wait_frames(40)
        took = time.monotonic() - began
    times = [pts / 90000 for _, pts, _ in seen.frames]
    assert all(a < b for a, b in pairwise(times))
    assert times[-1] - times[0] < took + 3  # the clock's own, not one of 1/1200000 s


def test_hls_comes_steadily_and_not_in_bursts(clip: Clip) -> None:
    with Hls(segments(clip)) as server, Watched(server.address) as seen:
        seen.wait(State.LIVE)
        began = time.monotonic()
        seen.wait_frames(30)
        assert time.monotonic() - began > 2  # all of it was there from the beginning
        assert seen.wait(State.LIVE).losses == 0
        steps = [b[1] - a[1] for a, b in zip(seen.frames, seen.frames[1:], strict=False)]
        assert sorted(steps)[len(steps) // 2] == 9000


def test_hls_whose_playlist_stalls_shows_nothing_twice(clip: Clip) -> None:
    """A new connection is given the pictures of before once more. They are not the camera's: nothing is live."""
    with Hls(segments(clip, 40)) as server, Watched(server.address, first_frame_s=6.0) as seen:
        seen.wait_frames(20)
        server.stalled = True
        assert "no picture for" in seen.wait(State.STALLED).message
        seen.wait(State.RECONNECTING)
        shown, last = len(seen.frames), server.ready - 1
        until(lambda: server.asked[last] >= 3)  # it comes for the same segment again and again
        assert len(seen.frames) == shown
        assert seen.camera.status.state is State.RECONNECTING
        server.stalled = False
        seen.wait_back(2.0)  # at the next segment
        seen.wait(State.LIVE)


@pytest.mark.parametrize("code", [404, 503])
def test_hls_of_a_server_that_fails(clip: Clip, code: int) -> None:
    with Hls(segments(clip, 40)) as server, Watched(server.address) as seen:
        seen.wait_frames(5)
        server.status = code
        until(lambda: seen.camera.status.state in (State.FAILED, State.RECONNECTING))
        until(lambda: str(code)[0] in seen.camera.status.message)
        server.status = 200
        seen.wait_back(3.0)


def test_hls_of_another_size_in_mid_stream(clip: Clip) -> None:
    """And its times begin anew, as its playlist says."""
    with Hls(segments(clip, 5), segments(clip, 20, (96, 80))) as server, Watched(server.address) as seen:
        until(lambda: seen.camera.status.width == 96)
        seen.wait_frames(20)
        assert seen.camera.status.losses == 0
        assert seen.camera.status.frames >= 60


def test_a_pace_follows_times_that_jump() -> None:
    pace = Pace()
    pace.restart(segmented=True)
    assert pace.wait_s(100.0, 0.0) == 0
    assert pace.wait_s(100.5, 0.1) == pytest.approx(0.4)
    assert pace.wait_s(101.0, 2.0) == 0  # late: what follows does not hurry
    assert pace.wait_s(101.5, 2.0) == pytest.approx(0.5)
    assert pace.wait_s(500.0, 3.0) == 0  # another time line
    assert pace.wait_s(0.0, 4.0) == 0
    assert pace.wait_s(None, 4.0) == 0
    assert not pace.seen(200.0)
    pace.restart(segmented=True)
    assert [pace.seen(t) for t in (198.0, 200.0, 200.6)] == [True, True, False]
    pace.restart(segmented=True)
    assert not pace.seen(3.0)  # the server began anew
