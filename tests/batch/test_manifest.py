from __future__ import annotations

import json
from pathlib import Path

import pytest
from facestream.pipeline.batch import manifest
from facestream.pipeline.batch.manifest import Entry, fingerprint, sha256
from facestream.pipeline.config import Config, read
from facestream.pipeline.errors import BadInput

from tests.conftest import facestream


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A manifest of two files and one that failed."""
    entries = []
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / f"in-{name}").write_bytes(b"in " + name.encode())
        (tmp_path / name).write_bytes(b"out " + name.encode())
        entries.append(
            Entry(
                input=str(tmp_path / f"in-{name}"), output=str(tmp_path / name), state="done", frames=3,
                input_sha256=sha256(tmp_path / f"in-{name}"), output_sha256=sha256(tmp_path / name),
                faces={"observed": 2},
            )
        )  # fmt: skip
    entries.append(Entry(input="c.mp4", output=str(tmp_path / "c.mp4"), state="failed", error="c.mp4: no"))
    manifest.write(tmp_path / "m.json", entries, Config(), False, True)
    return tmp_path / "m.json"


def test_what_is_as_it_was_is_fine(written: Path) -> None:
    assert manifest.verify(written) == ([], ["c.mp4: it failed: c.mp4: no"], 2)
    done = facestream("verify", written, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[-1])["good"] == 2


def test_what_was_changed_is_named(written: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"another")
    (tmp_path / "b.mp4").unlink()
    (tmp_path / "in-a.mp4").unlink()
    (tmp_path / "in-b.mp4").write_bytes(b"another")
    wrong, notes, good = manifest.verify(written)
    assert [w.partition(": ")[2] for w in wrong] == [
        "it is not the file that was written",
        "it is gone, or cannot be read",
    ]
    assert [n.partition(": ")[2] for n in notes] == [
        "it is not there any more", "it was changed since", "it failed: c.mp4: no"
    ]  # fmt: skip
    assert good == 0
    done = facestream("verify", written)
    assert done.returncode == 1
    assert done.stderr.count("facestream: error: ") == 2


def test_a_manifest_that_was_changed_says_so(written: Path) -> None:
    content = json.loads(written.read_text())
    content["files"][0]["faces"] = {"observed": 0}
    written.write_text(json.dumps(content))
    wrong, _, good = manifest.verify(written)
    assert good == 2
    assert wrong == [f"{written}: the manifest was changed after it was written"]


def test_a_batch_that_was_stopped_is_not_fine(written: Path) -> None:
    manifest.write(written, manifest.read(written)[0], Config(), False, False)
    wrong, _, good = manifest.verify(written)
    assert good == 2
    assert len(wrong) == 1
    assert "--resume" in wrong[0]
    assert facestream("verify", written).returncode == 1


def test_the_outputs_and_their_manifest_move_together(written: Path, tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    for name in ("a.mp4", "b.mp4", "m.json"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    assert manifest.verify(tmp_path / "moved" / "m.json")[2] == 2


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"files": [1], "sha256": ""}', "\xff"])
def test_what_is_no_manifest_is_one_line(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "m.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match=r"m\.json: (it is not a manifest|cannot read)") as caught:
        manifest.verify(tmp_path / "m.json")
    assert "\n" not in str(caught.value)


def test_a_fingerprint_changes_with_what_changes_the_output() -> None:
    plain = fingerprint(Config(), False)
    assert plain == fingerprint(read(None, {"anonymize.workers": 2}), False)
    others = {fingerprint(Config(), True), fingerprint(read(None, {"cover.hide": "pixelate"}), False)}
    assert len(others | {plain}) == 3
