"""One client connection to the RTSP server: answers its requests, and sends media while it plays."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facestream.pipeline.rtsp.auth import Gate
from facestream.pipeline.rtsp.message import (
    HEAD_LIMIT,
    Malformed,
    Message,
    pair_of,
    parse_head,
    path_of,
    response,
    transport_of,
)
from facestream.pipeline.rtsp.rtp import Unit

if TYPE_CHECKING:
    from facestream.pipeline.rtsp.server import Mount, RtspServer

METHODS = "OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, TEARDOWN, GET_PARAMETER, SET_PARAMETER"
_TRACK = re.compile(r"/track([01])$")
GUESSES = 5  # wrong passwords on one connection


@dataclass(frozen=True, slots=True)
class Limits:
    """connections at a time; strangers: of these, who has not yet proved a password (or set up a stream, where none is
    needed): of more than that, the oldest goes. buffer: bytes that wait for a player over TCP before pictures are
    dropped for it.

    Seconds: login_s for a stranger to prove itself; idle_s without a request before it plays; stall_s without taking
    anything of what waits for it; session_s without a sign of life over UDP; describe_s for which one waits for a first
    picture.
    """

    connections: int = 64
    strangers: int = 16
    buffer: int = 1 << 20
    idle_s: float = 15.0
    login_s: float = 10.0
    stall_s: float = 10.0
    session_s: float = 60.0
    describe_s: float = 3.0


@dataclass(frozen=True, slots=True)
class Route:
    """Where to send: numbers of interleaved channels, or the player's UDP ports."""

    rtp: int
    rtcp: int
    udp: bool


