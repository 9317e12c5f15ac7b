"""The command line as a process: arguments, output and exit codes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.conftest import facestream, render
from tests.pack import DEMO, TRUTH, demo_frames

FAST = ["--preset", "ultrafast", "--size", "320x192"]


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    lines = done.stderr.strip().splitlines()
    assert done.returncode == code, done.stderr
    assert len(lines) == 1, done.stderr
    assert "facestream: error: " in lines[0] or " warning: " in lines[0]
    assert all(part in lines[0] for part in parts), lines[0]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return render(tmp_path / "clip.mp4", frames=15)


def test_a_clip_and_its_records(clip: Path, tmp_path: Path) -> None:
    done = facestream("anonymize", clip, "-o", tmp_path / "out.mp4", "--records", tmp_path / "out.jsonl", *FAST)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(15))
    assert rows[0]["source"] == str(clip)
    for word in ("15 frames", "CPU s a frame", "peak memory", "frames/s"):
        assert word in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "out.jsonl", "out.mp4"]


def test_detect_writes_records_only(clip: Path, tmp_path: Path) -> None:
    assert facestream("detect", clip, "-o", tmp_path / "out.jsonl", "--size", "320x192").returncode == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 15
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "out.jsonl"]


def test_a_folder_keeps_its_structure_and_one_bad_file_stops_nothing(tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    render(source / "deep" / "a.mp4", frames=5)
    Image.fromarray(demo_frames([70])[0]).save(source / "photo.jpg")
    (source / "bad.mp4").write_bytes(b"no video")
    done = facestream("anonymize", source, "-o", tmp_path / "out", *FAST)
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert done.returncode == 2, done.stderr
    assert len(errors) == 1
    assert "bad.mp4" in errors[0]
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")) == [
        "deep/a.mp4",
        "photo.jpg",
    ]
    assert "2 of 3 files" in done.stdout


def test_a_photo_is_covered(tmp_path: Path) -> None:
    (rgb,) = demo_frames([70])
    Image.fromarray(rgb).save(tmp_path / "photo.png")
    done = facestream("anonymize", tmp_path / "photo.png", "-o", tmp_path / "out.png", "--hide", "solid")
    assert done.returncode == 0, done.stderr
    out = np.asarray(Image.open(tmp_path / "out.png").convert("RGB")).astype(int)
    truth = np.loadtxt(TRUTH, delimiter=",")
    for _, _, left, top, width, height, *_ in truth[truth[:, 0] == 71]:
        middle = out[
            int(top + height / 3) : int(top + 2 * height / 3), int(left + width / 3) : int(left + 2 * width / 3)
        ]
        assert np.ptp(middle, axis=(0, 1)).max() == 0
    assert np.abs(out - rgb).mean() < 20


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [("none.mp4", None, "no such file"), ("empty.mp4", b"", "empty"), ("text.mp4", b"hello " * 500, "not a video")],
)
def test_bad_inputs(tmp_path: Path, name: str, content: bytes | None, part: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.iterdir())
    done = facestream("anonymize", tmp_path / name, "-o", tmp_path / "out.mp4", "--records", tmp_path / "out.jsonl")
    assert_one_line(done, 2, name, part)
    assert sorted(tmp_path.iterdir()) == before


def test_bad_outputs(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "there.mp4").write_bytes(b"old")
    for output, part in (
        ("there.mp4", "--overwrite"),
        ("no/out.mp4", "does not exist"),
        ("out.xyz", ".xyz"),
        ("clip.mp4", "input"),
    ):
        assert_one_line(facestream("anonymize", clip, "-o", tmp_path / output), 2, output, part)
    assert (tmp_path / "there.mp4").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "there.mp4"]
    done = facestream("anonymize", clip, "-o", tmp_path / "there.mp4", "--overwrite", *FAST)
    assert done.returncode == 0
    assert (tmp_path / "there.mp4").stat().st_size > 1000


@pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root writes everywhere, and there is no setpriv"
)
def test_a_folder_without_permission(clip: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    command = [sys.executable, "-m", "facestream", "anonymize", str(clip), "-o", str(locked / "out.mp4")]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert_one_line(done, 2, "locked", "permission")
    assert not list(locked.iterdir())


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--hide", "mask"], ["hide", "'mask'", "pixelate"]),
        (["--shape", "star"], ["shape", "'star'", "ellipse"]),
        (["--scale", "big"], ["--scale", "'big'"]),
        (["--scale", "0.1"], ["scale", "0.1"]),
        (["--size", "large"], ["--size", "960x544"]),
        (["--detect-every", "0"], ["every", "0"]),
        (["--model", "yolo"], ["yolo", "plainS"]),
        (["--colour", "red"], ["--colour"]),
        (["--config", "none.toml"], ["none.toml"]),
        (["--hide", "image:none.png"], ["none.png"]),
    ],
)
def test_bad_flags(clip: Path, tmp_path: Path, flags: list[str], parts: list[str]) -> None:
    assert_one_line(facestream("anonymize", clip, "-o", tmp_path / "out.mp4", *flags), 2, *parts)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_an_unknown_config_key(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[detector]\nsise = 3\n")
    done = facestream("anonymize", clip, "-o", tmp_path / "out.mp4", "--config", tmp_path / "mine.toml")
    assert_one_line(done, 2, "mine.toml", "detector.sise")


def test_missing_arguments_and_commands() -> None:
    for words in (["anonymize"], ["anonymize", "x.mp4"], ["anonymise", "x"], ["detect"]):
        assert_one_line(facestream(*words), 2)


def test_a_truncated_video_is_covered_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = render(tmp_path / "whole.mp4", frames=120, muxer={"movflags": "faststart"}, options={"g": "15"})
    data = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    done = facestream("anonymize", tmp_path / "cut.mp4", "-o", tmp_path / "out.mp4", *FAST)
    assert_one_line(done, 1, "warning", "cut.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert 30 < sum(1 for _ in container.decode(video=0)) < 120


def interrupt(arguments: list[str], number: signal.Signals, after: float) -> tuple[int, str, float]:
    process = subprocess.Popen([sys.executable, "-m", "facestream", *arguments], stderr=subprocess.PIPE, text=True)
    time.sleep(after)
    assert process.poll() is None, "it was done too soon"
    sent = time.monotonic()
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    return process.returncode, error, time.monotonic() - sent


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_stops_soon_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    long = tmp_path / "long.mp4"
    with av.open(str(DEMO)) as source, av.open(str(long), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        packets = [(p.pts, p.dts, p.is_keyframe, bytes(p)) for p in source.demux(video=0) if p.dts is not None]
        span = 148 * 512
        for turn in range(20):
            for pts, dts, key, data in packets:
                packet = av.Packet(data)
                packet.pts, packet.dts, packet.is_keyframe = pts + turn * span, dts + turn * span, key
                packet.stream, packet.time_base = stream, source.streams.video[0].time_base
                out.mux(packet)
    words = ["anonymize", str(long), "-o", str(tmp_path / "out.mp4"), "--records", str(tmp_path / "out.jsonl")]
    code, error, seconds = interrupt(words, number, 4.0)
    assert code == 130
    assert "interrupted" in error.splitlines()[-1]
    assert "Traceback" not in error
    assert seconds < 5
    assert [p.name for p in tmp_path.iterdir()] == ["long.mp4"]


def test_what_a_killed_run_left_goes_with_the_next_one_but_not_what_is_still_written(tmp_path: Path) -> None:
    (tmp_path / "in.mp4").write_bytes(DEMO.read_bytes())
    words = ["anonymize", str(tmp_path / "in.mp4"), "-o", str(tmp_path / "out.mp4"), "--quiet", *FAST]

    def begin() -> subprocess.Popen[bytes]:
        process, before = subprocess.Popen([sys.executable, "-m", "facestream", *words]), parts()
        while not parts() - before:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGSTOP)
        return process

    def parts() -> set[str]:
        return {path.name for path in tmp_path.glob(".out.mp4.facestream-*.part")}

    killed = begin()
    (left,) = parts()
    killed.kill()
    killed.wait()
    assert parts() == {left}
    waiting = begin()  # which has swept it away
    (held,) = parts()
    assert held != left
    try:
        done = facestream(*words)
        assert done.returncode == 0, done.stderr
        assert parts() == {held}
    finally:
        waiting.kill()
        waiting.wait()
    assert facestream(*words, "--overwrite").returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_leaks_are_measured(tmp_path: Path) -> None:
    done = facestream("evaluate", "leaks", DEMO, TRUTH, "--json", "--size", "640x384", "--quiet")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result) >= {
        "face_frames", "leaked", "leak_rate", "leak_rate_tau50", "longest_exposed_run", "overblur", "tracks",
        "leaky_tracks",
    }  # fmt: skip
    assert result["face_frames"] == 367
    rarely = ["--detect-every", "100", "--lookahead", "0", "--size", "640x384"]
    worse = json.loads(facestream("evaluate", "leaks", DEMO, TRUTH, "--json", "--quiet", *rarely).stdout)
    assert worse["leak_rate"] > result["leak_rate"] + 0.3


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
def test_an_independent_program_reads_the_result(tmp_path: Path) -> None:
    source = render(tmp_path / "in.mp4", frames=30, rotation=90)
    assert facestream("anonymize", source, "-o", tmp_path / "out.mp4", *FAST).returncode == 0
    streams_of = []
    for name in ("in.mp4", "out.mp4"):
        words = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", str(tmp_path / name)]
        streams = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)["streams"]
        streams_of.append([
            (s["codec_type"], s["time_base"], s["start_pts"], s["duration_ts"], s.get("nb_read_frames"), s.get("width"),
             [d.get("rotation") for d in s.get("side_data_list", [])])
            for s in streams
        ])  # fmt: skip
    assert streams_of[0] == streams_of[1]


def test_help_and_version() -> None:
    assert "anonymize" in facestream("--help").stdout
    assert facestream("--version").stdout.startswith("facestream 0.")
