"""An ONNX graph of this project -> a model of OpenVINO, for CPUs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from facestream.engines.boxes import Array
from facestream.engines.build.parity import FACES, agreement, differences, patches, too_few, within_tolerance
from facestream.engines.errors import BadConfig, EngineMismatch
from facestream.engines.onnx_engine import OnnxDetector
from facestream.engines.openvino_engine import OpenVinoDetector
from facestream.engines.options import DetectorOptions


def compile_openvino(source: Path, out: Path, precision: str, pictures: list[Array] | None) -> dict[str, object]:
    """Write an OpenVINO model, OUT.xml and OUT.bin, from an .onnx file, and say what was built.

    fp16 halves the file (the CPU computes in float32 all the same), int8 quantises the convolutions by what the
    pictures, uint8 [N, H, W, 3], show them (BadConfig without); both outputs stay float32. EngineMismatch: see
    `compare_files`.
    """
    import openvino

    graph = openvino.Core().read_model(str(source))
    built: dict[str, object] = {"file": str(out), "precision": precision}
    if precision == "int8":
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

        if pictures is None:
            raise BadConfig("int8 needs photographs of the kind it will see", "--calibrate", "give a folder")
        nncf.set_log_level(30)  # warnings; it tells of every layer otherwise
        graph = nncf.quantize(
            graph, nncf.Dataset(pictures), preset=nncf.QuantizationPreset.MIXED, subset_size=len(pictures),
            # Boxes decoded in eight bits cost three points of AP; scores and offsets themselves a fifth of one.
            ignored_scope=nncf.IgnoredScope(names=last_layers(graph), validate=False),
            # Without VNNI, products of two full bytes overflow the CPU's 16-bit sums.
            advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
        )  # fmt: skip
        built["calibrated_on"] = len(pictures)
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "part.xml"
        openvino.save_model(graph, str(part), compress_to_fp16=precision == "fp16")
        built |= compare_files(source, part, pictures, exact=precision != "int8")
        for suffix in (".bin", ".xml"):
            shutil.copyfile(part.with_suffix(suffix), out.with_suffix(suffix + ".part"))
    for suffix in (".bin", ".xml"):
        out.with_suffix(suffix + ".part").replace(out.with_suffix(suffix))
    return built


def last_layers(graph: Any) -> list[str]:
    """Names of the operations from the last convolutions on, these included."""
    names: set[str] = set()
    reached = [result.input_value(0).get_node() for result in graph.get_results()]
    while reached:
        node = reached.pop()
        name = node.get_friendly_name()
        if name in names or node.get_type_name() in ("Constant", "Parameter"):
            continue
        names.add(name)
        if node.get_type_name() != "Convolution":
            reached += [node.input_value(i).get_node() for i in range(node.get_input_size())]
    return sorted(names)


def compare_files(source: Path, built: Path, pictures: list[Array] | None, exact: bool = False) -> dict[str, float]:
    """How well what was built of an ONNX graph agrees with it: with pictures, uint8 [N, H, W, 3], the share of the
    faces that it finds at a score of 0.3; exact, or without pictures, also the differences of all its boxes, on random
    patches and the pictures.

    EngineMismatch under AGREEMENT, above the tolerances of half precision, and where there was nothing to compare.
    """
    found: dict[str, float] = {}
    if exact or pictures is None:
        options = DetectorOptions()
        pair = OnnxDetector(source, options), OpenVinoDetector(built, options)
        found = differences(*pair, [*patches(), *(pictures or [])])
        if not within_tolerance(found):
            raise EngineMismatch(f"differs from the graph: {found}", str(built), "do not use it")
    if pictures is not None:
        options = DetectorOptions(threshold=FACES)
        found |= agreement(OnnxDetector(source, options), OpenVinoDetector(built, options), pictures)
        if what := too_few(found, built.name):
            raise EngineMismatch(what, str(built), "calibrate on more pictures, of faces")
    return found
