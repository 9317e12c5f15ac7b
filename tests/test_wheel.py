"""The wheel holds everything: what setuptools is told about must be all that lies in the packages."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOLD = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def files(package: str) -> list[Path]:
    here = (path for path in (ROOT / package).rglob("*") if path.is_file())
    return [path for path in here if "__pycache__" not in path.parts]


@pytest.mark.parametrize("package", ["engines", "pipeline", "train"])
def test_every_folder_with_code_is_a_package_of_the_wheel(package: str) -> None:
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in files(package) if p.suffix == ".py"}
    assert folders <= set(TOLD["packages"])


@pytest.mark.parametrize("package", ["engines", "pipeline"])
def test_every_other_file_is_named(package: str) -> None:
    data = TOLD["package-data"][package]
    others = [str(path.relative_to(ROOT / package)) for path in files(package) if path.suffix != ".py"]
    assert others
    assert [name for name in others if not any(fnmatch(name, pattern) for pattern in data)] == []
