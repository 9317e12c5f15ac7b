"""What shows after weeks: clocks that are set, cameras and disks that were away for a night, memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import av
import pytest
from facestream.pipeline.connection import State
from facestream.pipeline.live import cameras as camera_settings
from facestream.pipeline.live import run as live_run
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.live.recording import RecordsSink
from facestream.pipeline.live.retention import Limits, SegmentCleaner
from facestream.pipeline.types import CoveredFrame

from tests.feed import covered
from tests.live.test_cameras import call, cameras, settings
from tests.live.test_fail_closed import Moody, fail_closed, frame
from tests.live.test_live import Run
from tests.live.test_retention import names, put
from tests.live.test_rtsp_server import USERS, serving
from tests.servers import Proxy, Watched, free_port, talking, until

DAY = 86400.0


def test_a_clock_that_is_set_moves_names_and_reports_but_not_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that starts in 1970, or slept: segments' names and sender reports follow its clock, a stream's time
    does not, so that players see neither a jump nor a stop."""
    with serving(USERS) as (server, _, _), Watched(f"rtsp://viewer:secret@127.0.0.1:{server.port}/door") as seen:
        seen.wait_frames(3)
        camera = seen.camera
        epoch_s = camera.epoch_s
        ticks = camera.ticks
        real = time.time
        assert camera.epoch_s == epoch_s  # it does not jitter
        monkeypatch.setattr(time, "time", lambda: real() + 10 * DAY)
        assert camera.epoch_s - epoch_s == pytest.approx(10 * DAY, abs=1)
        assert 0 <= camera.ticks - ticks < 5 / TICK
        before = seen.frames[-1][1]
        seen.wait_frames(3)
        assert seen.frames[-1][1] - before < 20 / TICK


def look_on(url: str) -> None:
    """A player, until its stream ends."""
    with contextlib.suppress(av.FFmpegError), av.open(url, options={"rtsp_transport": "tcp"}, timeout=30.0) as stream:
        for _ in stream.decode(video=0):
            pass


def test_a_served_stream_goes_on_while_the_clock_is_set_and_the_camera_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_run, "DOWN_S", 0.5)
    monkeypatch.setattr(live_run, "PLACEHOLDER_S", 0.3)
    with serving({}) as (camera, _, _):
        proxy = Proxy(camera.port)
        with talking(proxy) as port:
            out = f"serve:rtsp://127.0.0.1:{free_port()}/door"
            with Run({"door": f"rtsp://127.0.0.1:{port}/door"}, [out], Moody()) as run:
                run.until(lambda: run.left("door") > 5)
                sink = run["door"].workers[0].sink
                (server,) = run.live.servers
                threading.Thread(target=look_on, args=(f"rtsp://127.0.0.1:{server.port}/door",), daemon=True).start()
                run.until(lambda: server.mounts["door"].players)
                proxy.frozen = True
                run.until(lambda: run["door"].placeholders > 2)
                real = time.time
                monkeypatch.setattr(time, "time", lambda: real() + 3600)
                placeholders = run["door"].placeholders
                run.until(lambda: run["door"].placeholders > placeholders + 2)
                proxy.frozen = False
                left = run.left("door")
                run.until(lambda: run.left("door") > left + 5)
                # The stream's time is still the camera's: else its pictures would be left out for an hour.
                assert sink._last_pts < run["door"].camera.ticks + 60 / TICK  # type: ignore[attr-defined]


def test_segments_of_a_machine_whose_clock_was_not_set_are_not_too_old(tmp_path: Path) -> None:
    early = put(tmp_path, "door-19700101-000500.mkv", time.time() - 300)
    old = put(tmp_path, "door-20260101-120000.mkv", 100 * DAY)
    new = put(tmp_path, "door-20261101-120000.mkv", 1)
    assert early.stat().st_mtime == pytest.approx(300, abs=5)
    SegmentCleaner(tmp_path / "door.mkv", Limits(age_s=14 * DAY)).sweep(None)
    assert names(tmp_path) == sorted([early.name, new.name])
    assert not old.exists()
    SegmentCleaner(tmp_path / "door.mkv", Limits(octets=1500)).sweep(None)
    assert names(tmp_path) == [new.name]


def at(second: float, number: int) -> CoveredFrame:
    return covered(number, round(second / TICK))


