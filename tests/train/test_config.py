"""Training settings: of the command line and of stored checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the train extra")

from facestream.engines.checked import Wrong
from facestream.engines.errors import BadConfig
from facestream.train.checkpoint import load_weights
from facestream.train.config import RENAMED, recipe, stored_config

FOLDER = Path(__file__).parents[2] / "train" / "checkpoints"
CHECKPOINTS = sorted(path for path in FOLDER.glob("*.safetensors") if path.stem != "verifier")  # it has no settings


def nested(path: str, value: object) -> dict[str, object]:
    """A table with one value at a dotted key."""
    for key in reversed(path.split(".")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_the_settings_in_a_shipped_checkpoint_are_read_whole(path: Path) -> None:
    stored = load_weights(path)[1]["config"]
    read = stored_config(stored).plain()
    for key, value in stored.items():
        now = read[RENAMED.get(key, key)]
        if not isinstance(value, dict):
            assert now == value, key
            continue
        for inner, number in value.items():
            name = RENAMED.get(f"{RENAMED.get(key, key)}.{inner}", inner).rpartition(".")[2]
            assert now[name] == number, f"{key}.{inner}"


@pytest.mark.parametrize("old", RENAMED)
def test_a_key_of_an_earlier_version_names_its_successor(old: str) -> None:
    with pytest.raises(BadConfig, match=f"training setting {old}: was renamed.*use {RENAMED[old]}"):
        recipe("plainS", **nested(old, 0.5))


@pytest.mark.parametrize("key", ["augment", "assign", "hard_anchors"])
def test_an_unknown_key_within_a_table_is_named(key: str) -> None:
    with pytest.raises(BadConfig, match=f"training setting {key}.mosiac: unknown key"):
        recipe("plainS", **{key: {"mosiac": 0.5}})


def test_a_value_of_an_earlier_version_is_read() -> None:
    assert stored_config({"model": "vgg16", "view": "whole"}).view == "whole_images"


def test_a_stored_setting_that_no_version_had_is_refused() -> None:
    with pytest.raises(Wrong, match="unknown key"):
        stored_config({"model": "plainS", "lr_peak": 1.0})
