"""No recording is lost: full disks, signals, kills."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from facestream.pipeline.live import recording
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.live.recording import RecordingSink, RecordsSink, UnfinishedFile
from facestream.pipeline.types import CoveredFrame, Frame, TrackedFrame
from facestream.pipeline.video.encode import EncodeOptions

SIZE = (160, 120)


def noise(n: int) -> CoveredFrame:
    """A picture that does not compress."""
    rgb = np.random.default_rng(n).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
    picture = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
    picture.pts = n * 3600
    picture.time_base = TICK
    return CoveredFrame(picture, TrackedFrame(Frame(n, picture.pts, TICK, picture), ()))


def pictures_in(path: Path) -> int:
    """How many pictures a file holds; reading must not fail before its end."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not shutil.which("mount") or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], check=False).returncode:
        pytest.skip("nothing may be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.parametrize(("suffix", "segment_s"), [(".mkv", 0.4), (".mp4", 0.0)])
def test_a_full_disk_ends_a_file_and_a_new_one_begins_when_there_is_room(
    small_disk: Path, suffix: str, segment_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "RETRY_S", 0.0)
    events: list[str] = []
    options = EncodeOptions(preset="ultrafast", crf=40)
    path = small_disk / f"door{suffix}"
    sink = RecordingSink(path, options, "cam", lambda: 25.0, segment_s, lambda: 1e9)
    records = RecordsSink("r", small_disk / "door.jsonl", False, "cam")
    for one in (sink, records):
        one.on_event = events.append
    n = 0
    while not sink.trouble:
        sink.write(noise(n))
        records.write(noise(n))
        n += 1
        assert n < 2000
    (small_disk / "other").write_bytes(bytes(shutil.disk_usage(small_disk).free - 50_000))
    while not records.trouble:
        records.write(noise(n))
        n += 1
        assert n < 2000
    assert sink.losses == 1
    assert [event for event in events if event.startswith("recording lost: the disk is full")]
    for _ in range(20):  # nothing raises, nothing is removed
        sink.write(noise(n))
        records.write(noise(n))
        n += 1
    before = sorted(small_disk.glob(f"door*{suffix}"))
    assert before
    assert sum(pictures_in(file) for file in before) > 3
    assert not [file for file in before if ".unfinished" in file.name], "closed properly"
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
    for _ in range(20):
        sink.write(noise(n))
        records.write(noise(n))
        n += 1
    assert not sink.trouble
    assert not records.trouble
    assert any(event.startswith("recording goes on") for event in events)
    sink.close()
    records.close()
    after = sorted(set(small_disk.glob(f"door*{suffix}")) - set(before))
    assert after
    assert sum(pictures_in(file) for file in after) == 20
    rows = [json.loads(line)["frame"] for f in small_disk.glob("door*.jsonl") for line in f.read_text().splitlines()]
    assert len(rows) > 23
    assert max(rows) == n - 1
    assert not list(small_disk.glob("*.unfinished*"))


def test_a_disk_that_is_full_to_the_last_byte_costs_no_whole_line(small_disk: Path) -> None:
    """Another program took the reserve."""
    recording_path = small_disk / "door.mkv"
    sink = RecordingSink(recording_path, EncodeOptions(preset="ultrafast", crf=30), "cam", lambda: 25.0)
    records = RecordsSink("r", small_disk / "door.jsonl", False, "cam")
    for n in range(8):
        sink.write(noise(n))
        records.write(noise(n))
    with contextlib.suppress(OSError), (small_disk / "other").open("wb", buffering=0) as other:
        while True:
            other.write(bytes(4096))
    for n in range(8, 40):
        sink.write(noise(n))
        records.write(noise(n))
    assert sink.trouble
    assert records.trouble
    (video,) = small_disk.glob("door*.mkv")
    assert video.stat().st_size > 0
    for file in small_disk.glob("door*.jsonl"):
        assert all(json.loads(line) for line in file.read_text().splitlines())


def test_a_name_that_is_taken_and_what_a_killed_run_left_stay(tmp_path: Path) -> None:
    (tmp_path / "a.unfinished.mkv").write_bytes(b"left")
    file = UnfinishedFile(tmp_path / "a.mkv")
    assert file.path.name == "a.unfinished-2.mkv"
    (tmp_path / "a.mkv").write_bytes(b"another program's")
    file.path.write_bytes(b"new")
    file.commit()
    contents = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert contents == {"a.unfinished.mkv": b"left", "a.mkv": b"another program's", "a-2.mkv": b"new"}


def start(folder: Path, *names: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "facestream", "run", "door=lavfi:testsrc2=size=320x240:rate=25,realtime", "--once"]
    for name in names:
        command += ["--to", str(folder / name)]
    return subprocess.Popen([*command, "--size", "320x192", "--lookahead", "2"], stderr=subprocess.PIPE, text=True)


def wait_for(folder: Path, names: tuple[str, ...]) -> None:
    """Until some seconds were written to each."""
    end = time.monotonic() + 90
    while not all((folder / name).is_file() and (folder / name).stat().st_size > 20_000 for name in names):
        assert time.monotonic() < end, [(path.name, path.stat().st_size) for path in folder.iterdir()]
        time.sleep(0.1)


def test_a_kill_leaves_files_that_can_be_played_under_names_that_say_so(tmp_path: Path) -> None:
    unfinished = ("o.unfinished.mkv", "o.unfinished.mp4", "o.unfinished.jsonl")
    with start(tmp_path, "o.mkv", "o.mp4", "o.jsonl") as run:
        try:
            wait_for(tmp_path, unfinished)
        finally:
            run.kill()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(unfinished)
    assert pictures_in(tmp_path / unfinished[0]) > 10
    assert pictures_in(tmp_path / unfinished[1]) > 10
    lines = (tmp_path / unfinished[2]).read_text().split("\n")[:-1]
    frames = [json.loads(line)["frame"] for line in lines]
    assert frames == sorted(set(frames))  # whole lines, in order; a busy machine drops frames


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no such signal")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_session_and_a_stopped_service_close_files(tmp_path: Path, number: int) -> None:
    with start(tmp_path, "o.mkv", "o.mp4", "o.jsonl") as run:
        try:
            wait_for(tmp_path, ("o.unfinished.mkv", "o.unfinished.mp4"))
            run.send_signal(number)
            assert run.wait(20) == 130
        finally:
            run.kill()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.jsonl", "o.mkv", "o.mp4"]
    rows = len((tmp_path / "o.jsonl").read_text().splitlines())
    assert pictures_in(tmp_path / "o.mkv") == pictures_in(tmp_path / "o.mp4") == rows
