"""Tracks a drawn box through the surrounding frames by template matching."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from facestream.engines.boxes import Array
from facestream.pipeline.stages.analyse.scene_cuts import is_different, signature_of
from facestream.pipeline.stages.template_match import match_template
from facestream.pipeline.types import XYXY, Frame, xyxy
from facestream.pipeline.video.planes import luma_view

LONGEST_S = 10.0  # for so long a box is followed to each side
LUMA = 960  # pixels of the longer side of the picture in which it is sought
ALIKE = 0.6  # correlation from one frame to the next from which it is the same face
STILL_ITSELF = 0.35  # the same with the face as it was drawn: less, since it turns
# correlation with the face as drawn, and sides, within which its place there is taken
ANCHOR = 0.6
NEARBY = 0.3
LOST_FRAMES = 4  # frames further that are covered when it is lost: growing, since nobody knows where it went
LOST_GROWTH = 0.08
# by which a box grows with each frame it was followed, and at most in all
GROWTH = 0.004
MOST_GROWTH = 1.25
AGREES = 0.75  # IoU with the track's own box from which the track knows better
SIZES = (1.0, 0.96, 1.04)


def follow_both_ways(
    read: Callable[[int], Frame],
    frames: int,
    start: int,
    box: XYXY,
    rate: float,
    known: Callable[[int], XYXY | None] = lambda _: None,
) -> dict[int, XYXY]:
    """The box `box` of frame `start`, xyxy in displayed pixels, and where it is in the frames before and after it.

    Each way it goes on until the face is lost, leaves the picture, a cut comes, or the track's own box (`known`) lies
    in the same place again. read: a frame by number, of `frames` in all.
    """
    out = {start: box}
    max_steps = max(1, round(LONGEST_S * rate))
    first = _View(read(start))
    for step in (1, -1):
        out |= _follow(
            read, range(start + step, min(frames, max(-1, start + step * max_steps)), step), first, box, known
        )
    return out


class _View:
    """What following needs of a frame: its brightness, small, and its scene's signature."""

    def __init__(self, frame: Frame) -> None:
        self.luma, self.scale = luma_view(frame, LUMA)
        self.size = frame.size
        self.signature = signature_of(self.luma)


def _follow(
    read: Callable[[int], Frame], numbers: range, first: _View, box: XYXY, known: Callable[[int], XYXY | None]
) -> dict[int, XYXY]:
    out: dict[int, XYXY] = {}
    last = first
    place = np.array(box)
    speed = np.zeros(4)
    drawn = _patch(first, place)
    for count, number in enumerate(numbers, 1):
        now = _View(read(number))
        if now.luma.shape != last.luma.shape or is_different(last.signature, now.signature):
            break
        found = _match(last, place, now, place + speed)
        if found is None or not _is_itself(drawn, _patch(now, found)):
            out |= _let_go(place, speed, numbers, count - 1, now.size)
            break
        found = _anchored(first, np.array(box), now, found)
        speed = 0.5 * speed + 0.5 * (found - place)
        place = found
        if _outside(place, now.size):
            break
        own = known(number)
        if own is not None and _iou(place, np.array(own)) >= AGREES:
            break
        out[number] = xyxy(_grown(place, min(MOST_GROWTH, 1 + GROWTH * count)))
        last = now
    return out


def _anchored(first: _View, box: Array, now: _View, found: Array) -> Array:
    """Where the face that was drawn lies next to where it was followed to: small errors of each step add up."""
    match = match_template(first.luma, box * first.scale, now.luma, _same_size(found, box) * first.scale)
    if match is None or match.score < ANCHOR:
        return found
    moved = ((match.xyxy[:2] + match.xyxy[2:]) / first.scale - found[:2] - found[2:]) / 2
    if np.abs(moved).max() > NEARBY * (found[2:] - found[:2]).max():
        return found
    return found + np.tile(moved, 2)


def _match(last: _View, place: Array, now: _View, ahead: Array) -> Array | None:
    """Where the face is in the next frame, in displayed pixels; it may have come nearer or gone away a little."""
    best = None
    score = ALIKE
    for size in SIZES:
        view = now.luma
        if size != 1.0:
            view = cv2.resize(now.luma, None, fx=1 / size, fy=1 / size, interpolation=cv2.INTER_LINEAR)
        # In the resized picture, points lie at 1/size of their place. Both pictures must have one size.
        view, shift = _as_large(view, last.luma.shape)
        near = ahead * last.scale / size + shift
        match = match_template(last.luma, place * last.scale, view, _same_size(near, place * last.scale))
        if match is not None and match.score > score + (0.01 if size != 1.0 else 0):
            best = (match.xyxy - shift) * size / last.scale
            score = match.score
    return best


def _as_large(view: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """A picture cut or padded, around its middle, to this shape; and by how much points moved, xyxy."""
    high, wide = shape[:2]
    top = (high - view.shape[0]) // 2
    left = (wide - view.shape[1]) // 2
    if top < 0 or left < 0:
        view = view[max(0, -top) : max(0, -top) + high, max(0, -left) : max(0, -left) + wide]
    else:
        bottom = high - view.shape[0] - top
        right = wide - view.shape[1] - left
        view = cv2.copyMakeBorder(view, top, bottom, left, right, cv2.BORDER_REPLICATE)
    return view, np.array([left, top, left, top], np.float64)


def _same_size(near: Array, like: Array) -> Array:
    """A box of another's size around this one's middle."""
    middle = (near[:2] + near[2:]) / 2
    half = (like[2:] - like[:2]) / 2
    return np.concatenate([middle - half, middle + half])


def _patch(view: _View, place: Array) -> Array | None:
    """The face, 24 x 24 pixels of brightness; None where less than half of it is in the picture."""
    height, width = view.luma.shape
    x0, y0, x1, y1 = (place * view.scale).tolist()
    left = max(0, round(x0))
    top = max(0, round(y0))
    right = min(width, round(x1))
    bottom = min(height, round(y1))
    if right - left < max(2, (x1 - x0) / 2) or bottom - top < max(2, (y1 - y0) / 2):
        return None
    return cv2.resize(view.luma[top:bottom, left:right], (24, 24), interpolation=cv2.INTER_AREA).astype(np.float32)


def _is_itself(drawn: Array | None, now: Array | None) -> bool:
    """Whether what was followed still looks like what was drawn. Near an edge, where little is seen, it does."""
    if drawn is None or now is None:
        return True
    a = drawn - drawn.mean()
    b = now - now.mean()
    return bool((a * b).sum() >= STILL_ITSELF * np.sqrt((a * a).sum() * (b * b).sum()) - 1e-6)


def _let_go(place: Array, speed: Array, numbers: range, done: int, size: tuple[int, int]) -> dict[int, XYXY]:
    out = {}
    for further, number in enumerate(numbers[done : done + LOST_FRAMES], 1):
        guess = _grown(place + further * speed, 1 + LOST_GROWTH * further)
        if _outside(guess, size):
            break
        out[number] = xyxy(guess)
    return out


def _grown(box: Array, scale: float) -> Array:
    middle = (box[:2] + box[2:]) / 2
    half = (box[2:] - box[:2]) / 2 * scale
    return np.concatenate([middle - half, middle + half])


def _outside(box: Array, size: tuple[int, int]) -> bool:
    return bool(box[2] <= 0 or box[3] <= 0 or box[0] >= size[0] or box[1] >= size[1])


def _iou(a: Array, b: Array) -> float:
    low = np.maximum(a[:2], b[:2])
    high = np.minimum(a[2:], b[2:])
    if (high <= low).any():
        return 0.0
    both = float(np.prod(high - low))
    return both / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)