def test_records_that_are_kept_for_a_time_are_segments_too(tmp_path: Path) -> None:
    """One file of records a camera would fill the disk beside recordings that are kept for two weeks."""
    began = time.time()
    path = tmp_path / "door.jsonl"
    sink = RecordsSink("r", path, False, "cam", 10.0, lambda: began, Limits(octets=3000))
    sizes = []
    for n in range(400):
        sink.write(at(3600 + n * 0.5, n))
        sizes.append(sum(file.stat().st_size for file in tmp_path.iterdir()))
    sink.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) > 1
    rows = [json.loads(line)["frame"] for file in files for line in file.read_text().splitlines()]
    assert rows == list(range(rows[0], 400))
    assert rows[0] > 100  # the first ones are gone
    assert max(sizes) < 3000 + 20 * 1000
    assert all(SegmentCleaner(path, Limits())._whole.fullmatch(file.name) for file in files)


def test_records_without_limits_are_one_file(tmp_path: Path) -> None:
    sink = RecordsSink("r", tmp_path / "door.jsonl", False, "cam")
    for n in range(50):
        sink.write(at(n * 1000.0, n))
    sink.close()
    assert names(tmp_path) == ["door.jsonl"]


def test_what_is_inside_at_the_end_or_at_a_gap_is_recorded_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All frames of the look-ahead leave at once, to a sink that is slower than that."""
    write = RecordsSink.write

    def slowly(sink: RecordsSink, frame: CoveredFrame) -> None:
        time.sleep(0.02)
        write(sink, frame)

    monkeypatch.setattr(RecordsSink, "write", slowly)
    out = tmp_path / "o.jsonl"
    source = {"door": "lavfi:testsrc2=size=160x120:rate=10,realtime"}
    with Run(source, [str(out)], Moody(), tracker__lookahead=30, run__deadline_s=60.0) as run:
        run.until(lambda: run.left("door") > 3)
        pipeline = run["door"]
    assert pipeline.counts.sink_dropped == 0
    assert len(out.read_text().splitlines()) == pipeline.counts.emitted > 30


def test_a_camera_that_was_away_for_long_is_watched_as_closely_as_before() -> None:
    """Time-outs grow while nothing answers. They must not stay so, or the next freeze goes unnoticed for minutes."""
    quiet = free_port()
    with Watched(f"rtsp://viewer:secret@127.0.0.1:{quiet}/door", hang_s=60.0) as seen:
        with talking(lambda connection: time.sleep(30), quiet):
            until(lambda: sum("in time" in status.message for status in seen.statuses) >= 1, 60)
            until(lambda: seen.camera._read_timeout_s > 10, 120)
        with serving(USERS) as (server, _, _):
            proxy = Proxy(server.port)
            with talking(proxy, quiet):
                seen.wait_frames(10, 90)
                proxy.reset()
                seen.wait_frames(10, 90)
                began = time.monotonic()
                proxy.frozen = True
                seen.wait(State.RECONNECTING, 30)
                assert time.monotonic() - began < 9
                proxy.frozen = False
        assert seen.camera.status.hangs == 0
        assert not any("is used from now on" in status.message for status in seen.statuses)  # and its transport is kept


def test_a_camera_that_cannot_be_started_is_seen_and_tried_again(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="the page needs the web extra")
    file = tmp_path / "cameras.toml"
    port = free_port()
    settings(file, port, "a")
    script = (
        "import sys\nfrom facestream.pipeline.live import cameras\ncameras.RETRY_S = 1.0\n"
        "from facestream.pipeline.cli.app import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    events = tmp_path / "events.jsonl"
    file.write_text(file.read_text().replace("[run]\n", f'[run]\nevents = "{events}"\n'))
    command = [sys.executable, "-c", script, "run", "--config", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        try:
            until(lambda: set(cameras(port)) == {"a"}, 90)
            late = tmp_path / "disk"
            text = file.read_text()
            text += '[[camera]]\nname = "b"\nsource = "lavfi:testsrc2=size=160x120:rate=10,realtime"\n'
            file.write_text(text + f'sinks = ["{late}/b.mkv"]\n')
            call(port, "reload", b"")
            until(lambda: "b: failed, it cannot be started" in call(port, "healthz")[1], 30)
            assert call(port, "healthz")[0] == 503
            until(lambda: '"camera": "b", "event": "camera_down", "over": false' in events.read_text(), 30)
            late.mkdir()
            until(lambda: cameras(port).get("b", {}).get("state") == "live", 60)
            until(lambda: '"camera": "b", "event": "camera_down", "over": true' in events.read_text(), 30)
            until(lambda: "cannot be started" not in call(port, "healthz")[1], 30)
            run.terminate()
            assert run.wait(20) == 130
        finally:
            run.kill()
        said = run.stderr.read() if run.stderr else ""
    assert said.count("cannot be started") == 1  # not with every try
    assert camera_settings.RETRY_S > 10


def test_who_looks_at_a_camera_that_is_removed_is_told() -> None:
    pytest.importorskip("aiohttp", reason="the page needs the web extra")
    import http.client

    port = free_port()
    sources = {name: "lavfi:testsrc2=size=160x120:rate=10,realtime" for name in "ab"}
    with Run(sources, [f"http://127.0.0.1:{port}"], Moody()) as run:
        run.until(lambda: run.left("a") > 3)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
        connection.request("GET", "/camera/a.mjpg")
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.read(1000)
        run.live.remove(run["a"])
        while answer.read(65536):  # to the end of the stream, which raises where it does not come
            pass
        connection.close()
        assert run.left("b") > 0


INTERLEAVED = """
import sys
import numpy as np
from facestream.pipeline.system import give_memory_back

