"""Cameras that exist: each with the way of one that was reported. The camera is `live/cam.py` of the shared cases."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from facestream.pipeline.connection import State
from facestream.pipeline.video.options import SourceOptions

from tests.servers import Watched, free_port, until

CASES = Path(os.environ.get("FACESTREAM_CASES", Path(__file__).parent.parent.parent.parent / "shared" / "cases"))
CAMERA = CASES / "live" / "cam.py"
pytestmark = pytest.mark.skipif(not CAMERA.is_file(), reason="the shared cases are not here (FACESTREAM_CASES)")
Clip = Callable[..., Path]
SOURCE = SourceOptions(threads=1, open_timeout_s=2.0, read_timeout_s=1.0)


@contextlib.contextmanager
def camera(clip: Clip, folder: Path, port: int, gop: int = 25, script: str = "", **how: Any) -> Iterator[Path]:
    """A camera on this port; gives its log: each request. script: more of it, before it runs."""
    media = clip(f"odd{gop}.mp4", frames=max(102, gop), rate=25, audio=(), options={"g": str(gop), "bf": "0"})
    (folder / "out").mkdir(exist_ok=True)
    log = folder / f"camera-{port}.log"
    with log.open("w") as file:
        command = [sys.executable, str(CAMERA), str(port), str(media), json.dumps(how)]
        if script:
            own = folder / f"camera-{port}.py"
            own.write_text(f"import sys\nsys.path.insert(0, {str(CAMERA.parent)!r})\nimport json\nimport cam\n{script}")
            command[1] = str(own)
        with subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT) as process:
            try:
                yield log
            finally:
                process.kill()


def watched(port: int, user: str = "admin:secret@", **options: Any) -> Watched:
    given = {"source": SOURCE, "first_frame_s": 4.0, "dead_s": 4.0, "stall_s": 2.0}
    return Watched(f"rtsp://{user}127.0.0.1:{port}/x", **{**given, **options})


@pytest.mark.parametrize("auth", ["basic", "md5", "md5qop", "sha256", "sha256qop", "sha256+md5", "md5+sha256"])
def test_every_way_to_prove_a_password(clip: Clip, tmp_path: Path, auth: str) -> None:
    port = free_port()
    with camera(clip, tmp_path, port, auth=auth), watched(port) as seen:
        seen.wait_frames(20, 60)
        assert seen.camera.status.connects == 1


def test_a_wrong_password_is_still_said(clip: Clip, tmp_path: Path) -> None:
    port = free_port()
    with camera(clip, tmp_path, port, auth="sha256"), watched(port, "admin:wrong@") as seen:
        until(lambda: any("password is missing or wrong" in status.message for status in seen.statuses), 60)
        assert seen.camera.status.state is State.FAILED


@pytest.mark.parametrize("password", ["#se/cr?et", "1234/5678", "a b@c", "100%"])
def test_bare_letters_in_a_password(clip: Clip, tmp_path: Path, password: str) -> None:
    port = free_port()
    with camera(clip, tmp_path, port, auth="sha256", password=password), watched(port, f"admin:{password}@") as seen:
        seen.wait_frames(5, 60)


def test_a_redirection_to_a_server_that_wants_the_password_too(clip: Clip, tmp_path: Path) -> None:
    first = free_port()
    second = free_port()
    with camera(clip, tmp_path, second, auth="md5"):
        to = f"rtsp://127.0.0.1:{second}/y"
        with camera(clip, tmp_path, first, auth="md5", redirect=to), watched(first) as seen:
            seen.wait_frames(5, 60)


@pytest.mark.parametrize("how", [{"udp_only": 1}, {"tcp_only": 1}, {"udp_only": 1, "auth": "sha256"}])
def test_the_transport_that_the_camera_has(clip: Clip, tmp_path: Path, how: dict[str, Any]) -> None:
    port = free_port()
    with camera(clip, tmp_path, port, **how), watched(port) as seen:
        seen.wait_frames(20, 60)


def transport_messages(seen: Watched) -> list[str]:
    return [status.message for status in seen.statuses if "is used from now on" in status.message]


def test_the_other_transport_is_taken_and_said_once_both_ways(clip: Clip, tmp_path: Path) -> None:
    port = free_port()
    with watched(port) as seen:
        with camera(clip, tmp_path, port, udp_only=1, close_after=3) as log:
            seen.wait_frames(10, 60)
            connects = seen.camera.status.connects
            until(lambda: seen.camera.status.connects > connects + 1, 60)  # it remembers what the camera has
            assert log.read_text().count("RTP/AVP/TCP") == 1
        assert transport_messages(seen) == ["it refuses TCP; UDP is used from now on"]
        with camera(clip, tmp_path, port, tcp_only=1):
            seen.wait_frames(10, 60)
        both = ["it refuses TCP; UDP is used from now on", "it refuses UDP; TCP is used from now on"]
        assert transport_messages(seen) == both
        with camera(clip, tmp_path, port, udp_only=1):
            seen.wait_frames(10, 60)
        assert transport_messages(seen) == both


SILENT_TCP = """
class Silent(cam.Cam):
    def play(self, c, i, st, lock):
        if not st["tracks"]:
            super().play(c, i, st, lock)

