"""The torch engine for cards, on the CPU: its net in half precision, its place in the loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from engines.card_loop import CardLoop  # noqa: E402
from engines.detector import DetectorOptions  # noqa: E402
from engines.half import LARGEST  # noqa: E402
from engines.letterbox import view  # noqa: E402
from engines.torch_engine import TorchDetector, TorchNet  # noqa: E402
from tests.cuda import needs_compiler  # noqa: E402
from tests.engines.test_card_loop import shown  # noqa: E402
from tests.lazy_device import LazyDevice, Stream  # noqa: E402
from tests.pack import demo_frames, demo_truth  # noqa: E402
from train.checkpoint import load_weights  # noqa: E402
from train.half import HalfDeploy  # noqa: E402
from train.model import SPECS, SSH, Deploy  # noqa: E402

WEIGHTS = Path(__file__).parents[2] / "train/checkpoints/plainS.safetensors"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine take a hundred times as long as one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> SSH:
    if not WEIGHTS.is_file():
        pytest.skip("the checkpoint is not in this checkout")
    return load_weights(WEIGHTS)[0]


class Late(TorchNet):
    """Works when its stream does."""

    def enqueue(self, slot: int, images: int, first: int, second: int, stream: Stream) -> None:
        stream.put(lambda: TorchNet.enqueue(self, slot, images, first, second, stream))


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
