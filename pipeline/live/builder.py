"""From what a SINK says to a camera's outlets, and the servers, pages and pushers that several of them share."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from facestream.pipeline.config import Config
from facestream.pipeline.errors import BadConfig, BadInput
from facestream.pipeline.live import keep
from facestream.pipeline.live.encode import LiveOptions
from facestream.pipeline.live.metrics import Figure
from facestream.pipeline.live.outlet import FileOutlet, Lane, Outlet, RecordOutlet, StreamOutlet
from facestream.pipeline.live.run import Channel, Live
from facestream.pipeline.live.sound import Sounds, Voiced
from facestream.pipeline.live.state import State
from facestream.pipeline.live.window import Window
from facestream.pipeline.rtsp.client import PushOptions, Target, target_of
from facestream.pipeline.rtsp.player import Limits
from facestream.pipeline.rtsp.push import Pusher
from facestream.pipeline.rtsp.server import RtspServer
from facestream.pipeline.video import hardware
from facestream.pipeline.video.sink import check_output
from facestream.pipeline.video.uri import redact

if TYPE_CHECKING:
    from facestream.pipeline.live.preview import Page

RECORDS = (".jsonl", ".csv", ".mot")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a SINK means: serve, push, file, records, page or window."""

    kind: str
    text: str

    @staticmethod
    def of(text: str, several: bool) -> Plan:
        """Raises BadInput for what means nothing."""
        if text.lower().startswith(("http://", "https://")):
            return Plan("page", text)
        if text == "window":
            return Plan("window", text)
        if several and "{name}" not in text:
            raise BadInput("several sources would go to one place", redact(text), "put {name} into it")
        try:
            text.format(name="x")
        except (KeyError, ValueError, IndexError):
            raise BadInput("only {name} may stand in braces", redact(text)) from None
        if text.startswith("serve:"):
            return Plan("serve", text.removeprefix("serve:"))
        if re.match(r"rtsps?://", text, re.IGNORECASE):
            target_of(text)
            return Plan("push", text)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
            raise BadInput("this output is not known", redact(text), "a file, rtsp://, serve:rtsp://, http://, window")
        return Plan("records" if Path(text).suffix.lower() in RECORDS else "file", text)


