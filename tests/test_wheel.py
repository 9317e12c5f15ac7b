"""The wheel is complete: setuptools' package list contains all that lies in the packages."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.pack import cut_demo

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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what it is made of."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    (built,) = (folder / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_all_of_it(wheel: Path) -> None:
    """As built: no file of the packages is left out, nothing else is in it, and the command's entry point is there."""
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


def test_the_wheel_alone_does_the_work(wheel: Path, tmp_path: Path) -> None:
    """In a new environment, away from the repository: the command, the examples of the documentation's first three
    parts, and what is said where a part belongs to a checkout. The dependencies are those of this environment."""
    venv.create(tmp_path / "venv", with_pip=False)
    paths = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    packages = Path(sysconfig.get_path("purelib", vars=paths))
    python = Path(sysconfig.get_path("scripts", vars=paths), "python")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, timeout=120)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    work = tmp_path / "work"
    work.mkdir()
    cut_demo(work / "in.mp4", 30)

    def run(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(words, cwd=work, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == code, done.stderr
        return done

    where = run(python, "-c", "import facestream.pipeline, facestream; print(facestream.pipeline.__file__)").stdout
    assert Path(where.strip()).is_relative_to(packages)
    command = python.parent / "facestream"
    run(command, "anonymize", "in.mp4", "-o", "covered.mp4", "--records", "faces.jsonl", "--model", "plainXS16")
    assert len((work / "faces.jsonl").read_text().splitlines()) == 30
    doc = (ROOT / "docs" / "api.md").read_text()
    examples = [text for text in re.findall(r"^```python\n(.*?)^```", doc, re.M | re.S) if len(text.splitlines()) > 2]
    for example in examples[:3]:
        run(python, "-c", example)
    assert (work / "out.mp4").is_file()
    line = run(command, "bench", code=2).stderr.strip()
    assert "part of a checkout" in line
    assert "\n" not in line
    said = run(command, "--help").stdout
    assert "anonymize" in said
    assert "bench" not in said
