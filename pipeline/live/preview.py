"""The page: what leaves, as it leaves, with each camera's state and figures; /metrics and /healthz. Extra `web`.

One thread runs the event loop with all requests. Pictures are compressed only while somebody looks, and who is slow
gets fewer of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import re
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from av.video.reformatter import VideoReformatter
from facestream.engines.boxes import Array
from facestream.pipeline.connection import State
from facestream.pipeline.errors import BadConfig, BadInput, UserError
from facestream.pipeline.live.metrics import CameraMetrics, metrics
from facestream.pipeline.live.screen import draw_boxes, encode, scaled_bgr
from facestream.pipeline.live.tuning import Tuner
from facestream.pipeline.live.webcam_session import WebcamSessions
from facestream.pipeline.live.webcam_socket import serve
from facestream.pipeline.live.webrtc import WebRtcSessions
from facestream.pipeline.types import CoveredFrame
from facestream.pipeline.url import redact

try:
    import prometheus_client  # noqa: F401  metrics.py needs it
    from aiohttp import web
except ImportError:  # the extra is not installed; check_web() says so
    web = None  # type: ignore[assignment]

WIDTH = 960  # pixels at most
VIEWERS = 32  # at a time; each is an open connection
HTML = Path(__file__).with_name("preview.html")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
BOUNDARY = "facestream-picture"


def check_web() -> None:
    """Raise BadConfig where the page's libraries are missing."""
    if web is None:
        raise BadConfig("the page needs more libraries", "http://", "pip install 'facestream[web]'")


class PreviewSink:
    """The newest covered picture of one camera, as JPEG or for WebRTC, for whoever looks."""

    upright = True

    def __init__(self, name: str, tuner: Tuner) -> None:
        self.name, self._tuner = name, tuner
        self.viewers = self.callers = 0
        self.jpeg = b""
        self.bgr: Array | None = None
        self.number = 0
        self.woken: Callable[[], None] = lambda: None
        self._scaler = VideoReformatter()  # of the sink's thread

    def wants(self, size: tuple[int, int]) -> bool:
        return bool(self.viewers or self.callers)

    def write(self, covered: CoveredFrame) -> None:
        viewers, callers = self.viewers, self.callers
        if not viewers and not callers:
            return
        bgr = scaled_bgr(covered, WIDTH, scaler=self._scaler)
        bgr = draw_boxes(bgr, covered) if self._tuner.boxes else bgr
        self.jpeg, self.bgr = encode(bgr) if viewers else b"", bgr if callers else None
        self.number += 1
        self.woken()

    def close(self) -> None:
        """Nothing is kept."""

    def abort(self) -> None:
        """Nothing is kept."""


def _no_camera(name: str, settings_patch: dict[str, Any]) -> None:
    raise KeyError(name)


