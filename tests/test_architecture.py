"""The walls of the house: who imports whom, and who may make what leaves."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    [
        *ROOT.glob("engines/**/*.py"),
        *ROOT.glob("train/*.py"),
        *ROOT.glob("pipeline/**/*.py"),
        *ROOT.glob("facestream/*.py"),
    ]
)


def _package(module: str) -> str:
    """`engines` of `facestream.engines.boxes`; the first part of any other name."""
    return module.removeprefix("facestream.").split(".")[0]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {_package(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(_package(node.module))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    forbidden = {"engines": {"train", "pipeline"}, "train": {"pipeline"}, "pipeline": {"train", "build_engine"}}
    room = path.relative_to(ROOT).parts[0]
    assert not imports(path) & forbidden.get(room, set())


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_training_and_the_reference_engine_need_torch(path: Path) -> None:
    if path.parent.name != "train" and path.name not in (
        "torch_engine.py",
        "torch_graph.py",
        "build_engine.py",
        "baselines.py",
        "fp16.py",
        "int8.py",
        "embedder.py",
    ):
        assert not imports(path) & {"torch", "onnx", "matplotlib", "safetensors"}


def test_only_cover_makes_what_may_leave() -> None:
    """A sink takes CoveredFrame alone; whoever makes one decides that a picture may be seen."""
    makers = [
        path.name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and "CoveredFrame" in ast.unparse(node.func)
    ]
    assert set(makers) == {"anonymise.py", "overlay.py"}
