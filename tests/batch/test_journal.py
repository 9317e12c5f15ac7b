from __future__ import annotations

from pathlib import Path

import pytest
from facestream.pipeline.batch.journal import Journal
from facestream.pipeline.batch.manifest import Entry
from facestream.pipeline.errors import BadInput
from facestream.pipeline.video.output import sweep


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def entry(name: str) -> Entry:
    return Entry(input="in", output=name, state="done", frames=4)


def test_what_was_begun_and_what_was_finished_is_known_later(tmp_path: Path) -> None:
    one = Journal(tmp_path / "out")
    one.begin("a")
    one.begin("b")
    one.finish(entry("a"))
    one.close()
    with one.path.open("a") as file:
        file.write('{"input": "in", "outp')  # killed while it wrote
    two = Journal(tmp_path / "out")
    assert two.begun == {"b"}
    assert two.done == {"a": entry("a")}
    two.close()
    other = Journal(tmp_path / "elsewhere")
    assert (other.begun, other.done) == (set(), {})
    other.close()


def test_a_torn_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    one = Journal(tmp_path / "out")
    one.close()
    one.path.write_text('{"begun": "a"}\n{"inp')
    two = Journal(tmp_path / "out")
    two.finish(entry("c"))
    two.close()
    three = Journal(tmp_path / "out")
    assert set(three.done) == {"c"}
    three.close()


def test_two_runs_on_one_folder_are_refused(tmp_path: Path) -> None:
    one = Journal(tmp_path / "out")
    with pytest.raises(BadInput, match="another run is at work"):
        Journal(tmp_path / "out")
    one.close()
    Journal(tmp_path / "out").close()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(BadInput, match="journal cannot be kept"):
        Journal(tmp_path / "out")


def test_only_an_outputs_own_leftovers_are_swept(tmp_path: Path) -> None:
    kept = [".b.mp4.facestream-12345678.part", "a.mp4", ".a.mp4.part", ".hidden"]
    for name in [*kept, ".a.mp4.facestream-12345678.part"]:
        (tmp_path / name).write_text("")
    sweep(tmp_path / "a.mp4")
    sweep(tmp_path / "none" / "a.mp4")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == sorted(kept)
