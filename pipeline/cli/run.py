"""`facestream run`: connects cameras to sinks, and runs until it is stopped."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click
from facestream.pipeline.cli.options import config_of, covering, setting, shared
from facestream.pipeline.connection import State
from facestream.pipeline.detectors import detector_of
from facestream.pipeline.errors import BadConfig, BadInput
from facestream.pipeline.live.builder import SinkBuilder, SinkSpec
from facestream.pipeline.live.cameras import CameraManager, camera_options, check_source, read_cameras
from facestream.pipeline.live.encode import check_encoder
from facestream.pipeline.live.events import EventFeed
from facestream.pipeline.live.run import CameraPipeline, Live
from facestream.pipeline.log import fail
from facestream.pipeline.system import give_memory_back, trim_memory
from facestream.pipeline.url import hide_in_process_list, hide_in_tracebacks, redact, shown_text
from facestream.pipeline.video.output import check_distinct
from facestream.pipeline.video.uri import Kind, Uri, parse
from msgspec import structs

log = logging.getLogger(__name__)

TRIM_S = 60.0  # seconds between two times that free memory is given back
LIMIT_S = 4.5  # maximum seconds from the signal to the end
# Settings of streams that take the flag of the same setting of files. Streams have no preset auto.
STREAM_FLAGS = {"run.crf": "crf", "run.preset": "preset"}
_NAMED = re.compile(r"([A-Za-z0-9_-]+)=(.+)")


@click.command()
@click.argument("sources", nargs=-1, metavar="[NAME=]SOURCE...")
@click.option("--to", "sinks", multiple=True, metavar="SINK", help="an output; may be repeated; adds to run.sinks")
@covering
@click.option("--loop/--once", default=None, help="restart files at their end; the default unless an output is a file")
@click.option("--draw", is_flag=True, help="draw boxes and ids; with --hide none on uncovered faces")
@setting("--audio", "run.audio", "copy the camera's audio, which is personal data")
@setting("--segment", "run.segment_s", "start a new video file every S seconds; 0: one file", "S")
@setting("--keep-days", "run.keep_days", "delete segments that ended more than D days ago; 0: never", "D")
@setting("--keep-gb", "run.keep_gb", "delete a camera's oldest segments beyond G GB in all; 0: never", "G")
@setting("--webrtc", "run.webrtc", "WebRTC on the page, with MJPEG as fallback")
@setting("--bitrate", "run.bitrate", "maximum bitrate of streams, kbit/s; 0: by their size", "KBIT")
@setting("--encoder", "run.encoder", "encoder of streams: libx264, h264_nvenc, h264_v4l2m2m, ...", "NAME")
@setting("--camera-size", "run.camera_size", "frame size to request from a webcam; 0x0: it chooses")
@setting("--camera-fps", "run.camera_fps", "frames/s to request from a webcam; 0: it chooses")
@setting("--camera-format", "run.camera_format", "pixel format to request from a webcam: mjpeg, yuyv422, ...")
@setting("--rtsp-transport", "run.rtsp_transport", "transport for RTSP cameras; auto: TCP, else UDP")
@click.option("--insecure", is_flag=True, help="do not verify the certificates of cameras and servers")
@shared
def run(
    sources: tuple[str, ...], sinks: tuple[str, ...], loop: bool | None, insecure: bool, draw: bool, **flags: Any
) -> int:
    """Cover faces live: from cameras and files to streams, files and records.

    \b
    SOURCE  0, webcam:NAME, a file, rtsp://, rtsps://, http(s)://, lavfi:GRAPH
    SINK    serve:rtsp://[user:password@]host:port/path   be an RTSP server
            rtsp://[user:password@]host:port/path         push to one
            FILE.mp4, FILE.mkv, ...                       a video file
            FILE.jsonl, FILE.csv, FILE.mot                records: boxes and track ids
            http://[TOKEN@]host:port                      a preview page, /metrics, /healthz
            window                                        a window on this desktop
    With several sources, each SINK except the page and the window must contain {name}. Without a SOURCE, browsers that
    open the page can send their own cameras. --crf and --preset also set the quality of streams, which is 23 and
    ultrafast by default.
    """
    bare = flags["hide"] == "none"
    if bare:
        if not draw:
            raise BadConfig("nothing would be hidden", "--hide none", "only with --draw, to see what is found")
        flags["hide"] = None
    config = config_of(flags, STREAM_FLAGS)
    if insecure:
        config = structs.replace(config, run=structs.replace(config.run, tls_verify=False))
    check_encoder(config.run.encoder)
    hide_in_tracebacks()
    give_memory_back()
    cameras = named(sources)
    config_file = flags.get("config_file")
    listed = read_cameras(config_file) if config_file is not None else []
    sinks = (*config.run.sinks, *sinks)
    several = len(cameras) + len(listed) > 1
    specs = [SinkSpec.of(text, several) for text in sinks]
    for text in sinks:  # known before anything is said
        shown_text(text.removeprefix("serve:"))
    hide_in_process_list()
    if not specs and not any(camera.sinks for camera in listed):
        raise BadInput("nothing would come of it", "--to", "name an output: --to http://127.0.0.1:8080")
    is_page_alone = all(spec.kind == "page" for spec in specs) and config.run.webcam_sessions
    if not cameras and not listed and not is_page_alone:
        raise BadInput("nothing to show", "SOURCE", "name one: 0, rtsp://..., a file; a page alone can do without")
    if loop is None:
        loop = not any(spec.kind in ("file", "records") for spec in specs)
    for uri in cameras.values():
        check_source(uri)
    teller = EventPrinter(flags["quiet"])
    if bare:
        log.warning("faces are shown: --hide none")
    written = [spec.text.format(name=name) for spec in specs if spec.kind in ("file", "records") for name in cameras]
    cover_image = config.cover.hide.removeprefix("image:") if config.cover.hide.startswith("image:") else None
    read = [uri.text for uri in cameras.values() if uri.kind is Kind.FILE]
    check_distinct([*read, flags.get("config_file"), config.detector.model, cover_image], dict.fromkeys(written))
    live = Live(config, detector_of(config), teller, draw, bare)
    builder = SinkBuilder(live, config, flags["overwrite"], teller)
    manager: CameraManager | None = None
    if config.run.events:
        live.events = EventFeed(config.run.events, lambda message: teller("events", message))
    try:
        builder.open(specs)
        for name, uri in cameras.items():
            builder.connect(live.add(name, uri, camera_options(config, loop)), specs)
        if config_file is not None and listed:
            manager = CameraManager(config_file, live, builder, specs, lambda: config_of(flags, STREAM_FLAGS))
            builder.reload = manager.request_reload
            manager.load()
            if hasattr(signal, "SIGHUP"):
                signal.signal(signal.SIGHUP, lambda *_: manager.hang_up())
        live.start()
    except BaseException:
        builder.abort()
        raise
    return _until_the_end(live, builder, flags["quiet"], manager)


def _until_the_end(live: Live, builder: SinkBuilder, quiet: bool, manager: CameraManager | None = None) -> int:
    for line in builder.banner:
        log.info("serving: %s", line)
    code = 0
    window = builder.window
    trimmed_s = time.monotonic()
    try:
        while True:
            if time.monotonic() - trimmed_s > TRIM_S:
                trim_memory()
                trimmed_s = time.monotonic()
            is_over = live.wait(0.25 if window is None else 0.0)
            if manager is not None:
                manager.tick()
                time.sleep(0.1 if is_over else 0.0)
            elif is_over:
                break
            if window is not None and not window.show():
                break
    except KeyboardInterrupt:  # SIGTERM too
        code = 130
        last = threading.Timer(LIMIT_S, os._exit, [code])  # whatever hangs, a disk or who reads our parts
        last.daemon = True
        last.start()
    ended = live.stop()
    if not quiet:
        for pipeline in live.pipelines:
            print(summary(pipeline))
    if window is not None and window.failed:
        fail(f"window: the display failed ({window.failed})")
        code = code or 1
    if code == 0 and any(pipeline.failed for pipeline in live.pipelines):
        code = 2 if all(pipeline.camera.status.frames == 0 for pipeline in live.pipelines) else 1
    if not ended:  # a thread hangs in a device or in the network, which cannot be ended from here
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def summary(pipeline: CameraPipeline) -> str:
    """One line that summarises a camera's run."""
    counts = pipeline.counts
    camera = counts.camera
    line = counts.line
    parts = [f"{camera.frames} frames", f"{counts.emitted} output", f"{line.detector_runs} detections"]
    for number, what in (
        (counts.dropped, "dropped under load"),
        (line.fully_covered, "fully covered"),
        (line.withheld, "withheld"),
        (line.detector_failures, "detections failed"),
        (camera.losses, "connections lost"),
        (camera.stalls, "stalls"),
        (camera.damaged, "damaged"),
        (counts.sink_dropped, "dropped for a slow output"),
    ):
        parts += [f"{number} {what}"] * bool(number)
    if counts.delay_ms:
        parts.append(f"{counts.delay_ms:.0f} ms from camera to stream, look-ahead included")
    return f"{pipeline.name}: {', '.join(parts)}"


