"""The detector that the settings name."""

from __future__ import annotations

from facestream.engines.base import Detector
from facestream.engines.loader import load_detector
from facestream.pipeline.config import Config
from facestream.pipeline.log import say


def detector_of(config: Config) -> Detector:
    """The detector of the settings; where they left a choice, one line says what was chosen."""
    detector = load_detector(config.detector.model, config.detector.options())
    if detector.chosen:
        say("detector", detector.chosen)
    return detector
