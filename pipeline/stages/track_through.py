"""Following a face through frames that wait, by its looks and with the camera."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from facestream.engines.boxes import Array, grow_xyxy
from facestream.pipeline.stages.smooth import Sizes
from facestream.pipeline.stages.template_match import match_template
from facestream.pipeline.types import Box, Frame

SPREAD = 0.04  # by which a box grows with each frame further back
FOLLOWED = 0.015  # the same where its looks were followed
ALIKE = 0.5  # correlation from which two pictures show the same face
GRACE = 3  # frames further back that are covered after its looks were lost
INWARDS = 0.1  # of its sides by which a face that the edge cuts may seem to come in
EDGE = 12  # the same while the face is cut by the picture's edge, where little is covered in vain


@dataclass(frozen=True, slots=True)
class BufferedFrame:
    """A frame that is held back.

    boxes: by track, seen or guessed; they change while it waits. luma: the displayed picture's luma, uint8 [h, w],
    small, None when there is none. scale: luma pixels for a pixel of the displayed picture. scene: frames of one scene
    have the same number. affine: the camera's motion from the frame before, [2, 3] in displayed pixels; None: it
    stands, or nobody knows. sizes: of the faces that were observed in it.
    """

    frame: Frame
    boxes: dict[int, Box]
    luma: Array | None = None
    scale: float = 1.0
    scene: int = 0
    affine: Array | None = None
    sizes: Sizes = field(default_factory=dict)


def track_through(
    chain: list[BufferedFrame], box: Array, lost: int = GRACE, inside: int = 1 << 30
) -> list[Array] | None:
    """Where the face `box` (xyxy, displayed pixels) of the first frame of a chain is in the others, one after the
    other, growing a little with each step: as far as its looks are found, and `lost` steps further. Steps in which
    it is partly outside the picture do not count. inside: steps in which it may be wholly inside the picture.

    None when it has no looks to go by: no luma, or it is too small.
    """
    last = chain[0]
    place, speed, missed = box, np.zeros(4), 0
    places = []
    for step, now in enumerate(chain[1:], 1):
        if last.luma is None or now.luma is None or now.luma.shape != last.luma.shape:
            return None
        scale = now.scale
        ahead = warp_box(place, between(last, now))
        match = None
        if not missed:
            match = match_template(last.luma, place * scale, now.luma, (ahead + speed) * scale)
        if match is not None and moved_inward(ahead, match.xyxy / scale, now.frame.size):
            match = None
        if match is None and step == 1:
            return None
        if match is not None and match.score >= ALIKE:
            place = match.xyxy / scale
            speed = 0.5 * speed + 0.5 * (place - ahead)
        else:
            place = ahead + speed
            cut = is_cut(place, now.frame.size)
            missed += 1
            if missed > (EDGE if cut and lost else lost):
                break
        inside -= not is_cut(place, now.frame.size)
        if inside < 0:
            break
        places.append(grow_xyxy(place, 1 + FOLLOWED * step + SPREAD * missed))
        last = now
    return places


def between(last: BufferedFrame, now: BufferedFrame) -> Array | None:
    """The camera's motion from one frame to one of its neighbours, [2, 3]; None where it stands."""
    if now.frame.index >= last.frame.index:
        return now.affine
    return None if last.affine is None else cv2.invertAffineTransform(last.affine)


def is_cut(box: Array, size: tuple[int, int]) -> bool:
    """Does a box xyxy reach over the edge of a picture of this width and height?"""
    left, top, right, bottom = box.tolist()
    return bool(left < 0 or top < 0 or right > size[0] or bottom > size[1])


def moved_inward(box: Array, place: Array, size: tuple[int, int]) -> bool:
    """Has a box xyxy that an edge of the picture cuts moved inwards from there? What shows of a face at the edge is
    found again where it shows as much; where it shows less, something else is alike."""
    left, top, right, bottom = box.tolist()
    across, down = (place[:2] - box[:2]).tolist()
    most_x, most_y = INWARDS * (right - left), INWARDS * (bottom - top)
    return bool(
        (left < 0 and across > most_x)
        or (top < 0 and down > most_y)
        or (right > size[0] and -across > most_x)
        or (bottom > size[1] and -down > most_y)
    )


def warp_box(box: Array, affine: Array | None) -> Array:
    """A box xyxy moved with the camera: it stays upright, and grows by the zoom."""
    if affine is None:
        return box
    left, top, right, bottom = box.tolist()  # plain numbers: for two points numpy takes ten times as long
    (a, b, dx), (c, d, dy) = affine.tolist()
    x, y, zoom = (left + right) / 2, (top + bottom) / 2, math.sqrt(abs(a * d - b * c))
    wide, high = (right - left) / 2 * zoom, (bottom - top) / 2 * zoom
    x, y = a * x + b * y + dx, c * x + d * y + dy
    return np.array([x - wide, y - high, x + wide, y + high])
