"""The torch engine for GPUs, run on the CPU: its half-precision net, and its use in GpuPipeline."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from facestream.engines import torch_engine  # noqa: E402
from facestream.engines.build.fp16 import to_fp16  # noqa: E402
from facestream.engines.cuda.detector import GpuDetector  # noqa: E402
from facestream.engines.cuda.pipeline import Shape  # noqa: E402
from facestream.engines.errors import EngineMismatch  # noqa: E402
from facestream.engines.letterbox import view  # noqa: E402
from facestream.engines.loader import WEIGHTS, load_detector  # noqa: E402
from facestream.engines.options import DetectorOptions  # noqa: E402
from facestream.engines.torch_engine import TorchNet  # noqa: E402
from facestream.engines.torch_graph import GraphModule  # noqa: E402

from tests.alike import found_alike  # noqa: E402
from tests.cuda import needs_compiler  # noqa: E402
from tests.engines.test_fp16 import grown  # noqa: E402
from tests.lazy_device import LazyDevice  # noqa: E402
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

    def enqueue(self, *given: Any) -> None:
        given[-1].put(lambda: TorchNet.enqueue(self, *given))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> LazyDevice:
    """As if there were a GPU; torch works on the CPU all the same."""
    made = LazyDevice(3)

    def device_of(index: int) -> LazyDevice:
        made.index = index
        return made

    def net_of(module: GraphModule, device: str) -> TorchNet:
        assert device == f"cuda:{made.index}"
        return Late(module, "cpu")

    monkeypatch.setattr(torch_engine, "current_device", device_of)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch_engine, "TorchNet", net_of)
    return made


@needs_compiler
def test_a_shipped_graph_finds_in_the_loop_what_the_cpu_finds(stand_in: LazyDevice) -> None:
    options = DetectorOptions(threshold=0.2)
    detectors = (
        load_detector("plainS", options),
        load_detector("plainS", replace(options, backend="torch", device="cuda:1")),
    )
    assert isinstance(detectors[1], GpuDetector)
    assert stand_in.index == 1
    for size, frames in (((320, 192), [30, 90]), ((256, 160), [60])):  # another batch, another size
        views = [view(rgb, size) for rgb in demo_frames(frames)]
        assert found_alike(detectors, views, 0.3, 0.95) > 1
    detectors[1].pipeline.close()
    assert not stand_in.alive()


@needs_compiler
@pytest.mark.usefixtures("stand_in")
def test_what_torch_cannot_do_on_a_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: TorchNet) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nmore words")

    monkeypatch.setattr(Late, "try_out", broken)
    with pytest.raises(EngineMismatch, match=r"cannot use this GPU: CUDA error: no kernel image is available \("):
        torch_engine.on_gpu(WEIGHTS / "plainXS16.onnx", DetectorOptions())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineMismatch, match=r"this torch \(2.* and sees no GPU"):
        torch_engine.on_gpu(WEIGHTS / "plainXS16.onnx", DetectorOptions())


@needs_compiler
@pytest.mark.usefixtures("stand_in")
def test_torch_loads_no_graph_that_half_precision_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch converts a model when it loads it, so what is asked of plans when they are built is asked then."""
    data, normalisation = grown(WEIGHTS / "plainXS16.onnx", 2.0**11)
    monkeypatch.setattr(torch_engine, "to_fp16", lambda path: (data, normalisation, 1.0))
    with pytest.raises(EngineMismatch, match="beyond half precision"):
        torch_engine.on_gpu(WEIGHTS / "plainXS16.onnx", DetectorOptions())


def test_each_shape_of_a_slot_has_memory_of_its_own_until_it_is_forgotten() -> None:
    net = TorchNet(GraphModule(to_fp16(WEIGHTS / "plainXS16.onnx")[0], "plainXS16"), "cpu")
    shapes = [Shape(images, 64, 32) for images in (1, 2)]
    assert {net.prepare(0, shape, None).boxes for shape in shapes} == {32 + 8 + 2}
    net.prepare(1, shapes[0], None)
    assert net.made[0, shapes[1]].images.shape == (2, 3, 32, 64)
    assert len({id(made.images) for made in net.made.values()}) == 3
    net.forget(0, shapes[0])
    assert set(net.made) == {(0, shapes[1]), (1, shapes[0])}


def test_a_capture_that_fails_leaves_torch_as_it_was_and_the_net_usable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """torch measures algorithms while a graph is captured, which must not go on for every shape after it."""
    net = TorchNet(GraphModule(to_fp16(WEIGHTS / "plainXS16.onnx")[0], "plainXS16"), "cpu")
    shape = Shape(1, 64, 32)
    net.prepare(0, shape, None)

    def broken(*given: object, **named: object) -> None:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "Stream", broken)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    before = torch.backends.cudnn.benchmark
    net._capture(0, net.made[0, shape])
    assert torch.backends.cudnn.benchmark == before
    assert net.made[0, shape].eager
    assert net.made[0, shape].scores.isfinite().all()
    assert "it runs step by step" in caplog.text
    assert "more\n" not in caplog.text
