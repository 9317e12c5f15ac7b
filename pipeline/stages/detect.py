"""When the detector looks at a frame, and at what of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from facestream.engines.base import Detector, YuvDetector
from facestream.engines.boxes import Array
from facestream.engines.letterbox import fit
from facestream.engines.types import Detections
from facestream.pipeline.config import DetectorConfig
from facestream.pipeline.stages.crop_mosaic import mosaic_of
from facestream.pipeline.types import Frame
from facestream.pipeline.video.planes import Viewer, host_frame, view_scale

COARSE = 2 / 3  # of the detector's input to each side, for the whole picture where a sheet would have more pixels
EAGER = 5  # frames after a cut that are all looked at: every face there is new
CALM = 0.25  # share of its own side by which a face may move between two looks
STEADY = 0.1  # the same between two frames that come slowly, up to which its place is enough to look at
SLOW_S = 0.06  # frames that come with longer gaps are all looked at, unless every 3rd or fewer were asked for
SELDOM = 2  # every how many frames at most, when the cadence chooses itself


def coarse(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a coarse look."""
    return round(COARSE * size[0]), round(COARSE * size[1])


def no_boxes() -> Array:
    """No places."""
    return np.zeros((0, 4))


def _mean(stretch: tuple[float, float]) -> float:
    return math.sqrt(stretch[0] * stretch[1])


class DetectionStage:
    """Looks at every N-th frame, and at all of them after a cut; with 2 also where they come slowly. With `auto` at
    every second one while the faces are calm.

    With 2 and `auto`, looks see the whole picture in full size at every `fine`-th frame, after a cut, and where a face
    is missing (`search`); half-way between those, coarsely. The others see a sheet of the places where faces are known
    to be (see sheet.py); where these are so many that a coarse look at the whole picture has fewer pixels, it is that.
    A face that is new between two fine looks is found by the next one and covered before it, as far back as the output
    waits: so they are at most half of that apart (`lag`, frames). A detector on a card, to which all sizes cost the
    same, looks in full size only; one to which each new size costs much is shown no sheets.
    """

    def __init__(self, detector: Detector, config: DetectorConfig, lag: int = 15) -> None:
        self.detector, self.size, self.rise = detector, config.size, config.large_face_margin
        self.viewers = {True: Viewer(), False: Viewer()}  # for fine and coarse looks
        on_gpu = isinstance(detector, YuvDetector) and detector.takes_yuv
        apart = min(config.full_frame_interval, lag // 2 + 1)
        self.fine_every = apart if config.every in (2, "auto") and not on_gpu else 1
        self.fine = True  # the last look could find all known faces, the smallest too
        self.whole = True  # it saw the whole picture
        self._fine_at: int | None = None  # the frame of the last fine look at the whole picture that succeeded
        self.auto = config.every == "auto"
        self.every = 1 if config.every == "auto" else int(config.every)
        self.last: int | None = None  # the frame that was looked at last
        self._before_s: float | None = None  # the time of the frame before
        self.eager = 0  # frames before this one are all looked at
        self.again = False  # the next frame is looked at, unless every 3rd or fewer were asked for
        self.steady = True  # nobody moves much
        self.search = False  # the next look is a fine one at the whole picture
        self.known = -1  # the newest frame of which the whole was looked at, or was to be and that failed

    def look(
        self, frame: Frame, cut: bool = False, places: Callable[[], Array] = no_boxes, ends: bool = False
    ) -> Detections | None:
        """Faces in pixels of the displayed frame, or None when this frame is not looked at.

        cut: a new scene begins. places: tells where faces should be, xyxy [N, 4] in pixels of the displayed frame.
        ends: the scene's last frame, which is looked at as a whole: what came since the last such look is found by no
        later one.
        """
        if cut:
            self.eager = frame.index + EAGER
        slow = self._slow(frame)
        eager = frame.index < self.eager or ((slow or self.again) and self.every <= 2)
        again, self.again = self.again, False
        ends = ends and self.fine_every > 1
        if self.last is not None and frame.index - self.last < self.every and not eager and not ends:
            return None
        self.last = frame.index
        half = (self.fine_every + 1) // 2
        # Where frames come slowly faces move further in each: more looks are fine ones, and all see the whole picture
        # unless those who were there are there and stand, or there is nobody.
        apart = half if slow else self.fine_every
        astray = slow and (again or not self.steady)
        due = self._fine_at is None or frame.index - self._fine_at >= apart
        if due or ends or self.search or frame.index < self.eager:
            found = self._look_at_all(frame, True)
            self._fine_at, self.search = frame.index, False
            return found
        there = None if astray or frame.index - self.known >= half else self._look_there(frame, places())
        return self._look_at_all(frame, False) if there is None else there

    def _look_at_all(self, frame: Frame, fine: bool) -> Detections:
        self.known, self.fine, self.whole = frame.index, fine, True
        return self.see(frame, fine)

    def _look_there(self, frame: Frame, places: Array) -> Detections | None:
        """What is found at these places; None where to look at all of a coarse picture is less work, or better."""
        if len(places) and not self.detector.any_size:
            return None
        size = frame.size
        scale = view_scale(frame, self.size)
        width, height = fit(*frame.square_size, *coarse(self.size))
        sheet = mosaic_of(places, size, scale, width * height, frame.stretch)
        if sheet is None:
            return None
        self.fine, self.whole = bool(sheet.cuts), False
        if not sheet.cuts:
            return Detections.empty()
        found = self.detector.detect([sheet.view(frame)])[0]
        found = sheet.back(found, size, self.detector.options.nms_iou)
        return found.filter_by_score(self.detector.min_score, self.rise, scale * _mean(frame.stretch))

    def _slow(self, frame: Frame) -> bool:
        """Has it been long since the frame before, for a face that moves."""
        before, self._before_s = self._before_s, frame.time_s
        return before is not None and frame.time_s is not None and frame.time_s - before > SLOW_S

    def see(self, frame: Frame, fine: bool) -> Detections:
        """Faces in pixels of the displayed frame, whichever frame's turn it is. fine: in full size."""
        if isinstance(self.detector, YuvDetector) and self.detector.takes_yuv:
            picture = host_frame(frame, self.size)
            if picture is not None:
                found = self.detector.detect_yuv([picture])[0]
                scale = math.sqrt(math.prod(picture.fitted) / (picture.width * picture.height))
                return found.filter_by_score(self.detector.min_score, self.rise, scale)
        view = self.viewers[fine].view(frame, self.size if fine else coarse(self.size))
        found = self.detector.detect([view])[0]
        scale = math.sqrt(view.rgb.shape[0] * view.rgb.shape[1] / (view.width * view.height))
        return found.filter_by_score(self.detector.min_score, self.rise, scale)

    def pace(self, motion: float, lag: int) -> None:
        """Told of the largest motion of a face in its own sides a frame; with `auto`, choose how soon to look again.
        What appears between two looks can be covered as far back as the output waits: `lag` frames."""
        self.steady = motion <= STEADY
        if self.auto:
            self.every = max(1, min(int(CALM / max(motion, 1e-6)), SELDOM, lag + 1))
