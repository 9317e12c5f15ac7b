from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import pytest

from pipeline.errors import BadInput
from pipeline.records import JsonlSink
from pipeline.types import Box, BoxState, Frame, TrackedFrame


def tracked(index: int, rotation: int = 0) -> TrackedFrame:
    frame = Frame(index, 512 * index, Fraction(1, 15360), av.VideoFrame(64, 32, "yuv420p"), rotation)
    return TrackedFrame(frame, (Box(3, (1.234567, 2.0, 30.5, 40.0), 0.876543, BoxState.COASTED),))


def test_a_line_is_as_the_contract_says(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "out.jsonl", overwrite=False)
    sink.write(tracked(2), "clip.mp4")
    sink.commit()
    assert not (tmp_path / "out.jsonl").exists()  # not before it is whole
    sink.close()
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "source": "clip.mp4", "frame": 2, "pts": 1024, "time_s": 0.066667, "width": 64, "height": 32,
        "faces": [{"id": 3, "xyxy": [1.23, 2.0, 30.5, 40.0], "score": 0.8765, "state": "coasted"}],
    }  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


def test_sizes_are_those_of_the_displayed_picture(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "out.jsonl", overwrite=False)
    sink.write(tracked(0, rotation=90), "x")
    sink.close()
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert (row["width"], row["height"]) == (32, 64)


def test_a_source_that_fails_leaves_no_lines(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "out.jsonl", overwrite=False)
    sink.write(tracked(0), "good")
    sink.commit()
    sink.write(tracked(0), "bad")
    sink.write(tracked(1), "bad")
    sink.rollback()
    sink.write(tracked(0), "fine")
    sink.close()
    rows = [json.loads(line)["source"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows == ["good", "fine"]


def test_nothing_is_left_after_abort_and_nothing_is_overwritten(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "out.jsonl", overwrite=False)
    sink.write(tracked(0), "x")
    sink.abort()
    assert not list(tmp_path.iterdir())
    (tmp_path / "out.jsonl").write_text("old")
    with pytest.raises(BadInput, match="exists already"):
        JsonlSink(tmp_path / "out.jsonl", overwrite=False)
    assert (tmp_path / "out.jsonl").read_text() == "old"
