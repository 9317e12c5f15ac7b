"""Real clips, if available: the figures in the README must not get worse."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from facestream.engines.loader import load_detector
from facestream.pipeline.config import Config
from facestream.pipeline.evaluate.leaks import LeakMeter, read_truth
from facestream.pipeline.run import Job, run

CLIPS = Path(os.environ.get("FACESTREAM_DATA", "../shared/data")) / "clips"
LEAKS = 0.01  # of the face-frames over 40 px


@pytest.mark.data
def test_faces_in_the_street_stay_covered() -> None:
    clip = CLIPS / "street.mp4"
    if not clip.is_file():
        pytest.skip(f"no clip at {clip}")
    config = Config()
    meter = LeakMeter(read_truth(CLIPS / "street.truth.txt"), config.cover, smallest=40)
    detector = load_detector(config.detector.model, config.detector.options())
    report = run(Job(str(clip), None), config, detector, meter, progress=False)
    leaks = meter.result()
    assert report.frames == 105
    assert leaks.face_frames == 656
    assert leaks.leak_rate < LEAKS
    assert leaks.overblur < 6.8
