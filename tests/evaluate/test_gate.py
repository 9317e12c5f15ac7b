"""The leak gate: a rendered clip through the whole program; it fails if any safeguard is removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from facestream.benchmarks import render_truth, scene
from facestream.benchmarks.leak_table import Known
from facestream.engines.loader import load_detector
from facestream.pipeline.config import read
from facestream.pipeline.evaluate.leaks import LeakMeter, read_truth
from facestream.pipeline.evaluate.pixels import measure
from facestream.pipeline.evaluate.tally import Leaks
from facestream.pipeline.run import Job, run
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.stages.backfill import Backfill
from facestream.pipeline.stages.fill_gaps import GapFiller

MOST, LONGEST, AREA, OVERBLUR = 0.005, 2, 0.002, 1.9


class Gate:
    """A clip of 90 frames with a face that appears late, an occlusion, a cut and a face that is never sharp.

    The detector looks at each picture once a threshold.
    """

    def __init__(self, folder: Path) -> None:
        clip = render_truth.small()
        scene.write(clip, folder, 0)
        self.video, self.truth = folder / f"{clip.name}.mp4", read_truth(folder / f"{clip.name}.truth.txt")
        self.out = folder / "out.mp4"
        self.detectors: dict[float, Known] = {}

    def boxes(self, **settings: Any) -> Leaks:
        """What the shipped detector and defaults, but for these settings, leave uncovered."""
        config = read(None, settings)
        if config.detector.threshold not in self.detectors:
            detector = load_detector(config.detector.model, config.detector.options())
            self.detectors[config.detector.threshold] = Known(detector)
        meter = LeakMeter(self.truth, config.cover)
        run(Job(str(self.video), None), config, self.detectors[config.detector.threshold], meter, False)
        return meter.result()

    def pixels(self) -> Leaks:
        """What the written video shows."""
        config = read(None, {"encode.preset": "ultrafast", "cover.hide": "solid"})
        detector = self.detectors[config.detector.threshold]
        run(Job(str(self.video), self.out, overwrite=True), config, detector, None, False)
        return measure(self.video, self.out, self.truth).result()


def tight(leaks: Leaks, overblur: float = OVERBLUR) -> bool:
    """Few leak, none for long, and little of those that count as covered is seen; nor is all covered instead."""
    few = leaks.leak_rate <= MOST and leaks.longest_exposed_run <= LONGEST
    return few and leaks.leaked_area <= AREA and leaks.overblur <= overblur


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    return Gate(tmp_path_factory.mktemp("gate"))


def test_nothing_leaks(gate: Gate) -> None:
    found = gate.boxes()
    assert found.face_frames == 179
    assert tight(found), found
    seen = gate.pixels()
    assert tight(seen, OVERBLUR + 0.3), seen  # what the encoder blurs beside a cover counts as covered


def test_the_gate_sees_a_broken_backfill(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backfill, "begin", lambda self, track, scene: None)
    assert not tight(gate.boxes())


def test_the_gate_sees_gaps_that_are_not_filled(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without coasting, which covers the same gaps, and with detections so rare that there are some."""
    rare = {"detector.every": 5, "tracker.coast_s": 0.0}
    filled = gate.boxes(**rare)
    monkeypatch.setattr(GapFiller, "fill", lambda self, box: True)
    assert gate.boxes(**rare).leaked > filled.leaked


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"detector.threshold": 0.9999}, id="low threshold"),
        pytest.param({"cover.scale": 1.0}, id="scale of the covers"),
    ],
)
def test_the_gate_sees_a_safeguard_that_is_off(gate: Gate, settings: dict[str, float]) -> None:
    assert not tight(gate.boxes(**settings))


def test_the_gate_sees_coasting_that_is_off(gate: Gate) -> None:
    """Without look-ahead, which fills the same gaps, and with detections so rare that there are some."""
    sparse = {"tracker.lookahead": 0, "detector.every": 5}
    on, off = (gate.boxes(**sparse, **{"tracker.coast_s": seconds}) for seconds in (0.7, 0.0))
    assert off.leaked > on.leaked


def test_the_gate_sees_a_broken_cover(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.boxes()
    monkeypatch.setattr(Anonymizer, "_apply", lambda *_: None)
    assert gate.pixels().leak_rate_tau50 > 0.7  # what is never sharp has little detail to lose
