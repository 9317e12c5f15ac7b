"""Distractors: letters and ornaments drawn into training crops, which the detector must not take for faces.

Letters of a shop sign or a coat of arms are round, light on dark and about as large as faces, but rare in training
images. They are drawn here, away from every face.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from facestream.engines.boxes import F32, Array

LETTERS = list("ABCDEFGHIJKLMNOPQRSTUVWXYZABDEGOQRSabcdeghmnopqsu0123456789&@%")
FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)


@dataclass(frozen=True, slots=True)
class Distractor:
    """x, y: of its upper left corner in the crop. alpha: uint8 [H, W], all of it in the crop. colour: RGB."""

    x: int
    y: int
    alpha: Array
    colour: tuple[int, int, int]


def draw_distractors(size: int, boxes_xyxy: F32, rng: np.random.Generator) -> tuple[Distractor, ...]:
    """Distractors for a crop of size x size, usually one, some on a board; none touches a box of boxes_xyxy [N, 4]."""
    out: list[Distractor] = []
    for _ in range(6):
        alpha = _shape(size, rng)
        h, w = alpha.shape
        x = int(rng.integers(size - w + 1))
        y = int(rng.integers(size - h + 1))
        hit = (boxes_xyxy[:, :2] < (x + w, y + h)).all(1) & (boxes_xyxy[:, 2:] > (x, y)).all(1)
        if hit.any():
            continue
        paint = _colour(rng)
        board = _colour(rng)
        if rng.random() < 0.4:
            out.append(Distractor(x, y, np.full((h, w), 255, np.uint8), board))
        out.append(Distractor(x, y, alpha, paint))
        if rng.random() < 0.5:
            break
    return tuple(out)


def paste(image: Array, distractors: tuple[Distractor, ...]) -> None:
    """Draw them on an RGB uint8 crop, in place."""
    for distractor in distractors:
        h, w = distractor.alpha.shape
        part = image[distractor.y : distractor.y + h, distractor.x : distractor.x + w]
        cover = distractor.alpha[..., None].astype(np.uint16)
        part[:] = (part * (255 - cover) + np.array(distractor.colour, np.uint16) * cover + 127) // 255


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    r, g, b = (int(v) for v in rng.integers(0, 256, 3))
    return r, g, b


def _shape(size: int, rng: np.random.Generator) -> Array:
    """Letters or an ornament, uint8 [H, W], at most size in both."""
    height = math.exp(rng.uniform(math.log(9), math.log(size / 3)))
    alpha = _ornament(height * rng.uniform(1, 2), rng) if rng.random() < 0.35 else _text(height, rng)
    if rng.random() < 0.5:  # seen from the side, or hung askew
        angle, (h, w) = rng.uniform(-15, 15), alpha.shape
        turn = cv2.getRotationMatrix2D((w / 2, h / 2), angle, 1)
        turn[0, 0] *= rng.uniform(0.6, 1)
        alpha = cv2.warpAffine(alpha, turn, (w, h))
    return alpha[:size, :size]


def _text(height: float, rng: np.random.Generator) -> Array:
    """Lines of capital height `height` px, a little line_height."""
    font = FONTS[int(rng.integers(len(FONTS)))]
    unit = cv2.getTextSize("O", font, 1.0, 1)[0][1]
    scale = height / unit
    thick = max(1, round(height * rng.uniform(0.04, 0.22)))
    lines = ["".join(rng.choice(LETTERS, int(rng.integers(1, 9)))) for _ in range(int(rng.integers(1, 4)))]
    line_height = rng.uniform(1.2, 1.8) * height
    wide = max(cv2.getTextSize(line, font, scale, thick)[0][0] for line in lines)
    margin = round(height * 0.3) + thick
    alpha = np.zeros((round(height + line_height * (len(lines) - 1)) + 2 * margin, wide + 2 * margin), np.uint8)
    for i, line in enumerate(lines):
        base = (margin, margin + round(height + i * line_height))
        cv2.putText(alpha, line, base, font, scale, 255, thick, cv2.LINE_AA)
    return alpha


def _ornament(side: float, rng: np.random.Generator) -> Array:
    """Arcs and strokes one over another, as of a crest, a rail or a print on cloth."""
    n = max(8, round(side))
    alpha = np.zeros((n, n), np.uint8)
    for _ in range(int(rng.integers(5, 30))):
        x, y = (int(v) for v in rng.integers(0, n, 2))
        thick = max(1, round(n * rng.uniform(0.01, 0.08)))
        shade = int(rng.integers(2)) * 255
        if rng.random() < 0.6:
            axes = (max(1, round(n * rng.uniform(0.03, 0.4))), max(1, round(n * rng.uniform(0.03, 0.3))))
            start = rng.uniform(0, 360)
            cv2.ellipse(alpha, (x, y), axes, rng.uniform(0, 180), start, start + rng.uniform(60, 360), shade, thick)
        else:
            points = (rng.uniform(-0.4, 0.4, (int(rng.integers(2, 6)), 2)) * n + (x, y)).astype(np.int32)
            cv2.polylines(alpha, [points], bool(rng.random() < 0.3), shade, thick, cv2.LINE_AA)
    return alpha
