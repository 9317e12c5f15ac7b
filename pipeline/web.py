"""What the live page and the review page have in common: a server on a thread of its own, and the guard at its door.

Extra `web`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ssl
import threading
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from facestream.pipeline.errors import BadConfig, BadInput, UserError
from facestream.pipeline.rtsp.guessing import LoginGuard

try:
    import prometheus_client  # noqa: F401  of the live page; one extra has both
    from aiohttp import web as web
except ImportError:  # the extra is not installed; check_web() says so
    web = None  # type: ignore[assignment]

LOOPBACK = ("127.0.0.1", "::1", "localhost")
STRANGERS = 64  # connections at a time that have not yet shown that they may ask; of more, the oldest goes
LOGIN_S = 10.0  # for which such a connection stays open


def check_web(what: str) -> None:
    """Raise BadConfig where the page's library is missing."""
    if web is None:
        raise BadConfig("the page needs more libraries", what, "pip install 'facestream[web]'")


class RequestGuard:
    """Decides which requests are answered.

    token: what a request must hold, as ?token= or as a bearer; "" where it need not. loopback_only: refuse other host
    names than this machine's, of which a stranger's may resolve to 127.0.0.1 (DNS rebinding). strict: refuse another
    port or scheme too, and whatever comes from a page elsewhere, be it a link or an embedded picture. hint: what to do
    without the token. logins: slows down who guesses it; None for a token that cannot be guessed.
    """

    def __init__(
        self, token: str, loopback_only: bool, strict: bool, hint: str, logins: LoginGuard | None = None
    ) -> None:
        self._token = token
        self._loopback_only = loopback_only
        self._strict = strict
        self._hint = hint
        self._logins = logins

    async def check(self, request: web.Request) -> None:
        """Raises HTTPForbidden and HTTPUnauthorized. Wrong tokens are answered more and more slowly."""
        named = urlsplit(f"//{request.host}")
        port = request.transport.get_extra_info("sockname")[1] if request.transport is not None else 0
        is_ours = (named.hostname or "") in LOOPBACK and (named.port == port or not self._strict)
        if self._loopback_only and not is_ours:
            raise web.HTTPForbidden(text="not by this name\n")
        # Browsers let any page send requests to any address, but state the page's origin.
        origin = urlsplit(request.headers.get("Origin", ""))
        is_foreign = "Origin" in request.headers and origin.netloc != request.host
        if self._strict:
            is_foreign |= origin.scheme not in ("", request.scheme)
            is_foreign |= request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        if is_foreign:
            raise web.HTTPForbidden(text="not from another page\n")
        given = request.query.get("token", "") or request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not self._token or hmac.compare_digest(given.encode(errors="replace"), self._token.encode()):
            return
        wait_s = self._logins.fail(request.remote or "") if given and self._logins is not None else 0.0
        if wait_s > LOGIN_S:
            raise web.HTTPTooManyRequests(text="too many wrong tokens\n", headers={"Retry-After": "60"})
        await asyncio.sleep(wait_s)
        raise web.HTTPUnauthorized(text=f"{self._hint}\n")


class WebServer:
    """An aiohttp application behind a guard, on a thread with its own event loop. where: its address, for messages."""

    body = 32768  # bytes of a request at most
    cancels = False  # whether a request's work is given up when its client goes

    def __init__(self, name: str, host: str, port: int, guard: RequestGuard, tls: ssl.SSLContext | None = None) -> None:
        self.host = host
        self.port = port
        self._guard = guard
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._error: OSError | None = None
        self._strangers: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def thread(self) -> threading.Thread:
        return self._thread

    @property
    def where(self) -> str:
        return f"http{'s' * bool(self._tls)}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Say what is answered where."""
        raise NotImplementedError

    async def begin(self) -> None:
        """Called on the server's thread before the first request."""

    async def end(self) -> None:
        """Called on the server's thread after the last request was taken."""

    def start(self) -> None:
        """Start serving. Raises BadInput if the address is not available."""
        self._thread.start()
        self._ready.wait(10)
        if self._error is not None:
            raise BadInput(f"cannot listen there ({self._error.strerror})", self.where, "choose another port")

    def stop(self, timeout_s: float = 5.0) -> None:
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout_s)

    def call(self, do: Callable[[], None]) -> None:
        """Do something on the server's thread, soon."""
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(do)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application(middlewares=[self._guarded], client_max_size=self.body)
        self.add_routes(app.router)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handler_cancellation=self.cancels)
        try:
            listener = self._loop.run_until_complete(self._listen(runner))
        except OSError as error:
            self._error = error
            self._ready.set()
        else:
            self._ready.set()
            self._loop.run_forever()
            listener.close()
        self._loop.run_until_complete(self.end())
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _listen(self, runner: web.AppRunner) -> asyncio.Server:
        await self.begin()
        await runner.setup()
        server = runner.server
        assert server is not None

        def meet() -> asyncio.BaseProtocol:
            stranger = server()
            self._strangers[stranger] = self._loop.call_later(LOGIN_S, self._turn_away, stranger)
            if len(self._strangers) > STRANGERS:
                self._turn_away(next(iter(self._strangers)))
            return stranger

        handshake_s = LOGIN_S if self._tls else None
        listener = await self._loop.create_server(
            meet, self.host, self.port, ssl=self._tls, ssl_handshake_timeout=handshake_s, backlog=128
        )
        self.port = listener.sockets[0].getsockname()[1]
        return listener

    def _turn_away(self, stranger: asyncio.BaseProtocol, again: bool = True) -> None:
        self._let_in(stranger)
        transport = getattr(stranger, "transport", None)
        if transport is not None:
            transport.abort()
        elif again:  # its connection is only being made, or is gone
            self._loop.call_later(1.0, self._turn_away, stranger, False)

    def _let_in(self, connection: asyncio.BaseProtocol | None) -> None:
        if connection is not None and (timer := self._strangers.pop(connection, None)) is not None:
            timer.cancel()

    @property
    def _guarded(self) -> Any:
        @web.middleware
        async def guarded(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            try:
                await self._guard.check(request)
                self._let_in(request.protocol)
                response = await handler(request)
            except UserError as error:
                raise web.HTTPBadRequest(text=f"{error}\n") from None
            except (ValueError, RecursionError):
                raise web.HTTPBadRequest(text="that is not what is expected here\n") from None
            if not response.prepared:
                response.headers.setdefault("Cache-Control", "no-store")
                response.headers.setdefault("X-Content-Type-Options", "nosniff")
            return response

        return guarded
