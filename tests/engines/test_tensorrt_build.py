"""Real TensorRT-RTX plans, which build without a GPU; loading and running one needs a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from facestream.engines import tensorrt_library
from facestream.engines.build import tensorrt as tensorrt_build
from facestream.engines.build.sidecar import Profile, Sidecar, digest, path_of
from facestream.engines.build.tensorrt import (
    PROFILES,
    PlanOptions,
    compile_plan,
    profiles_of,
)
from facestream.engines.cuda.driver import GpuInfo
from facestream.engines.cuda.kernels import MAX_BOXES, nms_workspace
from facestream.engines.errors import BadConfig, BadInput, EngineMismatch
from facestream.engines.loader import WEIGHTS
from facestream.engines.tensorrt_library import library

SMALL = (Profile((1, 64, 96), (2, 96, 128), (2, 128, 160)),)
HERE = GpuInfo("NVIDIA Test GpuInfo", 89, 13000)


def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="real plans need the rtx extra")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "build_engine.py", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def check_plan(trt: Any, plan: Path, source: Path, precision: str = "fp16") -> None:
    """What can be seen of a plan without a GPU; what it is made of, tests/engines/test_gpu.py asks the plan itself."""
    data = plan.read_bytes()
    sidecar = Sidecar.read(plan)
    assert sidecar.hashes["plan"] == digest(data)
    assert sidecar.hashes["weights"] == digest(source.read_bytes())
    assert (sidecar.library, sidecar.precision, sidecar.gpu) == (trt.__version__, precision, None)
    sidecar.check(plan, data, trt.__version__, HERE)


def test_the_command_builds_a_real_plan_of_the_shipped_net(tmp_path: Path) -> None:
    trt = rtx()
    out = tmp_path / "plainS.plan"
    source = WEIGHTS / "plainS.onnx"
    done = command(str(source), "--backend", "rtx", "--profile", "1x96x64,2x128x96,2x160x128", "-o", str(out))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["score_error"] < 0.01
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plainS.plan", "plainS.plan.json"]
    assert Sidecar.read(out).profiles == SMALL
    assert "--backend rtx" in Sidecar.read(out).command
    check_plan(trt, out, source)


def test_a_reduced_vgg16_becomes_a_real_plan(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    trt = rtx()
    torch = pytest.importorskip("torch", reason="exporting weights needs the train extra")
    from facestream.train.checkpoint import save_weights
    from facestream.train.model import SPECS, SSH

    from facestream import build_engine

    torch.manual_seed(2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other on a busy machine take far longer
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    model = SSH(replace(SPECS["vgg16"], shrink=16, heads=(16, 16, 16), fusion=16))
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight)
    save_weights(tmp_path / "vgg.safetensors", model, {})
    source, out = tmp_path / "vgg.onnx", tmp_path / "vgg.plan"
    build_engine.export_onnx(tmp_path / "vgg.safetensors", source)
    built = compile_plan("rtx", source, out, PlanOptions(SMALL, progress=False), None, "build it")
    assert built["boxes_compared"] > 50
    check_plan(trt, out, source)


def test_the_command_builds_a_real_int8_plan(tmp_path: Path) -> None:
    trt = rtx()
    from tests.pack import make_pack

    photographs, out = make_pack(tmp_path / "pack", 2) / "WIDER_train", tmp_path / "plainS.plan"
    source = WEIGHTS / "plainS.onnx"
    arguments = ["--backend", "rtx", "--precision", "int8", "--calibrate", str(photographs)]
    done = command(str(source), *arguments, "--profile", "1x96x64,2x128x96,2x160x128", "-o", str(out))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["precision"], result["agreement"] >= 0.9, result["faces_compared"] > 1) == ("int8", True, True)
    check_plan(trt, out, source, "int8")


def test_a_plan_for_other_shapes_than_the_graph_takes_is_one_error(tmp_path: Path) -> None:
    rtx()
    shape = (1, 40, 40)  # 5x5 at stride 8, which 2x2 at stride 16 does not become when it is doubled
    odd = PlanOptions((Profile(shape, shape, shape),), progress=False)
    with pytest.raises(EngineMismatch):
        compile_plan("rtx", WEIGHTS / "plainS.onnx", tmp_path / "odd.plan", odd, None, "build it")
    assert not list(tmp_path.iterdir())


def sidecar(**changes: Any) -> Sidecar:
    from facestream.engines.cuda.frame import Normalisation
    from facestream.engines.cuda.kernels import source_hash

    hashes = {"plan": digest(b"plan"), "weights": "", "onnx": "", "kernels": source_hash()}
    norm = Normalisation((128.0, 128.0, 128.0), (64.0, 64.0, 64.0))
    made = Sidecar(
        "tensorrt", "10.9.0", HERE, "fp16", PROFILES, norm, False, 0.3, 0.02, hashes, "python build_engine.py x"
    )
    return replace(made, **changes)


def test_a_sidecar_comes_back_as_it_was_written(tmp_path: Path) -> None:
    plan = tmp_path / "x.plan"
    for made in (sidecar(), sidecar(backend="rtx", gpu=None, nms_iou=None, nms_threshold=None)):
        made.write(plan)
        assert Sidecar.read(plan) == made
    path_of(plan).write_text("{}")
    with pytest.raises(BadInput, match="not a plan's sidecar"):
        Sidecar.read(plan)
    path_of(plan).unlink()
    with pytest.raises(BadInput, match="missing"):
        Sidecar.read(plan)


OTHER = GpuInfo("Other GpuInfo", 90, 13000)


@pytest.mark.parametrize(("made", "data", "version", "gpu", "words"), [
    (sidecar(), b"plan", "10.9.0", HERE, None),
    (sidecar(), b"plam", "10.9.0", HERE, "not the one that was built"),
    (sidecar(), b"plan", "10.9.1", HERE, "built with tensorrt 10.9.0, here is 10.9.1"),
    (sidecar(), b"plan", "10.9.0", OTHER, r"built for NVIDIA Test GpuInfo \(8.9\), here is Other GpuInfo \(9.0\)"),
    (sidecar(portable=True), b"plan", "10.11.2", OTHER, None),
    (sidecar(portable=True), b"plan", "10.8.2", HERE, "built with"),
    (sidecar(portable=True), b"plan", "11.0.0", HERE, "built with"),
    (sidecar(portable=True), b"plan", "10.9.0", GpuInfo("Old", 75, 12000), "needs compute capability 8.0"),
    (sidecar(hashes=sidecar().hashes | {"kernels": "other"}), b"plan", "10.9.0", HERE, "NMS"),
    (sidecar(backend="rtx", library="1.7", gpu=None, nms_iou=None), b"plan", "1.7", OTHER, None),
    (sidecar(backend="rtx", library="1.7", gpu=None, nms_iou=None), b"plan", "1.8", OTHER, "built with"),
    (sidecar(backend="rtx", library="1.7", gpu=None, nms_iou=None), b"plan", "1.7", GpuInfo("Old", 75, 1), "Ampere"),
])  # fmt: skip
def test_a_plan_is_loaded_only_where_it_fits(
    made: Sidecar, data: bytes, version: str, gpu: GpuInfo, words: str | None
) -> None:
    if words is None:
        made.check(Path("x.plan"), data, version, gpu)
        return
    with pytest.raises(EngineMismatch, match=words) as caught:
        made.check(Path("x.plan"), data, version, gpu)
    assert "rebuild: python build_engine.py x" in str(caught.value)


def test_profiles_are_read_and_checked() -> None:
    assert profiles_of(("1x96x64,2x128x96,2x160x128",)) == SMALL
    for text in ("640x384", "1x96x64,2x128x96", "2x96x64,1x128x96,2x160x128", "1x90x64,2x128x96,2x160x128"):
        with pytest.raises(BadConfig):
            profiles_of((text,))


def test_what_is_missing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = str(WEIGHTS / "plainS.onnx")
    wrong = [["--backend", "rtx", "--precision", "int8"], ["--backend", "rtx", "--profile", "x"]]
    wrong.append(["--backend", "rtx", "--precision", "fp32"])
    if tensorrt_build.find_gpu() is None:
        wrong.append(["--backend", "rtx", "--verify"])
        wrong.append(["--backend", "tensorrt"])
    for arguments in wrong:
        done = command(source, *arguments, "-o", str(tmp_path / "x.plan"))
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(tensorrt_library.MODULES, "tensorrt", "no_such_library")
    with pytest.raises(BadConfig, match=r"not installed \(pip install 'facestream\[gpu\]'"):
        library("tensorrt")


@pytest.mark.parametrize(("backend", "version", "fits"), [
    ("tensorrt", "8.6.1", False), ("tensorrt", "10.9.0.34", True), ("tensorrt", "11.4.0", True), ("rtx", "0.9", False),
])  # fmt: skip
def test_a_library_that_is_too_old_is_one_line(
    monkeypatch: pytest.MonkeyPatch, backend: str, version: str, fits: bool
) -> None:
    module = ModuleType(tensorrt_library.MODULES[backend])
    module.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    if fits:
        assert library(backend) is module
        return
    with pytest.raises(BadConfig, match=rf"or newer, here is {version} \(pip install -U"):
        library(backend)


def test_a_library_without_a_gpu_says_where_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT's own builder says so by refusing to be made; here with RTX's in its place."""
    trt = rtx()

    class WithoutGpu:
        def __getattr__(self, name: str) -> Any:
            return getattr(trt, name)

        def Builder(self, log: Any) -> Any:
            raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(tensorrt_build, "library", lambda backend: WithoutGpu())
    with pytest.raises(EngineMismatch, match=r"no NVIDIA GPU or driver here.*--backend rtx, which needs none"):
        tensorrt_build.build_plan("tensorrt", b"", PlanOptions(progress=False))


