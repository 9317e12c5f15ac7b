"""`facestream run`: parts to cameras and sinks, and a run that ends when it is told to."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click
from facestream.pipeline.cli.options import Size, config_of, covering, shared
from facestream.pipeline.config import Config
from facestream.pipeline.connection import State
from facestream.pipeline.detectors import detector_of
from facestream.pipeline.errors import BadConfig, BadInput
from facestream.pipeline.live.builder import SinkBuilder, SinkSpec
from facestream.pipeline.live.encode import check_encoder
from facestream.pipeline.live.run import CameraPipeline, Live
from facestream.pipeline.live.state import CameraOptions
from facestream.pipeline.log import fail
from facestream.pipeline.url import hide_in_process_list, hide_in_tracebacks, redact, shown_text
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.output import check_distinct
from facestream.pipeline.video.uri import Kind, Uri, check_file, parse
from msgspec import structs

log = logging.getLogger(__name__)

LIMIT_S = 4.5  # from the signal to the end at the latest
# Settings of streams that take the flag of the same setting of files. Streams have no preset auto.
STREAM_FLAGS = {"run.crf": "crf", "run.preset": "preset"}
_NAMED = re.compile(r"([A-Za-z0-9_-]+)=(.+)")


@click.command()
@click.argument("sources", nargs=-1, metavar="[NAME=]SOURCE...")
@click.option(
    "--to", "sinks", multiple=True, required=True, metavar="SINK", help="where to; may be given several times"
)
@covering
@click.option("--loop/--once", default=None, help="files begin anew at their end; by default where no output is a file")
@click.option("--draw", is_flag=True, help="draw boxes and ids; with --hide none on uncovered faces")
@click.option("--audio/--no-audio", default=None, help="pass the sound on, as it is; off by default: voices tell who")
@click.option("--segment", type=float, metavar="S", help="video files: begin a new one every S seconds")
@click.option("--keep-days", type=float, metavar="D", help="remove segments that ended so many days ago")
@click.option("--keep-gb", type=float, metavar="G", help="remove a camera's oldest segments beyond so many GB")
@click.option("--webrtc/--no-webrtc", default=None, help="the page's pictures over WebRTC where that works")
@click.option("--bitrate", type=int, metavar="KBIT", help="of streams, at most")
@click.option("--encoder", metavar="NAME", help="of streams: libx264, h264_nvenc, h264_v4l2m2m, ...")
@click.option("--camera-size", type=Size(), help="asked of a webcam")
@click.option("--camera-fps", type=float, help="asked of a webcam")
@click.option("--camera-format", help="asked of a webcam: mjpeg, yuyv422, ...")
@click.option("--rtsp-transport", type=click.Choice(["tcp", "udp"]), help="from RTSP cameras")
@click.option("--insecure", is_flag=True, help="do not check certificates of cameras and servers")
@shared
def run(
    sources: tuple[str, ...], sinks: tuple[str, ...], loop: bool | None, insecure: bool, draw: bool, **flags: Any
) -> int:
    """Cover faces live, from cameras and files to streams, files and records.

    \b
    SOURCE  0, /dev/video0, a file, rtsp://, rtsps://, http(s)://, lavfi:GRAPH
    SINK    serve:rtsp://[user:password@]host:port/path   be an RTSP server
            rtsp://[user:password@]host:port/path         push to one
            FILE.mp4, FILE.mkv, ...                       a video file
            FILE.jsonl, FILE.csv, FILE.mot                what was found
            http://[TOKEN@]host:port                      a page to look at, /metrics, /healthz
            window                                        a window on this desktop
    With several sources each SINK but the page and the window must hold {name}. Without a SOURCE the page covers the
    cameras of the browsers that open it.
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
    cameras = named(sources)
    specs = [SinkSpec.of(text, len(cameras) > 1) for text in sinks]
    for text in sinks:  # known before anything is said
        shown_text(text.removeprefix("serve:"))
    hide_in_process_list()
    if not cameras and (any(spec.kind != "page" for spec in specs) or not config.run.webcam_sessions):
        raise BadInput("nothing to show", "SOURCE", "name one: 0, rtsp://..., a file; a page alone can do without")
    if loop is None:
        loop = not any(spec.kind in ("file", "records") for spec in specs)
    for uri in cameras.values():
        _check_source(uri)
    teller = EventPrinter(flags["quiet"])
    if bare:
        log.warning("faces are shown: --hide none")
    written = [spec.text.format(name=name) for spec in specs if spec.kind in ("file", "records") for name in cameras]
    stamp = config.cover.hide.removeprefix("image:") if config.cover.hide.startswith("image:") else None
    read = [uri.text for uri in cameras.values() if uri.kind is Kind.FILE]
    check_distinct([*read, flags.get("config_file"), config.detector.model, stamp], dict.fromkeys(written))
    live = Live(config, detector_of(config), teller, draw, bare)
    builder = SinkBuilder(live, config, flags["overwrite"], teller)
    try:
        builder.open(specs)
        for name, uri in cameras.items():
            builder.connect(live.add(name, uri, _camera_options(config, loop)), specs)
        live.start()
    except BaseException:
        builder.abort()
        raise
    return _until_the_end(live, builder, flags["quiet"])


