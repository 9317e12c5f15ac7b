"""The verifier: a second stage that looks at each box a detector has found and says again whether it is a face.

A cascade (Viola and Jones, CVPR 2001): the detector proposes, at a lower threshold; a small classifier sees each
proposal at one size with its surroundings; its graph joins both scores into one (`train.fuse`), which is what the
detector's threshold then applies to. Boxes stay as the detector has drawn them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
from facestream.engines.base import Detector
from facestream.engines.boxes import F32, Array
from facestream.engines.errors import EngineMismatch
from facestream.engines.face_crops import SIDE, face_crops
from facestream.engines.letterbox import ImageView
from facestream.engines.onnx_engine import open_session
from facestream.engines.options import DetectorOptions
from facestream.engines.types import Detections

VERIFIER = Path(__file__).parent / "weights" / "verifier" / "verifier.onnx"
INPUTS = ["crops", "scores"]  # names of the graph's inputs; its output is `verified`
PROPOSALS = 0.5  # threshold of the detector over that of what leaves: the verifier may raise a score
BATCH = 32  # crops that run together: more gain nothing on a CPU


class Verifier:
    """Scores crops. The graph: `crops` uint8 [N, SIDE, SIDE, 3] RGB, `scores` float32 [N] -> `verified` float32 [N].

    May be used by several threads. EngineMismatch for a file that is not a verifier.
    """

    def __init__(self, path: Path = VERIFIER, threads: int = 1) -> None:
        try:
            self._session: ort.InferenceSession = open_session(str(path), threads)
        except Exception as e:  # onnxruntime's own exceptions have no common base but Exception
            reason = str(e).splitlines()[0][:160]
            raise EngineMismatch(f"ONNX Runtime cannot load it: {reason}", str(path), "reinstall facestream") from None
        names = [i.name for i in self._session.get_inputs()]
        if names != INPUTS:
            raise EngineMismatch(f"not a verifier of this project: {names}", str(path), "train.fuse writes one")

    def scores(self, crops: Array, scores: F32) -> F32:
        """The scores float32 [N], 0..1, of boxes whose crops are uint8 [N, SIDE, SIDE, 3] and detector's scores [N]."""
        out = np.empty(len(crops), np.float32)
        for i in range(0, len(crops), BATCH):
            feed = {"crops": crops[i : i + BATCH], "scores": scores[i : i + BATCH]}
            out[i : i + BATCH] = self._session.run(["verified"], feed)[0]
        return out

    def verify(self, found: Detections, image: ImageView) -> Detections:
        """What was found in an image, with the joint scores, best first. Boxes are in the pixels of what it shows."""
        if not len(found):
            return found
        height, width = image.rgb.shape[:2]
        scale = np.array([width / image.width, height / image.height] * 2, np.float32)
        crops = face_crops(image.rgb, found.xyxy * scale, image.parts, SIDE)
        scores = self.scores(crops, found.scores)
        best_first = np.argsort(-scores, kind="stable")
        return Detections(found.xyxy[best_first], scores[best_first])


@lru_cache(maxsize=4)
def shared_verifier(path: Path = VERIFIER, threads: int = 1) -> Verifier:
    """One for all detectors of a process."""
    return Verifier(path, threads)


class VerifiedDetector(Detector):
    """A detector with a verifier behind it: `detect` gives the joint scores, `infer` the detector's own."""

    def __init__(self, inner: Detector, options: DetectorOptions, verifier: Verifier) -> None:
        super().__init__(options)
        self.inner = inner
        self.verifier = verifier
        self.batch = inner.batch
        self.any_size = inner.any_size
        self.adjustable = inner.adjustable
        self.chosen = inner.chosen
        self.coarsest_anchors = inner.coarsest_anchors
        self.coarsest_boxes = inner.coarsest_boxes

    def infer(self, images: Array) -> tuple[F32, F32]:
        return self.inner.infer(images)

    def detect(self, images: Sequence[ImageView], coarsest: bool = True) -> list[Detections]:
        proposals = proposals_of(self.options)
        if self.inner.options != proposals:
            self.inner.options = proposals
        found = self.inner.detect(images, coarsest)
        return [
            self.verifier.verify(f, image).filter_by_score(self.options.threshold)
            for f, image in zip(found, images, strict=True)
        ]


def proposals_of(options: DetectorOptions) -> DetectorOptions:
    """Options of the detector whose boxes a verifier sees."""
    return replace(options, threshold=options.threshold * PROPOSALS, verify=False)
