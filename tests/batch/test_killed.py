"""Batches that are killed while they work, and resumed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from facestream.pipeline.batch.journal import Journal
from facestream.pipeline.batch.manifest import sha256
from facestream.pipeline.cli.app import main

from tests.conftest import render

FAST = ["--preset", "ultrafast", "--size", "160x96", "--hide", "solid", "--model", "plainXS16", "--quiet"]

# Starts the command again and again without importing everything anew: each is a fork that has done nothing yet.
STARTER = """
import json, os, sys
from facestream.pipeline.cli.app import main
for line in sys.stdin:
    child = os.fork()
    if not child:
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        os._exit(main(json.loads(line)))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Starter:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.questions, self.answers = process.stdin, process.stdout

    def start(self, words: list[str]) -> int:
        """The command's process id."""
        self.questions.write(json.dumps(words) + "\n")
        self.questions.flush()
        return int(self.answers.readline())

    def end(self) -> int:
        """Its exit code."""
        return int(self.answers.readline())


@contextmanager
def starter() -> Iterator[Starter]:
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Starter(process)
    finally:
        process.kill()
        process.communicate()


def hashes(folder: Path) -> dict[str, str]:
    """Of all files; what is still unfinished after a kill is hidden."""
    return {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def make_folder(root: Path, count: int) -> Path:
    (root / "deep").mkdir(parents=True)
    for n in range(count):
        name = ("deep/" if n % 2 else "") + f"{n}.{('mp4', 'mkv')[n // 2 % 2]}"
        render(root / name, frames=24 + 8 * (n % 3), size=(160, 96), audio=("und",) if n % 3 else ())
    return root


def journal(state: Path) -> int:
    """Its lines so far: one when a file is begun, one when it is done."""
    return sum(path.read_bytes().count(b"\n") for path in state.rglob("*.jsonl"))


def journal_of(out: Path) -> Journal:
    journal = Journal(out)
    journal.close()
    return journal


def kill_and_resume(tmp_path: Path, kills: int, files: int, workers: int, seed: int, ending: str) -> None:
    source, out, straight, state = (tmp_path / name for name in ("in", "out", "straight", "state"))
    make_folder(source, files)
    common = [*FAST, "--workers", str(workers)]
    expected, notes = tmp_path / f"straight{ending}", tmp_path / f"notes{ending}"
    assert main(["anonymize", str(source), "-o", str(straight), *common, "--records", str(expected)]) == 0
    for path in state.rglob("*.jsonl"):
        path.unlink()
    whole = hashes(straight)
    assert len(whole) == files
    dice = random.Random(seed)
    words = ["anonymize", str(source), "-o", str(out), *common, "--resume", "--manifest", str(tmp_path / "m.json")]
    words += ["--records", str(notes)]
    with starter() as begin:
        for kill in range(kills):
            lines = journal(state) + dice.randrange(1, 4)
            pid = begin.start(words)
            deadline = time.monotonic() + 60
            while journal(state) < lines and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(dice.random() * 0.1)
            os.kill(pid, signal.SIGKILL)
            assert begin.end() == -signal.SIGKILL, f"it was done before kill {kill + 1}"
            found = hashes(out) if out.exists() else {}
            kept = {name for name in found if not name.endswith(".part")}
            assert all(found[name] == whole[name] for name in kept)  # what has its name is whole
            assert not notes.exists()
        begin.start(words)
        assert begin.end() == 0
    assert hashes(out) == whole  # and nothing hidden is left
    assert notes.read_bytes() == expected.read_bytes()
    assert sum(entry.has_output for entry in journal_of(out).done.values()) == files
    left = {path.name for path in tmp_path.iterdir() if path.is_file()} | {path.suffix for path in state.rglob("*")}
    assert left == {expected.name, notes.name, "m.json", "", ".jsonl"}
    assert main(["verify", str(tmp_path / "m.json")]) == 0
    manifest = json.loads((tmp_path / "m.json").read_text())
    assert manifest["complete"] is True
    assert manifest["totals"]["files"] == files


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def test_killed_and_resumed_it_is_the_same(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=2, files=4, workers=1, seed=1, ending=".csv")


@pytest.mark.slow
def test_killed_at_ten_moments_and_resumed_it_is_the_same(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=10, files=16, workers=2, seed=2026, ending=".jsonl")
