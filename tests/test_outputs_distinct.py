"""No output of a command replaces something that it reads, or another output: compared as files, not as names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from facestream.pipeline.errors import BadInput
from facestream.pipeline.video.output import check_distinct

from tests.conftest import facestream, render


@pytest.mark.parametrize("way", ["name", "dots", "symlink", "hardlink", "folder"])
@pytest.mark.parametrize("there", [True, False])
def test_an_output_that_is_an_input(tmp_path: Path, way: str, there: bool) -> None:
    source, other = tmp_path / "a.mp4", tmp_path / "b.mp4"
    if there:
        source.write_bytes(b"a film")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    if way == "symlink":
        other.symlink_to(source)
    elif way == "hardlink":
        if not there:
            return
        os.link(source, other)
    same = {"name": source, "dots": tmp_path / "sub" / ".." / "a.mp4", "folder": tmp_path / "link" / "a.mp4"}
    with pytest.raises(BadInput, match="is an input"):
        check_distinct([source], [same.get(way, other)])
    with pytest.raises(BadInput, match="two outputs"):
        check_distinct([], [source, same.get(way, other)])
    check_distinct([source, None, "plainS"], [tmp_path / "c.mp4", None, "-", "-", tmp_path / "c.jsonl"])


@pytest.mark.parametrize(
    "words",
    [
        ("anonymize", "a.mp4", "-o", "out.mp4", "--manifest", "a.mp4"),
        ("anonymize", "a.mp4", "-o", "out.mp4", "--records", "a.jsonl", "--manifest", "a.jsonl"),
        ("anonymize", "a.mp4", "-o", "out.mp4", "--config", "c.toml", "--manifest", "c.toml"),
        ("anonymize", "--list", "list.txt", "-o", "out", "--manifest", "list.txt"),
        ("anonymize", "--list", "list.txt", "-o", "out", "--records", "list.txt"),
        ("anonymize", "a.mp4", "b.mp4", "-o", "out", "--manifest", "b.mp4"),
        ("anonymize", "a.mp4", "-o", "face.png", "--hide", "image:face.png"),
        ("apply", "a.mp4", "r.jsonl", "-o", "r.jsonl"),
        ("detect", "list.txt", "-o", "list.txt"),
        ("run", "a.mp4", "--to", "a.mp4"),
        ("run", "a.mp4", "--to", "new.jsonl", "--to", "sub/../new.jsonl"),
    ],
)
def test_no_command_replaces_what_it_reads(tmp_path: Path, words: tuple[str, ...]) -> None:
    render(tmp_path / "a.mp4", frames=3)
    render(tmp_path / "b.mp4", frames=3)
    (tmp_path / "out").mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "list.txt").write_text("a.mp4\nb.mp4\n")
    (tmp_path / "c.toml").write_text("[cover]\nscale = 1.5\n")
    (tmp_path / "r.jsonl").write_text('{"frame": 0}\n')
    (tmp_path / "face.png").write_bytes(b"\x89PNG")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = facestream(*words, "--overwrite", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
