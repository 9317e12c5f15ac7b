"""Compares two detectors box by box."""

from __future__ import annotations

import math

import numpy as np
from facestream.engines.base import Detector
from facestream.engines.boxes import Array, iou_xyxy
from facestream.engines.letterbox import ImageView

AGREEMENT = 0.9  # share of the faces that a quantised net must still find
# How far a box may be off, in pixels or as a share of its longer side, whichever is more; and a score.
BOX_TOLERANCE = (0.5, 0.01)
SCORE_TOLERANCE = 0.01
# Rounding errors have a tail: among enough boxes one is always further off. So this share of them may be, but by no
# more than so many tolerances.
RARE = 0.01
FARTHEST = 3.0
LIKE = 50.0  # a box's like is the nearest one, where a score off by 0.01 counts as half a pixel: both tolerances
# scores from which boxes are compared in pictures of faces, and in random patches
FACES = 0.3
PATCHES = 0.02
NO_ERRORS = {"box_error_px": 0.0, "box_error_share": 0.0, "box_error": 0.0, "score_error": 0.0}


def differences(reference: Detector, other: Detector, pictures: list[Array] | None = None) -> dict[str, float]:
    """Largest differences of the boxes (pixels, as a share of their longer side, and as a multiple of BOX_TOLERANCE)
    and scores of two detectors; they may be of different boxes. boxes_beyond: how many of the boxes_compared are off by
    more than BOX_TOLERANCE or SCORE_TOLERANCE.

    Pictures: uint8 [N, H, W, 3], else random patches, batches of one and two, three shapes. Each of the reference's
    300 best boxes with a score of at least PATCHES must have its like. Where either gives a value that is no number, or
    is infinite, all differences are infinite.
    """
    worst = dict(NO_ERRORS)
    compared = 0
    beyond = 0
    for images in pictures or patches():
        boxes_a, scores_a = reference.infer(images)
        boxes_b, scores_b = other.infer(images)
        if not all(np.isfinite(values).all() for values in (boxes_a, scores_a, boxes_b, scores_b)):
            return {"boxes_compared": compared, "boxes_beyond": beyond, **dict.fromkeys(NO_ERRORS, math.inf)}
        for i in range(len(images)):
            order = np.argsort(-scores_a[i], kind="stable")[:300]
            order = order[scores_a[i, order] >= min(PATCHES, scores_a[i].max() / 2)]
            distance = np.abs(boxes_a[i, order, None] - boxes_b[i][None]).max(-1)
            like = (distance + LIKE * np.abs(scores_a[i, order, None] - scores_b[i][None])).argmin(1)
            off = np.abs(boxes_a[i, order] - boxes_b[i, like]).max(1)
            side = np.maximum((boxes_a[i, order, 2:] - boxes_a[i, order, :2]).max(1), 1)
            found = {
                "box_error_px": off,
                "box_error_share": off / side,
                "box_error": off / np.maximum(BOX_TOLERANCE[0], BOX_TOLERANCE[1] * side),
                "score_error": np.abs(scores_a[i, order] - scores_b[i, like]),
            }
            worst = {key: max(value, float(found[key].max(initial=0))) for key, value in worst.items()}
            compared += len(order)
            beyond += int(((found["box_error"] > 1) | (found["score_error"] > SCORE_TOLERANCE)).sum())
    return {"boxes_compared": compared, "boxes_beyond": beyond, **worst}


def within_tolerance(found: dict[str, float]) -> bool:
    """Whether `differences` are none that half precision may not make, and there was something to compare."""
    if not found["boxes_compared"]:
        return False
    farthest = max(found["box_error"], found["score_error"] / SCORE_TOLERANCE)
    return farthest <= FARTHEST and found["boxes_beyond"] <= RARE * found["boxes_compared"]


def patches() -> list[Array]:
    """Random pictures, uint8 [N, H, W, 3]."""
    rng = np.random.default_rng(0)
    made = []
    for n, h, w in ((1, 32, 32), (1, 192, 320), (2, 384, 640)):
        noise = rng.integers(0, 256, (n, h // 8, w // 8, 3), dtype=np.uint8)
        made.append(noise.repeat(8, axis=1).repeat(8, axis=2))
    return made


def agreement(reference: Detector, other: Detector, pictures: list[Array]) -> dict[str, float]:
    """Share of the faces that one detector finds which another finds too (IoU >= 0.5), 0 where it finds none: then
    nothing was compared. Pictures: [N, H, W, 3]."""
    views = [ImageView(p[0], p.shape[2], p.shape[1]) for p in pictures]
    best = []
    for view in views:
        a, b = (detector.detect([view])[0].xyxy for detector in (reference, other))
        best.append(iou_xyxy(a, b).max(1) if len(a) and len(b) else np.zeros(len(a)))
    all_best = np.concatenate(best)
    share = float((all_best >= 0.5).mean()) if len(all_best) else 0.0
    return {"faces_compared": len(all_best), "agreement": round(share, 4)}


def detection_errors(reference: Detector, other: Detector, pictures: list[Array]) -> dict[str, float]:
    """How far what a detector finds is from what another one says, after suppression: the largest difference of a found
    box (as in `differences`) and score from the nearest that the reference gives before it
    suppresses, since among near equals either may be the one that stays; and `agreement`. Pictures: [N, H, W, 3]."""
    worst = dict(NO_ERRORS)
    for picture in pictures:
        raw, scores = (a[0] for a in reference.infer(picture))
        (found,) = other.detect([ImageView(picture[0], picture.shape[2], picture.shape[1])])
        if not (np.isfinite(found.xyxy).all() and np.isfinite(found.scores).all()):
            worst = dict.fromkeys(worst, math.inf)
            break
        for box, score in zip(found.xyxy, found.scores, strict=True):
            off = np.abs(raw - box).max(1)
            like = int((off + LIKE * np.abs(scores - score)).argmin())
            side = max(float((box[2:] - box[:2]).max()), 1.0)
            deviations = {
                "box_error_px": float(off[like]),
                "box_error_share": float(off[like]) / side,
                "box_error": float(off[like]) / max(BOX_TOLERANCE[0], BOX_TOLERANCE[1] * side),
                "score_error": float(abs(scores[like] - score)),
            }
            worst = {key: max(value, deviations[key]) for key, value in worst.items()}
    return worst | agreement(reference, other, pictures)


def too_few(found: dict[str, float], what: str) -> str:
    """What is the matter with an `agreement`: nothing was compared, or too little agrees. "" where all is well."""
    if not found["faces_compared"]:
        return "the float32 net finds no face in these pictures, so nothing was compared"
    if found["agreement"] < AGREEMENT:
        return f"{what} finds {found['agreement']:.0%} of the faces that float32 finds"
    return ""
