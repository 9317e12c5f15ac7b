"""Detector health: when its silence cannot be trusted, since the frame shows nothing or every face went at once."""

from __future__ import annotations

from facestream.engines.types import Detections
from facestream.pipeline.stages.settings import DEFAULTS, DetectorHealthSettings


class DetectorHealth:
    """Fed with each frame; says whether the detector is blind in it."""

    def __init__(self, settings: DetectorHealthSettings = DEFAULTS.detector_health) -> None:
        self.settings = settings
        self.mean_faces = 0.0  # confirmed faces per detection, running mean
        self.lost = False

    def is_blind(self, shows_nothing: bool, found: Detections | None, confirm_score: float) -> bool:
        """shows_nothing: the frame is dark or flat. found: None where the detector said nothing of this frame.
        confirm_score: the score of a confirmed face."""
        if found is not None:
            count = int((found.scores >= confirm_score).sum())
            # The mean hardly falls while all are lost: that lasts until somebody is seen, or for some seconds.
            self.lost = not len(found) and self.mean_faces >= self.settings.min_mean_faces
            if self.lost:
                self.mean_faces *= self.settings.lost_decay
            else:
                decay = self.settings.mean_decay
                self.mean_faces = decay * self.mean_faces + (1 - decay) * count
        return shows_nothing or self.lost
