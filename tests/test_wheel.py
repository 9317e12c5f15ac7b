"""The wheel holds everything: what setuptools is told about must be all that lies in the packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOLD = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS = TOLD["package-dir"]  # of the packages whose folder is not their name's


def folder_of(package: str) -> str:
    """Where a package lies in a checkout: `facestream.pipeline.video` in pipeline/video."""
    inner = package.removeprefix("facestream.").replace(".", "/")
    return FOLDERS.get(package) or inner


PATTERNS = [f"{folder_of(name)}/{glob}" for name, globs in TOLD["package-data"].items() for glob in globs]
PACKAGES = ["engines", "facestream", "pipeline", "train"]


def files(package: str) -> list[Path]:
    here = (path for path in (ROOT / package).rglob("*") if path.is_file())
    return [path for path in here if "__pycache__" not in path.parts]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_with_code_is_a_package_of_the_wheel(package: str) -> None:
    folders = {str(p.parent.relative_to(ROOT)) for p in files(package) if p.suffix == ".py"}
    assert folders <= {folder_of(name) for name in TOLD["packages"]}


@pytest.mark.parametrize("package", ["engines", "pipeline"])
def test_every_other_file_is_named(package: str) -> None:
    """By the package whose folder it is in, or one above that is told to look below."""
    others = [path.relative_to(ROOT) for path in files(package) if path.suffix != ".py"]
    assert others
    assert [str(path) for path in others if not any(path.match(pattern) for pattern in PATTERNS)] == []


def test_every_pattern_finds_something() -> None:
    assert [pattern for pattern in PATTERNS if not list(ROOT.glob(pattern))] == []


def test_the_wheel_holds_all_of_it(tmp_path: Path) -> None:
    """As built: no file of the packages is left out, and the command's entry point is there."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        points = next(name for name in names if name.endswith("entry_points.txt"))
        assert "facestream = facestream.pipeline.__main__:main" in packed.read(points).decode()
    inside = [path.relative_to(ROOT) for package in PACKAGES for path in files(package)]
    want = {str(path) if path.parts[0] == "facestream" else f"facestream/{path}" for path in inside}
    # Weights to train from stay in the repository.
    want = {name for name in want if not name.startswith("facestream/train/checkpoints/")}
    assert want - names == set()
    extra = {name for name in names - want if ".dist-info/" not in name}
    assert extra == set()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"facestream"}
