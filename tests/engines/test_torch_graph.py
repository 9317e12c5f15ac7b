"""The shipped graphs in torch agree with ONNX Runtime, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from facestream.engines import torch_graph  # noqa: E402
from facestream.engines.base import Detector  # noqa: E402
from facestream.engines.boxes import F32, Array  # noqa: E402
from facestream.engines.build.fp16 import Fp16Detector, to_fp16  # noqa: E402
from facestream.engines.build.int8 import quantise  # noqa: E402
from facestream.engines.build.parity import differences, patches  # noqa: E402
from facestream.engines.cuda.frame import Normalisation  # noqa: E402
from facestream.engines.errors import EngineMismatch  # noqa: E402
from facestream.engines.loader import WEIGHTS, load_detector, shipped  # noqa: E402
from facestream.engines.options import DetectorOptions  # noqa: E402
from facestream.engines.torch_engine import TorchDetector  # noqa: E402
from facestream.engines.torch_graph import GraphModule, read  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

SMALL = WEIGHTS / "plainXS16.onnx"
BOX_TOLERANCE = 0.01  # pixels of the input
SCORE_TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine take a hundred times as long as one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", shipped())
def test_boxes_are_onnx_runtimes(name: str) -> None:
    """In batches of one and two, in three sizes; every box of any weight has its like."""
    options = DetectorOptions(verify=False)
    pair = load_detector(name, options), load_detector(name, replace(options, backend="torch-cpu"))
    assert isinstance(pair[1], TorchDetector)
    assert pair[1].coarsest_anchors == pair[0].coarsest_anchors == 1
    found = differences(*pair)
    assert found["boxes_compared"] > 250
    assert found["box_error_px"] < BOX_TOLERANCE
    assert found["score_error"] < SCORE_TOLERANCE


def test_so_are_those_of_a_net_like_the_papers(tmp_path: Path) -> None:
    """VGG-16, narrowed: other layers than the shipped ones, bilinear up-sampling among them."""
    from facestream.train.checkpoint import save_weights
    from facestream.train.model import build

    from facestream import build_engine

    torch.manual_seed(2)
    save_weights(tmp_path / "net.safetensors", build("narrow"), {})
    build_engine.export_onnx(tmp_path / "net.safetensors", tmp_path / "net.onnx")
    pair = (
        load_detector(str(tmp_path / "net.onnx")),
        load_detector(str(tmp_path / "net.onnx"), DetectorOptions(backend="torch-cpu")),
    )
    found = differences(*pair, patches()[:2])
    assert found["boxes_compared"] > 100
    assert (found["box_error_px"] < BOX_TOLERANCE) & (found["score_error"] < SCORE_TOLERANCE)


class Halved(Detector):
    """The half-precision graph in torch."""

    def __init__(self, data: bytes, normalisation: Normalisation) -> None:
        super().__init__(DetectorOptions())
        self.module, self.row = GraphModule(data, "half"), normalisation.row()

    @torch.inference_mode()
    def infer(self, images: Array) -> tuple[F32, F32]:
        x = (images.transpose(0, 3, 1, 2).astype(np.float32) - self.row[:3, None, None]) * self.row[3:6, None, None]
        xyxy, scores = self.module(torch.from_numpy(x.astype(np.float16)))
        assert {value.dtype for value in (xyxy, scores)} == {torch.float32}
        return xyxy.numpy(), scores.numpy()


def test_in_half_precision_they_stay_within_its_tolerance() -> None:
    data, normalisation, _ = to_fp16(SMALL)
    halved = Halved(data, normalisation)
    assert {halved.module.get_buffer(own).dtype for own in halved.module.weights.values()} == {torch.float16}
    found = differences(load_detector("plainXS16"), halved, patches()[1:2])
    assert found["boxes_compared"] > 200
    assert (found["box_error_px"] < 0.25) | (found["box_error_share"] < 0.005)
    assert found["score_error"] < 0.01
    same = Fp16Detector(data, normalisation, DetectorOptions())
    assert differences(same, halved, patches()[1:2])["score_error"] < 0.01


class Places(TorchDispatchMode):
    """Notes on which devices torch's operations find their inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        flat = [v for a in args for v in (a if isinstance(a, (list, tuple)) else [a])]
        self.found |= {v.device.type for v in flat if isinstance(v, torch.Tensor)}
        if "device" in (kwargs or {}):
            self.found.add(f"made on {kwargs['device']}")
        return func(*args, **(kwargs or {}))


def test_nothing_comes_from_the_host_while_a_graph_is_captured() -> None:
    """No CUDA graph holds what lies in the CPU's memory. On torch's device without memory, in place of a GPU, where
    asking for a value fails as well."""
    module = GraphModule(to_fp16(SMALL)[0], "half").to("meta")
    images = torch.zeros(2, 3, 64, 96, dtype=torch.half, device="meta")
    with torch.inference_mode():
        module(images)
        with Places() as places:
            xyxy, scores = module(images)
    assert places.found == {"meta"}
    assert (xyxy.shape, scores.shape) == ((2, 96 + 24 + 6, 4), (2, 96 + 24 + 6))
    _, values = module.plan(images)
    for name in [name for name, value in values.items() if value.ndim == 0]:
        values[name] = torch.zeros((), dtype=values[name].dtype)
    with torch.inference_mode(), Places() as places:
        module(images)
    assert "cpu" in places.found, "what lies in the CPU's memory is noticed"


def test_memory_is_free_for_the_next_layer() -> None:
    module = read(SMALL)
    steps, values = module.plan(torch.zeros(1, 64, 96, 3, dtype=torch.uint8))
    values = values | {name: module.get_buffer(own) for name, own in module.weights.items()}
    values["images"] = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    most, full = 0, len(values)
    for step in steps:
        step.run(values)
        most = max(most, len(values))
    assert most < full + 10
    assert {name for name in values if name in {n for s in steps for n in s.data}} <= {"xyxy", "scores"}


def test_only_some_shapes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_graph, "PLANS", 2)
    module = read(SMALL)
    made = [module.plan(torch.zeros(1, 32, 32 * width, 3, dtype=torch.uint8)) for width in (1, 2, 3)]
    assert list(module._plans.values()) == made[1:]


def changed(tmp_path: Path, kind: str, **attributes: Any) -> Path:
    """The shipped graph with a node of another type, or with other attributes."""
    model = onnx.load(SMALL)
    node = next(node for node in model.graph.node if node.op_type in ("Resize" if attributes else "Relu", kind))
    node.op_type = kind
    for name, value in attributes.items():
        next(a for a in node.attribute if a.name == name).s = value
    onnx.save(model, tmp_path / "other.onnx")
    return tmp_path / "other.onnx"


def test_graphs_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineMismatch, match="holds Tanh"):
        read(changed(tmp_path, "Tanh"))
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(EngineMismatch, match="no ONNX file"):
        read(tmp_path / "junk.onnx")
    data, _, _ = quantise(SMALL, patches()[1:2])
    with pytest.raises(EngineMismatch, match="QuantizeLinear"):
        GraphModule(data, "int8")
    cubic = read(changed(tmp_path, "Resize", mode=b"cubic"))
    with pytest.raises(EngineMismatch, match="cannot run it: cubic"):
        cubic(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    model = onnx.load(SMALL)
    model.graph.output[0].name = "boxes"
    with pytest.raises(EngineMismatch, match="not a detector of this project"):
        GraphModule(model.SerializeToString(), "net")
