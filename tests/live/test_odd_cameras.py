"""Cameras that exist: each with the way of one that was reported. The camera is `live/cam.py` of the shared cases."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
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
def camera(clip: Clip, folder: Path, port: int, **how: Any) -> Iterator[Path]:
    """A camera on this port; gives its log: each request."""
    media = clip("odd.mp4", frames=100, rate=25, audio=(), options={"g": "25", "bf": "0"})
    (folder / "out").mkdir(exist_ok=True)
    log = folder / f"camera-{port}.log"
    with log.open("w") as file:
        command = [sys.executable, str(CAMERA), str(port), str(media), json.dumps(how)]
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
        until(lambda: any("password is missing or wrong" in status.message for status in seen.told), 60)
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


def test_a_camera_that_takes_long_to_answer(clip: Clip, tmp_path: Path) -> None:
    port = free_port()
    with camera(clip, tmp_path, port, describe_delay=8), watched(port) as seen:
        until(lambda: any("did not answer in time" in status.message for status in seen.told), 30)
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
