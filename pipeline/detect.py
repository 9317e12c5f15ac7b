"""When and at which size the detector looks at a frame."""

from __future__ import annotations

from engines.detector import Detector, PlanesDetector
from engines.types import Detections
from pipeline.config import DetectorConfig
from pipeline.types import Frame
from pipeline.video.planes import Viewer, host_picture

EAGER = 5  # frames after a cut that are all looked at: every face there is new
CALM = 0.25  # share of its own side by which a face may move between two looks
SELDOM = 3  # every how many frames at most, when the cadence chooses itself


class Eye:
    """Looks at every N-th frame, at all of them after a cut; or, with `auto`, the more seldom the calmer the faces."""

    def __init__(self, detector: Detector, config: DetectorConfig) -> None:
        self.detector, self.size = detector, config.size
        self.viewer = Viewer()
        self.auto = config.every == "auto"
        self.every = 1 if config.every == "auto" else int(config.every)
        self.last: int | None = None  # the frame that was looked at last
        self.eager = 0  # frames before this one are all looked at
        self.known = -1  # the newest frame that was looked at, or was to be and that failed

    def look(self, frame: Frame, cut: bool = False) -> Detections | None:
        """Faces in pixels of the displayed frame, or None when this frame is not looked at."""
        if cut:
            self.eager = frame.index + EAGER
        if self.last is not None and frame.index - self.last < self.every and frame.index >= self.eager:
            return None
        self.last = self.known = frame.index
        return self._see(frame)

    def _see(self, frame: Frame) -> Detections:
        if isinstance(self.detector, PlanesDetector) and self.detector.takes_planes:
            picture = host_picture(frame, self.size)
            if picture is not None:
                return self.detector.detect_planes([picture])[0]
        return self.detector.detect([self.viewer.view(frame, self.size)])[0]

    def pace(self, motion: float, lag: int) -> None:
        """Choose how soon to look again (only with `auto`), from the largest motion of a face in its own sides a
        frame. What appears between two looks can be covered as far back as the output waits: `lag` frames."""
        if self.auto:
            self.every = max(1, min(int(CALM / max(motion, 1e-6)), SELDOM, lag + 1))
