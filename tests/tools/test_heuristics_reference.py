from __future__ import annotations

from typing import get_type_hints

import pytest
from facestream.pipeline.batch.manifest import fingerprint
from facestream.pipeline.config import changed, read
from facestream.pipeline.errors import BadConfig
from facestream.pipeline.stages.settings import BOUND, DEFAULTS, GUESS, LITERATURE, MEASURED, Heuristics

from tools.heuristics_reference import TARGET, constants, reference


def test_the_page_is_current() -> None:
    assert TARGET.read_text() == reference(), "run: python tools/heuristics_reference.py"


@pytest.mark.parametrize("stage", list(get_type_hints(Heuristics)))
def test_every_constant_has_a_unit_a_purpose_and_an_origin(stage: str) -> None:
    section = reference().split(f"## {stage}\n")[1].split("\n## ")[0]
    for name, default, meta in constants(get_type_hints(Heuristics)[stage]):
        assert meta.extra["unit"]
        assert len(meta.description) > 10
        assert meta.extra["origin"] in (MEASURED, LITERATURE, BOUND, GUESS)
        assert f"| `{name}` | {default:.6g} |" in section


def test_each_can_be_set_and_is_part_of_what_resume_compares() -> None:
    plain = read(None)
    keys = {fingerprint(plain, False)}
    for stage, values in DEFAULTS.every().items():
        name, value = next(iter(values.items()))
        other = changed(plain, {f"advanced.{stage}.{name}": value + 1}, "test")
        assert getattr(getattr(other.advanced, stage), name) == value + 1
        keys.add(fingerprint(other, False))
    assert len(keys) == 1 + len(DEFAULTS.every())


def test_a_settings_file_may_hold_them(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "mine.toml"
    file.write_text("[advanced.policy]\neager_frames = 8\n")
    assert read(file).advanced.policy.eager_frames == 8
    for text, parts in (
        ("[advanced.policy]\neager = 8\n", ["advanced.policy.eager", "eager_frames"]),
        ("[advanced.police]\neager_frames = 8\n", ["advanced.police", "policy"]),
        ("[advanced.policy]\neager_frames = -1\n", ["advanced.policy.eager_frames", "at least 0"]),
    ):
        file.write_text(text)
        with pytest.raises(BadConfig) as caught:
            read(file)
        assert all(part in str(caught.value) for part in parts), str(caught.value)
