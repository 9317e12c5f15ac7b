"""Settings: every default stands here once, config.toml shows them, a file and then flags change them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError

from engines.detector import RISE, Backend, DetectorOptions
from pipeline.errors import BadConfig, BadInput
from pipeline.regions import region
from pipeline.types import XYXY
from pipeline.video.encode import EncodeOptions
from pipeline.video.hardware import HARDWARE

HIDE = ("solid", "pixelate", "blur")
CODECS = ("source", "h264", "hevc", "vp9", "av1")


def _hide(value: str) -> str:
    if value not in HIDE and not value.startswith("image:"):
        raise ValueError(f"must be {', '.join(HIDE)} or image:PATH")
    return value


def _every(value: Any) -> int | str:
    if value == "auto":
        return "auto"
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if isinstance(value, bool) or not 1 <= number <= 100:
        raise ValueError("must be 1 to 100, or auto")
    return number


def _codec(value: str) -> str:
    value = "hevc" if value == "h265" else value
    if value not in CODECS and value not in HARDWARE:
        raise ValueError(f"must be {', '.join(CODECS)}, or a hardware encoder: {', '.join(HARDWARE)}")
    return value


def _four(value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        raise ValueError("must be four numbers, x1, y1, x2, y2")
    return value


Region = Annotated[XYXY, BeforeValidator(_four), AfterValidator(region)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DetectorConfig(Section):
    model: str = "plainS"
    backend: Backend = "file"
    size: tuple[Annotated[int, Field(ge=32, le=8192)], Annotated[int, Field(ge=32, le=8192)]] = (960, 544)
    threshold: float = Field(0.2, gt=0, lt=1)
    rise: float = Field(RISE, ge=0, lt=1)
    nms_iou: float = Field(0.3, gt=0, le=1)
    threads: int = Field(1, ge=1, le=256)
    every: Annotated[int | str, PlainValidator(_every)] = 2
    fine: int = Field(8, ge=1, le=100)

    def options(self) -> DetectorOptions:
        return DetectorOptions(self.threshold, self.nms_iou, self.threads, self.backend)


class TrackerConfig(Section):
    high: float = Field(0.5, gt=0, lt=1)
    birth: float = Field(0.5, gt=0, lt=1)
    sure: float = Field(0.5, gt=0, lt=1)
    match_iou: float = Field(0.1, gt=0, lt=1)
    low_iou: float = Field(0.5, gt=0, lt=1)
    buffer: float = Field(0.5, ge=0, le=4)
    coast_s: float = Field(0.7, ge=0, le=60)
    remember_s: float = Field(1.5, ge=0, le=60)
    motion: bool = True
    lookahead: int = Field(15, ge=0, le=600)
    blind: Literal["hold", "cover-all", "continue"] = "hold"


class CoverConfig(Section):
    hide: Annotated[str, AfterValidator(_hide)] = "pixelate"
    shape: Literal["ellipse", "box"] = "ellipse"
    scale: float = Field(1.4, ge=1, le=5)
    cells: int = Field(8, ge=1, le=8)
    masks: tuple[Region, ...] = ()
    allow: tuple[Region, ...] = ()


class EncodeConfig(Section):
    codec: Annotated[str, AfterValidator(_codec)] = "source"
    crf: float = Field(20, ge=0, le=51)
    preset: Literal[
        "auto", "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"
    ] = "auto"
    threads: int = Field(0, ge=0, le=64)
    keep_metadata: bool = False

    def options(self, overwrite: bool, hardware: str = "off") -> EncodeOptions:
        codec = None if self.codec == "source" else self.codec
        return EncodeOptions(codec, self.crf, self.preset, self.threads, overwrite, self.keep_metadata, hardware)


class RunConfig(Section):
    ring: int = Field(2, ge=1, le=1000)
    decode_threads: int = Field(0, ge=0, le=64)
    workers: int = Field(0, ge=0, le=256)
    hardware: Literal["off", "auto", "cuda", "qsv", "vaapi", "videotoolbox", "d3d11va"] = "off"
    piece_s: float = Field(60, ge=0, le=86400)


class LiveConfig(Section):
    ring: int = Field(3, ge=1, le=100)
    deadline_s: float = Field(0.5, gt=0, le=60)
    seldom: int = Field(4, ge=1, le=30)
    batch: int = Field(0, ge=0, le=64)
    batch_wait_ms: float = Field(5, ge=0, le=1000)
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    open_timeout_s: float = Field(5.0, gt=0, le=60)
    read_timeout_s: float = Field(2.0, gt=0, le=60)
    stall_s: float = Field(1.0, gt=0, le=60)
    tls_verify: bool = True
    ca_file: str = ""
    camera_size: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = (0, 0)
    camera_fps: float = Field(0, ge=0, le=1000)
    camera_format: str = ""
    encoder: str = "libx264"
    bitrate: int = Field(0, ge=0, le=1_000_000)
    crf: float = Field(23, ge=0, le=51)
    preset: str = "ultrafast"
    gop_s: float = Field(1.0, gt=0, le=60)
    audio: bool = False
    segment_s: float = Field(0, ge=0, le=86400)
    keep_days: float = Field(0, ge=0, le=36500)
    keep_gb: float = Field(0, ge=0, le=1_000_000)
    players: int = Field(64, ge=1, le=10_000)
    tls_cert: str = ""
    tls_key: str = ""
    webrtc: bool = False
    change: Literal["no", "more", "any"] = "more"
    visitors: int = Field(4, ge=0, le=1000)
    visitor_lookahead: int = Field(3, ge=0, le=600)


class Config(Section):
    """The whole configuration; its sections are the tables of config.toml."""

    detector: DetectorConfig = DetectorConfig()
    tracker: TrackerConfig = TrackerConfig()
    cover: CoverConfig = CoverConfig()
    encode: EncodeConfig = EncodeConfig()
    run: RunConfig = RunConfig()
    live: LiveConfig = LiveConfig()


def read(path: Path | None, flags: dict[str, Any] | None = None) -> Config:
    """Defaults, then the file's values, then flags (`{"cover.hide": "solid"}`, None = not given).

    BadInput when the file cannot be read, BadConfig for TOML errors, unknown keys and bad values;
    each names the file or flag, the key, and what is allowed. Without look-ahead every frame is looked at, unless
    `detector.every` is given.
    """
    table: dict[str, Any] = {}
    if path is not None:
        try:
            table = tomllib.loads(path.read_text())
        except OSError as e:
            raise BadInput(f"cannot read the configuration ({e.strerror})", str(path)) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
            raise BadConfig(f"not TOML: {e}", str(path)) from None
        _check(table, str(path))
    for key, value in (flags or {}).items():
        if value is not None:
            section, name = key.split(".")
            table.setdefault(section, {})[name] = value
    config = _check(table, "flag")
    if config.tracker.lookahead == 0 and "every" not in table.get("detector", {}):
        return changed(config, {"detector.every": 1}, "flag")  # nothing could be covered afterwards
    return config


def changed(config: Config, values: dict[str, Any], where: str) -> Config:
    """The configuration with other values, `{"cover.scale": 2}`. Raises BadConfig as read() does."""
    table = config.model_dump()
    for key, value in values.items():
        section, name = key.split(".")
        table[section][name] = value
    return _check(table, where)


def _check(table: dict[str, Any], where: str) -> Config:
    try:
        return Config.model_validate(table)
    except ValidationError as e:
        error = e.errors()[0]
        path = [str(p) for p in error["loc"]]
        key = ".".join(path)
        if error["type"] == "extra_forbidden":
            section: Any = Config if len(path) == 1 else Config.model_fields[path[0]].annotation
            raise BadConfig(f"unknown key {key!r}", where, "known: " + ", ".join(section.model_fields)) from None
        message = error["msg"].removeprefix("Value error, ")
        raise BadConfig(f"{key} is {error['input']!r}: {message}", where) from None
