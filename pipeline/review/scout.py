"""The reviewer's pass over the video: scene cuts, blind periods, and a second, independent detector on a sample."""

from __future__ import annotations

import cv2
import numpy as np
from facestream.engines.base import Detector
from facestream.engines.boxes import Array
from facestream.engines.letterbox import ImageView
from facestream.engines.loader import load_detector, shipped
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections
from facestream.pipeline.config import Config, DetectorConfig
from facestream.pipeline.review.groups import Appearance, Likeness
from facestream.pipeline.stages.analyse.scene_cuts import SceneCutDetector
from facestream.pipeline.types import XYXY, BoxState, Frame, TrackedFrame, xyxy
from facestream.pipeline.video.planes import luma_view, rgb_view
from msgspec import Struct, field

OTHER_MODELS = ("plainM", "plainS")  # for the second detector, the first that is shipped and is not the run's own
LARGER = 1.25  # of the run's input to each side, where the second detector has the same net
SECOND_SCORE = 0.3  # from which the second detector's faces are noted
SAMPLE_S = 0.5  # seconds between second detections
# second detections at a video, as far as it has so many frames
FEWEST = 24
MOST = 2400
LUMA = 320
BETTER = 0.05  # score by which a sighting must be better to show a person's appearance
# as of the run's own check whether the detector can see anything
DARK = 45
DARK_SHARE = 0.98
FLAT = 6.0


class SecondDetection(Struct, frozen=True):
    """A face of the second detector: xyxy in displayed pixels."""

    xyxy: XYXY
    score: float


class Notes(Struct):
    """What a pass found, as JSON can hold it. No pictures.

    cuts: frames with which a scene begins. blind: frames in which nothing can be seen. second: frame -> what the second
    detector found there. model: its name.
    """

    cuts: list[int] = []
    blind: list[int] = []
    second: dict[int, tuple[SecondDetection, ...]] = field(default_factory=dict, name="looks")
    model: str = ""


class SecondDetector:
    """Another view of a frame: mirrored, another net where there is one, else a larger picture."""

    def __init__(self, config: DetectorConfig) -> None:
        other = next((n for n in OTHER_MODELS if n in shipped() and n != config.model), config.model)
        same = other == config.model
        factor = LARGER if same else 1.0
        self.size = (round(config.size[0] * factor), round(config.size[1] * factor))
        self.detector: Detector = load_detector(other, DetectorOptions(SECOND_SCORE, config.nms_iou, config.threads))
        self.name = f"{other}, mirrored" + (f", {self.size[0]}x{self.size[1]}" if same else "")

    def detect(self, frame: Frame) -> tuple[SecondDetection, ...]:
        view = rgb_view(frame, self.size)
        mirrored = ImageView(np.ascontiguousarray(view.rgb[:, ::-1]), view.width, view.height)
        found: Detections = self.detector.detect([mirrored])[0]
        out = []
        for (left, top, right, bottom), score in zip(found.xyxy.tolist(), found.scores.tolist(), strict=True):
            box = xyxy(round(v, 2) for v in (view.width - right, top, view.width - left, bottom))
            out.append(SecondDetection(box, round(score, 4)))
        return tuple(out)


class Scout:
    """Give it to a run as recorder: it sees every frame before it is covered.

    frames: how many there will be, None where nobody knows; rate: frames/s. likeness: by which tracks are grouped.
    """

    def __init__(
        self,
        config: Config,
        frames: int | None,
        rate: float,
        second: bool = True,
        likeness: Likeness | None = None,
    ) -> None:
        self.notes = Notes()
        self.pts: list[int | None] = []
        self.times: list[float | None] = []
        self.size = (0, 0)
        self.second = SecondDetector(config.detector) if second else None
        self.notes.model = self.second.name if self.second else ""
        self.stride = stride_of(frames, rate)
        self.likeness = likeness or Appearance()
        self.features: dict[int, Array] = {}  # track -> see Likeness
        self._best: dict[int, float] = {}
        self._cuts = SceneCutDetector()
        self._scene = 0

    def write(self, tracked: TrackedFrame, source: str) -> None:
        self.update(tracked.frame)
        better = [
            box for box in tracked.boxes
            if box.id > 0 and box.state is BoxState.OBSERVED and box.score > self._best.get(box.id, 0) + BETTER
        ]  # fmt: skip
        if not better:
            return
        view = self.likeness.view(tracked.frame)
        for box in better:
            self._best[box.id] = box.score
            found = self.likeness.features(view, box.xyxy)
            if found is not None:
                self.features[box.id] = found

    def update(self, frame: Frame) -> None:
        """Note what can be seen of one frame; frames come in order."""
        self.pts.append(frame.pts)
        self.times.append(frame.time_s)
        self.size = frame.size
        luma, _ = luma_view(frame, LUMA)
        scene = self._cuts.update(luma)
        if scene != self._scene:
            self.notes.cuts.append(frame.index)
            self._scene = scene
        if shows_nothing(luma):
            self.notes.blind.append(frame.index)
        if self.second is not None and frame.index % self.stride == self.stride // 2:
            self.notes.second[frame.index] = self.second.detect(frame)


def stride_of(frames: int | None, rate: float) -> int:
    """Every how many frames the second detector comes."""
    stride = max(1, round(SAMPLE_S * rate))
    if frames is None:
        return stride
    return max(1, min(max(stride, frames // MOST), frames // FEWEST))


def shows_nothing(luma: Array) -> bool:
    """Whether a picture is dark or flat all over."""
    small = np.ascontiguousarray(luma[::4, ::4])
    dark = np.count_nonzero(small < DARK) > DARK_SHARE * small.size
    return bool(dark or float(cv2.meanStdDev(small)[1][0, 0]) < FLAT)
