"""detect, edit the records, apply: the workflow of a manual correction."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tests.conftest import render


def facestream(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "facestream", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def pictures(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="gray") for f in container.decode(video=0)]).astype(float)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return render(tmp_path / "clip.mp4", frames=10)


@pytest.fixture
def rows(clip: Path) -> list[dict]:
    """Two faces a frame, as detect would have written them."""
    assert facestream("detect", clip, "-o", clip.with_suffix(".jsonl"), "--size", "160x120").returncode == 0
    out = [json.loads(line) for line in clip.with_suffix(".jsonl").read_text().splitlines()]
    for row in out:
        row["faces"] = [{"id": 1, "xyxy": [10, 10, 50, 60]}, {"id": 2, "xyxy": [90, 40, 140, 100]}]
    return out


def applied(clip: Path, rows: list[dict], *flags: str) -> np.ndarray:
    path = clip.with_name("edited.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = clip.with_name("out.mp4")
    done = facestream("apply", clip, path, "-o", out, "--hide", "solid", "--shape", "box", "--crf", "4",
                      "--preset", "ultrafast", "--overwrite", *flags)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return np.abs(pictures(out) - pictures(clip))


def test_each_edit_shows_where_it_was_made_and_nowhere_else(clip: Path, rows: list[dict]) -> None:
    first, second, corner = np.s_[15:55, 15:45], np.s_[45:95, 95:135], np.s_[104:118, 4:60]
    del rows[3]["faces"][0]  # not a face after all
    rows[5]["faces"].append({"id": 7, "xyxy": [8, 100, 56, 118]})  # one that was overlooked
    rows[7]["faces"][0]["id"] = 99  # another person: covers do not change
    change = applied(clip, rows, "--scale", "1.0")
    for i in range(10):
        assert (change[i][first].mean() > 15) == (i != 3)
        assert change[i][second].mean() > 15
        assert (change[i][corner].mean() > 15) == (i == 5)
        assert change[i][2:8].mean() < 3


def test_the_cover_can_be_changed_without_detecting_again(clip: Path, rows: list[dict]) -> None:
    beside = np.s_[20:50, 52:58]  # outside the box, inside one grown by half
    assert applied(clip, rows, "--scale", "1.0")[4][beside].mean() < 4
    assert applied(clip, rows, "--scale", "1.5")[4][beside].mean() > 15


def test_what_anonymize_covered_apply_covers_alike(tmp_path: Path) -> None:
    """On the demo clip, with real faces: the same file, byte for byte."""
    demo = Path(__file__).parent.parent.parent / "tools" / "demo.mp4"
    one, two, records = (tmp_path / name for name in ("one.mp4", "two.mp4", "r.jsonl"))
    flags = ["--preset", "ultrafast", "--quiet"]
    done = facestream("anonymize", demo, "-o", one, "--records", records, "--size", "320x192", *flags)
    assert done.returncode == 0, done.stderr
    assert facestream("apply", demo, records, "-o", two, *flags).returncode == 0
    assert one.read_bytes() == two.read_bytes()
    assert sum(len(json.loads(line)["faces"]) for line in records.read_text().splitlines()) > 50


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda rows: [row.update(width=320) for row in rows], "320x120"),
        (lambda rows: rows[4].update(pts=rows[4]["pts"] + 1), "pts"),
        (lambda rows: rows.pop(), "no frame 9"),
        (lambda rows: rows.append(dict(rows[-1], frame=10)), "go on to frame 10"),
    ],
    ids=["size", "pts", "too few", "too many"],
)
def test_records_of_another_video_are_refused_and_nothing_is_left(clip: Path, rows: list[dict], edit, why: str) -> None:  # type: ignore[no-untyped-def]
    edit(rows)
    path = clip.with_name("edited.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = facestream("apply", clip, path, "-o", clip.with_name("out.mp4"), "--quiet")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "another video" in done.stderr
    assert why in done.stderr
    assert not [p for p in clip.parent.iterdir() if "out" in p.name]


def test_a_malformed_record_is_one_line_with_its_place(clip: Path, rows: list[dict]) -> None:
    path = clip.with_name("edited.jsonl")
    path.write_text(json.dumps(rows[0]) + "\n{oops\n")
    done = facestream("apply", clip, path, "-o", clip.with_name("out.mp4"))
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert "edited.jsonl:2" in done.stderr
