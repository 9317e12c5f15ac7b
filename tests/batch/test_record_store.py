"""Records of a resumed batch equal those of an uninterrupted one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from facestream.pipeline.batch.journal import Journal
from facestream.pipeline.batch.manifest import Entry, sha256
from facestream.pipeline.batch.record_store import RecordStore
from facestream.pipeline.cli.app import main
from facestream.pipeline.errors import BadConfig, BadInput

from tests.conftest import render

FAST = ["--preset", "ultrafast", "--size", "160x96", "--model", "plainXS16"]


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def entry(name: str, key: str = "k", held: str = "h") -> Entry:
    return Entry(input=f"/in/{name}", output=f"/out/{name}", state="done", key=key, input_sha256=held)


def done(rows: RecordStore, name: str, text: str) -> Entry:
    made = entry(name)
    rows.draft(made.output).write_text(text)
    rows.commit(name, made)
    return made


def test_what_a_stopped_run_kept_is_there_for_the_next(tmp_path: Path) -> None:
    one = Journal(tmp_path / "out")
    first = RecordStore(tmp_path / "r.csv", one, False, False)
    a = done(first, "a", "a,0\na,1\n")
    first.draft("/out/b").write_text("b,0\nb,")  # killed while it wrote
    one.close()
    two = Journal(tmp_path / "out")
    second = RecordStore(tmp_path / "r.csv", two, False, True)
    assert second.of("a", a).exists()
    assert not second.of("b", entry("b")).exists()
    b = done(second, "b", "b,0\n")
    second.gather([("b", b), ("a", a)])
    two.close()
    assert (tmp_path / "r.csv").read_text().splitlines()[1:] == ["b,0", "a,0", "a,1"]
    assert not two.folder.exists()


def test_rows_of_other_work_are_not_taken_for_these(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "out")
    rows = RecordStore(tmp_path / "r.jsonl", journal, False, False)
    made = done(rows, "a", "{}\n")
    others = [("./a", made), ("a", entry("a", key="other settings")), ("a", entry("a", held="other content"))]
    assert [rows.of(source, other).exists() for source, other in others] == [False] * 3
    assert not RecordStore(tmp_path / "r.csv", journal, False, True).of("a", made).exists()
    done(rows, "a", "[]\n")
    assert len(list(journal.folder.iterdir())) == 1  # an older version goes
    journal.close()


def test_records_are_taken_from_the_file_while_it_is_as_it_was_written(tmp_path: Path) -> None:
    target = tmp_path / "r.jsonl"
    one = Journal(tmp_path / "out")
    rows = RecordStore(target, one, False, False)
    entries = [(name, done(rows, name, f'{{"{name}": "ä"}}\n')) for name in ("a", "b")]
    rows.gather(entries)
    one.close()
    first = target.read_bytes()
    two = Journal(tmp_path / "out")
    with pytest.raises(BadInput, match="exists already"):
        RecordStore(target, two, False, False)
    rows = RecordStore(target, two, False, True)
    rows.gather([*entries, ("c", done(rows, "c", "{}\n"))])
    assert target.read_bytes() == first + b"{}\n"
    target.write_bytes(first)  # somebody deleted a line
    with pytest.raises(BadInput, match="exists already"):
        RecordStore(target, two, False, True)
    again = RecordStore(target, two, True, True)
    assert not again.of(*entries[0]).exists()
    two.close()


def test_a_wrong_ending_is_said_before_anything_is_done(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "out")
    with pytest.raises(BadConfig, match="records end in"):
        RecordStore(tmp_path / "r.xml", journal, False, False)
    journal.close()


def test_a_batch_that_grows_keeps_its_records(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A finished batch, run again with one more file: the old ones are skipped, the records hold all."""
    source = tmp_path / "in"
    source.mkdir()
    for n in range(2):
        render(source / f"{n}.mp4", frames=4, size=(96, 64))
    target = tmp_path / "r.jsonl"
    words = ["anonymize", str(source), "-o", str(tmp_path / "out"), *FAST, "--records", str(target)]
    words += ["--resume", "--manifest", str(tmp_path / "m.json")]
    assert main(words) == 0
    first = target.read_bytes()
    render(source / "2.mp4", frames=3, size=(96, 64))
    assert main(words) == 0
    assert "3 of 3 files done, 2 of them before" in capfd.readouterr().out
    assert target.read_bytes().startswith(first)
    assert [json.loads(line)["frame"] for line in target.read_text().splitlines()] == [0, 1, 2, 3] * 2 + [0, 1, 2]
    os.truncate(target, 100)
    assert main(words) == 2
    assert "r.jsonl: the output exists already" in capfd.readouterr().err
    target.unlink()
    (tmp_path / "m.json").write_text("my own notes")
    assert main(words) == 2
    assert "m.json: the output exists already" in capfd.readouterr().err
    assert (tmp_path / "m.json").read_text() == "my own notes"
    (tmp_path / "m.json").unlink()
    assert main(words) == 0  # without the file, what was in it must be found again
    assert "3 of 3 files done: " in capfd.readouterr().out
    assert target.read_bytes().startswith(first)
    assert sha256(target)
