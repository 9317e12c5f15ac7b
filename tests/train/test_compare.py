"""The table of detectors: its shared operating point computed by hand, and a run over a small set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")

from click.testing import CliRunner
from facestream.engines.types import Detections
from facestream.train.compare import command, score_at
from facestream.train.data import Labelled
from facestream.train.evaluate import false_alarms

from tests.pack import make_pack

FACE, FAR = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]


def found(*rows: tuple[list[float], float]) -> Detections:
    return Detections(
        np.array([r[0] for r in rows], np.float32).reshape(-1, 4), np.array([r[1] for r in rows], np.float32)
    )


def test_all_are_compared_at_the_score_of_so_many_false_alarms() -> None:
    face = Labelled(Path("a.jpg"), np.array([FACE], np.float32), np.array([False]))
    bare = Labelled(Path("b.jpg"), np.zeros((0, 4), np.float32), np.zeros(0, bool))
    detections = [found((FACE, 0.95), (FAR, 0.9), (FAR, 0.6)), found((FACE, 0.8), (FACE, 0.3))]
    images = [face, bare]  # false: 0.9 and 0.6 in the first, 0.8 and 0.3 in the second
    for alarms, low, high in ((1.0, 0.6, 0.8), (0.5, 0.8, 0.9), (0.0, 0.9, 0.95)):
        score = score_at(detections, images, alarms)
        assert low < score <= high
        assert false_alarms(detections, images, score) == alarms
    assert score_at(detections, images, 9) == 0


def test_the_table_of_a_small_set(tmp_path: Path) -> None:
    words = ["--data", str(make_pack(tmp_path, 2)), "--model", "plainXS16", "--no-baselines"]
    run = CliRunner()
    rows = json.loads(run.invoke(command, [*words, "--json"], catch_exceptions=False).stdout.splitlines()[-1])
    assert [(row["detector"], row["zoom"]) for row in rows] == [("plainXS16", 1.0), ("plainXS16", 0.5)]
    assert all(row["ap"] > 0.9 for row in rows), "its faces are large and plain"
    lines = run.invoke(command, words, catch_exceptions=False).stdout.splitlines()
    assert [line.count("|") for line in lines] == [lines[0].count("|")] * 4
    assert f"{rows[0]['ap']:.4f}" in lines[2]
    assert "0.5x" in lines[3]
