"""An RTSP server of our own: each stream under a path, to several players, none of which can hold up another.

One thread runs an event loop with all connections. Encoders hand their pictures over from other threads and never wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from facestream.pipeline.errors import BadInput
from facestream.pipeline.rtsp.guessing import LoginGuard
from facestream.pipeline.rtsp.player import Limits, Player
from facestream.pipeline.rtsp.rtp import Packetizer, Unit

WAITING = 256  # pictures handed over that the loop has not looked at yet; more are dropped


@dataclass(frozen=True, slots=True)
class MountCounts:
    """Players now; pictures that went to players, and that were dropped for slow ones; bytes sent."""

    players: int
    sent: int
    dropped: int
    octets: int


class Mount:
    """One stream of the server. users: name -> password, empty for everybody."""

    def __init__(self, path: str, users: dict[str, str], packetizer: Packetizer) -> None:
        self.path = path
        self.users = users
        self.packetizer = packetizer
        self.players: set[Player] = set()  # of the loop's thread alone
        self.request_keyframe: Callable[[], None] = lambda: None  # is called when somebody begins to watch
        self.sent = self.dropped = self.octets = 0
        self.described = threading.Event()  # the first key picture has been packed

    @property
    def counts(self) -> MountCounts:
        return MountCounts(len(self.players), self.sent, self.dropped, self.octets)


class RtspServer:
    """Listens on one address. mount() the streams, start(), send() to mounts from any thread, stop()."""

    def __init__(
        self,
        host: str,
        port: int,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        on_event: Callable[[str], None] = lambda message: None,
    ) -> None:
        """on_event: called with a line about failed log-ins and requests that cannot be read."""
        self.host = host
        self.port = port
        self.limits = limits or Limits()
        self.tls = tls
        self.mounts: dict[str, Mount] = {}
        self.connections: set[Player] = set()
        self.refused = 0  # connections beyond the limit
        self.on_event = on_event
        self.logins = LoginGuard(on_event)
        self._loop = asyncio.SelectorEventLoop()  # Windows' own has no add_reader
        self._over = asyncio.Event()  # not the loop's stop(): between two runs of it that would be lost
        self._thread: threading.Thread | None = None
        self._waiting = 0
        self.udp: UdpPair | None = None

    def mount(self, path: str, users: dict[str, str] | None = None, packetizer: Packetizer | None = None) -> Mount:
        """A place for a stream, whose units come from the packetizer. Raises BadInput where there is one already."""
        if path in self.mounts:
            raise BadInput("two streams want the same path", f"{self.where}/{path}", "put {name} into the sink's path")
        self.mounts[path] = Mount(path, users or {}, packetizer or Packetizer())
        return self.mounts[path]

    def unmount(self, mount: Mount) -> None:
        """Take a stream away; who watches it is cut off."""
        self.mounts.pop(mount.path, None)

        def end() -> None:
            for player in tuple(mount.players):
                player.abort()

        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(end)

    @property
    def thread(self) -> threading.Thread | None:
        return self._thread

    @property
    def where(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rtsps' if self.tls else 'rtsp'}://{host}:{self.port}"

    def start(self) -> None:
        """Listen. Port 0 takes a free one. Raises BadInput where the address cannot be had."""
        try:
            listener = _listen(self.host, self.port)
        except OSError as error:
            do = "choose another port" if error.errno == 98 else "check the address"
            raise BadInput(f"cannot listen there ({error.strerror})", self.where, do) from None
        self.port = listener.getsockname()[1]
        if self.tls is None:  # what UDP carries cannot be kept secret
            with contextlib.suppress(OSError):
                self.udp = UdpPair(self.host)
        self._thread = threading.Thread(target=self._run, args=(listener,), name="rtsp server", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close every connection and end the thread."""
        if self._thread is None or not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(5)

    def send(self, mount: Mount, unit: Unit) -> None:
        """Give a picture to all who watch. Never waits."""
        if unit.key:
            mount.described.set()
        if self._waiting >= WAITING:
            mount.dropped += 1
            return
        self._waiting += 1
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._fan_out, mount, unit)

    def _fan_out(self, mount: Mount, unit: Unit) -> None:
        self._waiting -= 1
        for player in tuple(mount.players):
            player.give(unit)

    def _run(self, listener: socket.socket) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._until_over(listener))
        finally:
            self._loop.run_until_complete(self._close())
            self._loop.close()

    async def _until_over(self, listener: socket.socket) -> None:
        await self._open(listener)
        await self._over.wait()

    async def _open(self, listener: socket.socket) -> None:
        handshake = self.limits.idle_s if self.tls else None
        self._server = await asyncio.start_server(
            self._serve, sock=listener, ssl=self.tls, ssl_handshake_timeout=handshake, limit=16384, backlog=64
        )
        if self.udp is not None:
            self._loop.add_reader(self.udp.rtcp, self._on_status, self.udp.rtcp)
            self._loop.add_reader(self.udp.rtp, self._on_status, self.udp.rtp)
        self._keeper = self._loop.create_task(self._keep())

    async def _close(self) -> None:
        self._keeper.cancel()
        self._server.close()
        if self.udp is not None:
            for end in (self.udp.rtcp, self.udp.rtp):
                self._loop.remove_reader(end)
                end.close()
        for player in tuple(self.connections):
            player.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:  # they end by themselves, now that their connections have
            await asyncio.wait(tasks, timeout=2)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        player = Player(self, reader, writer)
        strangers = [other for other in self.connections if other.is_stranger]
        if len(strangers) >= self.limits.strangers:
            oldest = min(strangers, key=lambda other: other.since_s)
            oldest.abort()
            self.connections.discard(oldest)
            self.refused += 1
        if len(self.connections) >= self.limits.connections:
            self.refused += 1
            player.refuse()
            return
        self.connections.add(player)
        try:
            await player.serve()
        finally:
            self.connections.discard(player)
            player.leave()

    async def _keep(self) -> None:
        """Now and then: who does not take what is sent, or gives no sign of life, goes."""
        while True:
            await asyncio.sleep(min(1.0, self.limits.stall_s / 4))
            for player in tuple(self.connections):
                player.check()

    def _on_status(self, end: socket.socket) -> None:
        """Receiver reports over UDP are signs of life."""
        with contextlib.suppress(OSError):
            _, address = end.recvfrom(2048)
            for player in self.connections:
                player.note_activity(address[0], address[1])


class UdpPair:
    """Two UDP sockets on neighbouring ports, the lower one even (RFC 3550 section 11), shared by all players."""

    def __init__(self, host: str) -> None:
        self.rtp, self.rtcp = next(_pairs(host))
        self.ports = self.rtp.getsockname()[1], self.rtcp.getsockname()[1]


def _pairs(host: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    family = _address(host, 0)[0]
    for _ in range(50):
        low = socket.socket(family, socket.SOCK_DGRAM)
        high = socket.socket(family, socket.SOCK_DGRAM)
        try:
            low.bind(_address(host, 0)[1])
            port = low.getsockname()[1]
            if port % 2 == 0:
                high.bind(_address(host, port + 1)[1])
                for end in (low, high):
                    end.setblocking(False)
                low.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                yield low, high
                return
        except OSError:
            pass
        low.close()
        high.close()
    raise OSError("no pair of ports is free")


def _address(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)[0]
    return family, (str(address[0]), int(address[1]))


def _listen(host: str, port: int) -> socket.socket:
    family, address = _address(host, port)
    listener = socket.create_server(address, family=family, backlog=64)
    # Else the kernel keeps megabytes for a slow player, which is seconds of delay that nobody can drop.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
    return listener