class Page:
    """Serves on host:port. token: what a request must hold, as ?token= or as a bearer; "" only on loopback.

    tune: changes a camera's settings; raises KeyError for one that is not there, BadConfig for what may not be.
    sessions: None where no browser may show its camera. tls: serve https.
    """

    def __init__(
        self, host: str, port: int, token: str, camera_metrics: Callable[[], Iterable[CameraMetrics]],
        tune: Callable[[str, dict[str, Any]], None] = _no_camera, sessions: WebcamSessions | None = None,
        tls: ssl.SSLContext | None = None, webrtc: bool = False,
    ) -> None:  # fmt: skip
        """Raises BadInput for an address that others reach without a token."""
        check_web()
        self.host, self.port = host, port
        self._token, self._camera_metrics, self._tune = token, camera_metrics, tune
        self._sessions = sessions if sessions is not None and sessions.limit else None
        self._tls = tls
        self._calls = WebRtcSessions(self._next) if webrtc else None
        self._sinks: dict[str, PreviewSink] = {}
        if not token and host not in LOOPBACK:
            raise BadInput("others can reach it, so it needs a token", self.where, "http://TOKEN@host:port")
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="web page", daemon=True)

    @property
    def where(self) -> str:
        return f"http{'s' * bool(self._tls)}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def sink(self, name: str, tuner: Tuner) -> PreviewSink:
        """A place on the page for a camera."""
        sink = PreviewSink(name, tuner)
        sink.woken = self._wake
        self._sinks[name] = sink
        return sink

    def start(self) -> None:
        """Raises BadInput where the address cannot be had."""
        self._thread.start()
        self._ready.wait(10)
        if self._error is not None:
            raise BadInput(f"cannot listen there ({self._error.strerror})", self.where, "choose another port")

    def stop(self) -> None:
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._news.set)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._news = asyncio.Event()
        self._over = False
        runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
        try:
            self._loop.run_until_complete(self._open(runner))
        except OSError as error:
            self._error = error
            self._ready.set()
        else:
            self._ready.set()
            self._loop.run_forever()
        self._over = True
        self._news.set()
        if self._calls is not None:
            self._loop.run_until_complete(self._calls.close())
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _open(self, runner: web.AppRunner) -> None:
        await runner.setup()
        site = web.TCPSite(runner, self.host, self.port, ssl_context=self._tls)
        await site.start()
        self.port = runner.addresses[0][1]

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._guarded], client_max_size=32768)
        app.router.add_get("/", self._page)
        app.router.add_get("/status", self._status)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/camera/{name}.mjpg", self._stream)
        app.router.add_post("/camera/{name}/settings", self._settings)
        app.router.add_post("/camera/{name}/call", self._call)
        app.router.add_get("/webcam", self._webcam)
        return app

    @property
    def _guarded(self) -> Any:
        @web.middleware
        async def guarded(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            given = request.query.get("token", "") or request.headers.get("Authorization", "").removeprefix("Bearer ")
            if self._token and not hmac.compare_digest(given.encode(), self._token.encode()):
                raise web.HTTPUnauthorized(text="the token is missing or wrong: ?token=...\n")
            # Without a token nobody but this machine's own pages may ask: a name that a stranger's server points
            # at 127.0.0.1 is not one of ours.
            if not self._token and (request.url.host or "") not in LOOPBACK:
                raise web.HTTPForbidden(text="not by this name\n")
            # Browsers let any page send to any address, but they say where it came from.
            origin = request.headers.get("Origin", "")
            if origin and urlsplit(origin).netloc != request.host:
                raise web.HTTPForbidden(text="not from another page\n")
            return await handler(request)

        return guarded

    async def _page(self, request: web.Request) -> web.Response:
        host = re.sub(r"[^A-Za-z0-9.:\[\]-]", "", request.host)
        headers = {
            "Content-Security-Policy": f"default-src 'self' 'unsafe-inline'; connect-src 'self' ws://{host} wss://{host};"
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
        """Change some of a camera's settings: one JSON object. 400 with words for what may not be."""
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
        """WebRTC: an offer's SDP in, the answer's out."""
        sink = self._sinks.get(request.match_info["name"])
        if sink is None or self._calls is None:
            raise web.HTTPNotFound(text="there is no such camera, or no WebRTC (live.webrtc)\n")
        if self._calls.full:
            raise web.HTTPServiceUnavailable(text="too many look already\n")
        try:
            answer = await self._calls.answer(sink, await request.text())
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from None
        return web.Response(text=answer, content_type="application/sdp")

    async def _webcam(self, request: web.Request) -> web.StreamResponse:
        if self._sessions is None:
            raise web.HTTPNotFound(text="browsers' own cameras are switched off (live.webcam_sessions)\n")
        return await serve(request, self._sessions)

    async def _health(self, request: web.Request) -> web.Response:
        """200 when every camera delivers, else 503; which one does not stands in the body."""
        ill = {f.name: str(f.state) for f in self._camera_metrics() if f.state not in (State.LIVE, State.ENDED)}
        return web.Response(text=json.dumps({"ok": not ill, "not_live": ill}) + "\n", status=503 if ill else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        body = metrics(list(self._camera_metrics()), self._sessions)
        return web.Response(body=body, content_type="text/plain", charset="utf-8")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        sink = self._sinks.get(request.match_info["name"])
        if sink is None:
            raise web.HTTPNotFound(text="there is no such camera\n")
        if sum(other.viewers for other in self._sinks.values()) >= VIEWERS:
            raise web.HTTPServiceUnavailable(text="too many look already\n")
        response = web.StreamResponse(headers={"Cache-Control": "no-store"})
        response.content_type = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        await response.prepare(request)
        sink.viewers += 1
        try:
            last = sink.number
            while not self._over:
                if sink.number == last:
                    await self._next()
                    continue
                last, jpeg = sink.number, sink.jpeg
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
        """Until one of the cameras has a new picture, or a little while."""
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), 1)
