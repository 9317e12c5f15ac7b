"""SSH on ONNX Runtime: the default, on any CPU."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime as ort
from facestream.engines.base import Detector
from facestream.engines.boxes import F32, Array
from facestream.engines.errors import EngineMismatch
from facestream.engines.options import DetectorOptions

INTERFACE = ["images"], ["xyxy", "scores"]  # names of a graph's inputs and outputs


def coarsest(about: str) -> tuple[int, int]:
    """`Detector.coarsest_anchors` and `coarsest_boxes` by what build_engine.py has written into a graph ("facestream",
    JSON)."""
    table = json.loads(about)
    spec = table.get("spec", {})
    anchors = 0
    if tuple(spec.get("strides", (8, 16, 32))) == (8, 16, 32) and "sizes" in spec:
        anchors = len(spec["sizes"][-1])
    return anchors, int(table.get("top_k", [1000])[-1])


def open_session(model: str | bytes, threads: int, optimise: bool = True) -> ort.InferenceSession:
    """An ONNX Runtime session on the CPU, from a path or content. optimise: allow graph optimisations."""
    options = ort.SessionOptions()
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning thread pool takes the CPU from decoder and encoder while it waits for work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Planning the arena for each shape costs a sixth more memory and saves no time with one thread.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class OnnxDetector(Detector):
    """A graph exported by build_engine.py: `images` uint8 [N, H, W, 3] -> `xyxy` [N, K, 4], `scores` [N, K]."""

    def __init__(self, path: Path, options: DetectorOptions) -> None:
        super().__init__(options)
        try:
            self.session = open_session(str(path), options.threads)
        except Exception as e:  # onnxruntime's own exceptions have no common base but Exception
            reason = str(e).splitlines()[0][:160]
            raise EngineMismatch(
                f"ONNX Runtime cannot load it: {reason}", str(path), "rebuild it with build_engine.py"
            ) from None
        names = [i.name for i in self.session.get_inputs()], [o.name for o in self.session.get_outputs()]
        if names != INTERFACE:
            raise EngineMismatch(
                f"not a detector of this project: {names[0]} -> {names[1]}", str(path), "build it with build_engine.py"
            )
        self.coarsest_anchors, self.coarsest_boxes = coarsest(
            self.session.get_modelmeta().custom_metadata_map.get("facestream", "{}")
        )

    def infer(self, images: Array) -> tuple[F32, F32]:
        xyxy, scores = self.session.run(["xyxy", "scores"], {"images": images})
        return xyxy, scores
