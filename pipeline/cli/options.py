"""Flags that commands share, and how they become a configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from facestream.pipeline import config as settings
from facestream.pipeline.config import Config
from facestream.pipeline.video import hardware

log = logging.getLogger(__name__)

FLAGS = {
    "model": "detector.model",
    "backend": "detector.backend",
    "threshold": "detector.threshold",
    "size": "detector.size",
    "detect_every": "detector.every",
    "lookahead": "tracker.lookahead",
    "hide": "cover.hide",
    "shape": "cover.shape",
    "scale": "cover.scale",
    "codec": "encode.codec",
    "crf": "encode.crf",
    "preset": "encode.preset",
    "keep_metadata": "encode.keep_metadata",
    "workers": "run.workers",
    "bitrate": "live.bitrate",
    "encoder": "live.encoder",
    "camera_size": "live.camera_size",
    "camera_fps": "live.camera_fps",
    "camera_format": "live.camera_format",
    "audio": "live.audio",
    "segment": "live.segment_s",
    "keep_days": "live.keep_days",
    "keep_gb": "live.keep_gb",
    "webrtc": "live.webrtc",
    "rtsp_transport": "live.rtsp_transport",
}


class Size(click.ParamType[tuple[int, int]]):
    """960x544 -> (960, 544)"""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        try:
            width, height = (int(v) for v in str(value).lower().split("x"))
        except ValueError:
            self.fail(f"{value!r} is not like 960x544", param, ctx)
        return width, height


def shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Flags of every command that detects. Their defaults are the configuration's."""
    for option in (
        click.option("--config", "config_file", type=click.Path(path_type=Path), help="settings, see config.toml"),
        click.option("--model", help="shipped model's name or .onnx file"),
        click.option("--backend", help="file, auto, cuda, torch or torch-cpu: what runs the model, see docs/gpu.md"),
        click.option("--size", type=Size(), help="detector input, larger finds smaller faces"),
        click.option("--threshold", type=float, help="score from which a box is a face"),
        click.option("--detect-every", metavar="N|auto", help="detect on every N-th frame"),
        click.option("--lookahead", type=int, metavar="N", help="frames by which the output waits"),
        click.option("--overwrite", is_flag=True, help="replace existing outputs"),
        click.option("--quiet", is_flag=True, help="no progress bar and no summary"),
    ):
        command = option(command)
    return command


def covering(command: Callable[..., Any]) -> Callable[..., Any]:
    """Flags of every command that covers and encodes."""
    for option in (
        click.option("--hide", help="solid, pixelate, blur or image:PATH"),
        click.option("--shape", help="ellipse or box"),
        click.option("--scale", type=float, help="the box is grown by this factor"),
        click.option("--codec", help="h264, hevc, vp9, av1, source, or an encoder in hardware, as h264_nvenc"),
        click.option("--crf", type=float, help="quality, lower is better"),
        click.option("--preset", help="speed against size: auto, or one of x264's names"),
        click.option("--keep-metadata", is_flag=True, default=None, help="keep GPS, maker, title and data streams"),
    ):
        command = option(command)
    return command


def batching(command: Callable[..., Any]) -> Callable[..., Any]:
    """Flags of a command that works on many files."""
    for option in (
        click.option(
            "--list", "list_file", type=click.Path(path_type=Path), help="a file of inputs, one a line; - = stdin"
        ),
        click.option("--resume", is_flag=True, help="skip what an earlier run finished: same content, same settings"),
        click.option(
            "--manifest", type=click.Path(path_type=Path), metavar="FILE", help="write what was done, as JSON"
        ),
        click.option("--workers", type=int, metavar="N", help="processes side by side, 0 = one a core"),
        click.option("--ray", default="", metavar="ADDRESS", help="a Ray cluster does it: auto, HOST:PORT or local"),
    ):
        command = option(command)
    return command


def config_of(flags: dict[str, Any]) -> Config:
    config = settings.read(flags["config_file"], {FLAGS[k]: v for k, v in flags.items() if k in FLAGS})
    if line := hardware.told(config.run.hardware):
        log.info("hardware: %s", line)
    return config
