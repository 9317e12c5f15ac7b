"""Tracking a face through waiting frames: by template matching, and with the camera."""

from __future__ import annotations

import math

import cv2
import numpy as np
from facestream.engines.boxes import Array, grow_xyxy
from facestream.pipeline.stages.delay_line import BufferedFrame
from facestream.pipeline.stages.settings import DEFAULTS, Heuristics, TrackThroughSettings
from facestream.pipeline.stages.template_match import match_template


def track_through(
    chain: list[BufferedFrame],
    box: Array,
    lost: int | None = None,
    heuristics: Heuristics = DEFAULTS,
) -> list[Array] | None:
    """Track the face `box` (xyxy, displayed pixels) of a chain's first frame through the others, with boxes that grow
    with each step: as far as it is matched, and `lost` steps further (None: `grace_frames`).

    None if it cannot be matched at all: no luma, or it is too small.
    """
    settings = heuristics.track_through
    if lost is None:
        lost = settings.grace_frames
    last = chain[0]
    place = box
    speed = np.zeros(4)
    missed = 0
    places = []
    for step, now in enumerate(chain[1:], 1):
        if last.luma is None or now.luma is None or now.luma.shape != last.luma.shape:
            return None
        scale = now.scale
        ahead = warp_box(place, motion_between(last, now))
        match = None
        if not missed:
            near = (ahead + speed) * scale
            match = match_template(last.luma, place * scale, now.luma, near, heuristics.template_match)
        if match is not None and moved_inward(ahead, match.xyxy / scale, now.frame.size, settings):
            match = None
        if match is None and step == 1:
            return None
        if match is not None and match.score >= settings.min_correlation:
            place = match.xyxy / scale
            speed = place - ahead
        else:
            place = ahead + speed
            missed += 1
            if missed > lost:
                break
        places.append(grow_xyxy(place, 1 + settings.matched_growth * step + settings.lost_growth * missed))
        last = now
    return places


def motion_between(last: BufferedFrame, now: BufferedFrame) -> Array | None:
    """The camera's motion from one frame to one of its neighbours, [2, 3]; None if static."""
    if now.frame.index >= last.frame.index:
        return now.affine
    return None if last.affine is None else cv2.invertAffineTransform(last.affine)


def moved_inward(
    box: Array,
    place: Array,
    size: tuple[int, int],
    settings: TrackThroughSettings = DEFAULTS.track_through,
) -> bool:
    """Whether a box xyxy that an edge of the frame cuts has moved inward. Backwards in time less of an entering face is
    visible, so a match of its visible part further inside is a match with something else."""
    left, top, right, bottom = box.tolist()
    across, down = (place[:2] - box[:2]).tolist()
    limit_x = settings.max_inward * (right - left)
    limit_y = settings.max_inward * (bottom - top)
    return bool(
        (left < 0 and across > limit_x)
        or (top < 0 and down > limit_y)
        or (right > size[0] and -across > limit_x)
        or (bottom > size[1] and -down > limit_y)
    )


def warp_box(box: Array, affine: Array | None) -> Array:
    """A box xyxy moved with the camera: it stays upright, and is scaled by the zoom."""
    if affine is None:
        return box
    left, top, right, bottom = box.tolist()  # plain numbers: for two points numpy takes ten times as long
    (a, b, dx), (c, d, dy) = affine.tolist()
    zoom = math.sqrt(abs(a * d - b * c))
    old_x = (left + right) / 2
    old_y = (top + bottom) / 2
    half_width = (right - left) / 2 * zoom
    half_height = (bottom - top) / 2 * zoom
    x = a * old_x + b * old_y + dx
    y = c * old_x + d * old_y + dy
    return np.array([x - half_width, y - half_height, x + half_width, y + half_height])
