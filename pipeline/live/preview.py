"""The preview page: each camera's output, state and metrics; /metrics and /healthz. Extra `web`.

One thread runs the event loop with all requests. JPEGs are encoded only while somebody watches; slow viewers get fewer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from facestream.pipeline.connection import State
from facestream.pipeline.errors import BadInput, UserError
from facestream.pipeline.live.metrics import CameraMetrics, metrics
from facestream.pipeline.live.preview_sink import PictureViewer, PreviewSink
from facestream.pipeline.live.tuning import Tuner
from facestream.pipeline.live.webcam_session import WebcamSessions
from facestream.pipeline.live.webcam_socket import serve
from facestream.pipeline.live.webrtc import WebRtcSessions
from facestream.pipeline.rtsp.guessing import LoginGuard
from facestream.pipeline.url import redact
from facestream.pipeline.web import LOOPBACK, RequestGuard, WebServer, check_web, web

VIEWERS = 32  # at a time; each is an open connection
HTML = Path(__file__).with_name("preview.html")
GUESSES = 10  # wrong tokens of one address that cost no time
BOUNDARY = "facestream-picture"


def _no_camera(name: str, settings_patch: dict[str, Any]) -> None:
    raise KeyError(name)


class Page(WebServer):
    """Serves on host:port. token: what a request must hold, as ?token= or as a bearer; "" only on loopback.

    problems: what is wrong with the run beside its cameras. reload: gives what reads the settings again, None where
    nothing does.

    tune: changes a camera's settings; raises KeyError for one that is not there, BadConfig for what may not be.
    sessions: None where no browser may show its camera. tls: serve https.
    """

    cancels = True

    def __init__(
        self, host: str, port: int, token: str, camera_metrics: Callable[[], Iterable[CameraMetrics]],
        tune: Callable[[str, dict[str, Any]], None] = _no_camera, sessions: WebcamSessions | None = None,
        tls: ssl.SSLContext | None = None, webrtc: bool = False,
        problems: Callable[[], list[str]] = list,
        reload: Callable[[], Callable[[], tuple[bool, str]] | None] = lambda: None,
        on_event: Callable[[str], None] = lambda message: None,
    ) -> None:  # fmt: skip
        """Raises BadInput for a non-loopback address without a token."""
        check_web("http://")
        hint = "the token is missing or wrong: ?token=..."
        super().__init__(
            "web page", host, port, RequestGuard(token, not token, False, hint, LoginGuard(on_event, GUESSES, 1.0)), tls
        )
        self._camera_metrics = camera_metrics
        self._tune = tune
        self._problems = problems
        self._reload = reload
        self._sessions = sessions if sessions is not None and sessions.limit else None
        self._calls = WebRtcSessions(self._next) if webrtc else None
        self._sinks: dict[str, PreviewSink] = {}
        self._watchers = 0  # open sockets with the pictures of all cameras
        if not token and host not in LOOPBACK:
            raise BadInput("other machines can reach it, so it needs a token", self.where, "http://TOKEN@host:port")
        self._over = False

    def sink(self, name: str, tuner: Tuner) -> PreviewSink:
        """Add a camera to the page; returns its sink."""
        sink = PreviewSink(name, tuner)
        sink.woken = self._wake
        self._sinks[name] = sink
        return sink

    def remove(self, name: str) -> None:
        """A camera has gone: viewers of it alone are disconnected, and may connect to a new one of this name."""
        sink = self._sinks.pop(name, None)
        if sink is None:
            return
        sink.gone = True

        def tell() -> None:
            self._news.set()
            if self._calls is not None:
                self._calls.end_of(sink)

        self.call(tell)

    def _wake(self) -> None:
        self.call(self._news.set)

    async def begin(self) -> None:
        self._news = asyncio.Event()

    async def end(self) -> None:
        self._over = True
        self._news.set()
        if self._calls is not None:
            await self._calls.close()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/", self._page)
        router.add_get("/status", self._status)
        router.add_get("/metrics", self._metrics)
        router.add_get("/healthz", self._health)
        router.add_get("/pictures", self._pictures)
        router.add_get("/camera/{name}.mjpg", self._stream)
        router.add_post("/camera/{name}/settings", self._settings)
        router.add_post("/camera/{name}/call", self._call)
        router.add_post("/camera/{name}/whep", self._whep)
        router.add_delete("/camera/{name}/whep/{id}", self._hang_up)
        router.add_get("/webcam", self._webcam)
        router.add_post("/reload", self._reload_settings)

    async def _page(self, request: web.Request) -> web.Response:
        host = re.sub(r"[^A-Za-z0-9.:\[\]-]", "", request.host)
        headers = {
            "Content-Security-Policy": f"default-src 'self' 'unsafe-inline'; connect-src 'self' ws://{host} wss://{host};"
            " img-src 'self' blob: data:;"  # pictures come over a socket; the page has its icon in itself
            " frame-ancestors 'none'",
            "Referrer-Policy": "no-referrer",  # the address may hold the token
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        return web.Response(text=HTML.read_text(encoding="utf-8"), content_type="text/html", headers=headers)

    async def _status(self, request: web.Request) -> web.Response:
        cameras = [
            {
                "name": f.name,
                "state": f.state,
                "message": redact(f.message),
                "problems": f.problems,
                **f.counts,
                **f.gauges,
                "settings": f.settings,
            }
            for f in self._camera_metrics()
        ]
        guests = self._sessions
        sessions = {"active": guests.active, "limit": guests.limit, "refused": guests.refused} if guests else None
        status = {"cameras": cameras, "webcam_sessions": sessions, "webrtc": self._calls is not None}
        return web.json_response(status, headers={"Cache-Control": "no-store"})

    async def _settings(self, request: web.Request) -> web.Response:
        """Change some of a camera's settings: one JSON object. 400 with a message for invalid ones."""
        if (request.content_length or 0) > 4096:
            raise web.HTTPRequestEntityTooLarge(4096, request.content_length or 0)
        try:
            settings_patch = await request.json()
            if not isinstance(settings_patch, dict):
                raise ValueError
            self._tune(request.match_info["name"], settings_patch)
        except KeyError:
            raise web.HTTPNotFound(text="there is no such camera\n") from None
        except UserError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from None
        except (ValueError, RecursionError):
            raise web.HTTPBadRequest(text="settings are one JSON object\n") from None
        now = next((f.settings for f in self._camera_metrics() if f.name == request.match_info["name"]), {})
        return web.json_response(now)

    async def _call(self, request: web.Request) -> web.Response:
        """WebRTC signalling: takes an SDP offer, returns the SDP answer."""
        sink = self._sinks.get(request.match_info["name"])
        if sink is None or self._calls is None:
            raise web.HTTPNotFound(text="there is no such camera, or no WebRTC (run.webrtc)\n")
        if self._calls.full:
            raise web.HTTPServiceUnavailable(text="too many viewers\n")
        try:
            _, answer = await self._calls.answer(sink, await request.text())
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from None
        return web.Response(text=answer, content_type="application/sdp")

    async def _whep(self, request: web.Request) -> web.Response:
        """WebRTC for ordinary players: draft-ietf-wish-whep. An offer in; 201, the answer and where to end it."""
        sink = self._sinks.get(request.match_info["name"])
        if sink is None or self._calls is None:
            raise web.HTTPNotFound(text="there is no such camera, or no WebRTC (run.webrtc)\n")
        if request.content_type != "application/sdp":
            raise web.HTTPUnsupportedMediaType(text="an offer is application/sdp\n")
        if self._calls.full:
            raise web.HTTPServiceUnavailable(text="too many viewers\n", headers={"Retry-After": "10"})
        try:
            number, answer = await self._calls.answer(sink, await request.text())
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from None
        headers = {"Location": f"/camera/{quote(sink.name)}/whep/{number}"}
        return web.Response(status=201, text=answer, content_type="application/sdp", headers=headers)

    async def _hang_up(self, request: web.Request) -> web.Response:
        if self._calls is None or not await self._calls.end(request.match_info["id"]):
            raise web.HTTPNotFound(text="there is no such session\n")
        return web.Response()

    async def _webcam(self, request: web.Request) -> web.StreamResponse:
        if self._sessions is None:
            raise web.HTTPNotFound(text="browsers' own cameras are switched off (run.webcam_sessions)\n")
        return await serve(request, self._sessions)

    async def _reload_settings(self, request: web.Request) -> web.Response:
        """Read the settings again: 200 with what changed, 400 with what is wrong and then nothing changed."""
        reload = self._reload()
        if reload is None:
            raise web.HTTPNotFound(text="the run was not started with cameras in a settings file\n")
        good, text = await self._loop.run_in_executor(None, reload)
        return web.Response(text=redact(text) + "\n", status=200 if good else 400)

    async def _health(self, request: web.Request) -> web.Response:
        """200 if frames of every camera arrive and leave and all is recorded, else 503 with the problems."""
        cameras = {f.name: f.problems for f in self._camera_metrics() if f.problems}
        run = self._problems()
        not_live = {f.name: str(f.state) for f in self._camera_metrics() if f.state not in (State.LIVE, State.ENDED)}
        ok = not cameras and not run
        body = {"ok": ok, "not_live": not_live, "problems": cameras | ({"run": run} if run else {})}
        return web.Response(text=redact(json.dumps(body)) + "\n", status=200 if ok else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        body = metrics(list(self._camera_metrics()), self._sessions)
        return web.Response(body=body, content_type="text/plain", charset="utf-8")

    async def _pictures(self, request: web.Request) -> web.StreamResponse:
        """The pictures of all cameras over one WebSocket: browsers open six connections to a server, and no more.

        A message is a byte with the length of the camera's name, the name, and a JPEG. The page may send a JSON list of
        the cameras that it wants.
        """
        if self._watchers >= VIEWERS:
            raise web.HTTPServiceUnavailable(text="too many viewers\n")
        socket = web.WebSocketResponse(heartbeat=20, timeout=1, compress=False, max_msg_size=65536)
        await socket.prepare(request)
        self._watchers += 1
        viewer = PictureViewer(self._sinks)
        listener = asyncio.ensure_future(viewer.listen(socket))
        try:
            while not (self._over or socket.closed or listener.done()):
                viewer.follow()
                fresh = viewer.fresh()
                if not fresh:
                    await self._next()
                for name, jpeg in fresh:
                    head = bytes([len(name.encode())]) + name.encode()
                    await asyncio.wait_for(socket.send_bytes(head + jpeg), 10)
        except (OSError, TimeoutError):
            pass
        finally:
            self._watchers -= 1
            viewer.leave()
            listener.cancel()
            with contextlib.suppress(Exception):
                await socket.close()
        return socket

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        sink = self._sinks.get(request.match_info["name"])
        if sink is None:
            raise web.HTTPNotFound(text="there is no such camera\n")
        if sum(other.viewers for other in self._sinks.values()) >= VIEWERS:
            raise web.HTTPServiceUnavailable(text="too many viewers\n")
        response = web.StreamResponse(headers={"Cache-Control": "no-store"})
        response.content_type = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        await response.prepare(request)
        sink.viewers += 1
        try:
            last = sink.number
            while not (self._over or sink.gone):
                if sink.number == last:
                    await self._next()
                    continue
                last = sink.number
                jpeg = sink.jpeg
                if not jpeg:  # it was for others
                    continue
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                await asyncio.wait_for(response.write(head.encode() + jpeg + b"\r\n"), 10)
        except (OSError, TimeoutError):
            pass
        finally:
            sink.viewers -= 1
        return response

    async def _next(self) -> None:
        """Wait until one of the cameras has a new frame, at most a second."""
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), 1)
