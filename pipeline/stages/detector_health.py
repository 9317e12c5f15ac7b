"""Detector health: detections cannot be trusted if the frame is dark or flat, or if all faces are lost at once."""

from __future__ import annotations

from facestream.engines.types import Detections
from facestream.pipeline.stages.settings import DEFAULTS, DetectorHealthSettings


class DetectorHealth:
    """Determines for each frame whether the detector is blind."""

    def __init__(self, settings: DetectorHealthSettings = DEFAULTS.detector_health) -> None:
        self.settings = settings
        self.mean_faces = 0.0  # confirmed faces per detection, running mean
        self.lost = False

    def is_blind(self, shows_nothing: bool, found: Detections | None, confirm_score: float) -> bool:
        """Update with a frame. shows_nothing: it is dark or flat. found: its detections, None without a detection.
        confirm_score: minimum score of a confirmed face."""
        if found is not None:
            count = int((found.scores >= confirm_score).sum())
            # The mean hardly falls while all are lost: this lasts until a face is detected, or for some seconds.
            self.lost = not len(found) and self.mean_faces >= self.settings.min_mean_faces
            if self.lost:
                self.mean_faces *= self.settings.lost_decay
            else:
                decay = self.settings.mean_decay
                self.mean_faces = decay * self.mean_faces + (1 - decay) * count
        return shows_nothing or self.lost
