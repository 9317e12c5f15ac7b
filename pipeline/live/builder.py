"""Builds a camera's sinks from SINK arguments, and the servers, pages and pushers that several sinks share."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from facestream.pipeline.config import Config
from facestream.pipeline.connection import State
from facestream.pipeline.errors import BadConfig, BadInput
from facestream.pipeline.live import retention
from facestream.pipeline.live.audio import AudioQueue, AudioSink
from facestream.pipeline.live.encode import LiveOptions
from facestream.pipeline.live.health import run_problems
from facestream.pipeline.live.metrics import CameraMetrics
from facestream.pipeline.live.recording import (
    ContinuousSink,
    RecordingSink,
    RecordsSink,
    check_limits,
    segment_path,
)
from facestream.pipeline.live.run import CameraPipeline, Live
from facestream.pipeline.live.sinks import DEPTH, LiveSink, SinkWorker, StreamSink
from facestream.pipeline.live.window import Window
from facestream.pipeline.rtsp.client import PushOptions, Target, target_of
from facestream.pipeline.rtsp.player import Limits
from facestream.pipeline.rtsp.push import Pusher
from facestream.pipeline.rtsp.server import RtspServer
from facestream.pipeline.url import expand, parse_url, shown_text
from facestream.pipeline.video import hardware
from facestream.pipeline.video.sink import check_output

if TYPE_CHECKING:
    from facestream.pipeline.live.preview import Page

RECORDS = (".jsonl", ".csv", ".mot")


@dataclass(frozen=True, slots=True)
class SinkSpec:
    """A parsed SINK argument. kind: serve, push, file, records, page or window."""

    kind: str
    text: str = field(repr=False)

    @staticmethod
    def of(text: str, several: bool) -> SinkSpec:
        """Parse a SINK argument. Raises BadInput for an invalid one."""
        if text.startswith("${"):
            text = expand(text, "the output")
        if text.lower().startswith(("http://", "https://")):
            return SinkSpec("page", text)
        if text == "window":
            return SinkSpec("window", text)
        if several and "{name}" not in text:
            raise BadInput("several sources would go to one place", shown_text(text), "put {name} into it")
        unknown = re.sub(r"\$\{[^{}]*\}|\{name\}", "", text)
        if "{" in unknown or "}" in unknown:
            raise BadInput("only {name} may stand in braces", shown_text(text))
        if text.startswith("serve:"):
            return SinkSpec("serve", text.removeprefix("serve:"))
        if re.match(r"rtsps?://", text, re.IGNORECASE):
            target_of(text)
            return SinkSpec("push", text)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text):
            raise BadInput(
                "this output is not known", shown_text(text), "a file, rtsp://, serve:rtsp://, http://, window"
            )
        return SinkSpec("records" if Path(text).suffix.lower() in RECORDS else "file", text)


class SinkBuilder:
    """Creates sinks, and the servers and pushers that several of them share."""

    def __init__(self, live: Live, config: Config, overwrite: bool, on_event: Callable[[str, str], None]) -> None:
        self.live = live
        self.config = config
        self.overwrite = overwrite
        self._on_event = on_event
        self.banner: list[str] = []
        self._servers: dict[tuple[str, int], RtspServer] = {}
        self._pages: dict[str, Page] = {}
        self._paths: set[Path] = set()
        self.window: Window | None = None
        self.reload: Callable[[], tuple[bool, str]] | None = None  # reads the settings again, where there is a file

    def open(self, specs: list[SinkSpec]) -> None:
        """Create what all cameras share, such as the page and the window."""
        for spec in specs:
            if spec.kind == "page":
                self._page(spec.text)
            elif spec.kind == "window" and self.window is None:
                self.window = Window(self.live.pipelines)
                self.live.servers.append(self.window)

    def connect(self, pipeline: CameraPipeline, specs: list[SinkSpec]) -> None:
        stream: StreamSink | None = None
        for spec in specs:
            if spec.kind == "page":
                page = self._pages[spec.text]
                self._add(pipeline, page.sink(pipeline.name, pipeline.tuner))
                pipeline.undo.append(partial(page.remove, pipeline.name))
                continue
            if spec.kind == "window":
                assert self.window is not None
                pane = self.window.pane(pipeline)
                self._add(pipeline, pane)
                pipeline.undo.append(partial(self.window.panes.remove, pane))
                continue
            where = spec.text.replace("{name}", pipeline.name)
            if spec.kind in ("file", "records"):
                self._add(pipeline, self._written(pipeline, spec.kind, Path(where)))
                continue
            if stream is None:
                stream = self._stream(pipeline)
                self._add(pipeline, stream)
            if spec.kind == "serve":
                self._serve(pipeline, stream, where)
            else:
                self._push(pipeline, stream, where)

    def abort(self) -> None:
        for pipeline in self.live.pipelines:
            for worker in pipeline.workers:
                worker.sink.abort()

    def _page(self, text: str) -> None:
        if text in self._pages:
            return
        where = "a page's address is http://[TOKEN@]host:port"
        url = parse_url(text)
        if url.port is None or url.rest not in ("", "/"):
            raise BadInput(where, url.redacted)
        token = url.password or url.user
        tls = self._tls(url.redacted) if url.scheme == "https" else None

        def all_metrics() -> list[CameraMetrics]:
            return [camera_metrics(pipeline) for pipeline in self.live.pipelines]

        from facestream.pipeline.live.preview import Page  # its libraries take half a second to import

        page = Page(
            url.host,
            url.port,
            token,
            all_metrics,
            self._tune,
            self.live.webcam_sessions,
            tls,
            self.config.run.webrtc,
            lambda: run_problems(self.live) + [f"{name}: {what}" for name, what in self.live.not_started.items()],
            lambda: self.reload,
            lambda message: self._on_event(url.redacted, message),
        )
        self._pages[text] = page
        self.live.servers.append(page)
        self.banner.append(url.redacted)

    def _tune(self, name: str, settings_patch: dict[str, Any]) -> None:
        pipeline = next((pipeline for pipeline in self.live.pipelines if pipeline.name == name), None)
        if pipeline is None:
            raise KeyError(name)
        pipeline.tune(settings_patch)

    def _add(self, pipeline: CameraPipeline, sink: LiveSink) -> None:
        if isinstance(sink, AudioSink):
            sink.on_event = lambda message: self._on_event(pipeline.name, message)
            if pipeline.config.run.audio:
                sink.audio_queue = AudioQueue()
                sink.audio_stream = lambda: pipeline.camera.audio_stream
        # At a gap and at the end all frames inside the pipeline leave at once: recordings shall have each of them.
        depth = DEPTH + pipeline.config.tracker.lookahead * isinstance(sink, ContinuousSink)
        pipeline.workers.append(
            SinkWorker(sink, lambda message: self._on_event(pipeline.name, f"output lost: {message}"), depth)
        )

    def _stream(self, pipeline: CameraPipeline) -> StreamSink:
        live = pipeline.config.run
        camera = pipeline.camera
        encoder = live.encoder
        if encoder == "libx264":
            encoder = hardware.encoder_of(self.config.decode.hardware, "h264", encoder)
        options = LiveOptions(encoder, live.bitrate, live.crf, live.preset, live.gop_s)
        return StreamSink(pipeline.name, options, lambda: camera.status.rate, lambda: camera.epoch_s)

    def _written(self, pipeline: CameraPipeline, kind: str, path: Path) -> RecordingSink | RecordsSink:
        if path in self._paths:
            raise BadInput("two outputs have the same name", str(path), "put {name} into it")
        self._paths.add(path)
        pipeline.undo.append(partial(self._paths.discard, path))
        if self.live.started and path.exists() and not self.overwrite:  # of the same camera, before it was changed
            path = segment_path(path, time.time())
        camera = pipeline.camera
        source = camera.uri.redacted
        live = self.config.run
        segment_s = live.segment_s
        limits = retention.Limits(live.keep_days * 86400, round(live.keep_gb * 1e9))
        check_limits(limits, segment_s)
        if kind == "records":
            records_s = segment_s if limits else 0.0  # one file would never be deleted, and fill the disk
            sink = RecordsSink(str(path), path, self.overwrite, source, records_s, lambda: camera.epoch_s, limits)
            sink.on_event = lambda message: self._on_event(pipeline.name, message)
            return sink
        options = self.config.encode.options(self.overwrite, self.config.decode.hardware)
        first = path.with_name(f"{path.stem}-0{path.suffix}") if segment_s else path
        check_output(first, options, [camera.uri.text])
        return RecordingSink(
            path, options, source, lambda: camera.status.rate, segment_s, lambda: camera.epoch_s, limits
        )

    def _serve(self, pipeline: CameraPipeline, stream: StreamSink, text: str) -> None:
        target = target_of(text)
        path = unquote(urlsplit(target.url).path).strip("/")
        server = self._server(target)
        mount = server.mount(path, {target.user: target.password} if target.user else {}, stream.packetizer)
        stream.serve(server, mount)
        pipeline.undo.append(partial(server.unmount, mount))
        self.banner.append(f"{target.redacted}" + ("" if target.user else _open_to_all(target.host)))

    def _server(self, target: Target) -> RtspServer:
        key = target.host, target.port
        if key not in self._servers:
            players = self.config.run.players
            limits = Limits(connections=players, strangers=max(1, players // 4))

            def on_event(message: str) -> None:
                self._on_event(target.redacted, message)

            server = RtspServer(
                target.host, target.port, limits, self._tls(target.redacted) if target.tls else None, on_event
            )
            self._servers[key] = server
            self.live.servers.append(server)
        server = self._servers[key]
        if (server.tls is not None) != target.tls:
            raise BadInput("one port cannot speak with and without TLS", target.redacted, "choose another port")
        return server

    def _tls(self, name: str) -> ssl.SSLContext:
        live = self.config.run
        if not live.tls_cert:
            raise BadConfig("TLS needs a certificate", "run.tls_cert", f"for {name}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(live.tls_cert, live.tls_key or None)
        except (OSError, ssl.SSLError) as error:
            raise BadConfig(f"the certificate cannot be used ({error.strerror or error})", live.tls_cert) from None
        return context

    def _push(self, pipeline: CameraPipeline, stream: StreamSink, text: str) -> None:
        live = self.config.run
        options = PushOptions(timeout_s=live.open_timeout_s, tls_verify=live.tls_verify, ca_file=live.ca_file)
        redacted = target_of(text).redacted

        def on_event(state: State, message: str) -> None:
            self._on_event(f"{pipeline.name} -> {redacted}", ", ".join(filter(None, (str(state), message))))

        pusher = Pusher(text, stream.packetizer, options, on_event)
        stream.push(pusher)
        self.live.pushers.append(pusher)
        pipeline.undo += [pusher.stop, lambda: self._forget(pusher)]

    def _forget(self, pusher: Pusher) -> None:
        pusher.join(2.0)
        self.live.pushers.remove(pusher)


def camera_metrics(pipeline: CameraPipeline) -> CameraMetrics:
    """A camera's metrics."""
    counts = pipeline.counts
    camera = counts.camera
    line = counts.line
    totals = {
        "frames_decoded": camera.frames,
        "frames_damaged": camera.damaged,
        "frames_dropped": counts.dropped,
        "frames_emitted": counts.emitted,
        "frames_fully_covered": line.fully_covered,
        "frames_withheld": line.withheld,
        "sink_frames_dropped": counts.sink_dropped,
        "detector_runs": line.detector_runs,
        "detector_failures": line.detector_failures,
        "connections": camera.connects,
        "connections_lost": camera.losses,
        "stalls": camera.stalls,
        "hangs": camera.hangs,
        "placeholder_frames": pipeline.placeholders,
        "recordings_lost": sum(int(getattr(worker.sink, "losses", 0)) for worker in pipeline.workers),
    }
    gauges = {
        "stream_delay_ms": counts.delay_ms,
        "latency_ms": counts.latency_ms,
        "placeholder": float(pipeline.placeholder),
    }
    problems = pipeline.problems
    message = camera.message if camera.state is not State.LIVE or not problems else problems[0]
    buckets, total_s = pipeline.latencies.buckets
    return CameraMetrics(
        pipeline.name, camera.state, message, totals, gauges, pipeline.tuner.values, problems, buckets, total_s
    )


def _open_to_all(host: str) -> str:
    return "" if host in ("127.0.0.1", "::1", "localhost") else ": open to everybody who reaches it, without a password"
