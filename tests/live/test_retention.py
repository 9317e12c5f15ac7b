"""Retention deletes old segments and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from facestream.pipeline.errors import BadConfig
from facestream.pipeline.live import retention
from facestream.pipeline.live.clock import TICK
from facestream.pipeline.live.recording import RecordingSink
from facestream.pipeline.live.retention import Limits, SegmentCleaner
from facestream.pipeline.types import CoveredFrame, Frame, TrackedFrame
from facestream.pipeline.video.encode import EncodeOptions

from tests.feed import numbered
from tests.live.test_fail_closed import Moody
from tests.live.test_live import Run

HOUR = 3600.0


def put(folder: Path, name: str, age_s: float, octets: int = 1000) -> Path:
    path = folder / name
    path.write_bytes(bytes(octets))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_by_age_and_only_what_is_named_so(tmp_path: Path) -> None:
    ours = [put(tmp_path, f"door-2026010{n}-120000.mkv", (5 - n) * 24 * HOUR) for n in range(1, 5)]
    put(tmp_path, "door-20260101-120000-2.mkv", 96 * HOUR)
    put(tmp_path, "door-20260101-130000.unfinished.mkv", 96 * HOUR)  # of a run that was killed
    others = [
        "door.mkv", "door-20260101-120000.mp4", "door-20260101-1200.mkv", "door-20261341-120000.mkv", "notes.txt",
        "door-yard-20260101-120000.mkv", "door-20260101-120000-edited.mkv", "mydoor-20260101-120000.mkv",
        ".door-20260101-130000.mkv.part", "door-20260101-120000.mkv.bak",
    ]  # fmt: skip
    for name in others:
        put(tmp_path, name, 1000 * HOUR)
    (tmp_path / "door-20260102-120001.mkv").symlink_to(tmp_path / "notes.txt")
    (tmp_path / "door-20260102-120002.mkv").mkdir()
    writing = put(tmp_path, "door-20260105-120000.unfinished.mkv", 1000 * HOUR)
    anothers = put(tmp_path, "door-20260105-120000.unfinished-2.mkv", 5)
    SegmentCleaner(tmp_path / "door.mkv", Limits(age_s=50 * HOUR)).sweep(writing)
    left = ["door-20260102-120001.mkv", "door-20260102-120002.mkv", writing.name, anothers.name]
    assert names(tmp_path) == sorted([*others, *left, ours[2].name, ours[3].name])


def test_by_size_with_what_is_being_written(tmp_path: Path) -> None:
    ours = [put(tmp_path, f"door-20260101-12000{n}.mkv", HOUR - n) for n in range(5)]
    cleaner = SegmentCleaner(tmp_path / "door.mkv", Limits(octets=3000))
    cleaner.sweep(None)
    assert names(tmp_path) == [path.name for path in ours[2:]]
    writing = put(tmp_path, "door-20260101-130000.unfinished.mkv", 0, 2500)
    cleaner.sweep(writing)  # it has looked just now
    assert len(names(tmp_path)) == 4
    cleaner.sweep(writing, now=True)
    assert names(tmp_path) == [writing.name]
    SegmentCleaner(tmp_path / "door.mkv", Limits()).sweep(None)
    assert names(tmp_path) == [writing.name]


def test_a_folder_that_does_not_let_them_go_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "door-20260101-120000.mkv", HOUR)
    messages: list[str] = []

    def refused(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refused)  # root may remove everything
    cleaner = SegmentCleaner(tmp_path / "door.mkv", Limits(age_s=1), messages.append)
    cleaner.sweep(None, now=True)
    cleaner.sweep(None, now=True)
    assert messages == ["old segments cannot be removed: door-20260101-120000.mkv (Permission denied)"]


def test_real_segments_over_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PERIOD_S", 0.0)
    epoch_s, path = time.time(), tmp_path / "door.mkv"

    def record(first: int, most: int) -> None:
        sink = RecordingSink(path, EncodeOptions(), "door", lambda: 25.0, 1.0, lambda: epoch_s, Limits(octets=most))
        for n in range(first, first + 100):  # four seconds: four segments
            shown = numbered(n, noise=True)
            shown.pts, shown.time_base = round(n / 25 / TICK), TICK
            sink.write(CoveredFrame(shown, TrackedFrame(Frame(n, shown.pts, TICK, shown), ())))
            unfinished = list(tmp_path.glob("*.unfinished.mkv"))
            sizes = [f.stat().st_size for f in tmp_path.glob("door-*.mkv") if f not in unfinished]
            assert len(unfinished) == 1
            assert n == first or sum(sizes) <= most
        sink.close()

    record(0, 10**9)
    before = names(tmp_path)
    assert len(before) == 4
    one = max(found.stat().st_size for found in tmp_path.iterdir())
    record(100, round(2.5 * one))
    after = names(tmp_path)
    assert not set(before[:3]) & set(after)
    assert 2 <= len(after) <= 3


def test_a_single_file_cannot_be_kept_for_a_time(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="only segments"):
        Run({"door": "lavfi:testsrc2"}, [str(tmp_path / "a.mkv")], Moody(), run__keep_days=3)
