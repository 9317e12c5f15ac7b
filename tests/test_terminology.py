"""Everyday words that once named concepts: docs/terminology.md says what they are called, and which ones stay."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("engines", "pipeline", "train", "facestream", "benchmarks", "tools")
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
