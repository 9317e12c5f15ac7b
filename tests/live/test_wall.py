"""Capture times by the camera's clock in records: sender reports of our server and of GStreamer's."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from facestream.pipeline.live.camera import Camera
from facestream.pipeline.live.state import CameraOptions
from facestream.pipeline.records import RecordSink, read_records
from facestream.pipeline.rtsp.rtp import Unit
from facestream.pipeline.rtsp.server import RtspServer
from facestream.pipeline.types import Frame, TrackedFrame
from facestream.pipeline.video.uri import parse

from tests.feed import Feed, number_of
from tests.live.test_camera_rtsp import gstreamer
from tests.live.test_rtsp_server import address, serving
from tests.servers import QUICK, free_port, until


class Receiver:
    """Numbers, wall-clock times and frames as they come."""

    def __init__(self, url: str) -> None:
        self.seen: list[tuple[int, float | None]] = []
        self.frames: list[Frame] = []
        self.camera = Camera("door", parse(url), CameraOptions(source=QUICK), self.take)

    def take(self, frame: Frame) -> None:
        self.seen.append((number_of(frame.picture), frame.wall_s))
        self.frames.append(frame)

    def __enter__(self) -> Receiver:
        self.camera.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.camera.stop()
        assert self.camera.join(15)


def test_each_picture_has_the_time_at_which_it_was_taken(tmp_path: Path) -> None:
    with serving() as (server, _, feed), Receiver(address(server)) as watch:
        until(lambda: len(watch.seen) > 30)
        began = feed.wall_s
        for number, wall_s in watch.seen:
            assert wall_s == pytest.approx(began + number / feed.rate, abs=1e-3)
        feed.wall_s += 3600  # somebody sets the clock: from the next report on, that is what it says
        until(lambda: (watch.seen[-1][1] or 0) > began + 3000)
        jump = next(n for n, (_, wall_s) in enumerate(watch.seen) if (wall_s or 0) > began + 3000)
        for number, wall_s in watch.seen[jump:]:
            assert wall_s == pytest.approx(began + 3600 + number / feed.rate, abs=1e-3)
        feed.wall_s = 100.0  # and here it has lost its battery
        until(lambda: watch.seen[-1][1] is None)
    path = tmp_path / "door.jsonl"
    sink = RecordSink(path, False)
    for frame in watch.frames:
        sink.write(TrackedFrame(frame, ()), "door")
    sink.close()
    walls = [record.wall_s for record in read_records(path).values()]
    assert walls[0] == pytest.approx(began + watch.seen[0][0] / 25, abs=1e-3)
    assert walls[-1] is None
    assert "wall_s" not in path.read_text().splitlines()[-1]


def test_a_camera_that_sends_no_reports_has_no_time() -> None:
    server = RtspServer("127.0.0.1", 0)
    mount = server.mount("door")
    server.start()
    with Feed(lambda unit: server.send(mount, Unit(unit.packets, unit.key)), mount.packetizer):
        with Receiver(address(server)) as watch:
            until(lambda: len(watch.seen) > 10)
        server.stop()
    assert {wall_s for _, wall_s in watch.seen} == {None}


def test_a_stream_whose_times_wrap_round() -> None:
    """RTP's 32 bits are over after 13 hours: here between two reports, which FFmpeg must take into account."""
    server = RtspServer("127.0.0.1", 0)
    mount = server.mount("door")
    mount.packetizer.base = 2**32 - 330 * 1800
    server.start()
    with Feed(lambda unit: server.send(mount, unit), mount.packetizer, rate=50, gop_s=1.6) as feed:
        with Receiver(address(server)) as watch:
            until(lambda: watch.seen and watch.seen[-1][0] > 350)
        server.stop()
    numbers = [number for number, _ in watch.seen]
    assert numbers[0] < 330
    for number, wall_s in watch.seen:
        assert wall_s == pytest.approx(feed.wall_s + number / feed.rate, abs=1e-3)


def test_the_time_of_another_server() -> None:
    port = free_port()
    with gstreamer(port), Receiver(f"rtsp://127.0.0.1:{port}/live") as watch:
        until(lambda: sum(wall_s is not None for _, wall_s in watch.seen) > 20, 60)
        now = time.time()
    walls = [wall_s for _, wall_s in watch.seen if wall_s is not None]
    assert all(now - 60 < wall_s < now + 1 for wall_s in walls)
    assert walls[-1] > walls[0]
