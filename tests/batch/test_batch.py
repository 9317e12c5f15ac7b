"""Batches: a file that fails does not stop the others, and a killed batch resumes."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path

import pytest
from facestream.pipeline.batch.manifest import sha256
from facestream.pipeline.batch.progress_table import ProgressTable
from facestream.pipeline.batch.worker import Progress, RecordWriter, Setup, Task, do_task
from facestream.pipeline.cli.app import main
from facestream.pipeline.config import read
from facestream.pipeline.log import beside_bars
from facestream.pipeline.run import Job, Report, run_stages
from facestream.pipeline.types import Frame, TrackedFrame
from PIL import Image

from tests.conftest import facestream, render
from tests.pack import demo_frames

Here = Callable[..., subprocess.CompletedProcess[str]]
FAST = ["--preset", "ultrafast", "--size", "160x96", "--hide", "solid"]


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str]) -> Here:
    """The command in this process (its workers are processes anyway): exit code, output, errors."""

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        handler = signal.getsignal(signal.SIGTERM)
        code = main([str(word) for word in words])
        signal.signal(signal.SIGTERM, handler)
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(words, code, out, err)

    return call


def hashes(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def make_folder(root: Path, count: int, frames: int = 12) -> Path:
    (root / "deep").mkdir(parents=True)
    for n in range(count):
        name = ("deep/" if n % 2 else "") + f"{n}.{('mp4', 'mkv')[n // 2 % 2]}"
        render(root / name, frames=frames + n, size=(96, 64), audio=("und",) if n % 3 else ())
    return root


def test_a_thing_of_everything(tmp_path: Path, here: Here) -> None:
    """Good, odd and broken files: one line for each that is wrong, the rest done, and a manifest of it all."""
    source = make_folder(tmp_path / "in", 3)
    whole = (source / "0.mp4").read_bytes()
    (source / "zero.mp4").write_bytes(b"")
    (source / "zeros.mkv").write_bytes(bytes(5000))
    (source / "text.mp4").write_text("hello " * 400)
    (source / "film.jpg").write_bytes(whole)
    (source / "half.mp4").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(demo_frames([70])[0]).resize((320, 180)).save(source / "photo.png")
    out = tmp_path / "out"
    words = ("anonymize", source, "-o", out, "--manifest", tmp_path / "m.json", "--records", tmp_path / "r.jsonl")
    done = here(*words, *FAST)
    assert done.returncode == 2
    said = done.stderr.strip().splitlines()
    assert len(said) == 5, done.stderr
    for name in ("zero.mp4", "zeros.mkv", "text.mp4", "film.jpg", "half.mp4"):
        assert len([line for line in said if name in line and line.startswith("facestream: error: ")]) == 1
    assert "4 of 9 files done, 5 failed" in done.stdout
    assert set(hashes(out)) == {"0.mp4", "2.mkv", "deep/1.mp4", "photo.png"}
    manifest = json.loads((tmp_path / "m.json").read_text())
    assert manifest["complete"] is True
    assert manifest["totals"]["files"] == 9
    assert manifest["totals"]["failed"] == 5
    rows = {Path(row["input"]).name: row for row in manifest["files"]}
    assert rows["0.mp4"]["output"] == "out/0.mp4"
    assert rows["0.mp4"]["input_sha256"] == sha256(source / "0.mp4")
    assert rows["0.mp4"]["output_sha256"] == sha256(out / "0.mp4")
    assert rows["0.mp4"]["frames"] == 12
    assert rows["photo.png"]["faces"]["observed"] >= 1
    assert "zero.mp4: the file is empty" in rows["zero.mp4"]["error"]
    assert manifest["settings"]["cover"]["hide"] == "solid"
    assert manifest["model"]["sha256"]
    records = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert len(records) == manifest["totals"]["frames"]
    assert [r["source"] for r in records] == sorted((r["source"] for r in records), key=lambda s: Path(s).parts)


def test_resume_redoes_only_what_changed(tmp_path: Path, here: Here) -> None:
    source, out = make_folder(tmp_path / "in", 3), tmp_path / "out"
    words = ["anonymize", source, "-o", out, *FAST]
    assert here(*words).returncode == 0
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.m*")}
    render(source / "2.mkv", frames=7, size=(96, 64))  # another content under the same name
    render(source / "new.mp4", frames=6, size=(96, 64))
    more = here(*words, "--resume")
    assert more.returncode == 0, more.stderr
    assert "4 of 4 files done, 2 of them before" in more.stdout
    after = {p: p.stat().st_mtime_ns for p in out.rglob("*.m*")}
    assert {p.name for p in before if after[p] != before[p]} == {"2.mkv"}
    other = here(*words, "--resume", "--shape", "box")  # other settings: nothing can stay
    assert "4 of 4 files done: " in other.stdout
    (out / "0.mp4").write_bytes(b"somebody's own")  # not what we wrote: not ours to replace
    last = here(*words)
    assert last.returncode == 2
    assert last.stderr.count("the output exists already") == 4
    last = here(*words, "--resume", "--shape", "box")
    assert last.returncode == 2
    assert last.stderr.count("the output exists already") == 1
    assert (out / "0.mp4").read_bytes() == b"somebody's own"


def test_an_output_with_a_slash_at_its_end_is_a_folder(tmp_path: Path, here: Here) -> None:
    source = render(tmp_path / "in.mp4", frames=3, size=(96, 64))
    assert here("anonymize", source, "-o", f"{tmp_path}/new/out/", *FAST).returncode == 0
    assert set(hashes(tmp_path / "new")) == {"out/in.mp4"}
    (tmp_path / "file").touch()
    failed = here("anonymize", source, "-o", f"{tmp_path}/file/", *FAST)
    assert failed.returncode == 2
    assert len(failed.stderr.strip().splitlines()) == 1


def test_a_list_of_files(tmp_path: Path, here: Here) -> None:
    make_folder(tmp_path / "a" / "in", 2)
    names = [str(tmp_path / "a" / "in" / "0.mp4"), "", str(tmp_path / "a" / "in" / "deep" / "*.mp4"), "gone.mp4"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    done = here("anonymize", "--list", tmp_path / "list.txt", "-o", tmp_path / "out", *FAST)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["facestream: error: gone.mp4: no such file or folder"]
    assert "2 of 3 files done, 1 failed" in done.stdout
    assert set(hashes(tmp_path / "out")) == {"0.mp4", "deep/1.mp4"}


def test_names_that_no_editor_expects(tmp_path: Path, here: Here) -> None:
    """Unicode, brackets, line ends, bytes that are no UTF-8, links: in outputs, records, manifest and on the screen."""
    source = tmp_path / "in"
    names = [
        "été/日本 🎥/a [final] 100%.mp4",
        "-dash.mp4",
        "two\nlines.mp4",
        os.fsdecode(b"latin\xe9.mp4"),
        "a.MOV",
        "a.mkv",
    ]
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        render(tmp_path / f"plain{Path(name).suffix}", frames=3, size=(96, 64)).rename(source / name)
    (source / "link.mp4").symlink_to("-dash.mp4")
    (source / "gone.mp4").symlink_to("nowhere")
    words = ("anonymize", source, "-o", tmp_path / "out", *FAST, "--manifest", tmp_path / "m.json", "--resume")
    done = here(*words, "--records", tmp_path / "r.csv")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"facestream: error: {source}/gone.mp4: no such file"]
    assert set(hashes(tmp_path / "out")) == {*names, "link.mp4"}
    assert here("verify", tmp_path / "m.json").returncode == 0
    again = here(*words, "--records", tmp_path / "r.csv")
    assert "7 of 8 files done, 7 of them before" in again.stdout


def test_a_list_as_editors_save_it(tmp_path: Path, here: Here) -> None:
    """With a byte-order mark, and lines that end as on Windows."""
    make_folder(tmp_path / "in", 1)
    (tmp_path / "list.txt").write_bytes(f"\ufeff{tmp_path}/in/0.mp4\r\n\r\n".encode())
    assert here("anonymize", "--list", tmp_path / "list.txt", "-o", tmp_path / "out", *FAST).returncode == 0
    assert set(hashes(tmp_path / "out")) == {"0.mp4"}


def test_a_full_disk_is_called_that(tmp_path: Path) -> None:
    source = render(tmp_path / "in.mp4", frames=3, size=(96, 64))

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))

    done = facestream("anonymize", source, "-o", tmp_path / "out.mp4", *FAST, preexec_fn=small)
    assert done.returncode == 1
    said = f"facestream: error: {tmp_path}/out.mp4: writing failed: the file grew too large\n"
    assert done.stderr.endswith(said)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_an_input_that_is_still_written_to_is_told_apart(tmp_path: Path, here: Here) -> None:
    source = render(tmp_path / "in.mkv", frames=40, size=(96, 64))
    other = render(tmp_path / "other.mkv", frames=4, size=(96, 64))
    info = []

    class Writer:
        """A recorder that adds to the file while the first picture is looked at."""

        def push(self, frame: Frame) -> list[TrackedFrame]:
            if not info:
                info.append(frame)
                with source.open("ab") as file:
                    file.write(b"more")
            return [TrackedFrame(frame, ())]

        def flush(self) -> list[TrackedFrame]:
            return []

    report = run_stages(Job(str(source), tmp_path / "out.mkv"), read(None), Writer(), progress=False)
    assert "it was changed while it was read" in str(report.lost)
    assert run_stages(Job(str(other), tmp_path / "two.mkv"), read(None), Writer(), progress=False).lost is None


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "facestream", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children(pid: int) -> list[int]:
    """The worker processes, by the kernel's own account."""
    found = [int(n) for task in Path(f"/proc/{pid}/task").iterdir() for n in (task / "children").read_text().split()]
    return [child for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_a_worker_that_crashes_costs_one_file(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    render(source / "0.mp4", frames=1500, size=(320, 192))
    render(source / "1.mp4", frames=5, size=(96, 64))
    process = start("anonymize", source, "-o", tmp_path / "out", *FAST, "--workers", "1")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(tmp_path.glob("out/.0.mp4.*.part")):
        time.sleep(0.02)
    (worker,) = children(process.pid)
    os.kill(worker, signal.SIGSEGV)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "0.mp4: its worker process died (signal 11)" in errors
    assert len(errors.strip().splitlines()) == 1
    assert "1 of 2 files done, 1 failed" in said
    assert set(hashes(tmp_path / "out")) == {"1.mp4"}


def test_an_interrupted_batch_stops_soon_and_leaves_nothing_unfinished(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    render(source / "0.mp4", frames=5, size=(96, 64))
    render(source / "1.mp4", frames=3000, size=(320, 192))
    process = start("anonymize", source, "-o", tmp_path / "out", *FAST, "--manifest", tmp_path / "m.json")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(tmp_path.glob("out/.1.mp4.*.part")):
        time.sleep(0.02)
    second = start("anonymize", source, "-o", tmp_path / "out", *FAST, "--resume")
    assert "another run is at work on this folder" in second.communicate(timeout=60)[1]
    assert second.returncode == 2
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert time.monotonic() - sent < 15
    assert set(hashes(tmp_path / "out")) == {"0.mp4"}
    assert json.loads((tmp_path / "m.json").read_text())["complete"] is False


def test_an_exception_that_nobody_expected_is_one_files_failure(tmp_path: Path) -> None:
    source = render(tmp_path / "in.mp4", frames=5, size=(96, 64))
    ours, theirs = Pipe()

    def broken(job: Job, writer: RecordWriter) -> Report:
        raise ZeroDivisionError("a fault\nof two lines, rtsp://me:secret@host/x")

    outcome = do_task(
        Task(3, Job(str(source), tmp_path / "out.mp4")), Setup(read(None), False, "key"), broken, theirs.send
    )
    assert (outcome.index, outcome.code, outcome.entry.state) == (3, 1, "failed")
    assert outcome.entry.error == f"{source}: unexpected ZeroDivisionError: a fault"
    ours.close()


def test_the_progress_table_has_a_line_for_each_file_at_work() -> None:
    text = io.StringIO()
    table = ProgressTable(text, 3)
    table.start(Task(0, Job("videos/first.mp4", None)))
    table.start(Task(1, Job("videos/second.mp4", None)))
    table.update(Progress(1, 10, 40))
    table.end(0)
    table.start(Task(2, Job("videos/third.mp4", None)))
    assert (table.all.n, table.all.total) == (1, 3)
    assert [(bar.desc, bar.n, bar.total, bar.pos) for bar in table.bars.values()] == [
        ("second.mp4", 10, 40, -2), ("third.mp4", 0, None, -1)
    ]  # fmt: skip
    with beside_bars():
        print("a line")
    table.close()
    for part in ("files", "first.mp4", "second.mp4", "third.mp4"):
        assert part in text.getvalue()
    assert not table.bars
    silent = ProgressTable(None, 3)
    silent.start(Task(0, Job("a", None)))
    silent.update(Progress(0, 1, None))
    silent.end(0)
