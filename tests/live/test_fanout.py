"""Sinks on threads of their own share a frame's pixels, and nothing else of it.

Many short runs, in processes of their own: what goes wrong between threads here ends the process.
"""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.live.fanout import FanOut, FrameSplitter
from facestream.pipeline.types import CoveredFrame, Frame, TrackedFrame

FORMATS = ("yuv420p", "yuvj420p", "yuvj422p", "yuv444p", "yuv420p10le", "nv12", "gbrp", "gray")
ROOT = Path(__file__).parent.parent.parent

# Four sinks of different formats with a pipeline's own fan-out and workers; a player and a viewer are there.
RUNS = """
import sys, tempfile, threading
from pathlib import Path
import av, numpy as np
from facestream.pipeline.live.builder import SinkSpec
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.live.encode import LiveOptions
from facestream.pipeline.live.fanout import FanOut
from facestream.pipeline.live.preview_sink import PreviewSink
from facestream.pipeline.live.recording import RecordingSink
from facestream.pipeline.live.sinks import SinkWorker, StreamSink
from facestream.pipeline.live.tuning import Tuner
from facestream.pipeline.config import read
from facestream.pipeline.rtsp.server import RtspServer
from facestream.pipeline.types import CoveredFrame, Frame, TrackedFrame
from facestream.pipeline.video.encode import EncodeOptions

name, runs, frames = sys.argv[1], int(sys.argv[2]), 12
rgb = np.random.default_rng(1).integers(0, 255, (frames, 90, 160, 3), np.uint8)
server = RtspServer("127.0.0.1", 0)
server.start()
for run in range(runs):
    with tempfile.TemporaryDirectory() as folder:
        stream = StreamSink("s", LiveOptions(), lambda: 30.0, lambda: 0.0)
        mount = server.mount(f"s{run}", None, stream.packetizer)
        mount.players.add(object())  # somebody watches
        server._fan_out = lambda mount, unit: setattr(server, "_waiting", 0)
        stream.serve(server, mount)
        page = PreviewSink("p", Tuner(read(None)))
        page.viewers = page.callers = 1
        quick = EncodeOptions(preset="ultrafast")
        files = [RecordingSink(Path(folder, f"o.{kind}"), quick, "x", lambda: 30.0) for kind in ("mkv", "avi")]
        heard = []
        workers = [SinkWorker(sink, heard.append) for sink in (stream, page, *files)]
        for worker in workers:
            worker.start()
        fan_out = FanOut()
        for n in range(frames):
            picture = av.VideoFrame.from_ndarray(rgb[n], format="rgb24").reformat(format=name)
            picture.pts, picture.time_base = n * 3000, TICK
            covered = CoveredFrame(picture, TrackedFrame(Frame(n, n * 3000, TICK, picture), ()))
            takers = [worker for worker in workers if worker.wants((160, 90))]
            for worker, own in zip(takers, fan_out.share(covered, [w.sink.upright for w in takers]), strict=True):
                worker.ring._droppable = lambda item: False  # all of them are written
                worker.give(own)
        assert all(worker.finish(60) for worker in workers), "a sink hangs"
        assert not heard, heard
        assert [worker.written for worker in workers] == [frames] * 4, [worker.written for worker in workers]
        for file in files:
            with av.open(str(file._path)) as container:
                assert sum(1 for _ in container.decode(video=0)) == frames
server.stop()
print("survived", runs, name)
"""


def picture(name: str, size: tuple[int, int] = (64, 48)) -> av.VideoFrame:
    rgb = np.random.default_rng(3).integers(0, 255, (size[1], size[0], 3), np.uint8)
    made = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=name)
    made.pts, made.time_base = 4711, TICK
    return made


@pytest.mark.parametrize("name", FORMATS)
def test_frames_of_a_splitter_share_pixels_and_nothing_else(name: str) -> None:
    original = picture(name)
    original.color_range = 2
    one, other = FrameSplitter().split(original, 2)
    assert one.planes[0].buffer_ptr == other.planes[0].buffer_ptr == original.planes[0].buffer_ptr
    assert (one.pts, one.time_base, one.format.name, one.color_range) == (4711, TICK, name, 2)
    one.pts = 5
    one.pict_type = 1
    one.color_range = 1
    assert (other.pts, original.pts, int(other.pict_type), other.color_range) == (4711, 4711, 0, 2)
    before = bytes(other.planes[0])
    one.make_writable()  # whoever wants to write gets a copy
    np.frombuffer(one.planes[0], np.uint8)[:] = 0
    assert bytes(other.planes[0]) == before


def test_streams_and_screens_get_an_upright_picture_and_no_other_one() -> None:
    stored = picture("yuv444p", (64, 48))
    frame = Frame(0, 4711, TICK, stored, rotation=90)
    upright, as_stored = FanOut().share(CoveredFrame(stored, TrackedFrame(frame, ())), [True, False])
    assert (upright.picture.format.name, upright.picture.width, upright.picture.height) == ("yuv420p", 48, 64)
    assert (upright.tracked.frame.rotation, upright.tracked.frame.size) == (0, (48, 64))
    assert upright.tracked.frame.picture is upright.picture
    assert (as_stored.picture.format.name, as_stored.tracked.frame.rotation) == ("yuv444p", 90)
    assert upright.picture.time_base == as_stored.picture.time_base == Fraction(1, 90000)


@pytest.mark.parametrize("name", FORMATS)
def test_no_two_sinks_get_the_same_frame(name: str) -> None:
    stored = picture(name)
    covered = CoveredFrame(stored, TrackedFrame(Frame(0, 4711, TICK, stored), ()))
    pictures = [shared.picture for shared in FanOut().share(covered, [False, True, False, True])]
    assert len({id(one) for one in [stored, *pictures]}) == 5


def test_a_new_size_or_format_gets_a_new_graph() -> None:
    splitter = FrameSplitter()
    for name, size in (("yuv420p", (64, 48)), ("yuv420p", (32, 32)), ("nv12", (32, 32)), ("yuv420p", (64, 48))):
        original = picture(name, size)
        for part in splitter.split(original, 3):
            assert (part.format.name, part.width, part.height) == (name, *size)
            assert (part.to_ndarray() == original.to_ndarray()).all()


def short_runs(name: str, runs: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUNS, name, str(runs)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert f"survived {runs} {name}" in done.stdout


@pytest.mark.parametrize("name", FORMATS)
def test_four_sinks_neither_crash_nor_hang(name: str) -> None:
    pytest.importorskip("aiohttp", reason="the page needs the web extra")
    short_runs(name, 3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", FORMATS)
def test_four_sinks_neither_crash_nor_hang_in_two_hundred_runs(name: str) -> None:
    pytest.importorskip("aiohttp", reason="the page needs the web extra")
    short_runs(name, 25)