Silent(int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])).run()
"""


def test_a_camera_that_sends_nothing_over_tcp(clip: Clip, tmp_path: Path) -> None:
    port = free_port()
    source = SourceOptions(threads=1, open_timeout_s=0.5, read_timeout_s=0.2)
    quick = {"source": source, "first_frame_s": 0.5, "dead_s": 0.5}
    with camera(clip, tmp_path, port, script=SILENT_TCP), watched(port, **quick) as seen:
        seen.wait_frames(10, 90)
        assert transport_messages(seen) == ["nothing comes over TCP; UDP is used from now on"]


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_transport_that_was_asked_for_is_kept(clip: Clip, tmp_path: Path, transport: str) -> None:
    port = free_port()
    refuses = {"udp_only" if transport == "tcp" else "tcp_only": 1}
    source = SourceOptions(threads=1, open_timeout_s=2.0, read_timeout_s=1.0, rtsp_transport=transport)
    with camera(clip, tmp_path, port, **refuses), watched(port, source=source) as seen:
        until(lambda: any("refuses this transport" in status.message for status in seen.statuses), 60)
        assert not seen.frames
        assert not transport_messages(seen)


def test_key_frames_that_are_further_apart_than_the_time_outs(clip: Clip, tmp_path: Path) -> None:
    port = free_port()
    source = SourceOptions(threads=1, open_timeout_s=1.0, read_timeout_s=0.4)
    quick = {"source": source, "first_frame_s": 0.6, "dead_s": 0.6}
    # A key frame every 12 s, twenty times the time-out, as 75 s are beside ten; whoever joins gets what is on the air.
    with camera(clip, tmp_path, port, gop=300, shared=1), contextlib.ExitStack() as stack:
        until(lambda: answers(port), 30)
        time.sleep(2.0)  # into the first group of pictures
        seen = stack.enter_context(watched(port, **quick))
        seen.wait_frames(10, 120)
        assert seen.statuses[0].message, "it joined at a key frame"
        connects = seen.camera.status.connects
        seen.wait_frames(600, 90)  # two more key frames
        assert seen.camera.status.connects == connects


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_a_camera_that_takes_long_to_answer(clip: Clip, tmp_path: Path) -> None:
    port = free_port()
    with camera(clip, tmp_path, port, describe_delay=8), watched(port) as seen:
        until(lambda: any("did not answer in time" in status.message for status in seen.statuses), 30)
        seen.wait_frames(5, 90)


def test_pictures_that_are_further_apart_than_the_time_outs(clip: Clip, tmp_path: Path) -> None:
    port = free_port()
    source = SourceOptions(threads=1, open_timeout_s=2.0, read_timeout_s=0.4)  # which FFmpeg doubles
    with camera(clip, tmp_path, port, real_fps=0.5), watched(port, source=source) as seen:
        seen.wait_frames(10, 120)
        connects = seen.camera.status.connects
        assert connects > 1, "the first time-out was long enough"
        seen.wait_frames(4, 60)
        assert seen.camera.status.connects == connects


@pytest.mark.parametrize(
    "clock", ["0", "ts // 3", "ts * 3", "ts - 225000 if k > 60 else ts", "ts + 225000 if k > 60 else ts"]
)
def test_rtp_clocks_that_are_wrong(clip: Clip, tmp_path: Path, clock: str) -> None:
    port = free_port()
    with camera(clip, tmp_path, port, ts=clock), watched(port) as seen:
        seen.wait_frames(150, 90)
        assert seen.camera.status.connects == 1
        times = [pts / 90000 for _, pts, _ in seen.frames][100:150]
    apart = sorted(b - a for a, b in itertools.pairwise(times))
    assert apart[len(apart) // 2] > 0.02
    assert 1.3 < times[-1] - times[0] < 3.5  # fifty pictures, 25 a second, on a busy machine


KINDS = {"normal": "", "nolen": "", "dashes": "", "quoted": "", "basic": "admin:P@ss:w@", "digest": "admin:secret77@"}


@contextlib.contextmanager
def multipart(clip: Clip, folder: Path, fps: float) -> Iterator[int]:
    """The HTTP MJPEG camera of the cases; gives its port."""
    (folder / "m").mkdir()
    small = clip("small.mkv", frames=150, rate=25, audio=(), options={"g": "25", "bf": "0"})
    (folder / "m" / "small.mkv").write_bytes(small.read_bytes())
    port = free_port()
    command = [sys.executable, str(CAMERA.with_name("mjpegd.py")), str(port), str(fps)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: answers(port), 60)
            yield port
        finally:
            process.kill()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_multipart_header(clip: Clip, tmp_path: Path, kind: str) -> None:
    with (
        multipart(clip, tmp_path, 12.5) as port,
        Watched(f"http://{KINDS[kind]}127.0.0.1:{port}/{kind}", source=SOURCE, stall_s=5.0) as seen,
    ):
        seen.wait_frames(60, 90)
        assert seen.camera.status.connects == 1
        times = [pts / 90000 for _, pts, _ in seen.frames][30:60]
    assert 1.4 < times[-1] - times[0] < 4.8  # 29 steps of 0.08 s, which FFmpeg takes for 0.04 s


def test_a_multipart_stream_that_ends_comes_back(clip: Clip, tmp_path: Path) -> None:
    with multipart(clip, tmp_path, 12.5) as port, Watched(f"http://127.0.0.1:{port}/close8", source=SOURCE) as seen:
        until(lambda: seen.camera.status.connects >= 2, 90)
        seen.wait_frames(10)
