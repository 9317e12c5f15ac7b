"""When and at which size the detector looks at a frame."""

from __future__ import annotations

from engines.detector import Detector, PlanesDetector
from engines.types import Detections
from pipeline.config import DetectorConfig
from pipeline.types import Frame
from pipeline.video.planes import Viewer, host_picture

COARSE = 2 / 3  # of the detector's input to each side, for the looks between those in full size
EAGER = 5  # frames after a cut that are all looked at: every face there is new
CALM = 0.25  # share of its own side by which a face may move between two looks
SLOW_S = 0.06  # frames that come with longer gaps are all looked at, unless every 3rd or fewer were asked for
SELDOM = 2  # every how many frames at most, when the cadence chooses itself


def coarse(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a coarse look."""
    return round(COARSE * size[0]), round(COARSE * size[1])


class Eye:
    """Looks at every N-th frame, and at all of them after a cut; with 2 also where they come slowly. With `auto` at
    every second one while the faces are calm.

    With 2 and `auto` the looks are fine ones, in full size, at every `fine`-th frame, after a cut, and where a second
    opinion is asked for (`again`). Those between them are coarse: they find the larger faces, which move by more
    pixels, at half the cost, and what a fine look finds is covered before it as well. A detector on a card, to which
    all sizes cost the same, looks in full size only.
    """

    def __init__(self, detector: Detector, config: DetectorConfig) -> None:
        self.detector, self.size, self.rise = detector, config.size, config.rise
        self.viewers = {True: Viewer(), False: Viewer()}  # for fine and coarse looks
        on_card = isinstance(detector, PlanesDetector) and detector.takes_planes
        self.fine_every = config.fine if config.every in (2, "auto") and not on_card else 1
        self.fine = True  # the last look
        self._fine_at: int | None = None  # the frame of the last fine look that succeeded
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
        doubtful, self.again = self.again, False
        if self.last is not None and frame.index - self.last < self.every and not eager:
            return None
        self.last = self.known = frame.index
        due = self._fine_at is None or frame.index - self._fine_at >= self.fine_every
        self.fine = due or doubtful or frame.index < self.eager
        found = self.see(frame, self.fine)
        if self.fine:
            self._fine_at = frame.index
        return found

    def _slow(self, frame: Frame) -> bool:
        """Has it been long since the frame before, for a face that moves."""
        before, self._before_s = self._before_s, frame.time_s
        return before is not None and frame.time_s is not None and frame.time_s - before > SLOW_S

    def see(self, frame: Frame, fine: bool) -> Detections:
        """Faces in pixels of the displayed frame, whichever frame's turn it is. fine: in full size."""
        if isinstance(self.detector, PlanesDetector) and self.detector.takes_planes:
            picture = host_picture(frame, self.size)
            if picture is not None:
                found = self.detector.detect_planes([picture])[0]
                return found.believed(self.detector.least, self.rise, picture.fitted[0] / picture.width)
        view = self.viewers[fine].view(frame, self.size if fine else coarse(self.size))
        found = self.detector.detect([view])[0]
        return found.believed(self.detector.least, self.rise, view.rgb.shape[1] / view.width)

    def pace(self, motion: float, lag: int) -> None:
        """Choose how soon to look again (only with `auto`), from the largest motion of a face in its own sides a
        frame. What appears between two looks can be covered as far back as the output waits: `lag` frames."""
        if self.auto:
            self.every = max(1, min(int(CALM / max(motion, 1e-6)), SELDOM, lag + 1))