def test_a_plan_is_built_on_the_gpu_that_was_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TensorRT's builder takes the calling thread's, and the sidecar names it; with RTX's library in its place, whose
    builder is refused here after that."""
    trt = rtx()
    steps: list[Any] = []

    class Library:
        __version__ = trt.__version__

        def __getattr__(self, name: str) -> Any:
            return getattr(trt, name)

        def Builder(self, log: Any) -> Any:
            steps.append("builder")
            log.log(trt.ILogger.ERROR, "no kernels for this GPU")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    class Gpu:
        def __init__(self, index: int) -> None:
            self.index = index

        def enter(self) -> None:
            steps.append(self.index)

    monkeypatch.setattr(tensorrt_build, "library", lambda backend: Library())
    monkeypatch.setattr(tensorrt_build, "find_gpu", lambda index: (HERE, OTHER)[index])
    monkeypatch.setattr(tensorrt_build, "current_device", Gpu)
    options = PlanOptions(SMALL, device="cuda:1", progress=False)
    with pytest.raises(EngineMismatch, match="no kernels for this GPU"):
        tensorrt_build.build_plan("tensorrt", b"", options)
    assert steps == [1, "builder"]
    monkeypatch.setattr(tensorrt_build, "build_plan", lambda *given: b"plan")
    compile_plan("tensorrt", WEIGHTS / "plainXS16.onnx", tmp_path / "x.plan", options, None, "build it")
    assert Sidecar.read(tmp_path / "x.plan").gpu == OTHER


def test_a_plan_is_verified_on_the_gpu_that_was_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the command needs the train extra")
    from facestream.engines.build.parity import FACES
    from facestream.engines.cuda import devices

    from facestream import build_engine

    asked: list[Any] = []
    monkeypatch.setattr(tensorrt_library, "library", lambda backend: None)
    monkeypatch.setattr(devices, "current_device", asked.append)
    monkeypatch.setattr(tensorrt_build, "compile_plan", lambda *given: {})
    monkeypatch.setattr("facestream.engines.loader.load_detector", lambda path, options: asked.append(options))
    monkeypatch.setattr(tensorrt_build, "verify_plan", lambda *given: {"agreement": 1.0})
    options = PlanOptions(device="cuda:1")
    source, out = WEIGHTS / "plainXS16.onnx", tmp_path / "x.plan"
    assert build_engine.export_plan(source, out, "rtx", options, None, True) == {"card_agreement": 1.0}
    index, *wanted = asked
    assert index == 1
    assert [o.device for o in wanted] == ["cuda:1", "cuda:1"]
    assert wanted[0].threshold < FACES


class Proxy:
    """TensorRT with dimension expressions that need no builder."""

    def __init__(self, trt: Any) -> None:
        self.trt = trt

    def __getattr__(self, name: str) -> Any:
        return (lambda n: [None] * n) if name == "DimsExprs" else getattr(self.trt, name)


class Expressions:
    def constant(self, value: int) -> int:
        return value


def test_the_plugin_is_found_in_the_real_registry_and_survives_serialisation() -> None:
    trt = rtx()
    from facestream.engines.cuda.nms_plugin import NAME, NAMESPACE, VERSION, make

    made = make(trt)
    creator = trt.get_plugin_registry().get_creator(NAME, VERSION, NAMESPACE)
    assert creator is made
    assert [field.name for field in creator.field_names] == ["threshold", "iou"]
    plugin = creator.create(0.02, 0.45)
    again = creator.create_plugin("nms", plugin.get_fields_to_serialize(), trt.TensorRTPhase.RUNTIME)
    for other in (again, plugin.clone(), plugin.attach_to_context(None)):
        assert (other.threshold, other.iou) == pytest.approx((0.02, 0.45))
    assert isinstance(plugin.get_capability_interface(trt.PluginCapabilityType.BUILD), trt.IPluginV3OneBuild)


def test_the_plugin_says_its_shapes_and_types() -> None:
    trt = rtx()
    from facestream.engines.cuda.nms_plugin import make

    plugin = make.__wrapped__(Proxy(trt)).create(0.02, 0.3)
    assert plugin.get_output_shapes([["N", "K", 4], ["N", "K"]], [], Expressions()) == [["N"], ["N", "K", 5]]
    assert plugin.get_output_data_types([trt.float32, trt.float32]) == [trt.int32, trt.float32]
    assert plugin.num_outputs == 2
    tensors = []
    for kind in (trt.float32, trt.float32, trt.int32, trt.float32):
        tensor = trt.DynamicPluginTensorDesc()
        tensor.desc.type, tensor.desc.format = kind, trt.TensorFormat.LINEAR
        tensors.append(tensor)
    assert all(plugin.supports_format_combination(i, tensors, 2) for i in range(4))
    tensors[0].desc.type = trt.float16
    tensors[2].desc.type = trt.int64
    tensors[3].desc.format = trt.TensorFormat.CHW32
    assert [plugin.supports_format_combination(i, tensors, 2) for i in range(4)] == [False, True, False, False]
    desc = trt.PluginTensorDesc()
    desc.dims = trt.Dims([8, MAX_BOXES, 4])
    assert plugin.get_workspace_size([desc], []) == nms_workspace(8)
    desc.dims = trt.Dims([1, MAX_BOXES + 1, 4])
    with pytest.raises(ValueError):
        plugin.on_shape_change([desc], [])


def test_the_plugin_launches_the_kernels_on_its_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """enqueue() with the kernels on the CPU in place of a GPU."""
    trt = rtx()
    from facestream.engines.cuda import devices
    from facestream.engines.cuda.nms_plugin import make

    from tests.cuda import cpu
    from tests.engines.test_nms_kernel import faces
    from tests.reference_nms import nms_xyxy

    launch = cpu("nms.cu")
    streams = []

    class OnCpu:
        def launcher(self, stream: int) -> Any:
            streams.append(stream)
            return launch

    monkeypatch.setattr(devices, "device_in_use", OnCpu)
    xyxy, scores = faces(np.random.default_rng(3), 2, 100)
    counts, kept = np.zeros(2, np.int32), np.ones((2, 100, 5), np.float32)
    workspace = np.zeros(nms_workspace(2), np.uint8)
    desc = trt.PluginTensorDesc()
    desc.dims = trt.Dims([2, 100, 4])
    inputs, outputs = [xyxy.ctypes.data, scores.ctypes.data], [counts.ctypes.data, kept.ctypes.data]
    make(trt).create(0.0, 0.3).enqueue([desc], [], inputs, outputs, workspace.ctypes.data, 77)
    assert streams == [77]
    for i in range(2):
        want = nms_xyxy(xyxy[i], scores[i], 0.3)
        assert counts[i] == len(want)
        assert (kept[i, : len(want), :4] == xyxy[i, want]).all()
