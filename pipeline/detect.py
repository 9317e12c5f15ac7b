"""When and at which size the detector looks at a frame."""

from __future__ import annotations

from engines.detector import Detector
from engines.types import Detections
from pipeline.config import DetectorConfig
from pipeline.planes import rgb_view
from pipeline.types import Frame


class Eye:
    """Looks at every N-th frame."""

    def __init__(self, detector: Detector, config: DetectorConfig) -> None:
        self.detector, self.every, self.size = detector, config.every, config.size

    def look(self, frame: Frame) -> Detections | None:
        """Faces in pixels of the displayed frame, or None when this frame is not looked at."""
        if frame.index % self.every:
            return None
        return self.detector.detect([rgb_view(frame, self.size)])[0]
