"""Settings: every default stands here once, config.toml shows them, a file and then flags change them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from facestream.engines.checked import Wrong, at, checked
from facestream.engines.options import DEVICE, Backend, DetectorOptions
from facestream.pipeline.errors import BadConfig, BadInput
from facestream.pipeline.stages.regions import region
from facestream.pipeline.stages.settings import Heuristics
from facestream.pipeline.types import XYXY
from msgspec import Meta, Struct, to_builtins
from msgspec.structs import force_setattr

if TYPE_CHECKING:
    from facestream.pipeline.video.encode import EncodeOptions

HIDE = ("solid", "pixelate", "blur")
CODECS = ("source", "h264", "hevc", "vp9", "av1")
# Names under which the command line and the Python API take settings.
FLAGS = {
    "model": "detector.model",
    "backend": "detector.backend",
    "device": "detector.device",
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
    "file_audio": "encode.audio",
    "workers": "anonymize.workers",
    "bitrate": "run.bitrate",
    "encoder": "run.encoder",
    "camera_size": "run.camera_size",
    "camera_fps": "run.camera_fps",
    "camera_format": "run.camera_format",
    "audio": "run.audio",
    "segment": "run.segment_s",
    "keep_days": "run.keep_days",
    "keep_gb": "run.keep_gb",
    "webrtc": "run.webrtc",
    "rtsp_transport": "run.rtsp_transport",
}
# Keys and tables of earlier versions, and what they are called now.
RENAMED = {
    "detector.fine": "detector.full_frame_interval",
    "live": "run",
    "run.decode_threads": "decode.threads",
    "run.hardware": "decode.hardware",
    "run.piece_s": "anonymize.segment_s",
    "run.ring": "anonymize.queue",
    "run.seldom": "run.max_detect_interval",
    "run.visitor_lookahead": "run.webcam_lookahead",
    "run.visitors": "run.webcam_sessions",
    "run.workers": "anonymize.workers",
    "tracker.birth": "tracker.new_track_score",
    "tracker.blind": "tracker.when_blind",
    "tracker.buffer": "tracker.box_buffer",
    "tracker.high": "tracker.high_score",
    "tracker.low_iou": "tracker.low_score_iou",
    "tracker.sure": "tracker.confirm_score",
}
# Keys of earlier versions that nothing replaces.
REMOVED = frozenset(
    {
        "advanced.detect",
        "detector.large_face_margin",
        "detector.rise",
    }
)


def within(minimum: float, maximum: float) -> Meta:
    """Of a number: from minimum to maximum, both included."""
    return Meta(ge=minimum, le=maximum)


Share = Annotated[float, Meta(gt=0, lt=1)]
Count = Annotated[int, Meta(ge=0)]
Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"]
Audio = Literal["keep", "transcode", "drop", "distort"]
Pixels = Annotated[int, within(32, 8192)]


class Section(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class DetectorConfig(Section, frozen=True):
    model: str = "plainS"
    backend: Backend = "file"
    device: str = "cuda:0"
    size: tuple[Pixels, Pixels] = (960, 544)
    threshold: Share = 0.2
    nms_iou: Annotated[float, Meta(gt=0, le=1)] = 0.3
    verify: bool = True
    threads: Annotated[int, within(1, 256)] = 1
    every: int | str = 2
    full_frame_interval: Annotated[int, within(1, 100)] = 8
    tiles: int | str = "auto"

    def __post_init__(self) -> None:
        every = str(self.every)
        if every != "auto" and not (every.isdecimal() and 1 <= int(every) <= 100):
            raise Wrong("every", "must be 1 to 100, or auto")
        if not re.fullmatch(DEVICE, self.device):
            raise Wrong("device", "must be like cuda:0, a GPU as CUDA numbers them")
        force_setattr(self, "every", every if every == "auto" else int(every))
        tiles = str(self.tiles)
        if tiles != "auto" and not (tiles.isdecimal() and 1 <= int(tiles) <= 32):
            raise Wrong("tiles", "must be 1 to 32, or auto")
        force_setattr(self, "tiles", tiles if tiles == "auto" else int(tiles))

    def options(self) -> DetectorOptions:
        return DetectorOptions(self.threshold, self.nms_iou, self.threads, self.backend, self.device, self.verify)


class TrackerConfig(Section, frozen=True):
    high_score: Share = 0.5
    new_track_score: Share = 0.5
    confirm_score: Share = 0.5
    confirm_probability: Share = 0.95
    match_iou: Share = 0.1
    low_score_iou: Share = 0.5
    box_buffer: Annotated[float, within(0, 4)] = 0.5
    coast_s: Annotated[float, within(0, 60)] = 0.7
    remember_s: Annotated[float, within(0, 60)] = 1.5
    motion: bool = True
    lookahead: Annotated[int, within(0, 600)] = 15
    when_blind: Literal["hold", "cover-all", "continue"] = "hold"


class CoverConfig(Section, frozen=True):
    hide: str = "solid"
    shape: Literal["ellipse", "box"] = "ellipse"
    scale: Annotated[float, within(1, 5)] = 1.4
    cells: Annotated[int, within(1, 8)] = 4
    masks: tuple[XYXY, ...] = ()
    allow: tuple[XYXY, ...] = ()

    def __post_init__(self) -> None:
        if self.hide not in HIDE and not self.hide.startswith("image:"):
            raise Wrong("hide", f"must be {', '.join(HIDE)} or image:PATH")
        for name in ("masks", "allow"):
            for index, place in enumerate(getattr(self, name)):
                try:
                    region(place)
                except ValueError as e:
                    raise Wrong(f"{name}.{index}", str(e)) from None


class EncodeConfig(Section, frozen=True):
    codec: str = "source"
    crf: Annotated[float, within(0, 51)] = 20.0
    preset: Literal["auto", Preset] = "auto"
    threads: Annotated[int, within(0, 64)] = 0
    keep_metadata: bool = False
    audio: Audio = "keep"
    chroma: Literal["auto", "4:4:4"] = "auto"

    def __post_init__(self) -> None:
        if self.codec == "h265":
            force_setattr(self, "codec", "hevc")
        if self.codec not in CODECS:
            from facestream.pipeline.video.hardware import HARDWARE

            if self.codec not in HARDWARE:
                names = f"{', '.join(CODECS)}, or a hardware encoder: {', '.join(HARDWARE)}"
                raise Wrong("codec", f"must be {names}")

    def options(self, overwrite: bool, hardware: str = "off") -> EncodeOptions:
        from facestream.pipeline.video.encode import EncodeOptions  # FFmpeg: not imported to read settings

        codec = None if self.codec == "source" else self.codec
        return EncodeOptions(
            codec,
            self.crf,
            self.preset,
            self.threads,
            overwrite,
            self.keep_metadata,
            hardware,
            self.audio,
            self.chroma,
        )


class DecodeConfig(Section, frozen=True):
    threads: Annotated[int, within(0, 64)] = 0
    hardware: Literal["off", "auto", "cuda", "qsv", "vaapi", "videotoolbox", "d3d11va"] = "off"
    max_picture_mb: Annotated[int, within(16, 1 << 20)] = 4096


class AnonymizeConfig(Section, frozen=True):
    queue: Annotated[int, within(1, 1000)] = 2
    workers: Annotated[int, within(0, 256)] = 0
    segment_s: Annotated[float, within(0, 86400)] = 60.0


class RunConfig(Section, frozen=True):
    sinks: tuple[str, ...] = ()
    events: str = ""
    queue: Annotated[int, within(1, 100)] = 3
    deadline_s: Annotated[float, Meta(gt=0, le=60)] = 0.5
    max_detect_interval: Annotated[int, within(1, 30)] = 4
    batch: Annotated[int, within(0, 64)] = 0
    batch_wait_ms: Annotated[float, within(0, 1000)] = 5.0
    rtsp_transport: Literal["auto", "tcp", "udp"] = "auto"
    open_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0
    read_timeout_s: Annotated[float, Meta(gt=0, le=60)] = 2.0
    stall_s: Annotated[float, Meta(gt=0, le=60)] = 1.0
    tls_verify: bool = True
    ca_file: str = ""
    camera_size: tuple[Count, Count] = (0, 0)
    camera_fps: Annotated[float, within(0, 1000)] = 0.0
    camera_format: str = ""
    encoder: str = "libx264"
    bitrate: Annotated[int, within(0, 1_000_000)] = 0
    crf: Annotated[float, within(0, 51)] = 23.0
    preset: Preset = "ultrafast"
    gop_s: Annotated[float, Meta(gt=0, le=60)] = 1.0
    audio: bool = False
    segment_s: Annotated[float, within(0, 86400)] = 0.0
    keep_days: Annotated[float, within(0, 36500)] = 0.0
    keep_gb: Annotated[float, within(0, 1_000_000)] = 0.0
    players: Annotated[int, within(1, 10_000)] = 64
    tls_cert: str = ""
    tls_key: str = ""
    webrtc: bool = False
    change: Literal["no", "more", "any"] = "more"
    webcam_sessions: Annotated[int, within(0, 1000)] = 4
    webcam_lookahead: Annotated[int, within(0, 600)] = 3


class Config(Section, frozen=True):
    """The whole configuration; its sections are the tables of config.toml.

    Make one with `load`, which checks every value: the constructor takes whole sections as they are.
    """

    detector: DetectorConfig = DetectorConfig()
    tracker: TrackerConfig = TrackerConfig()
    cover: CoverConfig = CoverConfig()
    decode: DecodeConfig = DecodeConfig()
    encode: EncodeConfig = EncodeConfig()
    anonymize: AnonymizeConfig = AnonymizeConfig()
    run: RunConfig = RunConfig()
    advanced: Heuristics = Heuristics()

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, **settings: Any) -> Config:
        """The defaults, then the values of a file like config.toml, then settings under their flags' names (FLAGS).

        `Config.load(hide="solid", size=(960, 544))`; None is as if it were not given. Raises what `read` raises, and
        TypeError for a setting that there is not.
        """
        return read(None if path is None else Path(path), _by_key(settings), _SETTING_OF)

    def replace(self, **settings: Any) -> Config:
        """This configuration with other settings, named and checked as in `load`."""
        return changed(self, _by_key(settings), "settings", _SETTING_OF)


def _by_key(settings: dict[str, Any]) -> dict[str, Any]:
    """{"hide": "solid"} -> {"cover.hide": "solid"}. TypeError for a name that is not in FLAGS."""
    for name in settings:
        if name not in FLAGS:
            raise TypeError(f"there is no setting {name!r}; there are: {', '.join(FLAGS)}")
    return {FLAGS[name]: value for name, value in settings.items() if value is not None}


_SETTING_OF = {key: name for name, key in FLAGS.items()}


def read(path: Path | None, flags: dict[str, Any] | None = None, names: dict[str, str] | None = None) -> Config:
    """Defaults, then the file's values, then flags (`{"cover.hide": "solid"}`, None = not given).

    names: what a message calls a flag (`{"cover.hide": "--hide"}`), else its key.

    BadInput when the file cannot be read, BadConfig for TOML errors, unknown keys and bad values; each names the file
    or flag, the key, and what is allowed. Without look-ahead the detector runs on every frame, unless `detector.every`
    is given.
    """
    table: dict[str, Any] = {}
    if path is not None:
        import tomllib  # a run without a file is spared the import

        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
            table.pop("camera", None)  # of `facestream run`, which checks them: pipeline/live/cameras.py
        except OSError as e:
            raise BadInput(f"cannot read the configuration ({e.strerror})", str(path)) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
            raise BadConfig(f"not TOML: {e}", str(path)) from None
        _check(table, str(path))
    for key, value in (flags or {}).items():
        if value is not None:
            _put(table, key, value)
    config = _check(table, "flag", names or {})
    if config.tracker.lookahead == 0 and "every" not in table.get("detector", {}):
        return changed(config, {"detector.every": 1}, "flag")  # nothing could be covered afterwards
    return config


def changed(config: Config, values: dict[str, Any], where: str, names: dict[str, str] | None = None) -> Config:
    """The configuration with other values, `{"cover.scale": 2}`. names, BadConfig: as of read()."""
    table = to_builtins(config)
    for key, value in values.items():
        _put(table, key, value)
    return _check(table, where, names)


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key: `cover.scale`, `advanced.policy.eager_frames`."""
    *sections, name = key.split(".")
    for section in sections:
        table = table.setdefault(section, {})
    table[name] = value


def _check(table: dict[str, Any], where: str, names: dict[str, str] | None = None) -> Config:
    try:
        return checked(table, Config)
    except Wrong as e:
        if e.key in RENAMED:
            kind = "key" if "." in e.key else "table"
            raise BadConfig(f"the {kind} {e.key!r} was renamed", where, f"use {RENAMED[e.key]!r}") from None
        if e.key in REMOVED:
            raise BadConfig(f"{e.key!r} is gone and nothing replaces it", where, "leave it out") from None
        if e.known:
            raise BadConfig(f"unknown key {e.key!r}", where, "known: " + ", ".join(e.known)) from None
        value = at(table, e.key)
        for key, name in (names or {}).items():
            if e.key == key or e.key.startswith(key + "."):
                raise BadConfig(f"{value!r}: {e.why}", name) from None
        raise BadConfig(f"{e.key} is {value!r}: {e.why}", where) from None
