"""How plans are run: on an engine of our own making behind TensorRT-RTX's real names, since a real one needs a GPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from facestream.engines import tensorrt_engine
from facestream.engines.build.sidecar import Profile, Sidecar, digest
from facestream.engines.build.tensorrt import PlanOptions, build_plan, float_convolutions, layers
from facestream.engines.cuda import driver
from facestream.engines.cuda.driver import GpuInfo
from facestream.engines.cuda.frame import Normalisation
from facestream.engines.cuda.kernels import source_hash
from facestream.engines.cuda.pipeline import Shape
from facestream.engines.errors import EngineMismatch
from facestream.engines.options import DetectorOptions
from facestream.engines.tensorrt_engine import PlanNet, TensorRTDetector
from facestream.engines.tensorrt_library import logger, unsupported

from tests.cuda import needs_compiler
from tests.lazy_device import LazyDevice

trt = pytest.importorskip("tensorrt_rtx", reason="needs the rtx extra")

PROFILES = (Profile((1, 64, 96), (2, 96, 160), (4, 160, 192)), Profile((1, 96, 64), (2, 160, 96), (4, 192, 160)))
WIDE, HIGH = Shape(2, 160, 96), Shape(1, 64, 128)


class Context:
    """Writes down what it is told; `refuses` names what it says no to."""

    active_optimization_profile = 0

    def __init__(self, refuses: str) -> None:
        self.refuses, self.calls, self.shape = refuses, list[tuple[Any, ...]](), (0, 0, 0, 0)

    def _do(self, name: str, *what: Any) -> bool:
        self.calls.append((name, *what))
        return name != self.refuses

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        return self._do("profile", index, stream)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape  # type: ignore[assignment]
        return self._do("shape", name, shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        return self._do("address", name, address)

    def set_device_memory(self, address: int, size: int) -> None:
        self._do("memory", address, size)

    def execute_async_v3(self, stream: int) -> bool:
        return self._do("run", stream)

    def infer_shapes(self) -> list[str]:
        return []

    def update_device_memory_size_for_shapes(self) -> int:
        return 1000 * self.shape[0]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape[0], 77

    def is_stream_capturable(self, stream: int) -> bool:
        return stream == 5


class Cache:
    def __init__(self) -> None:
        self.content = b""

    def deserialize(self, data: bytes) -> bool:
        self.content = data
        return data.startswith(b"fits")

    def serialize(self) -> bytes:
        return self.content


class Config:
    def __init__(self) -> None:
        self.strategy: Any = None
        self.cache: Cache | None = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Cache:
        return Cache()

    def set_runtime_cache(self, cache: Cache) -> bool:
        self.cache = cache
        return True


class Engine:
    def __init__(self, refuses: str = "") -> None:
        self.refuses, self.config, self.made = refuses, Config(), list[Context]()

    def create_runtime_config(self) -> Config:
        return self.config

    def create_execution_context(self, how: Any) -> Context | None:
        assert how is self.config, "TensorRT-RTX takes its settings from the runtime configuration"
        self.made.append(Context(self.refuses))
        return None if self.refuses == "context" else self.made[-1]


def test_each_shape_of_a_slot_has_a_context_and_all_of_them_one_memory() -> None:
    engine = Engine()
    net = PlanNet(trt, engine, PROFILES, False)
    assert net.max_batch == 4
    assert net.prepare(0, WIDE, 5) == (77, 2000)
    assert net.prepare(0, HIGH, 5) == (77, 1000)
    net.prepare(1, WIDE, 6)
    assert len(engine.made) == 3
    wide, high, _ = engine.made
    assert ("profile", 1, 5) in high.calls
    assert ("shape", "images", (1, 3, 128, 64)) in high.calls
    for shape in (WIDE, HIGH, WIDE):
        net.enqueue(0, shape, 256, 512, 768, 4096, 5)
    assert wide.calls.count(("memory", 4096, 2000)) == 2
    assert high.calls.count(("memory", 4096, 1000)) == 1
    assert [calls[1:] for calls in high.calls if calls[0] == "address"] == [
        ("images", 256),
        ("xyxy", 512),
        ("scores", 768),
    ]
    assert (net.capturable(0, WIDE, 5), net.capturable(0, WIDE, 6)) == (True, False)
    net.forget(0, WIDE)
    assert set(net.contexts) == {(0, HIGH), (1, WIDE)}


def test_rtx_compiles_at_once_allocates_nothing_itself_and_keeps_what_it_compiled(tmp_path: Path) -> None:
    engine, file = Engine(), tmp_path / "net.plan.cache"
    net = PlanNet(trt, engine, PROFILES, False, file)
    config: Any = engine.config
    assert config.strategy == trt.ExecutionContextAllocationStrategy.USER_MANAGED
    eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    assert config.dynamic_shapes_kernel_specialization_strategy == eager
    assert config.cuda_graph_strategy == trt.CudaGraphStrategy.DISABLED, "the pipeline captures more than the net"
    net.prepare(0, WIDE, 5)
    config.cache.content = b"fits: kernels of one shape"
    net.enqueue(0, WIDE, 0, 0, 0, 0, 5)
    assert file.read_bytes() == b"fits: kernels of one shape"
    written = file.stat().st_mtime_ns
    net.enqueue(0, WIDE, 0, 0, 0, 0, 5)
    assert file.stat().st_mtime_ns == written, "only what a new shape has brought is written"
    again = Engine()
    PlanNet(trt, again, PROFILES, False, file)
    assert again.config.cache is not None
    assert again.config.cache.content.startswith(b"fits")


@pytest.mark.parametrize(("refuses", "words"), [
    ("profile", "optimization profile 1"), ("shape", "an input of 1x64x128"), ("address", "the address of images"),
    ("run", "to be run"), ("context", "no execution context"),
])  # fmt: skip
def test_what_tensorrt_refuses_is_an_error(refuses: str, words: str) -> None:
    net = PlanNet(trt, Engine(refuses), PROFILES, False)

    def go() -> None:
        net.prepare(0, HIGH, 5)
        net.enqueue(0, HIGH, 0, 0, 0, 0, 5)

    with pytest.raises(EngineMismatch, match=words):
        go()


class Library:
    """TensorRT-RTX, whose runtime makes an engine of a plan that begins with "plan", and says no to others."""

    ILogger = trt.ILogger
    __version__ = trt.__version__

    def __getattr__(self, name: str) -> Any:
        return getattr(trt, name)

    class Runtime:
        def __init__(self, log: Any) -> None:
            self.log = log

        def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
            if data.startswith(b"plan"):
                return Engine()
            self.log.log(trt.ILogger.ERROR, "the magic tag does not match")
            return None


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the GPUs that plans asked for, on a machine with a GPU of compute capability 8.9."""
    numbers: list[int] = []

    def device_of(index: int) -> LazyDevice:
        numbers.append(index)
        made = LazyDevice()
        made.gpu = GPU
        return made

    monkeypatch.setattr(tensorrt_engine, "library", lambda backend: Library())
    monkeypatch.setattr(tensorrt_engine, "current_device", device_of)
    return numbers


