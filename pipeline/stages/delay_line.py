"""The delay line: the waiting frames with their boxes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
from facestream.engines.boxes import Array, iou_xyxy, union_xyxy
from facestream.pipeline.stages.smooth import Sightings
from facestream.pipeline.types import Box, BoxKind, Frame, xyxy

Key = tuple[int, BoxKind]  # see Box.key


@dataclass(frozen=True, slots=True)
class BufferedFrame:
    """A waiting frame.

    boxes: by Box.key, detected or inferred; they change while it waits. luma: the displayed frame's reduced luma, uint8
    [h, w], or None. scale: from displayed pixels to luma pixels. scene: frames of one scene have the same number.
    affine: the camera's motion from the frame before, [2, 3] in displayed pixels; None: static or unknown.
    sightings: of the faces that were detected in it.
    """

    frame: Frame
    boxes: dict[Key, Box]
    luma: Array | None = None
    scale: float = 1.0
    scene: int = 0
    affine: Array | None = None
    sightings: Sightings = field(default_factory=dict)


class DelayLine:
    """The frames that wait, the oldest first."""

    def __init__(self) -> None:
        self.frames: deque[BufferedFrame] = deque()

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, at: int) -> BufferedFrame:
        return self.frames[at]

    def face(self, at: int, track: int) -> Box | None:
        """A track's face in a waiting frame."""
        return self.frames[at].boxes.get((track, BoxKind.FACE))

    def put(self, at: int, box: Box) -> None:
        """Put a box into a waiting frame, replacing one of the same track and kind."""
        boxes = self.frames[at].boxes
        boxes.pop(box.key, None)  # moves it to the end
        boxes[box.key] = box

    def put_both(self, at: int, one: Box, other: Box, merge_iou: float) -> None:
        """Cover both places where a track may be in a waiting frame: with one box if their IoU is above merge_iou,
        otherwise the other one as an alternate place."""
        places = np.array([one.xyxy, other.xyxy])
        if iou_xyxy(places[:1], places[1:])[0, 0] > merge_iou:
            self.put(at, replace(other, xyxy=xyxy(union_xyxy(*places))))
        else:
            self.put(at, one)
            self.put(at, replace(other, kind=BoxKind.ALTERNATE))
