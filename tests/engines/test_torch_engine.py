"""The torch engine for cards, on the CPU: its net in half precision, its place in the loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from engines import torch_engine  # noqa: E402
from engines.card_loop import CardLoop  # noqa: E402
from engines.detector import WEIGHTS, DetectorOptions, load  # noqa: E402
from engines.errors import EngineMismatch  # noqa: E402
from engines.half import LARGEST, halve  # noqa: E402
from engines.letterbox import view  # noqa: E402
from engines.tensorrt_engine import CardDetector  # noqa: E402
from engines.torch_engine import SHAPES, TorchDetector, TorchNet  # noqa: E402
from engines.torch_graph import GraphModule  # noqa: E402
from tests.alike import found_alike  # noqa: E402
from tests.cuda import needs_compiler  # noqa: E402
from tests.engines.test_card_loop import shown  # noqa: E402
from tests.lazy_device import LazyDevice, Stream  # noqa: E402
from tests.pack import demo_frames, demo_truth  # noqa: E402
from train.checkpoint import load_weights  # noqa: E402
from train.half import HalfDeploy  # noqa: E402
from train.model import SPECS, SSH, Deploy  # noqa: E402

CHECKPOINT = Path(__file__).parents[2] / "train/checkpoints/plainS.safetensors"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine take a hundred times as long as one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> SSH:
    if not CHECKPOINT.is_file():
        pytest.skip("the checkpoint is not in this checkout")
    return load_weights(CHECKPOINT)[0]


class Late(TorchNet):
    """Works when its stream does."""

    def enqueue(self, slot: int, images: int, first: int, second: int, stream: Stream) -> None:
        stream.put(lambda: TorchNet.enqueue(self, slot, images, first, second, stream))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> LazyDevice:
    """As if there were a card; torch works on the CPU all the same."""
    device = LazyDevice(3)
    monkeypatch.setattr(torch_engine, "current_device", lambda: device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch_engine, "TorchNet", lambda module: Late(module, "cpu"))
    return device


@needs_compiler
def test_a_shipped_graph_finds_in_the_loop_what_the_cpu_finds(stand_in: LazyDevice) -> None:
    options = DetectorOptions(threshold=0.2)
    detectors = load("plainS", options), load("plainS", replace(options, backend="torch"))
    assert isinstance(detectors[1], CardDetector)
    for size, frames in (((320, 192), [30, 90]), ((256, 160), [60])):  # another batch, another size
        views = [view(rgb, size) for rgb in demo_frames(frames)]
        assert found_alike(detectors, views, 0.3, 0.95) > 1
    detectors[1].loop.close()
    assert not stand_in.memory


@needs_compiler
@pytest.mark.usefixtures("stand_in")
def test_what_torch_cannot_do_on_a_card_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: TorchNet) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nmore words")

    monkeypatch.setattr(Late, "try_out", broken)
    with pytest.raises(EngineMismatch, match=r"cannot use this card: CUDA error: no kernel image is available \("):
        torch_engine.on_card(WEIGHTS / "plainXS16.onnx", DetectorOptions())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineMismatch, match=r"this torch \(2.* and sees no card"):
        torch_engine.on_card(WEIGHTS / "plainXS16.onnx", DetectorOptions())


def test_a_slot_keeps_what_it_has_for_the_shapes_that_came_last() -> None:
    net = TorchNet(GraphModule(halve(WEIGHTS / "plainXS16.onnx")[0], "plainXS16"), "cpu")
    boxes = [net.prepare(0, pictures, 64, 32, None) for pictures in range(1, SHAPES + 2)]
    assert set(boxes) == {3 * (32 + 8 + 2)}
    first, last = net.made[0][2, 64, 32], net.slots[0]
    assert last.images.shape == (SHAPES + 1, 3, 32, 64)
    assert (1, 64, 32) not in net.made[0]
    net.prepare(0, 2, 64, 32, None)
    assert net.slots[0] is first
    net.prepare(1, 2, 64, 32, None)
    assert net.slots[1] is not first, "slots work side by side"


@needs_compiler
def test_the_torch_net_says_in_the_loop_what_the_reference_says(model: SSH) -> None:
    options = DetectorOptions(threshold=0.1)
    half = HalfDeploy(model)
    loop = CardLoop(LazyDevice(1), Late(half, "cpu"), half.normalisation, 0.1, 0.3)
    cuts = []
    for index, rgb in zip((30, 60), demo_frames([30, 60]), strict=True):
        left, top = (max(0, int(v) - 30) for v in demo_truth()[index][0, :2])
        cuts.append(np.ascontiguousarray(rgb[top : top + 96, left : left + 128]))
    tickets = [loop.submit([shown(cut)]) for cut in cuts]
    reference, boxes = TorchDetector(Deploy(model), options), 0
    for ticket, cut in zip(tickets, cuts, strict=True):
        (found,) = loop.result(ticket)
        (want,) = reference.detect([view(cut)])
        assert len(found[0]) == len(want)
        assert np.allclose(found[0], want.xyxy, atol=0.25)
        assert np.allclose(found[1], want.scores, atol=0.01)
        boxes += len(want)
    assert boxes > 0


def test_values_too_large_for_half_precision_are_scaled_without_a_trace() -> None:
    torch.manual_seed(1)
    large = SSH(replace(SPECS["vgg16"], shrink=32, heads=(8, 8, 8), fusion=8)).eval()
    convs = [layer for layer in large.backbone.modules() if isinstance(layer, torch.nn.Conv2d)]
    for layer in convs[:2]:
        layer.weight.data *= 2.0**9  # no bias, so that all that follows is as much larger
    for module in large.modules_:
        for layer in (module.scores, module.boxes):
            layer.weight.data *= 50 / 2.0**18
    half = HalfDeploy(large)
    scale = half.normalisation.scale
    assert scale < 1
    image = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    row = torch.from_numpy(half.normalisation.row())
    x = ((image.permute(0, 3, 1, 2) - row[:3, None, None]) * row[3:6, None, None]).half()
    with torch.no_grad():
        (_, want), (_, got) = Deploy(large)(image), half(x)
    assert want.std() > 1e-3
    assert torch.isfinite(got).all()
    assert torch.allclose(got, want, atol=0.01)
    assert largest(half, x) < LARGEST


def largest(half: HalfDeploy, x: torch.Tensor) -> float:
    found: list[float] = []
    for layer in half.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda _, i, o: found.append(float(o.abs().max())))
    with torch.no_grad():
        half(x)
    return max(found)


def test_nothing_comes_from_the_host_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made from Python's numbers for a device is copied there from the CPU's memory, which no CUDA graph holds.
    On torch's device without memory, in place of a card."""
    half, brought = HalfDeploy(SSH(SPECS["plainXS16"]).eval()).to("meta"), []

    def watched(real: Any) -> Any:
        def make(data: Any, **more: Any) -> Any:
            if not isinstance(data, torch.Tensor) and more.get("device") is not None:
                brought.append(data)
            return real(data, **more)

        return make

    for name in ("tensor", "as_tensor"):
        monkeypatch.setattr(torch, name, watched(getattr(torch, name)))
    images = torch.zeros(2, 3, 64, 96, dtype=torch.half, device="meta")
    with torch.inference_mode():
        xyxy, scores = half(images)
    assert (xyxy.shape, scores.shape) == ((2, 3 * (96 + 24 + 6), 4), (2, 3 * (96 + 24 + 6)))
    assert not brought
    monkeypatch.setattr(half, "get_buffer", lambda name: (16.0, 32.0, 64.0))
    with torch.inference_mode():
        half(images)
    assert len(brought) == 3, "tables that are made on the way are noticed"
