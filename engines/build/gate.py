"""Refuses graphs in half precision or int8 that say other things than the float32 graph they were made of.

Both graphs run on the CPU. Every way to half precision on a GPU goes through `check_fp16`: plans of TensorRT and
TensorRT-RTX when they are built, torch when it loads a model.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from facestream.engines.boxes import Array
from facestream.engines.build.fp16 import LARGEST, Fp16Detector, probes
from facestream.engines.build.parity import FACES, agreement, differences, patches, too_few, within_tolerance
from facestream.engines.cuda.frame import Normalisation
from facestream.engines.errors import EngineMismatch
from facestream.engines.onnx_engine import OnnxDetector
from facestream.engines.options import DetectorOptions

COMPARED = 24  # pictures on which int8 is compared
# By how much values may grow on pictures that the check has not seen. Measured with the shipped nets: docs/gpu.md.
DRAWN_HEADROOM = 4.0  # over those of patches() and probes()
PHOTO_HEADROOM = 1.5  # over those of photographs


def check_fp16(
    source: Path, graph: bytes, normalisation: Normalisation, pictures: list[Array] | None
) -> dict[str, float]:
    """`differences` of a half-precision graph and the float32 one, on random patches and photographs.

    pictures: the photographs, uint8 [N, H, W, 3]. EngineMismatch where a value is infinite or no number or comes too
    near to what half precision holds, and where boxes or scores are not `within_tolerance`.
    """
    options = DetectorOptions()
    half = Fp16Detector(graph, normalisation, options)
    _check_drawn(half, source)
    parity = differences(OnnxDetector(source, options), half, [*patches(), *(pictures or [])])
    _check_photographs(half, source)
    if math.isinf(parity["score_error"]):
        raise _no_numbers(source)
    if not parity["boxes_compared"]:
        raise EngineMismatch("the net gives no box to compare", str(source), "give photographs with --calibrate")
    if not within_tolerance(parity):
        raise EngineMismatch(f"half precision changes boxes or scores: {parity}", str(source), "use float32")
    return parity


def check_int8(source: Path, graph: bytes, normalisation: Normalisation, pictures: list[Array]) -> dict[str, float]:
    """`agreement` of an int8 graph and the float32 one on some of the pictures, uint8 [N, H, W, 3].

    EngineMismatch under AGREEMENT, and as `check_fp16` for its values between the convolutions, which are half.
    """
    options = DetectorOptions(threshold=FACES)
    half = Fp16Detector(graph, normalisation, options)
    _check_drawn(half, source)
    found = agreement(OnnxDetector(source, options), half, pictures[:: max(1, len(pictures) // COMPARED)])
    _check_photographs(half, source)
    if what := too_few(found, "int8"):
        raise EngineMismatch(what, str(source), "calibrate on more pictures, of faces, or use fp16")
    return found


def _check_drawn(half: Fp16Detector, source: Path) -> None:
    finite = [np.isfinite(values).all() for picture in (*patches(), *probes()) for values in half.infer(picture)]
    _check_room(half.largest, DRAWN_HEADROOM, "drawn patterns", source)
    if not all(finite):
        raise _no_numbers(source)


def _check_photographs(half: Fp16Detector, source: Path) -> None:
    """After the photographs: whatever the drawn pictures led to has more room than this asks for."""
    _check_room(half.largest, PHOTO_HEADROOM, "the photographs", source)


def _check_room(largest: float, headroom: float, where: str, source: Path) -> None:
    if largest * headroom > LARGEST:
        reached = f"{largest:.0f}" if math.isfinite(largest) else "infinity"
        what = f"values come near to or go beyond half precision: up to {reached} of {LARGEST:.0f} on {where}"
        why = f"and other pictures may lead to {headroom:g} times as much"
        raise EngineMismatch(f"{what}, {why}", str(source), "use float32")


def _no_numbers(source: Path) -> EngineMismatch:
    return EngineMismatch("values grow beyond half precision: the net gives no numbers", str(source), "use float32")
