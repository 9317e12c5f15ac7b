from __future__ import annotations

import pytest
from facestream.benchmarks.detector_bench import Timing, _timing, as_json, table, time_detectors
from facestream.engines.loader import WEIGHTS, shipped


def test_ratios_are_paired_and_medians_taken() -> None:
    timing = _timing({"s": [2.0, 40.0, 6.0]}, {"s": [1.0, 10.0, 3.0]})
    assert timing == Timing({"s": 6.0}, {"s": 2.0})  # ratios 2, 4, 2


def test_every_shipped_model_is_timed_at_every_size() -> None:
    again = str(WEIGHTS / f"{shipped()[0]}.onnx")
    timings, _ = time_detectors(1, 1, shipped()[0], (again,), progress=False)
    assert set(timings) >= {*shipped(), again}
    for name in shipped():
        assert list(timings[name].ms) == ["320x192", "640x384", "1280x736"]
        ms = list(timings[name].ms.values())
        assert 0 < ms[0] < ms[1] < ms[2]
    assert set(timings[shipped()[0]].ratio.values()) == {1.0}
    assert as_json(timings)[shipped()[0]]["ratio"]["640x384"] == pytest.approx(1)
    assert shipped()[0] in table(timings, shipped()[0])