class Player:
    """Handles requests until the connection ends. Runs on the server's event loop."""

    def __init__(self, server: RtspServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.limits = server.limits
        self._reader = reader
        self._writer = writer
        self._transport = writer.transport
        peer = writer.get_extra_info("peername") or ("", 0)
        self._host: str = peer[0]
        self._gate = Gate()
        self._session = ""
        self._mount: Mount | None = None
        self._routes: dict[int, Route] = {}  # of each track that it set up
        self._playing = False
        self._waits = True  # for a keyframe
        self._sign_s = self._moved_s = time.monotonic()
        self._held = 0  # bytes that waited when it was last looked at
        self.dropped = 0
        self.since_s = time.monotonic()
        self.is_stranger = True

    async def serve(self) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            try:
                while (message := await self._next()) is not None:
                    await self._answer(message)
            except Malformed as error:
                self._reply(error.code, {})
            except asyncio.LimitOverrunError:
                self._reply(413, {})
            except ValueError as error:  # input that no check of ours foresaw: one line, and its connection ends
                self.server.on_event(f"a request from {self._host} cannot be read ({type(error).__name__})")
                self._reply(400, {})

    def refuse(self) -> None:
        """Reject the connection: too many clients."""
        self._reply(503, {"Retry-After": "10"})
        self._writer.close()

    def leave(self) -> None:
        self._playing = False
        if self._mount is not None:
            self._mount.players.discard(self)
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # a client that is gone would keep the connection open for ever
        else:
            self._writer.close()

    def abort(self) -> None:
        self._transport.abort()

    def check(self) -> None:
        """Disconnect a client that has stopped reading (TCP) or sending keep-alives (UDP)."""
        now = time.monotonic()
        if self.is_stranger and now - self.since_s > self.limits.login_s:
            self.abort()
            return
        self._note_progress(now)
        stalled = self._held > 0 and now - self._moved_s > self.limits.stall_s
        udp = any(route.udp for route in self._routes.values())
        lost = udp and now - self._sign_s > self.limits.session_s
        if stalled or lost:
            self.abort()

    def note_activity(self, host: str, port: int) -> None:
        for route in self._routes.values():
            if route.udp and host == self._host and port in (route.rtp, route.rtcp):
                self._sign_s = time.monotonic()

    def give(self, unit: Unit) -> None:
        """Send a frame if the client plays: from a keyframe on, and after a dropped frame from the next keyframe on."""
        mount = self._mount
        route = self._routes.get(unit.track)
        if not self._playing or mount is None or route is None:
            return
        pictures = 0 in self._routes  # one may also listen only
        if self._waits and pictures and not unit.key:
            return
        if not route.udp:
            self._note_progress(time.monotonic())
            if self._held + unit.size > self.limits.buffer:
                self._drop(mount, unit)
                return
        if not (self._send_udp(unit, route) if route.udp else self._send_tcp(unit)):
            self._drop(mount, unit)
            return
        mount.octets += unit.size
        if unit.track == 0:
            self._waits = False
            mount.sent += 1

    def _drop(self, mount: Mount, unit: Unit) -> None:
        if unit.track:
            return  # a gap in the audio; the video continues
        self._waits = True
        self.dropped += 1
        mount.dropped += 1

    def _note_progress(self, now: float) -> None:
        size = self._transport.get_write_buffer_size()
        if size < self._held or not size:
            self._moved_s = now
        self._held = size

    def _send_tcp(self, unit: Unit) -> bool:
        """Send interleaved with the replies."""
        channels = {track: (route.rtp, route.rtcp) for track, route in self._routes.items()}
        self._transport.write(unit.interleaved(channels))
        return not self._transport.is_closing()

    def _send_udp(self, unit: Unit, route: Route) -> bool:
        pair = self.server.udp
        if pair is None:
            return False
        try:
            for track, report in unit.reports:
                if track in self._routes:
                    pair.rtcp.sendto(report, (self._host, self._routes[track].rtcp))
            for packet in unit.packets:
                pair.rtp.sendto(packet, (self._host, route.rtp))
        except OSError:  # buffer full, or the client is gone: the session times out
            return False
        return True

    async def _next(self) -> Message | None:
        """The next request; None at the end. RTCP that clients send on the same connection is ignored."""
        while True:
            patience = None if self._playing else self.limits.idle_s
            first = await asyncio.wait_for(self._reader.read(1), patience)
            if not first:
                return None
            self._sign_s = time.monotonic()
            async with asyncio.timeout(self.limits.idle_s):
                if first == b"$":
                    head = await self._reader.readexactly(3)
                    await self._reader.readexactly(int.from_bytes(head[1:], "big"))
                elif first not in b"\r\n":
                    text = first + await self._reader.readuntil(b"\r\n\r\n")
                    if len(text) > HEAD_LIMIT:
                        raise Malformed("the head is too long", 413)
                    message = parse_head(text[:-4])
                    await self._reader.readexactly(message.length)  # bodies of requests are ignored
                    return message

    async def _answer(self, message: Message) -> None:
        method, url, version = message.start
        headers = {"CSeq": message.headers.get("cseq", "0")}
        if version != "RTSP/1.0":
            self._reply(505, headers)
        elif method == "OPTIONS":
            self._reply(200, headers | {"Public": METHODS})
        elif method not in METHODS.split(", "):
            self._reply(405, headers | {"Allow": METHODS})
        else:
            await self._answer_about(message, method, url, headers)

    async def _answer_about(self, message: Message, method: str, url: str, headers: dict[str, str]) -> None:
        path = path_of(url)
        mount = self.server.mounts.get(path) or self.server.mounts.get(_TRACK.sub("", path))
        # Only authenticated clients learn whether a path exists; any stream's password is enough to ask.
        users = mount.users if mount is not None else self._all_users()
        proof = message.headers.get("authorization", "")
        if not self._gate.admits(users, method, proof):
            if proof:
                wait_s = self.server.logins.fail(self._host)
                if wait_s > self.limits.login_s:
                    raise ConnectionAbortedError
                await asyncio.sleep(wait_s)
            self._reply(401, headers | {"WWW-Authenticate": self._gate.challenge()})
            if self._gate.failures >= GUESSES:
                raise ConnectionAbortedError
            return
        if users:
            self.is_stranger = False
            self.server.logins.succeed(self._host)
        if mount is None:
            self._reply(404, headers)
        elif method == "DESCRIBE":
            await self._describe(mount, url, headers)
        elif method == "SETUP":
            named = None if path in self.server.mounts else _TRACK.search(path)
            self._set_up(mount, int(named[1]) if named else 0, message, headers)
        elif not self._session or message.session not in ("", self._session) or mount is not self._mount:
            # A keep-alive outside a session is answered like OPTIONS.
            self._reply(200 if method.endswith("_PARAMETER") and not message.session else 454, headers)
        else:
            self._act(mount, method, headers | {"Session": self._session})

    def _all_users(self) -> dict[str, str]:
        return {user: word for mount in self.server.mounts.values() for user, word in mount.users.items()}

    async def _describe(self, mount: Mount, url: str, headers: dict[str, str]) -> None:
        """Reply with the stream's SDP, which needs the first keyframe."""
        end = time.monotonic() + self.limits.describe_s
        while not mount.described.is_set():
            if time.monotonic() > end:
                self._reply(503, headers | {"Retry-After": "5"})
                return
            await asyncio.sleep(0.02)
        host = (self._writer.get_extra_info("sockname") or ("0.0.0.0", 0))[0]
        body = mount.packetizer.sdp(mount.path or "facestream", host).encode()
        base = url.rstrip("/") + "/"
        self._reply(200, headers | {"Content-Type": "application/sdp", "Content-Base": base}, body)

    def _set_up(self, mount: Mount, track: int, message: Message, headers: dict[str, str]) -> None:
        if self._playing or (self._mount is not None and self._mount is not mount):
            self._reply(455, headers)
            return
        if track and mount.packetizer.audio is None:
            self._reply(404, headers)
            return
        for offer in transport_of(message.headers.get("transport", "")):
            found = self._route_for(offer, mount, track)
            if found is not None:
                self._routes[track], transport = found
                self._mount, self._session = mount, self._session or secrets.token_hex(8)
                self.is_stranger = False
                session = f"{self._session};timeout={self.limits.session_s:.0f}"
                self._reply(200, headers | {"Transport": transport, "Session": session})
                return
        self._reply(461, headers)

    def _route_for(self, offer: dict[str, str], mount: Mount, track: int) -> tuple[Route, str] | None:
        """The transport for an offer, None if unsupported. UDP goes to the client's own address only, whatever it asks
        for: the server cannot be used to flood others."""
        if offer.get("mode", "play").lower() != "play" or "multicast" in offer:
            return None
        audio = mount.packetizer.audio
        ssrc = f"ssrc={audio.ssrc if track and audio is not None else mount.packetizer.ssrc:08X}"
        if offer[""] == "RTP/AVP/TCP":
            channels = pair_of(offer.get("interleaved", f"{2 * track}-{2 * track + 1}"))
            if channels is None or channels[1] > 255:
                return None
            transport = f"RTP/AVP/TCP;unicast;interleaved={channels[0]}-{channels[1]}"
            return Route(*channels, udp=False), f"{transport};{ssrc}"
        ports = pair_of(offer.get("client_port", ""))
        pair = self.server.udp
        if offer[""] not in ("RTP/AVP", "RTP/AVP/UDP") or ports is None or pair is None or ports[0] < 1024:
            return None
        transport = f"RTP/AVP;unicast;client_port={ports[0]}-{ports[1]};server_port={pair.ports[0]}-{pair.ports[1]}"
        return Route(*ports, udp=True), f"{transport};{ssrc}"

    def _act(self, mount: Mount, method: str, headers: dict[str, str]) -> None:
        if method == "PLAY":
            headers |= {"Range": "npt=now-"}
        self._reply(200, headers)
        if method == "PLAY" and not self._playing:
            self._playing = self._waits = True
            mount.players.add(self)
            mount.request_keyframe()
        elif method == "PAUSE":
            self._playing = False
            mount.players.discard(self)
        elif method == "TEARDOWN":
            raise ConnectionAbortedError

    def _reply(self, code: int, headers: dict[str, str], body: bytes = b"") -> None:
        with contextlib.suppress(OSError):
            self._transport.write(response(code, {**headers, "Server": "facestream"}, body))
