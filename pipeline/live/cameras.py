"""Cameras from the settings file: `[[camera]]` tables, validated, started, and changed while others continue."""

from __future__ import annotations

import re
import threading
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from facestream.engines.boxes import Array
from facestream.engines.checked import Wrong, at, checked
from facestream.pipeline.config import Config, Pixels, Section, changed
from facestream.pipeline.errors import BadConfig, BadInput, UserError
from facestream.pipeline.live.builder import SinkBuilder, SinkSpec
from facestream.pipeline.live.run import CameraPipeline, Live
from facestream.pipeline.live.state import CameraOptions
from facestream.pipeline.stages.regions import region
from facestream.pipeline.types import XYXY, Polygon
from facestream.pipeline.url import shown_text
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.uri import Kind, Uri, check_file, parse
from msgspec import Meta, convert

Point = tuple[Annotated[float, Meta(ge=0)], Annotated[float, Meta(ge=0)]]
Corners = Annotated[tuple[Point, ...], Meta(min_length=3)]
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
RETRY_S = 60.0  # between two tries to start a camera whose outputs cannot be opened
_TIMES = re.compile(r"(?:([a-z,-]+) +)?(\d\d):(\d\d)-(\d\d):(\d\d)")


class CameraConfig(Section, frozen=True):
    """A `[[camera]]` table. Points are shares of the displayed picture where all are at most 1, else pixels.

    masks: polygons that are covered in every picture. everything_but: only what lies in one of these is shown.
    allow: boxes in which faces stay. schedule: when it runs, `mon-fri 07:00-19:00` in local time; always where none is
    given.
    """

    name: str
    source: str
    sinks: tuple[str, ...] = ()
    transport: Literal["", "auto", "tcp", "udp"] = ""
    audio: bool | None = None
    masks: tuple[Corners, ...] = ()
    everything_but: tuple[Corners, ...] = ()
    allow: tuple[XYXY, ...] = ()
    detector_size: tuple[Pixels, Pixels] | None = None
    detect_every: int | str | None = None
    schedule: tuple[str, ...] = ()
    loop: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise Wrong("name", "may hold letters, digits, - and _ alone")
        if not self.source.strip():
            raise Wrong("source", "is empty")
        for number, place in enumerate(self.allow):
            try:
                region(place)
            except ValueError as error:
                raise Wrong(f"allow.{number}", str(error)) from None
        for number, text in enumerate(self.schedule):
            try:
                Span.of(text)
            except ValueError as error:
                raise Wrong(f"schedule.{number}", str(error)) from None


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the week: days (0 = Monday) and minutes of the day, from and until. Until may be on the next day."""

    days: frozenset[int]
    begin: int
    end: int

    @staticmethod
    def of(text: str) -> Span:
        """Raises ValueError."""
        match = _TIMES.fullmatch(text.strip().lower())
        if match is None:
            raise ValueError("must be like 'mon-fri 07:00-19:00' or '22:00-06:00'")
        hours = [int(number) for number in match.groups()[1:]]
        if max(hours[0], hours[2]) > 24 or max(hours[1], hours[3]) > 59:
            raise ValueError("there is no such time of day")
        days: set[int] = set()
        for part in (match[1] or "mon-sun").split(","):
            first, _, last = part.partition("-")
            if first not in DAYS or (last or first) not in DAYS:
                raise ValueError("days are " + ", ".join(DAYS))
            start = DAYS.index(first)
            length = (DAYS.index(last or first) - start) % 7 + 1
            days |= {(start + n) % 7 for n in range(length)}
        return Span(frozenset(days), hours[0] * 60 + hours[1], hours[2] * 60 + hours[3])

    def holds(self, now: time.struct_time) -> bool:
        minute = now.tm_hour * 60 + now.tm_min
        if self.begin < self.end:
            return now.tm_wday in self.days and self.begin <= minute < self.end
        yesterday = (now.tm_wday - 1) % 7
        return (now.tm_wday in self.days and minute >= self.begin) or (yesterday in self.days and minute < self.end)


@dataclass(frozen=True, slots=True)
class Masks:
    """A camera's privacy masks. polygons: covered; everything_but: the only parts that are shown, all where empty."""

    polygons: tuple[Polygon, ...] = ()
    everything_but: tuple[Polygon, ...] = ()

    def of(self, size: tuple[int, int]) -> tuple[Polygon, ...]:
        """What to cover of a displayed picture of this width and height, in its pixels."""
        covered = [_in_pixels(polygon, size) for polygon in self.polygons]
        if self.everything_but:
            covered.append(_outside([_in_pixels(polygon, size) for polygon in self.everything_but], size))
        return tuple(covered)


