"""What flows from stage to stage inside the face pipeline. All of it is data: no stage writes into another.

Frame -> AnalysedFrame -> DetectionPlan -> Observation -> TrackedFrame, and one feedback: TrackSummary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from facestream.engines.boxes import Array
from facestream.engines.types import Detections
from facestream.pipeline.types import Frame

if TYPE_CHECKING:
    from facestream.pipeline.stages.crop_mosaic import CropMosaic


class InferenceFailed(Exception):
    """The detector did not run on a frame: it raised, hangs or came too late. The message says why, in one line."""


@dataclass(frozen=True, slots=True)
class AnalysedFrame:
    """A frame and what it tells before any detection.

    luma: the displayed picture's brightness, uint8 [h, w]; scale: its pixels for one of the displayed picture's.
    scene: a number that changes at a cut; cut: a scene begins here; ends: one ends here.
    affine: the camera's motion since the frame before, float64 [2, 3] in displayed pixels; None: it stands, nobody
    knows, or a scene begins. shows_nothing: it is dark or flat. backlog: others wait already (live).
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
    """What of a frame a detection could see."""

    SKIPPED = "skipped"  # it did not run
    CROPS = "crops"  # the places of known faces, at full resolution
    REDUCED = "reduced"  # the full frame at reduced resolution
    FULL = "full"  # the full frame at full resolution
    FAILED = "failed"  # it was to run and could not


class Reason(StrEnum):
    """Why a frame is detected on as it is."""

    INTERVAL = "interval"  # its turn has come, or not yet
    FIRST = "first"  # nothing is known yet, or the last detection failed
    CUT = "cut"  # a scene began a moment ago
    SCENE_END = "scene end"  # no later detection can find who came in just before
    LOST = "lost"  # a confirmed face was not found in its crop
    RECHECK = "recheck"  # a confirmed face is new or was not found
    SLOW = "slow"  # frames come slowly, so faces move far between them
    CROWD = "crowd"  # crops would cost more than the full frame
    LOAD = "load"  # load is shed


@dataclass(frozen=True, slots=True)
class DetectionPlan:
    """What the detector is to do on a frame. mosaic: of the crops, for Scope.CROPS; without any where nobody is known.

    Printed it reads `frame 12: crops of 3 faces (interval)`.
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
    """What a detection found in a frame. faces: in displayed pixels; None where it did not run.

    crops: of how many crops the faces are, for Scope.CROPS. error: why it failed, for Scope.FAILED.
    """

    frame: AnalysedFrame
    scope: Scope
    faces: Detections | None = None
    crops: int = 0
    error: str = ""

    @property
    def full_frame(self) -> bool:
        """It saw all of the frame: who is not among the faces was not seen anywhere."""
        return self.scope in (Scope.REDUCED, Scope.FULL)

    @property
    def full_resolution(self) -> bool:
        """It could find all known faces, the smallest too."""
        return self.scope is Scope.FULL or (self.scope is Scope.CROPS and self.crops > 0)


def no_boxes() -> Array:
    """Boxes xyxy [0, 4]."""
    return np.zeros((0, 4))


@dataclass(frozen=True, slots=True)
class TrackSummary:
    """What the tracks tell the policy about the coming frame: the pipeline's only feedback.

    predicted: where faces should be in it, float64 xyxy [N, 4] in displayed pixels, grown by their uncertainty.
    max_speed: the largest motion of a detected face, in its own sides per frame.
    new, lost: confirmed faces that the last detection found for the first time, or did not find any more: their ids.
    index, time_s, scope: of the frame before, and what its detection could see; None before the first one.
    """

    predicted: Array = field(default_factory=no_boxes)
    max_speed: float = 0.0
    new: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()
    index: int = -1
    time_s: float | None = None
    scope: Scope | None = None