GPU = GpuInfo("a GPU", 89, 13000)


def plan(folder: Path, data: bytes = b"plan", **changes: Any) -> Path:
    path = folder / "net.plan"
    path.write_bytes(data)
    hashes = {"plan": digest(data), "kernels": source_hash()}
    norm = Normalisation((0.0,) * 3, (1.0,) * 3)
    made = Sidecar("rtx", trt.__version__, None, "fp16", PROFILES, norm, False, None, None, hashes, "build it")
    replace(made, **changes).write(path)
    return path


@needs_compiler
def test_a_plan_runs_on_the_gpu_that_was_asked_for(asked: list[int], tmp_path: Path) -> None:
    detector = TensorRTDetector(plan(tmp_path), DetectorOptions(device="cuda:1"))
    assert asked == [1]
    assert detector.max_batch == 4
    net = detector.pipeline.net
    assert isinstance(net, PlanNet)
    assert net.settings.path == tmp_path / "net.plan.cache"
    assert not net.nms_inside


@needs_compiler
def test_a_gpu_that_rtx_does_not_name_runs_no_plan(
    asked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "GPU", GpuInfo("an H100", 90, 13000))
    with pytest.raises(
        EngineMismatch, match=r"is not made for compute capability 9\.0.*use --backend tensorrt or torch"
    ):
        TensorRTDetector(plan(tmp_path), DetectorOptions())
    assert asked == [0]


@needs_compiler
@pytest.mark.usefixtures("asked")
def test_why_tensorrt_does_not_load_a_plan_is_said(tmp_path: Path) -> None:
    with pytest.raises(EngineMismatch, match=r"does not load: the magic tag does not match \(rebuild: build it\)"):
        TensorRTDetector(plan(tmp_path, b"torn"), DetectorOptions())