def _outside(polygons: list[Polygon], size: tuple[int, int]) -> Polygon:
    """All of a picture but these polygons: one path around it and, over bridges that are gone along twice, around each
    of them. A bridge is covered, so it crosses no other polygon where that can be."""
    width, height = size
    path: list[tuple[float, float]] = [(0, 0), (width, 0), (width, height), (0, height), (0, 0)]
    for polygon in polygons:
        others = [np.array(other, np.float32) for other in polygons if other is not polygon]
        bridges = [bridge for start in range(4) if (bridge := _bridge(polygon, start, size))]
        way = min(bridges, key=lambda bridge: _crossings(bridge[-2], bridge[-1], others))
        at = polygon.index(way[-1])
        path += [*way, *polygon[at + 1 :], *polygon[: at + 1], *way[-2::-1], (0, 0)]
    return tuple(path)


def _bridge(polygon: Polygon, side: int, size: tuple[int, int]) -> list[tuple[float, float]]:
    """From the picture's corner at 0, 0 along its edges to the corner of the polygon nearest to one of its sides."""
    width, height = size
    if side == 0:
        x, y = min(polygon)
        return [(0, y), (x, y)]
    if side == 1:
        x, y = min(polygon, key=lambda point: point[1])
        return [(x, 0), (x, y)]
    if side == 2:
        x, y = max(polygon)
        return [(width, 0), (width, y), (x, y)]
    x, y = max(polygon, key=lambda point: point[1])
    return [(0, height), (x, height), (x, y)]


def _crossings(start: tuple[float, float], end: tuple[float, float], polygons: list[Array]) -> int:
    """The number of these polygons that a line crosses."""
    steps = [n / 64 for n in range(65)]
    points = [(start[0] + t * (end[0] - start[0]), start[1] + t * (end[1] - start[1])) for t in steps]
    return sum(any(cv2.pointPolygonTest(polygon, point, False) >= 0 for point in points) for polygon in polygons)


def _in_pixels(polygon: Polygon, size: tuple[int, int]) -> Polygon:
    if max(value for point in polygon for value in point) > 1:
        return polygon
    return tuple((x * size[0], y * size[1]) for x, y in polygon)


