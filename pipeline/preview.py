"""The page: what leaves, as it leaves, with each camera's state and figures; /metrics and /healthz. Extra `web`.

One thread runs the event loop with all requests. Pictures are compressed only while somebody looks, and who is slow
gets fewer of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from pipeline.camera import State
from pipeline.errors import BadConfig, BadInput
from pipeline.livevideo import flat
from pipeline.types import CoveredFrame

try:
    from aiohttp import web
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
except ImportError:  # the extra is not installed; check_web() says so
    web = None  # type: ignore[assignment]

WIDTH = 960  # pixels at most
QUALITY = 80
VIEWERS = 32  # at a time; each is an open connection
HTML = Path(__file__).with_name("preview.html")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
BOUNDARY = "facestream-picture"


def check_web() -> None:
    """Raise BadConfig where the page's libraries are missing."""
    if web is None:
        raise BadConfig("the page needs more libraries", "http://", "pip install 'facestream[web]'")


@dataclass(frozen=True, slots=True)
class Figure:
    """A camera's figures for the page and /metrics. counts: name -> total so far; gauges: name -> value now."""

    name: str
    state: State
    message: str
    counts: dict[str, int]
    gauges: dict[str, float]


class PreviewOutlet:
    """The newest covered picture of one camera, as JPEG, for whoever looks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.viewers = 0
        self.jpeg = b""
        self.number = 0
        self.woken: Callable[[], None] = lambda: None

    def write(self, covered: CoveredFrame) -> None:
        if not self.viewers:
            return
        picture = flat(covered)
        width = min(WIDTH, picture.width)
        height = max(2, round(picture.height * width / picture.width))
        ok, data = cv2.imencode(
            ".jpg",
            picture.reformat(width=width, height=height, format="bgr24").to_ndarray(),
            [cv2.IMWRITE_JPEG_QUALITY, QUALITY],
        )
        if ok:
            self.jpeg, self.number = data.tobytes(), self.number + 1
            self.woken()

    def close(self) -> None:
        """Nothing is kept."""

    def abort(self) -> None:
        """Nothing is kept."""


class Page:
    """Serves on host:port. token: what a request must hold, as ?token= or as a bearer; "" only on loopback."""

    def __init__(self, host: str, port: int, token: str, figures: Callable[[], Iterable[Figure]]) -> None:
        """Raises BadInput for an address that others reach without a token."""
        check_web()
        self.host, self.port = host, port
        self._token, self._figures = token, figures
        self._outlets: dict[str, PreviewOutlet] = {}
        if not token and host not in LOOPBACK:
            raise BadInput("others can reach it, so it needs a token", self.where, "http://TOKEN@host:port")
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="web page", daemon=True)

    @property
    def where(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def show(self, outlet: PreviewOutlet) -> None:
        outlet.woken = self._wake
        self._outlets[outlet.name] = outlet

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
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _open(self, runner: web.AppRunner) -> None:
        await runner.setup()
        site = web.TCPSite(runner, self.host, self.port)
        await site.start()
        self.port = runner.addresses[0][1]

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._guarded], client_max_size=4096)
        app.router.add_get("/", self._page)
        app.router.add_get("/status", self._status)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/camera/{name}.mjpg", self._stream)
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
            return await handler(request)

        return guarded

    async def _page(self, request: web.Request) -> web.Response:
        headers = {"Content-Security-Policy": "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'"}
        return web.Response(text=HTML.read_text(encoding="utf-8"), content_type="text/html", headers=headers)

    async def _status(self, request: web.Request) -> web.Response:
        rows = [
            {"name": f.name, "state": f.state, "message": f.message, **f.counts, **f.gauges} for f in self._figures()
        ]
        return web.Response(text=json.dumps(rows), content_type="application/json")

    async def _health(self, request: web.Request) -> web.Response:
        """200 when every camera delivers, else 503; which one does not stands in the body."""
        ill = {f.name: str(f.state) for f in self._figures() if f.state not in (State.LIVE, State.ENDED)}
        return web.Response(text=json.dumps({"ok": not ill, "not_live": ill}) + "\n", status=503 if ill else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        registry = CollectorRegistry()
        registry.register(Collector(list(self._figures())))
        return web.Response(body=generate_latest(registry), content_type="text/plain", charset="utf-8")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        outlet = self._outlets.get(request.match_info["name"])
        if outlet is None:
            raise web.HTTPNotFound(text="there is no such camera\n")
        if sum(other.viewers for other in self._outlets.values()) >= VIEWERS:
            raise web.HTTPServiceUnavailable(text="too many look already\n")
        response = web.StreamResponse(headers={"Cache-Control": "no-store"})
        response.content_type = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        await response.prepare(request)
        outlet.viewers += 1
        try:
            last = outlet.number
            while not self._over:
                if outlet.number == last:
                    await self._next()
                    continue
                last, jpeg = outlet.number, outlet.jpeg
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                await asyncio.wait_for(response.write(head.encode() + jpeg + b"\r\n"), 10)
        except (OSError, TimeoutError):
            pass
        finally:
            outlet.viewers -= 1
        return response

    async def _next(self) -> None:
        """Until one of the cameras has a new picture, or a little while."""
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), 1)


class Collector:
    """Figures as Prometheus wants them."""

    def __init__(self, figures: list[Figure]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Any]:
        state = GaugeMetricFamily(
            "facestream_camera_state", "1 for the state that it is in", labels=["camera", "state"]
        )
        for figure in self._figures:
            for each in State:
                state.add_metric([figure.name, each], float(figure.state is each))
        yield state
        for name in sorted({name for figure in self._figures for name in figure.counts}):
            count = CounterMetricFamily(f"facestream_{name}", name.replace("_", " "), labels=["camera"])
            for figure in self._figures:
                count.add_metric([figure.name], figure.counts.get(name, 0))
            yield count
        for name in sorted({name for figure in self._figures for name in figure.gauges}):
            gauge = GaugeMetricFamily(f"facestream_{name}", name.replace("_", " "), labels=["camera"])
            for figure in self._figures:
                gauge.add_metric([figure.name], figure.gauges.get(name, 0.0))
            yield gauge
