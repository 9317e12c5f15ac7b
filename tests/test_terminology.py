"""Everyday words that once named concepts: docs/terminology.md says what they are called, and which ones stay."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from facestream.pipeline import config

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("engines", "pipeline", "train", "facestream", "benchmarks", "tools", "tests")
    for path in (ROOT / folder).rglob("*.py")
)
WORDS = """
    Eye LiveEye Recalled LookFailed Line line fine coarse whole rise believed Sheet sheet CutOut shelved where
    Guard veiled held feel seldom Tempo Desk Asked ask askers hold_s Outlet Lane Channel figure told Told hear
    heard words wish wish_key high birth sure low_iou buffer Watch blind Glanced Glance Waiting Young Usual
    usual united settled nowhere ahead pace Sight follow trace carried came_in Visitor Shot Seen Full stamp
    Voiced Sounds ears voice patrol shelf sides Light words_of Seams Hand Crew Scribe Rows Board bury Uncut
    Unlike Cutter Blind Outline Memory card CardLoop CardDetector halve half Peer peer HostPicture
    PlanesDetector plan Album signs Faults spread start show Truth mine at keep eager
"""
RETIRED = set(WORDS.split())


def stays() -> set[str]:
    """The names in the last table of the page."""
    page = (ROOT / "docs" / "terminology.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page.partition("## Words that keep their plain meaning")[2], re.M)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def names(path: Path) -> dict[str, int]:
    """What a module defines, without leading underscores, and in which line: names, arguments, attributes, classes."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = ""
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = node.attr
        if name:
            found.setdefault(name.lstrip("_"), node.lineno)  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_retired_word_is_a_name(path: Path) -> None:
    used = {name: line for name, line in names(path).items() if name in RETIRED - stays()}
    assert not used, f"see docs/terminology.md: {used}"


def test_each_word_that_stays_is_used() -> None:
    used = {name for path in SOURCES for name in names(path)}
    assert stays() <= used


# Old names that mean nothing in plain English here, and the files that may speak of them: keys of old settings, and the
# modules of an earlier checkout.
GONE = {
    "LiveEye": (), "LookFailed": (), "Recalled": (), "CutOut": (), "shelved": (), "veiled": (), "askers": (),
    "hold_s": (), "wish_key": (), "Glanced": (), "Glance": (), "Voiced": (), "words_of": (), "CardLoop": (),
    "CardDetector": (), "HostPicture": (), "PlanesDetector": (), "Uncut": (), "Cutter": (), "came_in": (),
    "seldom": ("pipeline/config.py", "pipeline/video/decode.py"), "low_iou": ("pipeline/config.py",),
    "birth": ("pipeline/config.py",), "Guard": ("tools/same_records.py",), "Desk": ("tools/same_records.py",),
    "Asked": ("tools/same_records.py",), "Outlet": (), "Lane": (), "Told": (), "Tempo": (),
}  # fmt: skip


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="needs git and a checkout")
def test_old_names_are_in_no_sentence_and_no_message() -> None:
    searched = ["*.py", "*.md", "*.toml", "*.html", "*.js", "*.cu", "*.cpp"]
    searched += [":!docs/experiments", ":!docs/terminology.md", ":!CHANGELOG.md", ":!tests"]
    for word, places in GONE.items():
        command = ["git", "grep", "-lw", word, "--", *searched]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
        assert set(found) <= set(places), f"{word}: see docs/terminology.md"


def test_no_message_names_a_setting_by_its_old_key() -> None:
    """config.py lists them; `live` was the section that is `run` now."""
    old = {*config.RENAMED, *config.REMOVED, *(f"live.{field}" for field in config.RunConfig.__struct_fields__)}
    for path in (path for kind in ("py", "html", "js") for path in (ROOT / "pipeline").rglob(f"*.{kind}")):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            texts = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
            text = "\n".join(value for value in texts if isinstance(value, str))
        found = set(re.findall(r"(?<![\w.])(?:live|detector|tracker|run)\.[a-z_]+", text))
        assert path.name == "config.py" or not found & old, path
