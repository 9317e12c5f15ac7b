"""The torch engine for GPUs, on the CPU: its net in half precision, its place in the loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from facestream.engines import torch_engine  # noqa: E402
from facestream.engines.base import DetectorOptions  # noqa: E402
from facestream.engines.build.fp16 import to_fp16  # noqa: E402
from facestream.engines.cuda.detector import GpuDetector  # noqa: E402
from facestream.engines.errors import EngineMismatch  # noqa: E402
from facestream.engines.letterbox import view  # noqa: E402
from facestream.engines.loader import WEIGHTS, load_detector  # noqa: E402
from facestream.engines.torch_engine import SHAPES, TorchNet  # noqa: E402
from facestream.engines.torch_graph import GraphModule  # noqa: E402

from tests.alike import found_alike  # noqa: E402
from tests.cuda import needs_compiler  # noqa: E402
from tests.lazy_device import LazyDevice, Stream  # noqa: E402
from tests.pack import demo_frames  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine take a hundred times as long as one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Late(TorchNet):
    """Works when its stream does."""

    def enqueue(self, slot: int, images: int, first: int, second: int, stream: Stream) -> None:
        stream.put(lambda: TorchNet.enqueue(self, slot, images, first, second, stream))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> LazyDevice:
    """As if there were a GPU; torch works on the CPU all the same."""
    device = LazyDevice(3)
    monkeypatch.setattr(torch_engine, "current_device", lambda: device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch_engine, "TorchNet", lambda module: Late(module, "cpu"))
    return device


@needs_compiler
def test_a_shipped_graph_finds_in_the_loop_what_the_cpu_finds(stand_in: LazyDevice) -> None:
    options = DetectorOptions(threshold=0.2)
    detectors = load_detector("plainS", options), load_detector("plainS", replace(options, backend="torch"))
    assert isinstance(detectors[1], GpuDetector)
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
    with pytest.raises(EngineMismatch, match=r"cannot use this GPU: CUDA error: no kernel image is available \("):
        torch_engine.on_gpu(WEIGHTS / "plainXS16.onnx", DetectorOptions())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineMismatch, match=r"this torch \(2.* and sees no GPU"):
        torch_engine.on_gpu(WEIGHTS / "plainXS16.onnx", DetectorOptions())


def test_a_slot_keeps_what_it_has_for_the_shapes_that_came_last() -> None:
    net = TorchNet(GraphModule(to_fp16(WEIGHTS / "plainXS16.onnx")[0], "plainXS16"), "cpu")
    boxes = [net.prepare(0, pictures, 64, 32, None) for pictures in range(1, SHAPES + 2)]
    assert set(boxes) == {3 * (32 + 8 + 2)}
    first, last = net.made[0][2, 64, 32], net.slots[0]
    assert last.images.shape == (SHAPES + 1, 3, 32, 64)
    assert (1, 64, 32) not in net.made[0]
    net.prepare(0, 2, 64, 32, None)
    assert net.slots[0] is first
    net.prepare(1, 2, 64, 32, None)
    assert net.slots[1] is not first, "slots work side by side"