@needs_compiler
@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(("changes", "words"), [
    ({"nms_iou": 0.5}, r"has an NMS of 0\.5 inside"), ({"nms_threshold": 0.4}, r"gives no scores below 0\.4"),
])  # fmt: skip
def test_a_plan_whose_nms_is_another_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(EngineMismatch, match=words):
        TensorRTDetector(plan(tmp_path, **changes), DetectorOptions(threshold=0.3))


def test_a_runtime_cache_that_is_refused_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Config, "set_runtime_cache", lambda self, cache: False)
    with pytest.raises(EngineMismatch, match="refuses its runtime cache"):
        PlanNet(trt, Engine(), PROFILES, False, tmp_path / "net.plan.cache")


def test_shapes_that_tensorrt_does_not_know_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Context, "infer_shapes", lambda self: ["scores"])
    with pytest.raises(EngineMismatch, match="shapes of scores are not known"):
        PlanNet(trt, Engine(), PROFILES, False).prepare(0, WIDE, 5)


def test_gpus_that_rtx_does_not_name_are_refused_in_words() -> None:
    assert "is not made for compute capability 9.0, only for 7.5" in unsupported(trt, "rtx", 90)
    assert "10.0" in unsupported(trt, "rtx", 100)
    assert [unsupported(trt, "rtx", sm) for sm in (75, 86, 89, 120)] == [""] * 4
    assert unsupported(trt, "tensorrt", 90) == ""


def test_what_tensorrt_warns_of_is_passed_on_once(caplog: pytest.LogCaptureFixture) -> None:
    log = logger(trt)
    for _ in range(2):
        log.log(trt.ILogger.WARNING, "this is slow\nand more")
    log.log(trt.ILogger.ERROR, "this is wrong")
    log.log(trt.ILogger.INFO, "nobody asked")
    assert [record.getMessage() for record in caplog.records] == ["tensorrt_rtx: this is slow"]
    assert log.errors == ["this is wrong"]


def test_a_plan_says_itself_what_its_layers_compute_in() -> None:
    """The inspector's words, as TensorRT 10 gives them for plans of DETAILED verbosity."""
    half, wide = (
        {"Format/Datatype": "Channel major FP16 format (half)"},
        {"Format/Datatype": "Row major linear FP32 (float)"},
    )
    found = [
        {"Name": "first", "LayerType": "CaskConvolution", "Inputs": [half]},
        {"Name": "second", "LayerType": "CaskConvolution", "Inputs": [wide]},
        {"Name": "decode", "LayerType": "PointWise", "Inputs": [wide]},
    ]

    class Inspector:
        def get_engine_information(self, kind: Any) -> str:
            import json

            assert kind == trt.LayerInformationFormat.JSON
            return json.dumps({"Layers": [*found, "a layer without details"]})

    class Inspected:
        def create_engine_inspector(self) -> Inspector:
            return Inspector()

    assert float_convolutions(layers(trt, Inspected())) == ["second"]


def test_rtx_plans_are_built_so_that_a_graph_can_hold_them_and_they_can_be_inspected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two settings of the builder's configuration: what they lead to, only a GPU can say."""
    from facestream.engines.build import tensorrt
    from facestream.engines.build.fp16 import to_fp16
    from facestream.engines.loader import WEIGHTS

    class Builder(trt.Builder):  # type: ignore[misc]
        def build_serialized_network(self, network: Any, config: Any) -> Any:
            asked.append((config.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION), config.profiling_verbosity))
            return None

    class Library:
        def __getattr__(self, name: str) -> Any:
            return Builder if name == "Builder" else getattr(trt, name)

    asked: list[tuple[bool, Any]] = []
    monkeypatch.setattr(tensorrt, "library", lambda backend: Library())
    with pytest.raises(EngineMismatch):
        build_plan("rtx", to_fp16(WEIGHTS / "plainXS16.onnx")[0], PlanOptions(PROFILES, progress=False))
    assert asked == [(True, trt.ProfilingVerbosity.DETAILED)]


@pytest.mark.parametrize(("error", "words"), [
    ('Failed to dlopen libcuda.so.1', "no NVIDIA driver here"),
    ('Function "cuGraphInstantiate" not found', "the driver does not know cuMemAlloc"),
    ("out of host memory", "cuMemAlloc failed: out of host memory"),
])  # fmt: skip
def test_only_a_missing_driver_is_called_so(error: str, words: str) -> None:
    def cuMemAlloc(size: int) -> None:
        raise RuntimeError(error + "\nmore")

    with pytest.raises(EngineMismatch, match=words) as caught:
        driver._call(cuMemAlloc, 1)
    assert "\n" not in str(caught.value)
