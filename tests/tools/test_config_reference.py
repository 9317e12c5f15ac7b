from __future__ import annotations

from typing import Literal

from facestream.pipeline.config import Config
from msgspec import to_builtins

from tools.config_reference import TARGET, bounds, reference


def test_the_reference_is_current() -> None:
    assert TARGET.read_text() == reference(), "run: python tools/config_reference.py"


def test_it_names_every_setting() -> None:
    text = reference()
    for section, values in to_builtins(Config()).items():
        assert f"## [{section}]" in text
        for key in values:
            assert f"| `{key}` |" in text.split(f"## [{section}]")[1].split("## [")[0]


def test_bounds_in_words() -> None:
    assert bounds(float, {"type": "number", "exclusiveMinimum": 0, "maximum": 1}) == "number over 0 to 1"
    assert bounds(Literal["b", "a"], {"enum": ["a", "b"]}) == "`b`, `a`"
