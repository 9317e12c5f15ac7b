"""Pipes: read once and never hung on; the output on standard output."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import pytest
from facestream.pipeline.cli.app import main
from facestream.pipeline.video.uri import Kind, parse

from tests.conftest import render

FACESTREAM = [sys.executable, "-m", "facestream"]


def frames(data: bytes) -> tuple[str, int, int]:
    """The container's name, and how many pictures and samples of sound are in it."""
    with av.open(io.BytesIO(data)) as file:
        name = file.format.name
        pictures = sum(1 for _ in file.decode(video=0))
    with av.open(io.BytesIO(data)) as file:
        return name, pictures, sum(frame.samples for frame in file.decode(audio=0))


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    return render(tmp_path / "in.ts", frames=20)


def feed(path: Path, data: bytes) -> threading.Thread:
    def write() -> None:
        with path.open("wb") as file:
            for at in range(0, len(data), 1000):
                file.write(data[at : at + 1000])

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".flv"])
def test_a_fifo(tmp_path: Path, suffix: str) -> None:
    source = render(tmp_path / f"in{suffix}", frames=20)
    fifo = tmp_path / "fifo.mp4"  # its name says nothing
    os.mkfifo(fifo)
    assert parse(fifo).kind is Kind.PIPE
    feed(fifo, source.read_bytes())
    assert main(["anonymize", str(fifo), "-o", str(tmp_path / "out.mp4")]) == 0
    assert frames((tmp_path / "out.mp4").read_bytes())[1] == 20


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0"])
def test_standard_input(tmp_path: Path, stream: Path, name: str) -> None:
    with subprocess.Popen([*FACESTREAM, "anonymize", name, "-o", tmp_path / "out.mkv"], stdin=subprocess.PIPE) as run:
        assert run.stdin is not None
        run.stdin.write(stream.read_bytes())
        run.stdin.close()
        assert run.wait(120) == 0
    _, pictures, samples = frames((tmp_path / "out.mkv").read_bytes())
    assert pictures == 20
    assert samples > 20000


def test_from_pipe_to_pipe(tmp_path: Path, stream: Path) -> None:
    for source, container in ((stream, "mpegts"), (render(tmp_path / "in.mkv", frames=20), "matroska,webm")):
        done = subprocess.run(
            [*FACESTREAM, "anonymize", "-", "-o", "-"], input=source.read_bytes(), capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        name, pictures, _ = frames(done.stdout)
        assert (name, pictures) == (container, 20)
        assert b"20 frames" in done.stderr


def test_who_reads_the_output_goes_away(stream: Path) -> None:
    command = [*FACESTREAM, "anonymize", str(stream), "-o", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        said = run.stderr.read()
        assert run.wait(120) in (1, 2)
    assert b"Traceback" not in said


def test_nobody_writes_and_the_work_is_called_off(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen([*FACESTREAM, "anonymize", fifo, "-o", tmp_path / "out.mp4"], stderr=subprocess.PIPE) as run:
        deadline = time.monotonic() + 100
        while not list(Path(f"/proc/{run.pid}/fd").iterdir()) or not any(
            os.path.realpath(fd) == str(fifo) for fd in Path(f"/proc/{run.pid}/fd").iterdir()
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        assert run.wait(100) == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo"]


def test_what_a_pipe_cannot_do(tmp_path: Path, stream: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    out = str(tmp_path / "out.mp4")
    for words in (["--two-pass"], ["--manifest", str(tmp_path / "m.json")], ["--resume"]):
        assert main(["anonymize", str(fifo), "-o", out, *words]) == 2
        assert "only once" in capfd.readouterr().err
    assert main(["anonymize", str(fifo), str(stream), "-o", str(tmp_path / "folder")]) == 2
    feed(fifo, b"no video at all" * 1000)
    assert main(["anonymize", str(fifo), "-o", out]) == 2
    assert "pipe" in capfd.readouterr().err


def test_detect_and_apply_read_pipes_too(tmp_path: Path, stream: Path) -> None:
    fifo, records = tmp_path / "fifo", tmp_path / "r.jsonl"
    os.mkfifo(fifo)
    feed(fifo, stream.read_bytes())
    assert main(["detect", str(fifo), "-o", str(records)]) == 0
    assert len(records.read_text().splitlines()) == 20
    feed(fifo, stream.read_bytes())
    assert main(["apply", str(fifo), str(records), "-o", str(tmp_path / "out.mkv")]) == 0
