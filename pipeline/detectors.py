"""The detector that the settings name."""

from __future__ import annotations

import logging

from facestream.engines.base import Detector
from facestream.engines.loader import load_detector
from facestream.pipeline.config import Config

log = logging.getLogger(__name__)


def detector_of(config: Config) -> Detector:
    """The detector of the settings; where they left a choice, one line says what was chosen."""
    detector = load_detector(config.detector.model, config.detector.options())
    if detector.chosen:
        log.info("detector: %s", detector.chosen)
    return detector
