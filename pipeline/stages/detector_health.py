"""When what the detector says cannot be trusted: the picture shows nothing, or every face went at once."""

from __future__ import annotations

import cv2
import numpy as np
from facestream.engines.boxes import Array
from facestream.engines.types import Detections

DARK, MOST = 45, 0.98  # luma under which so large a share of the pixels lies in a dark picture (16 is black)
FLAT = 6.0  # spread of luma in a picture of nothing: a hand over the lens, fog, a grey card
CROWD = 1.5  # faces a look, of late, whose going all at once is a fault rather than people leaving
MEMORY = 0.9  # share of the running mean that a look leaves
FADE = 0.995  # the same while all are lost: two faces are held for about two seconds, five for eight


class DetectorHealth:
    """Fed with each frame; says whether the detector is blind in it."""

    def __init__(self) -> None:
        self.usual = 0.0  # faces a look, running mean
        self.lost = False

    def is_blind(self, luma: Array, found: Detections | None, sure: float) -> bool:
        """luma: uint8 [h, w]; found: None when this frame was not looked at; sure: the score of a sure face."""
        small = np.ascontiguousarray(luma[::4, ::4])
        dark = bool(np.count_nonzero(small < DARK) > MOST * small.size)
        shows_nothing = dark or float(cv2.meanStdDev(small)[1][0, 0]) < FLAT
        if found is not None:
            count = int((found.scores >= sure).sum())
            # The mean hardly falls while all are lost: that lasts until somebody is seen, or for some seconds.
            self.lost = not len(found) and self.usual >= CROWD
            self.usual = MEMORY * self.usual + (1 - MEMORY) * count if not self.lost else self.usual * FADE
        return shows_nothing or self.lost
