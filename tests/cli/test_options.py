"""Flags: their help, their defaults, and how they become settings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from facestream.pipeline.cli.app import app
from facestream.pipeline.cli.options import config_of
from facestream.pipeline.cli.run import STREAM_FLAGS
from facestream.pipeline.config import Config
from facestream.pipeline.errors import BadConfig
from PIL import Image


def help_of(command: str) -> str:
    return " ".join(CliRunner().invoke(app, [command, "--help"]).output.split())


def test_help_lists_the_flags_in_the_order_of_the_source() -> None:
    said = help_of("anonymize")
    flags = "--output --hide --shape --scale --codec --crf --records --list --config --model --size --overwrite --quiet"
    places = [said.index(flag + " ") for flag in (*flags.split(), "--log-level")]
    assert places == sorted(places)


def test_help_says_defaults_and_choices() -> None:
    said = help_of("anonymize")
    assert "--shape [ellipse|box]" in said
    for flag, default in (("--hide", Config().cover.hide), ("--scale", "1.4"), ("--size", "960x544"), ("--crf", "20")):
        after = said[said.index(flag + " ") :]
        assert after[after.index("[default: ") :].startswith(f"[default: {default}]"), flag


def test_commands_are_listed_in_the_order_of_the_source() -> None:
    said = CliRunner().invoke(app, ["--help"]).output
    names = [line.split()[0] for line in said.partition("Commands:")[2].splitlines() if line.strip()]
    assert names[:3] == ["anonymize", "detect", "apply"]
    assert names[-1] == "bench"


def test_every_command_has_the_flags_of_the_log() -> None:
    context = click.Context(app)
    for name in app.list_commands(context):
        command = app.get_command(context, name)
        assert command is not None
        commands = command.commands.values() if isinstance(command, click.Group) else [command]
        for one in commands:
            assert {"log_level", "log_json"} <= {param.name for param in one.params}, one.name


def test_quality_of_a_live_run_is_that_of_its_streams_too() -> None:
    flags = {"config_file": None, "crf": 40.0, "preset": "fast"}
    config = config_of(flags, STREAM_FLAGS)
    assert (config.run.crf, config.run.preset) == (40, "fast")
    assert (config.encode.crf, config.encode.preset) == (40, "fast")
    auto = config_of(flags | {"preset": "auto"}, STREAM_FLAGS)
    assert (auto.run.preset, auto.encode.preset) == (Config().run.preset, "auto")
    assert config_of(flags).run == Config().run
    with pytest.raises(BadConfig, match=r"^--crf: 99: must be"):
        config_of(flags | {"crf": 99}, STREAM_FLAGS)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("facestream re", "review"), ("facestream anonymize --sha", "--shape"), ("facestream apply --shape e", "ellipse")],
)
def test_the_shell_completes(typed: str, offered: str) -> None:
    environment = {
        "_FACESTREAM_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)
    }  # fmt: skip
    done = CliRunner().invoke(app, [], prog_name="facestream", env=environment)
    assert f"plain,{offered}" in done.output.splitlines()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["anonymize", "--help"], ["detect", "--help"]])
def test_help_imports_no_library_of_the_work(arguments: list[str]) -> None:
    code = f"import sys; from facestream.pipeline.cli.app import main; main({arguments!r}); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"'(\w+)'", done.stdout.splitlines()[-1]))
    assert not loaded & {"av", "cv2", "numpy", "scipy", "onnxruntime", "aiohttp", "PIL"}


def test_a_jpeg_needs_nothing_of_other_formats(tmp_path: Path) -> None:
    picture = tmp_path / "in.jpg"
    Image.new("RGB", (64, 64)).save(picture)
    arguments = ["anonymize", str(picture), "-o", str(tmp_path / "out.jpg")]
    code = f"import sys; from facestream.pipeline.cli.app import main; main({arguments!r}); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"'(\w+)'", done.stdout.splitlines()[-1]))
    assert "PIL" in loaded
    assert "pillow_heif" not in loaded


def test_the_list_of_commands_names_them_all() -> None:
    done = CliRunner().invoke(app, ["--help"])
    for name in app.list_commands(click.Context(app)):  # type: ignore[attr-defined]
        command = app.get_command(click.Context(app), name)
        assert command is not None
        assert command.help
        assert re.search(rf"^  {name} +\w.*\.$", done.output, re.M)
