"""Rules on imports between packages, no import circle, and who may create covered frames."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("benchmarks", "engines", "facestream", "pipeline", "train")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]
# Which parts a part may import. The public API is on top. `checkout` is below all: it finds benchmarks by name, where
# there are any.
ALLOWED = {
    "engines": {"engines"},
    "train": {"train", "engines", "checkout"},
    "pipeline": {"pipeline", "engines", "checkout"},
    "checkout": {"engines"},
    "build_engine": {"train", "engines"},
    "api": {"pipeline", "engines"},
    "__init__": {"api", "pipeline", "engines"},
    "__main__": {"pipeline"},
    "benchmarks": {"benchmarks", "train", "pipeline", "engines", "build_engine", "checkout", "api"},
}


def module_of(path: Path) -> str:
    """pipeline/run.py -> facestream.pipeline.run, facestream/api.py -> facestream.api"""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "facestream" else ("facestream", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _statements(tree: ast.AST, inside: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that run: not those for types alone. inside: those in functions, too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not _is_type_checking(node) and (inside or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield from _statements(node, inside)


@cache
def imports(path: Path, inside: bool = True) -> frozenset[str]:
    """Full names of what a file imports: modules of ours as exactly as they are known, else the first part."""
    found = set()
    for node in _statements(ast.parse(path.read_text()), inside):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            assert not node.level, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            while name not in MODULES and "." in name:
                name = name.rpartition(".")[0]
            found.add(name)
    return frozenset(found)


def part_of(module: str) -> str:
    """`engines` of `facestream.engines.boxes`; any other name's first part."""
    if module == "facestream":
        return "__init__"
    return module.removeprefix("facestream.").split(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_imports_point_one_way(path: Path) -> None:
    allowed = ALLOWED[part_of(module_of(path))]
    ours = {part_of(name) for name in imports(path) if name.startswith("facestream.")}
    assert ours <= allowed


def circles(inside: bool) -> list[list[str]]:
    """Groups of modules that import each other, by Tarjan's strongly connected components."""
    edges = {
        name: sorted(n for n in imports(path, inside) if n in MODULES and n != name) for name, path in MODULES.items()
    }
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in edges[name]:
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in edges:
        if name not in order:
            visit(name)
    return found


def test_no_modules_import_each_other() -> None:
    assert circles(inside=False) == []


def test_nor_do_they_in_functions() -> None:
    """An import in a function spares time, and is no way around a circle."""
    assert circles(inside=True) == []


def test_the_stream_protocol_knows_nothing_of_cameras() -> None:
    for path in (ROOT / "pipeline" / "rtsp").glob("*.py"):
        assert not [
            name for name in imports(path) if name.startswith(("facestream.pipeline.live", "facestream.pipeline.cli"))
        ]


def test_only_the_command_line_imports_the_command_line() -> None:
    for module, path in MODULES.items():
        if not module.startswith(("facestream.pipeline.cli", "facestream.pipeline.__main__", "facestream.benchmarks")):
            assert not [name for name in imports(path) if name.startswith("facestream.pipeline.cli")], module


TORCH = ("torch_engine.py", "torch_graph.py", "build_engine.py", "baselines.py", "embedder.py")


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_only_training_and_the_reference_engine_need_torch(path: Path) -> None:
    where = path.relative_to(ROOT).parts
    if where[0] not in ("train", "benchmarks") and "build" not in where and path.name not in TORCH:
        assert not {name.split(".")[0] for name in imports(path)} & {"torch", "onnx", "matplotlib", "safetensors"}


def test_nothing_that_is_installed_fetches_anything() -> None:
    """No program of an installed package runs pip or opens a page of its own accord."""
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] != "benchmarks":
            text = path.read_text()
            assert not {"urllib.request.urlopen", "requests", "urlretrieve"} & {
                n.rpartition(".")[2] for n in imports(path)
            }
            assert '"pip", "download"' not in text
            # Events are posted to the address that the settings give.
            assert "urlopen(" not in text or path.name == "events.py"


def test_only_cover_makes_what_may_leave() -> None:
    """A sink takes CoveredFrame alone; whoever makes one decides that a picture may be seen."""
    makers = [
        path.name
        for path in SOURCES
        if path.parent.name != "benchmarks"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and "CoveredFrame" in ast.unparse(node.func)
    ]
    assert set(makers) == {"anonymise.py", "overlay.py"}