# Messages with which nothing is wrong, or no longer.
GOOD = (
    State.LIVE, State.CONNECTING, State.ENDED, "settings read again", "set: ", "off: ", "over: ", "recording goes on",
    "faces are detected again",
)  # fmt: skip


class EventPrinter:
    """Prints states and problems, one line each; repeats a camera's line only after ten seconds."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._printed: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str, message: str) -> None:
        now = time.monotonic()
        with self._lock:
            last = self._printed.get((name, message))
            self._printed = {key: when for key, when in self._printed.items() if now - when < 10}
            if last is not None and now - last < 10:
                return
            self._printed[name, message] = now
            bad = not message.startswith(GOOD)
            if bad or not self._quiet:
                log.log(logging.WARNING if bad else logging.INFO, "%s", message, extra={"camera": name})


def named(sources: tuple[str, ...]) -> dict[str, Uri]:
    """Unique names of the sources: as given by NAME=SOURCE, else derived from the source."""
    found: dict[str, Uri] = {}
    for text in sources:
        given = _NAMED.fullmatch(text)
        label, _, address = text.partition("=")
        if given is None and "/" not in label and re.match(r"(rtsps?|https?)://", address, re.IGNORECASE):
            raise BadInput("a camera's name holds letters, digits, - and _ alone", redact(label), "NAME=SOURCE")
        if given is not None and not Path(text).exists():
            name = given[1]
            uri = parse(given[2])
            if name in found:
                raise BadInput("two sources have the same name", name)
        else:
            uri = parse(text)
            base = _name_of(uri)
            name = next(n for n in (base, *(f"{base}-{i}" for i in range(2, 10_000))) if n not in found)
        found[name] = uri
    return found


def _name_of(uri: Uri) -> str:
    if uri.url is not None:
        word = uri.url.host
    elif uri.kind is Kind.LAVFI:
        word = "lavfi"
    else:
        word = Path(uri.text).stem
    return re.sub(r"[^A-Za-z0-9_-]+", "-", word).strip("-") or "camera"