def _until_the_end(live: Live, builder: SinkBuilder, quiet: bool) -> int:
    for line in builder.banner:
        log.info("serving: %s", line)
    code, window = 0, builder.window
    try:
        while not live.wait(1.0 if window is None else 0.0):
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
    """One line about what a camera's run was."""
    counts = pipeline.counts
    camera, line = counts.camera, counts.line
    parts = [f"{camera.frames} frames", f"{counts.emitted} left", f"{line.detector_runs} looked at"]
    for number, what in (
        (counts.dropped, "dropped for want of time"),
        (line.fully_covered, "covered all over"),
        (line.withheld, "held back"),
        (line.detector_failures, "looks failed"),
        (camera.losses, "connections lost"),
        (camera.stalls, "stalls"),
        (camera.damaged, "damaged"),
        (counts.sink_dropped, "dropped for a slow output"),
    ):
        parts += [f"{number} {what}"] * bool(number)
    if counts.delay_ms:
        parts.append(f"{counts.delay_ms:.0f} ms from camera to stream, look-ahead included")
    return f"{pipeline.name}: {', '.join(parts)}"


class EventPrinter:
    """Prints states and troubles, one line each; the same line of one camera not twice within ten seconds."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._said: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str, message: str) -> None:
        now = time.monotonic()
        with self._lock:
            last = self._said.get((name, message))
            self._said = {key: when for key, when in self._said.items() if now - when < 10}
            if last is not None and now - last < 10:
                return
            self._said[name, message] = now
            bad = not message.startswith((State.LIVE, State.CONNECTING, State.ENDED))
            if bad or not self._quiet:
                log.log(logging.WARNING if bad else logging.INFO, "%s", message, extra={"camera": name})


def named(sources: tuple[str, ...]) -> dict[str, Uri]:
    """Names for the sources: those given as NAME=SOURCE, else what the source suggests; each its own."""
    found: dict[str, Uri] = {}
    for text in sources:
        given = _NAMED.fullmatch(text)
        label, _, address = text.partition("=")
        if given is None and "/" not in label and re.match(r"(rtsps?|https?)://", address, re.IGNORECASE):
            raise BadInput("a camera's name holds letters, digits, - and _ alone", redact(label), "NAME=SOURCE")
        if given is not None and not Path(text).exists():
            name, uri = given[1], parse(given[2])
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


def _check_source(uri: Uri) -> None:
    """What can be known of a source that no waiting would mend. Raises BadInput."""
    if uri.kind is Kind.FOLDER:
        raise BadInput("it is a folder, not a video", uri.shown, "name one file in it")
    if uri.kind is Kind.IMAGE:
        raise BadInput("a picture is no live source", uri.shown, "facestream anonymize covers pictures")
    if uri.kind is Kind.FILE and not Path(uri.text).is_fifo():
        check_file(Path(uri.text), uri.shown)


def _camera_options(config: Config, loop: bool) -> CameraOptions:
    live = config.run
    source = SourceOptions(
        threads=config.decode.threads,
        open_timeout_s=live.open_timeout_s,
        read_timeout_s=live.read_timeout_s,
        rtsp_transport=live.rtsp_transport,
        tls_verify=live.tls_verify,
        ca_file=live.ca_file,
        camera_size=live.camera_size if all(live.camera_size) else None,
        camera_fps=live.camera_fps or None,
        camera_format=live.camera_format,
        hardware=config.decode.hardware,
    )
    return CameraOptions(source=source, loop=loop, stall_s=live.stall_s)
