from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from facestream.pipeline.config import FLAGS, REMOVED, RENAMED, Config, read
from facestream.pipeline.errors import BadConfig, BadInput
from msgspec import to_builtins

SHIPPED = Path(__file__).parents[1] / "config.toml"


def test_the_shipped_file_holds_every_default() -> None:
    table = tomllib.loads(SHIPPED.read_text())
    assert table == json.loads(json.dumps(to_builtins(Config())))
    assert read(SHIPPED) == Config()


def test_every_key_of_the_shipped_file_has_a_comment() -> None:
    for line in SHIPPED.read_text().splitlines():
        assert "=" not in line.split("#")[0] or len(line.split("#", 1)[1]) > 10, line


def test_flags_beat_the_file_and_the_file_beats_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[cover]\nhide = "solid"\nscale = 1.5\n')
    config = read(file, {"cover.scale": 2.0, "cover.shape": None, "detector.size": (640, 384)})
    assert (config.cover.hide, config.cover.scale, config.cover.shape) == ("solid", 2.0, "ellipse")
    assert config.detector.size == (640, 384)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[cover]\nhid = 1", ["cover.hid", "unknown key", "hide"]),
        ("[covers]\nhide = 1", ["covers", "unknown key", "cover"]),
        ('[cover]\nhide = "mask"', ["cover.hide", "'mask'", "solid"]),
        ("[cover]\nscale = 0.5", ["cover.scale", "0.5", "of at least 1"]),
        ("[cover]\ncells = 30", ["cover.cells", "30"]),
        ('[detector]\nthreshold = "high"', ["detector.threshold", "'high'"]),
        ("[detector]\nsize = [960]", ["detector.size"]),
        ("[cover]\nmasks = [[0, 0, 0.2]]", ["cover.masks.0", "a list of 4"]),
        ("detector = 3", ["detector", "3"]),
        ("[cover", ["not TOML", "Expected"]),
    ],
)
def test_a_bad_file_is_one_line_with_file_key_and_what_is_allowed(tmp_path: Path, text: str, parts: list[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(BadConfig) as caught:
        read(file)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in [str(file), *parts]), message


def test_the_other_name_of_hevc() -> None:
    assert read(None, {"encode.codec": "h265"}).encode.codec == "hevc"


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.toml"):
        read(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadConfig, match="not TOML"):
        read(tmp_path / "bytes.toml")


def test_without_look_ahead_every_frame_is_looked_at_unless_asked_otherwise() -> None:
    assert read(None, {}).detector.every == 2
    assert read(None, {"tracker.lookahead": 0}).detector.every == 1
    assert read(None, {"tracker.lookahead": 0, "detector.every": 3}).detector.every == 3


@pytest.mark.parametrize("key", [key for key in sorted(RENAMED) if "." in key])
def test_a_key_of_an_earlier_version_names_the_new_one(tmp_path: Path, key: str) -> None:
    section, name = key.split(".")
    file = tmp_path / "old.toml"
    file.write_text(f"[{section}]\n{name} = 0.5\n")
    with pytest.raises(BadConfig) as error:
        read(file)
    assert RENAMED[key] in str(error.value)
    new_section, new_name = RENAMED[key].split(".")
    assert hasattr(getattr(read(None), new_section), new_name)


@pytest.mark.parametrize(
    ("text", "new"),
    [
        ("[run]\nworkers = 2", "anonymize.workers"),
        ("[run]\nhardware = 'cuda'", "decode.hardware"),
        ("[run]\nring = 2", "anonymize.queue"),
        ("[live]\nbitrate = 900", "'run'"),
    ],
)
def test_an_old_key_names_the_new_one(tmp_path: Path, text: str, new: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(BadConfig) as caught:
        read(file)
    assert "was renamed" in str(caught.value)
    assert new in str(caught.value)


def test_every_renamed_key_leads_to_one_that_is_there() -> None:
    table = to_builtins(Config())
    for old, new in RENAMED.items():
        section, _, key = new.partition(".")
        assert not key or key in table[section], new
        section, _, key = old.partition(".")
        assert key not in table.get(section, {}), old


@pytest.mark.parametrize("key", sorted(REMOVED))
def test_a_key_that_is_gone_is_an_error_that_says_so(tmp_path: Path, key: str) -> None:
    section, _, name = key.partition(".")
    file = tmp_path / "old.toml"
    value = "{ margin_to_side = 72.0 }" if section == "advanced" else "0.1"
    file.write_text(f"[{section}]\n{name} = {value}\n")
    with pytest.raises(BadConfig, match=f"{key}' is gone and nothing replaces it") as error:
        read(file)
    assert str(file) in str(error.value)


def test_every_flag_is_a_setting() -> None:
    table = to_builtins(Config())
    for key in FLAGS.values():
        section, name = key.split(".")
        assert name in table[section], key


def test_a_wrong_flag_is_named() -> None:
    with pytest.raises(BadConfig, match=r"^--crf: 99: must be"):
        read(None, {"encode.crf": 99}, {"encode.crf": "--crf"})
    with pytest.raises(BadConfig, match=r"^flag: encode\.crf is 99"):
        read(None, {"encode.crf": 99})
