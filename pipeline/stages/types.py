"""Data types between the stages of the face pipeline. No stage writes into another.

Frame -> AnalysedFrame -> DetectionPlan -> Observation -> TrackedFrame, and one feedback: TrackSummary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from facestream.engines.boxes import Array
from facestream.engines.types import Detections
from facestream.pipeline.types import Frame

if TYPE_CHECKING:
    from facestream.pipeline.stages.crop_mosaic import CropMosaic


@dataclass(frozen=True, slots=True)
class AnalysedFrame:
    """A frame and its analysis before any detection.

    luma: the displayed frame's luma, uint8 [h, w]; scale: from the displayed frame's pixels to those of luma.
    scene: a number that changes at a cut; cut: a scene begins here; ends: a scene ends here.
    affine: the camera's motion since the frame before, float64 [2, 3] in displayed pixels; None: static, unknown, or a
    scene begins. shows_nothing: the frame is dark or flat. backlog: other frames are waiting already (live).
    """

    frame: Frame
    luma: Array
    scale: float = 1.0
    scene: int = 0
    affine: Array | None = None
    cut: bool = False
    ends: bool = False
    shows_nothing: bool = False
    backlog: bool = False


class Scope(StrEnum):
    """The part of a frame that a detection covered, and its resolution."""

    SKIPPED = "skipped"  # no detection
    CROPS = "crops"  # crops around known faces, at full resolution
    REDUCED = "reduced"  # the full frame at reduced resolution
    FULL = "full"  # the full frame at full resolution
    FAILED = "failed"  # the detection failed


class Reason(StrEnum):
    """Why a frame has its plan."""

    INTERVAL = "interval"  # the regular interval
    FIRST = "first"  # there is no earlier detection, or it failed
    CUT = "cut"  # a scene began a moment ago
    SCENE_END = "scene end"  # no later detection can find a face that came just before
    LOST = "lost"  # a confirmed face was not found in its crop
    RECHECK = "recheck"  # a confirmed face is new or was not found
    SLOW = "slow"  # frames come slowly, so faces move far between them
    CROWD = "crowd"  # crops would cost more than the full frame
    LOAD = "load"  # load shedding


@dataclass(frozen=True, slots=True)
class DetectionPlan:
    """What the detector is to do on a frame. mosaic: of the crops, for Scope.CROPS; empty if no face is known.

    Its text form reads `frame 12: crops (3), interval`.
    """

    frame: int
    scope: Scope
    reason: Reason
    mosaic: CropMosaic | None = None

    def __str__(self) -> str:
        crops = "" if self.mosaic is None else f" ({len(self.mosaic.placed)})"
        return f"frame {self.frame}: {self.scope}{crops}, {self.reason}"


@dataclass(frozen=True, slots=True)
class Observation:
    """The result of a detection. faces: in displayed pixels; None without a detection.

    crops: number of crops, for Scope.CROPS. error: the cause, for Scope.FAILED.
    """

    frame: AnalysedFrame
    scope: Scope
    faces: Detections | None = None
    crops: int = 0
    error: str = ""

    @property
    def full_frame(self) -> bool:
        """Whether it covered the whole frame, so that a face missing from it was not found anywhere."""
        return self.scope in (Scope.REDUCED, Scope.FULL)

    @property
    def full_resolution(self) -> bool:
        """Whether it could find all known faces, including the smallest."""
        return self.scope is Scope.FULL or (self.scope is Scope.CROPS and self.crops > 0)


def no_boxes() -> Array:
    """Boxes xyxy [0, 4]."""
    return np.zeros((0, 4))


@dataclass(frozen=True, slots=True)
class TrackSummary:
    """Summary of the tracks for the policy's plan of the coming frame: the pipeline's only feedback.

    predict: gives the predicted boxes in it, float64 xyxy [N, 4] in displayed pixels, grown by their uncertainty; it
    changes nothing, and is evaluated only for plans that may crop.
    max_speed: the largest motion of a detected face, in its own sides per frame.
    new, lost: ids of confirmed faces that the last detection found for the first time, or no longer found.
    index, time_s, scope: of the frame before, with the scope of its detection; None before the first one.
    """

    predict: Callable[[], Array] = no_boxes
    max_speed: float = 0.0
    new: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()
    index: int = -1
    time_s: float | None = None
    scope: Scope | None = None