def read_cameras(path: Path) -> list[CameraConfig]:
    """The `[[camera]]` tables of a settings file. Raises BadInput and BadConfig, which name the camera and the key."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read the configuration ({error.strerror})", str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"not TOML: {error}", str(path)) from None
    rows = table.get("camera", [])
    if not isinstance(rows, list):
        raise BadConfig("cameras are tables of a list", str(path), "write [[camera]], with two brackets")
    found: list[CameraConfig] = []
    for number, row in enumerate(rows, 1):
        name = row.get("name", f"number {number}") if isinstance(row, dict) else f"number {number}"
        where = f"{path}: camera {name}"
        try:
            camera = checked(row, CameraConfig)
        except Wrong as error:
            if error.known:
                raise BadConfig(f"unknown key {error.key!r}", where, "known: " + ", ".join(error.known)) from None
            value = "" if error.key == "source" else f" is {at(row, error.key)!r}:" if error.key else ""
            raise BadConfig(f"{error.key}{value} {error.why}", where) from None
        if camera.name in {other.name for other in found}:
            raise BadConfig("two cameras have the same name", where)
        found.append(camera)
    return found


@dataclass(frozen=True, slots=True)
class Ready:
    """A camera with validated settings, ready to be opened."""

    camera: CameraConfig
    uri: Uri
    config: Config
    specs: tuple[SinkSpec, ...]
    masks: Masks
    options: CameraOptions
    spans: tuple[Span, ...] = ()

    def is_due(self) -> bool:
        now = time.localtime()
        return not self.spans or any(span.holds(now) for span in self.spans)


def check_source(uri: Uri) -> None:
    """Check a source for permanent errors. Raises BadInput."""
    if uri.kind is Kind.FOLDER:
        raise BadInput("it is a folder, not a video", uri.redacted, "name one file in it")
    if uri.kind is Kind.IMAGE:
        raise BadInput("a picture is no live source", uri.redacted, "facestream anonymize covers pictures")
    if uri.kind is Kind.FILE and not Path(uri.text).is_fifo():
        check_file(Path(uri.text), uri.redacted)


def camera_options(config: Config, loop: bool) -> CameraOptions:
    """A camera's options from the settings."""
    run = config.run
    source = SourceOptions(
        threads=config.decode.threads,
        open_timeout_s=run.open_timeout_s,
        read_timeout_s=run.read_timeout_s,
        rtsp_transport=run.rtsp_transport,
        tls_verify=run.tls_verify,
        ca_file=run.ca_file,
        camera_size=run.camera_size if all(run.camera_size) else None,
        camera_fps=run.camera_fps or None,
        camera_format=run.camera_format,
        hardware=config.decode.hardware,
    )
    return CameraOptions(source=source, loop=loop, stall_s=run.stall_s)


def prepare(camera: CameraConfig, config: Config, common: list[SinkSpec], where: str) -> Ready:
    """Validate all settings of a camera. Raises BadInput and BadConfig."""
    uri = parse(camera.source)
    check_source(uri)
    values: dict[str, Any] = {"cover.allow": [*config.cover.allow, *camera.allow]}
    if camera.transport:
        values["run.rtsp_transport"] = camera.transport
    if camera.audio is not None:
        values["run.audio"] = camera.audio
    if camera.detector_size is not None:
        values["detector.size"] = camera.detector_size
    if camera.detect_every is not None:
        values["detector.every"] = camera.detect_every
    own = changed(config, values, where)
    specs = [*common, *(SinkSpec.of(text, False) for text in camera.sinks)]
    if not specs:
        raise BadConfig("nothing is made of it", where, "give it sinks, or sinks for all under [run]")
    masks = Masks(convert(camera.masks, tuple[Polygon, ...]), convert(camera.everything_but, tuple[Polygon, ...]))
    spans = tuple(Span.of(text) for text in camera.schedule)
    return Ready(camera, uri, own, tuple(specs), masks, camera_options(own, camera.loop), spans)