def resident_mb():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

if sys.argv[1] == "yes":
    give_memory_back()
del (largest := [np.ones(8 << 20, np.uint8)])[:]  # as a 4K picture: from here on glibc packs all smaller blocks
before = resident_mb()
stay = []
for turn in range(3):
    pictures = []
    for n in range(1500):
        pictures.append(np.ones(100_000, np.uint8))
        stay.append(np.ones(300, np.uint8))  # something small that is kept
    del pictures
print(resident_mb() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_the_memory_of_pictures_goes_back_to_the_system() -> None:
    def left_mb(how: str) -> float:
        words = [sys.executable, "-c", INTERLEAVED, how]
        return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    if left_mb("no") < 50:
        pytest.skip("this C library gives it back by itself")
    assert left_mb("yes") < 10


HOLES = """
import ctypes
import sys
from facestream.pipeline.system import trim_memory

def resident_mb():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(60_000) for _ in range(1000)]
for block in blocks:
    ctypes.memset(ctypes.c_void_p(block), 1, 60_000)
for block in blocks[:-1]:  # the last one keeps the heap's end where it is
    libc.free(block)
before = resident_mb()
trim_memory()
print(before - resident_mb())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_what_lies_free_between_blocks_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 40


HEAPS = """
import ctypes, sys, threading
from facestream.pipeline.system import cores, give_memory_back

if sys.argv[1] == "yes":
    give_memory_back()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
count = 3 * cores() + 3
together = threading.Barrier(count)

def take():
    together.wait()
    libc.malloc(1000)
    together.wait()

threads = [threading.Thread(target=take) for _ in range(count)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
file = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, file)
libc.fclose(file)
print(open(sys.argv[2]).read().count("<heap nr="), max(2, cores()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_threads_share_the_heaps(tmp_path: Path) -> None:
    """A camera that comes and goes leaves as many threads' heaps at their largest as there are."""

    def heaps(how: str) -> list[int]:
        words = [sys.executable, "-c", HEAPS, how, str(tmp_path / "heaps.xml")]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return [int(number) for number in done.stdout.split()]

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MALLOC_ARENA_MAX", raising=False)
        count, most = heaps("no")
        if count <= most:
            pytest.skip("this C library has no more heaps by itself")
        count, most = heaps("yes")
    assert count <= most


def test_a_live_run_asks_for_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from facestream.pipeline.cli import run as command
    from facestream.pipeline.cli.app import main

    asked: list[str] = []
    monkeypatch.setattr(command, "give_memory_back", lambda: asked.append("at the start"))
    monkeypatch.setattr(command, "trim_memory", lambda: asked.append("while it runs"))
    monkeypatch.setattr(command, "TRIM_S", 0.1)
    source = "lavfi:testsrc2=size=160x120:rate=10:duration=0.5"
    assert main(["run", source, "--once", "--to", str(tmp_path / "o.mkv"), "--size", "320x192"]) == 0
    assert asked[0] == "at the start"
    assert asked[1:].count("while it runs") >= 1
    with av.open(str(tmp_path / "o.mkv")) as container:
        assert next(container.decode(video=0)).width == 160


def test_a_camera_with_a_picture_every_five_seconds_is_not_a_minute_late() -> None:
    slow = fail_closed(Moody(), tracker__lookahead=15)
    normal = fail_closed(Moody(), tracker__lookahead=15)
    left = [0, 0]
    for n in range(14):
        shown = frame(n)
        left[0] += len(slow.push(replace(shown, pts=n * 450_000)))
        left[1] += len(normal.push(shown))
    assert left[0] >= 12
    assert left[1] == 0  # the look-ahead of a usual one is as long as before
