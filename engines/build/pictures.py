"""Photographs to calibrate on and to compare with."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from facestream.engines.boxes import Array
from facestream.engines.errors import BadInput
from facestream.engines.letterbox import view

CALIBRATION = (640, 384)  # width and height that calibration images are fitted into
CALIBRATION_IMAGES = 200


def calibration(folder: Path) -> list[Array]:
    """Pictures of a folder and those in it, evenly picked, each uint8 [1, H, W, 3] of CALIBRATION size."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp"))
    out = []
    for path in files[:: max(1, len(files) // CALIBRATION_IMAGES)][:CALIBRATION_IMAGES]:
        picture = cv2.imread(str(path))
        if picture is None:
            raise BadInput("cannot read the image", str(path))
        rgb = view(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), CALIBRATION).rgb[: CALIBRATION[1], : CALIBRATION[0]]
        canvas = np.zeros((1, CALIBRATION[1], CALIBRATION[0], 3), np.uint8)  # a portrait is cut
        canvas[0, : rgb.shape[0], : rgb.shape[1]] = rgb
        out.append(canvas)
    if not out:
        raise BadInput("holds no pictures", str(folder), "--calibrate wants .jpg, .png or .webp files")
    return out
