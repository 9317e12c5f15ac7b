"""SSH on OpenVINO: int8 on a CPU costs 0.6 of ONNX Runtime's float32 if the CPU has instructions for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facestream.engines.base import Detector
from facestream.engines.boxes import F32, Array
from facestream.engines.errors import BadConfig, EngineMismatch
from facestream.engines.options import DetectorOptions


class OpenVinoDetector(Detector):
    """A model written by `build_engine.py --backend openvino`: NAME.xml with NAME.bin beside it.

    Compiled once per input shape, which takes a third of a second and up to 50 MB; a video has two shapes, full and
    reduced resolution. A model with dynamic shapes is recompiled internally for each shape as well.
    """

    any_size = False

    def __init__(self, path: Path, options: DetectorOptions) -> None:
        super().__init__(options)
        try:
            import openvino
        except ImportError:
            raise BadConfig(
                "needs OpenVINO, which is not installed", str(path), "pip install 'facestream[openvino]'"
            ) from None
        self.core = openvino.Core()
        try:
            self.model = self.core.read_model(str(path))
        except RuntimeError as e:
            reason = str(e).strip().splitlines()[-1][:160]
            raise EngineMismatch(
                f"OpenVINO cannot load it: {reason}", str(path), "rebuild it with build_engine.py"
            ) from None
        names = [p.any_name for p in self.model.inputs], [p.any_name for p in self.model.outputs]
        if names != (["images"], ["xyxy", "scores"]):
            raise EngineMismatch(
                f"not a detector of this project: {names[0]} -> {names[1]}", str(path), "build it with build_engine.py"
            )
        self.compiled: dict[tuple[int, ...], Any] = {}

    def infer(self, images: Array) -> tuple[F32, F32]:
        request = self.compiled.get(images.shape)
        if request is None:
            model = self.model.clone()
            model.reshape({"images": list(images.shape)})
            settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": self.options.threads, "NUM_STREAMS": 1}
            settings |= {"INFERENCE_PRECISION_HINT": "f32"}  # CPUs with AMX would compute in bfloat16
            request = self.core.compile_model(model, "CPU", settings).create_infer_request()
            self.compiled[images.shape] = request
        found = request.infer({"images": images})
        return found["xyxy"].copy(), found["scores"].copy()  # the request's own memory is used again
