"""A stock face matcher: dlib's ResNet-29 (Davis King, public domain), run by ONNX Runtime. Extra `attack`.

Its weights come with the package face_recognition_models, dlib finds the five landmarks by which faces are aligned.
Architecture: dlib's examples/dnn_face_recognition_ex.cpp. dlib itself runs it too, ten times as slowly on a CPU.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from facestream.engines.boxes import F32, Array
from facestream.pipeline.errors import BadConfig

SIDE = 150  # pixels of the aligned face that the net sees
BATCH = 16
MEAN = (122.782, 117.001, 104.298)
# Where a face that is aligned by its landmarks lies in the picture, measured by the box of the detector: the middle,
# and the side, in the box's longer sides. For faces whose landmarks cannot be seen.
SHIFT_X = 0.0
SHIFT_Y = 0.063
EXTENT = 0.927
# Blocks of two convolutions each, from the picture on: channels, whether the first halves the size.
BLOCKS = (
    *((32, False),) * 3,
    *((64, True), (64, False), (64, False), (64, False)),
    *((128, True), (128, False), (128, False)),
    *((256, True), (256, False), (256, False)),
    (256, True),
)


def check_attack(purpose: str = "measuring against a face matcher", extra: str = "attack") -> None:
    """Raise BadConfig where the matcher's parts are not installed. purpose, extra: for the message."""
    missing = [name for name in ("face_recognition_models", "dlib", "onnx") if find_spec(name) is None]
    if missing:
        do = f"pip install 'facestream[{extra}]'"
        raise BadConfig(f"{purpose} needs more libraries: " + ", ".join(missing), extra, do)


class Embedder:
    """128 numbers for a face; of two pictures of one person they are mostly nearer than 0.6."""

    def __init__(
        self, threads: int = 1, purpose: str = "measuring against a face matcher", extra: str = "attack"
    ) -> None:
        """Raises BadConfig, which names purpose and extra, where the matcher's parts are not installed."""
        check_attack(purpose, extra)
        import dlib
        import onnxruntime

        spec = find_spec("face_recognition_models")
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent / "models"
        self._landmarks: Any = dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat"))
        self._dlib = dlib
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        graph = _onnx(_layers(folder / "dlib_face_recognition_resnet_model_v1.dat"))
        self._net = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def embed(self, chips: Sequence[Array]) -> F32:
        """chips: RGB uint8 [SIDE, SIDE, 3], aligned; returns float32 [N, 128]."""
        out = [np.zeros((0, 128), np.float32)]
        for at in range(0, len(chips), BATCH):
            batch = (np.stack(chips[at : at + BATCH]).astype(np.float32) - np.array(MEAN, np.float32)) / 256
            out.append(self._net.run(None, {"picture": batch.transpose(0, 3, 1, 2)})[0])
        return np.concatenate(out)

    def aligned(self, rgb: Array, xyxy: Array) -> Array:
        """A face turned and scaled by its landmarks, for `embed`. rgb: uint8 [h, w, 3]; xyxy [4] in its pixels."""
        left, top, right, bottom = (round(v) for v in xyxy.tolist())
        shape = self._landmarks(np.ascontiguousarray(rgb), self._dlib.rectangle(left, top, right, bottom))
        chip: Array = self._dlib.get_face_chip(np.ascontiguousarray(rgb), shape, SIDE, 0.25)
        return chip


def by_box(rgb: Array, xyxy: Array, side: int = SIDE, extent: float = EXTENT) -> Array:
    """A face cut out by its box alone, for `Embedder.embed`: who sees a cover has no landmarks. extent: what is cut
    out, in the box's longer sides."""
    longest = float(max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]))
    x, y = ((xyxy[:2] + xyxy[2:]) / 2 + np.array([SHIFT_X, SHIFT_Y]) * longest).tolist()
    scale = side / (extent * longest)
    move = np.array([[scale, 0, side / 2 - scale * x], [0, scale, side / 2 - scale * y]])
    if scale < 0.5:  # a linear warp alone would alias
        small = 1 / (2 * scale)
        rgb = cv2.resize(rgb, None, fx=1 / small, fy=1 / small, interpolation=cv2.INTER_AREA)
        move = np.array([[scale * small, 0, move[0, 2]], [0, scale * small, move[1, 2]]])
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    chip: Array = cv2.warpAffine(rgb, move, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return chip


def _layers(path: Path) -> Iterator[Array]:
    """The parameters of dlib's layers, from the picture on: one array for each convolution, scale and matrix."""
    data = path.read_bytes()
    at = 0
    while True:
        places = [(p, tag) for tag in (b"con_4", b"affine_", b"fc_") if (p := data.find(tag, at)) >= 0]
        if not places:
            return
        at, tag = min(places)
        at = data.index(b"\x01\x02", at + len(tag))  # the tensor's version; before it stands the layer's
        at += 2
        count = 1
        for _ in range(4):
            size = data[at] & 0x0F
            count *= int.from_bytes(data[at + 1 : at + 1 + size], "little")
            at += 1 + size
        yield np.array(struct.unpack_from(f"<{count}f", data, at), np.float32)
        at += 4 * count


def _onnx(layers: Iterator[Array]) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    weights: list[Any] = []

    def add(kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"n{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(value: Array) -> str:
        name = f"w{len(weights)}"
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def convolve(x: str, before: int, channels: int, side: int, stride: int) -> str:
        """A convolution, with the scale and offset that follow it."""
        values = next(layers)
        scale = next(layers)
        count = channels * before * side * side
        factor = scale[:channels]
        kernel = values[:count].reshape(channels, before, side, side) * factor[:, None, None, None]
        bias = values[count:] * factor + scale[channels:]
        pad = 0 if stride > 1 else side // 2
        return add(
            "Conv", [x, constant(kernel), constant(bias)],
            kernel_shape=[side] * 2, strides=[stride] * 2, pads=[pad] * 4,
        )  # fmt: skip

    x = add("Relu", [convolve("picture", 3, 32, 7, 2)])
    x = add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2])
    channels = 32
    size = 35
    for wide, down in BLOCKS:
        y = add("Relu", [convolve(x, channels, wide, 3, 2 if down else 1)])
        y = convolve(y, wide, wide, 3, 1)
        if down:
            inner = (size - 3) // 2 + 1
            size = size // 2
            x = add("AveragePool", [x], kernel_shape=[2, 2], strides=[2, 2])
            if wide > channels:  # dlib adds what is missing as zeros
                pads = np.array([0, 0, 0, 0, 0, wide - channels, 0, 0], np.int64)
                x = add("Pad", [x, constant(pads)])
            if inner < size:
                y = add("Pad", [y, constant(np.array([0, 0, 0, 0, 0, 0, size - inner, size - inner], np.int64))])
        x = add("Relu", [add("Add", [x, y])])
        channels = wide
    x = add("ReduceMean", [x, constant(np.array([2, 3], np.int64))], keepdims=0)
    x = add("MatMul", [x, constant(next(layers).reshape(256, 128))])
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    result = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["n", 128])
    graph = helper.make_graph(nodes, "dlib_resnet29", [picture], [result], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data