class Builder:
    """Makes a camera's outlets, and the servers and pushers that several of them share."""

    def __init__(self, live: Live, config: Config, overwrite: bool, told: Callable[[str, str], None]) -> None:
        self.live, self.config, self.overwrite, self._told = live, config, overwrite, told
        self.welcome: list[str] = []
        self._servers: dict[tuple[str, int], RtspServer] = {}
        self._pages: dict[str, Page] = {}
        self._paths: set[Path] = set()
        self.window: Window | None = None

    def open(self, plans: list[Plan]) -> None:
        """What is there once for all cameras, and without any."""
        for plan in plans:
            if plan.kind == "page":
                self._page(plan.text)
            elif plan.kind == "window" and self.window is None:
                self.window = Window(self.live.channels)
                self.live.servers.append(self.window)

    def connect(self, channel: Channel, plans: list[Plan]) -> None:
        stream: StreamOutlet | None = None
        for plan in plans:
            if plan.kind == "page":
                self._add(channel, self._pages[plan.text].outlet(channel.name, channel.tuner))
                continue
            if plan.kind == "window":
                assert self.window is not None
                self._add(channel, self.window.pane(channel))
                continue
            where = plan.text.format(name=channel.name)
            if plan.kind in ("file", "records"):
                self._add(channel, self._written(channel, plan.kind, Path(where)))
                continue
            if stream is None:
                stream = self._stream(channel)
                self._add(channel, stream)
            if plan.kind == "serve":
                self._serve(stream, where)
            else:
                self._push(channel, stream, where)

    def abort(self) -> None:
        for channel in self.live.channels:
            for lane in channel.lanes:
                lane.outlet.abort()

    def _page(self, text: str) -> None:
        if text in self._pages:
            return
        try:
            parts = urlsplit(text)
            host, port, token = parts.hostname, parts.port, unquote(parts.username or "")
        except ValueError:
            host = port = None
        if not host or port is None or parts.path not in ("", "/"):
            raise BadInput("a page's address is http://[TOKEN@]host:port", redact(text))
        tls = self._tls(redact(text)) if parts.scheme == "https" else None

        def figures() -> list[Figure]:
            return [figure(channel) for channel in self.live.channels]

        from facestream.pipeline.live.preview import Page  # its libraries take half a second to import

        page = Page(host, port, token, figures, self._tune, self.live.visitors, tls, self.config.live.webrtc)
        self._pages[text] = page
        self.live.servers.append(page)
        self.welcome.append(redact(text))

    def _tune(self, name: str, wish: dict[str, Any]) -> None:
        channel = next((channel for channel in self.live.channels if channel.name == name), None)
        if channel is None:
            raise KeyError(name)
        channel.tune(wish)

    def _add(self, channel: Channel, outlet: Outlet) -> None:
        if self.config.live.audio and isinstance(outlet, Voiced):
            outlet.sounds, outlet.voice = Sounds(), lambda: channel.camera.voice
            outlet.told = lambda message: self._told(channel.name, message)
        channel.lanes.append(Lane(outlet, lambda message: self._told(channel.name, f"output lost: {message}")))

    def _stream(self, channel: Channel) -> StreamOutlet:
        live, camera = self.config.live, channel.camera
        encoder = live.encoder
        if encoder == "libx264":
            encoder = hardware.encoder_of(self.config.run.hardware, "h264", encoder)
        options = LiveOptions(encoder, live.bitrate, live.crf, live.preset, live.gop_s)
        return StreamOutlet(channel.name, options, lambda: camera.status.rate, lambda: camera.epoch_s)

    def _written(self, channel: Channel, kind: str, path: Path) -> FileOutlet | RecordOutlet:
        if path in self._paths:
            raise BadInput("two outputs have the same name", str(path), "put {name} into it")
        self._paths.add(path)
        source = channel.camera.uri.shown
        if kind == "records":
            return RecordOutlet(str(path), path, self.overwrite, source)
        options = self.config.encode.options(self.overwrite, self.config.run.hardware)
        segment_s = self.config.live.segment_s
        first = path.with_name(f"{path.stem}-0{path.suffix}") if segment_s else path
        check_output(first, options, [channel.camera.uri.text])
        camera, live = channel.camera, self.config.live
        limits = keep.Limits(live.keep_days * 86400, round(live.keep_gb * 1e9))
        if limits and not segment_s:
            raise BadConfig("only segments can be kept for a time", "live.keep_days, live.keep_gb", "--segment S too")
        return FileOutlet(path, options, source, lambda: camera.status.rate, segment_s, lambda: camera.epoch_s, limits)

    def _serve(self, stream: StreamOutlet, text: str) -> None:
        target = target_of(text)
        path = unquote(urlsplit(target.url).path).strip("/")
        server = self._server(target)
        mount = server.mount(path, {target.user: target.password} if target.user else {}, stream.packetizer)
        stream.serve(server, mount)
        self.welcome.append(f"{target.shown}" + ("" if target.user else _open_to_all(target.host)))

    def _server(self, target: Target) -> RtspServer:
        key = target.host, target.port
        if key not in self._servers:
            limits = Limits(connections=self.config.live.players)
            server = RtspServer(target.host, target.port, limits, self._tls(target.shown) if target.tls else None)
            self._servers[key] = server
            self.live.servers.append(server)
        server = self._servers[key]
        if (server.tls is not None) != target.tls:
            raise BadInput("one port cannot speak with and without TLS", target.shown, "choose another port")
        return server

    def _tls(self, shown: str) -> ssl.SSLContext:
        live = self.config.live
        if not live.tls_cert:
            raise BadConfig("TLS needs a certificate", "live.tls_cert", f"for {shown}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(live.tls_cert, live.tls_key or None)
        except (OSError, ssl.SSLError) as error:
            raise BadConfig(f"the certificate cannot be used ({error.strerror or error})", live.tls_cert) from None
        return context

    def _push(self, channel: Channel, stream: StreamOutlet, text: str) -> None:
        live = self.config.live
        options = PushOptions(timeout_s=live.open_timeout_s, tls_verify=live.tls_verify, ca_file=live.ca_file)
        shown = target_of(text).shown

        def told(state: State, message: str) -> None:
            self._told(f"{channel.name} -> {shown}", ", ".join(filter(None, (str(state), message))))

        pusher = Pusher(text, stream.packetizer, options, told)
        stream.push(pusher)
        self.live.pushers.append(pusher)


def figure(channel: Channel) -> Figure:
    """A camera's figures, for the page."""
    counts = channel.counts
    camera, line = counts.camera, counts.line
    totals = {
        "frames": camera.frames, "damaged": camera.damaged, "connects": camera.connects, "losses": camera.losses,
        "stalls": camera.stalls, "hangs": camera.hangs, "frames_dropped": counts.dropped, "frames_left": counts.left,
        "looks": line.detector_runs, "looks_failed": line.detector_failures, "frames_veiled": line.fully_covered,
        "frames_held": line.withheld,
        "outlet_dropped": counts.outlets_dropped,
    }  # fmt: skip
    gauges = {"delay_ms": counts.delay_ms, "latency_ms": counts.latency_ms}
    return Figure(channel.name, camera.state, camera.message, totals, gauges, channel.tuner.shown)


def _open_to_all(host: str) -> str:
    return "" if host in ("127.0.0.1", "::1", "localhost") else ": open to everybody who reaches it, without a password"