class CameraManager:
    """Runs the cameras of a settings file, according to their schedules; applies changes of the file.

    All but request_reload() is for the main thread.
    """

    def __init__(
        self, path: Path, live: Live, builder: SinkBuilder, common: list[SinkSpec], read: Callable[[], Config]
    ) -> None:
        """common: sinks of all cameras. read: returns the current settings, with the command's options."""
        self.path = path
        self._live = live
        self._builder = builder
        self._common = common
        self._read = read
        self._base = live.config
        self._ready: dict[str, Ready] = {}
        self._running: dict[str, CameraPipeline] = {}
        self._failed: dict[str, float] = {}  # that could not be started, and when that was tried (monotonic)
        self._wanted = threading.Event()
        self._done = threading.Event()
        self._answer: tuple[bool, str] = (True, "")
        self._asking = threading.Lock()
        self._checked_s = 0.0

    def load(self) -> None:
        """Load the cameras before the run starts. Raises BadInput and BadConfig."""
        self._ready = self._prepared(self._base)
        for name, ready in self._ready.items():
            if ready.is_due():
                self._start(name, ready)

    def _prepared(self, config: Config) -> dict[str, Ready]:
        cameras = read_cameras(self.path)
        several = len(cameras) > 1
        for spec in self._common:
            if several and spec.kind not in ("page", "window") and "{name}" not in spec.text:
                raise BadInput("several cameras would go to one place", shown_text(spec.text), "put {name} into it")
        return {
            camera.name: prepare(camera, config, self._common, f"{self.path}: camera {camera.name}")
            for camera in cameras
        }

    def _start(self, name: str, ready: Ready) -> None:
        self._builder.open(list(ready.specs))
        pipeline = self._live.add(name, ready.uri, ready.options, ready.config, ready.masks)
        try:
            self._builder.connect(pipeline, list(ready.specs))
        except BaseException:
            self._live.remove(pipeline)
            raise
        self._live.start_new()
        self._running[name] = pipeline

    def _stop(self, name: str) -> None:
        self._live.remove(self._running.pop(name))

    def tick(self) -> None:
        """Handle reload requests and schedules; called a few times a second."""
        if self._wanted.is_set():
            self._wanted.clear()
            self._answer = self._reload()
            self._live.on_event("settings", self._answer[1])
            self._done.set()
        now = time.monotonic()
        if now - self._checked_s > 1.0:
            self._checked_s = now
            self._follow_schedules()

    def _follow_schedules(self) -> None:
        for name, ready in self._ready.items():
            due = ready.is_due()
            waited_s = time.monotonic() - self._failed.get(name, -RETRY_S)
            if due and name not in self._running and waited_s >= RETRY_S:
                self._try(name, ready)
            elif not due and name in self._failed:
                self._forget_failure(name)
            elif not due and name in self._running:
                self._stop(name)
                self._live.on_event(name, "off: outside its schedule")

    def _try(self, name: str, ready: Ready) -> None:
        try:
            self._start(name, ready)
            self._forget_failure(name)
        except UserError as error:
            self._failed[name] = time.monotonic()
            what = f"failed, it cannot be started: {error}"
            if self._live.not_started.get(name) != what:
                self._live.on_event(name, f"{what}; tried again every {RETRY_S:.0f} s")
            self._live.not_started[name] = what

    def _forget_failure(self, name: str) -> None:
        self._failed.pop(name, None)
        self._live.not_started.pop(name, None)

    def request_reload(self, timeout_s: float = 60.0) -> tuple[bool, str]:
        """Ask the main thread to reload the file, from any thread; returns success and a summary."""
        with self._asking:
            self._done.clear()
            self._wanted.set()
            if not self._done.wait(timeout_s):
                return False, "it takes long: see the log"
            return self._answer

    def hang_up(self) -> None:
        """SIGHUP."""
        self._wanted.set()

    def _reload(self) -> tuple[bool, str]:
        """A bad file changes nothing."""
        try:
            config = self._read()
            ready = self._prepared(self._base)
        except UserError as error:
            return False, f"the new settings are not used: {error}"
        before = self._ready
        removed = sorted(set(before) - set(ready))
        new = sorted(set(ready) - set(before))
        other = [name for name in ready if name in before and ready[name] != before[name]]
        masked = [name for name in other if _but_masks(ready[name]) == _but_masks(before[name])]
        self._ready = ready
        for name in tuple(self._failed):
            self._forget_failure(name)
        for name in masked:
            if name in self._running:
                self._running[name].masks = ready[name].masks
        for name in [*removed, *other]:
            if name in self._running and name not in masked:
                self._stop(name)
        for name, one in ready.items():
            if name not in self._running and one.is_due():
                self._try(name, one)
        groups = {"new": new, "gone": removed, "changed": other}
        parts = [f"{word} {', '.join(names)}" for word, names in groups.items() if names]
        if config != self._base:
            parts.append("what changed beside the cameras takes effect with the next start")
        return True, "settings read again: " + ("; ".join(parts) or "nothing changed")


def _but_masks(ready: Ready) -> Mapping[str, Any]:
    names = [name for name in CameraConfig.__struct_fields__ if name not in ("masks", "everything_but")]
    return {name: getattr(ready.camera, name) for name in names}
