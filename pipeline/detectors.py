"""Loads the configured detector."""

from __future__ import annotations

import logging

from facestream.engines.base import Detector
from facestream.engines.loader import load_detector
from facestream.pipeline.config import Config

log = logging.getLogger(__name__)


def detector_of(config: Config) -> Detector:
    """Load the configured detector; if the backend was chosen automatically, log which and why."""
    detector = load_detector(config.detector.model, config.detector.options())
    if detector.chosen:
        log.info("detector: %s", detector.chosen)
    return detector
