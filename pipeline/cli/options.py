"""Options that several commands share, and their conversion to a configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import click
from facestream.pipeline import config as settings
from facestream.pipeline.config import FLAGS, Config
from msgspec.structs import fields

log = logging.getLogger(__name__)

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]
DEFAULTS = Config()
CONFIG = click.option("--config", "config_file", type=click.Path(path_type=Path), help="settings, see config.toml")


def _add(command: Command, *options: Decorator) -> Command:
    """A command with these options, in this order."""
    for option in reversed(options):
        command = option(command)
    return command


class Size(click.ParamType[tuple[int, int]]):
    """960x544 -> (960, 544)"""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        try:
            width, height = (int(v) for v in str(value).lower().split("x"))
        except ValueError:
            self.fail(f"{value!r} is not like 960x544", param, ctx)
        return width, height


def setting(name: str, key: str, help: str, metavar: str | None = None) -> Decorator:
    """The command-line option of a setting; type, choices and default are the configuration's."""
    section, field = key.split(".")
    struct = type(getattr(DEFAULTS, section))
    kind = next(f.type for f in fields(struct) if f.name == field)
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    default = getattr(getattr(DEFAULTS, section), field)
    if isinstance(default, bool):
        off = name.replace("--", "--no-", 1)
        default_text = f"  [default: {name.lstrip('-') if default else off.lstrip('-')}]"
        return click.option(f"{name}/{off}", default=None, help=help + default_text)
    convert: Any = None
    default_text = str(default)
    if get_origin(kind) is Literal:
        convert = click.Choice(get_args(kind))
    elif get_origin(kind) is tuple:
        convert = Size()
        default_text = "x".join(map(str, default))
    elif kind in (int, float):
        convert = kind
        default_text = f"{default:g}"
    help += f"  [default: {default_text}]" if default_text else ""
    return click.option(name, type=convert, metavar=metavar, help=help)


def shared(command: Command) -> Command:
    """Options of every command that runs the detector."""
    return _add(
        command,
        CONFIG,
        setting("--model", "detector.model", "a shipped model's name, or an .onnx, .xml or .plan file", "NAME"),
        setting("--backend", "detector.backend", "what runs the model, see docs/gpu.md"),
        setting("--device", "detector.device", "which GPU, where one runs it", "cuda:N"),
        setting("--size", "detector.size", "detector input in pixels; larger finds smaller faces"),
        setting("--threshold", "detector.threshold", "minimum score of a face"),
        setting("--detect-every", "detector.every", "run the detector on every N-th frame, or as needed", "N|auto"),
        setting("--lookahead", "tracker.lookahead", "delay output by N frames to cover faces before detection", "N"),
        click.option("--overwrite", is_flag=True, help="replace existing outputs"),
        click.option("--quiet", is_flag=True, help="no progress bar and no summary"),
    )


def covering(command: Command) -> Command:
    """Options of every command that covers and encodes."""
    return _add(
        command,
        setting("--hide", "cover.hide", "solid, pixelate, blur or image:PATH", "HOW"),
        setting("--shape", "cover.shape", "shape of the covers"),
        setting("--scale", "cover.scale", "the box is grown by this factor"),
        setting("--codec", "encode.codec", "h264, hevc, vp9, av1, source, or a hardware encoder: h264_nvenc", "NAME"),
        setting("--crf", "encode.crf", "quality of files, lower is better"),
        setting("--preset", "encode.preset", "encoder speed against file size"),
        setting("--keep-metadata", "encode.keep_metadata", "keep GPS, device make, title and data streams"),
    )


def sound(command: Command) -> Command:
    """The option for a file's audio."""
    kinds = click.Choice(get_args(settings.Audio))
    what = f"audio: copy, re-encode, remove, or distort voices  [default: {DEFAULTS.encode.audio}]"
    return _add(command, click.option("--audio", "file_audio", type=kinds, help=what))


def batching(command: Command) -> Command:
    """Options of a command that processes many files."""
    return _add(
        command,
        click.option(
            "--list",
            "list_file",
            type=click.Path(path_type=Path),
            help="read inputs from a file, one per line; -: stdin",
        ),
        click.option("--resume", is_flag=True, help="skip files that an earlier run finished with the same settings"),
        click.option(
            "--manifest", type=click.Path(path_type=Path), metavar="FILE", help="write a report with hashes, as JSON"
        ),
        click.option("--workers", type=int, metavar="N", help="parallel processes; 0: one per core"),
        click.option("--ray", default="", metavar="ADDRESS", help="run on a Ray cluster: auto, HOST:PORT or local"),
    )


def config_of(flags: dict[str, Any], more: dict[str, str] | None = None) -> Config:
    """The configuration from a command's options. more: keys beside those of FLAGS, to the options that set them.

    Raises BadConfig, which names the option.
    """
    sources = {key: name for name, key in FLAGS.items()} | (more or {})
    given = {key: flags[name] for key, name in sources.items() if name in flags}
    if given.get("run.preset") == "auto":
        del given["run.preset"]
    names = {key: "--" + name.replace("_", "-") for key, name in sources.items()}
    from facestream.pipeline.video import hardware  # FFmpeg, which --help does without

    config = settings.read(flags["config_file"], given, names)
    if line := hardware.describe(config.decode.hardware):
        log.info("hardware: %s", line)
    return config
