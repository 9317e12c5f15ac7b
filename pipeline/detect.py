"""When and at which size the detector looks at a frame."""

from __future__ import annotations

from engines.detector import Detector, PlanesDetector
from engines.types import Detections
from pipeline.config import DetectorConfig
from pipeline.types import Frame
from pipeline.video.planes import Viewer, host_picture

EAGER = 5  # frames after a cut that are all looked at: every face there is new
CALM = 0.25  # share of its own side by which a face may move between two looks
SLOW_S = 0.06  # frames that come with longer gaps are all looked at, unless every 3rd or fewer were asked for
SELDOM = 2  # every how many frames at most, when the cadence chooses itself


class Eye:
    """Looks at every N-th frame, and at all of them after a cut; with 2 also where they come slowly. With `auto` at
    every second one while the faces are calm."""

    def __init__(self, detector: Detector, config: DetectorConfig) -> None:
        self.detector, self.size = detector, config.size
        self.viewer = Viewer()
        self.auto = config.every == "auto"
        self.every = 1 if config.every == "auto" else int(config.every)
        self.last: int | None = None  # the frame that was looked at last
        self._before_s: float | None = None  # the time of the frame before
        self.eager = 0  # frames before this one are all looked at
        self.again = False  # the next frame is looked at, unless every 3rd or fewer were asked for
        self.known = -1  # the newest frame that was looked at, or was to be and that failed

    def look(self, frame: Frame, cut: bool = False) -> Detections | None:
        """Faces in pixels of the displayed frame, or None when this frame is not looked at."""
        if cut:
            self.eager = frame.index + EAGER
        hurried = self._slow(frame) or self.again
        eager = frame.index < self.eager or (hurried and self.every <= 2)
        self.again = False
        if self.last is not None and frame.index - self.last < self.every and not eager:
            return None
        self.last = self.known = frame.index
        return self._see(frame)

    def _slow(self, frame: Frame) -> bool:
        """Has it been long since the frame before, for a face that moves."""
        before, self._before_s = self._before_s, frame.time_s
        return before is not None and frame.time_s is not None and frame.time_s - before > SLOW_S

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
