"""Tone mapping for the detector: PQ and HLG code values to SDR, by a table for 8-bit pixels.

SMPTE ST 2084 and ARIB STD-B67 (ITU-R BT.2100). Reference white (BT.2408: 203 cd/m2, or 75 % of HLG's signal) becomes
SDR's bright skin and paper; brighter values are compressed. Gamut and hue are unchanged: they hardly affect detection.
"""

from __future__ import annotations

import numpy as np
from av.video.reformatter import ColorTrc
from facestream.engines.boxes import Array

_WHITE_NITS = 203.0
_KNEE = 0.8  # of SDR's linear light, up to which light stays as it is; the rest is for what is brighter


def _pq_nits(signal: Array) -> Array:
    m1 = 2610 / 16384
    m2 = 2523 / 4096 * 128
    c1 = 3424 / 4096
    c2 = 2413 / 4096 * 32
    c3 = 2392 / 4096 * 32
    root = signal ** (1 / m2)
    nits: Array = 10000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    return nits


def _hlg_nits(signal: Array) -> Array:
    a = 0.17883277
    b = 0.28466892
    c = 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    nits: Array = 1000 * scene**1.2  # a display of 1000 cd/m2
    return nits


def _table(nits: Array) -> Array:
    light = nits / _WHITE_NITS
    over = np.maximum(light - _KNEE, 0)
    mapped = np.minimum(light, _KNEE) + (1 - _KNEE) * over / (over + 1 - _KNEE)
    return np.clip(255 * mapped ** (1 / 2.2), 0, 255).round().astype(np.uint8)


_CODES: Array = np.arange(256) / 255
TONE_CURVES: dict[int, Array] = {
    ColorTrc.SMPTE2084: _table(_pq_nits(_CODES)),
    ColorTrc.ARIB_STD_B67: _table(_hlg_nits(_CODES)),
}
