"""Between FFmpeg and an RTSP camera, on this machine: proves who we are where FFmpeg cannot, and follows redirections.

FFmpeg's RTSP client knows Digest with MD5 alone, stumbles over two offers in the wrong order, and forgets the password
on the way to another server. It does everything else well: transports, loss, and a dozen kinds of payload, which is why
it is kept, and this relay put in front of it only for cameras that answer it with 401. Packets pass untouched.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from dataclasses import replace

from facestream.pipeline.errors import BadInput
from facestream.pipeline.rtsp.auth import answer
from facestream.pipeline.rtsp.message import HEAD_LIMIT, Malformed, Message, parse_head
from facestream.pipeline.url import Url, parse_url

CONNECT_S = 10.0
REDIRECTIONS = 5
_MOVED = (301, 302, 303, 305, 307)


class Upstream:
    """The connection to the camera. What comes from it is split into packets and messages."""

    def __init__(self, url: Url, tls_verify: bool, ca_file: str) -> None:
        """Raises OSError where it cannot be made."""
        self.url = url
        self.challenge = ""
        port = url.port or (322 if url.scheme == "rtsps" else 554)
        plain = socket.create_connection((url.host, port), CONNECT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if url.scheme == "rtsps":
            context = ssl.create_default_context(cafile=ca_file or None)
            if not tls_verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            plain = context.wrap_socket(plain, server_hostname=url.host)
        plain.settimeout(None)
        self.socket = plain
        self.units = Units()

    @property
    def base(self) -> str:
        return self.url.without_user

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class Units:
    """Bytes of an RTSP connection, split into interleaved packets (RFC 2326 section 10.12) and whole messages."""

    def __init__(self) -> None:
        self._bytes = b""

    def feed(self, data: bytes) -> list[tuple[Message | None, bytes]]:
        """Each complete unit: the message that it is, None for a packet, and its bytes. Raises Malformed."""
        self._bytes += data
        found: list[tuple[Message | None, bytes]] = []
        while self._bytes:
            if self._bytes[:1] == b"$":
                length = 4 + int.from_bytes(self._bytes[2:4], "big")
                if len(self._bytes) < max(4, length):
                    break
                found.append((None, self._take(length)))
                continue
            if self._bytes[:1] in b"\r\n":
                self._take(1)
                continue
            end = self._bytes.find(b"\r\n\r\n")
            if end < 0:
                if len(self._bytes) > HEAD_LIMIT:
                    raise Malformed("the head is too long", 413)
                break
            message = parse_head(self._bytes[:end])
            if len(self._bytes) < end + 4 + message.length:
                break
            found.append((message, self._take(end + 4 + message.length)))
        return found

    def _take(self, length: int) -> bytes:
        taken = self._bytes[:length]
        self._bytes = self._bytes[length:]
        return taken


class RtspRelay:
    """Listens on loopback for one client. start(), address for FFmpeg, close()."""

    def __init__(self, url: Url, tls_verify: bool = True, ca_file: str = "") -> None:
        self._url = url
        self._tls_verify = tls_verify
        self._ca_file = ca_file
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._over = False
        self._pending: tuple[Message, bytes] | None = None  # the request that waits for its answer
        self._tries = 0
        self._thread = threading.Thread(target=self._run, name="rtsp relay", daemon=True)

    @property
    def address(self) -> str:
        """What FFmpeg is to open."""
        return f"rtsp://127.0.0.1:{self._port}{self._url.rest}"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._over = True
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                end.close()
        self._thread.join(2.0)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while not self._over:
                client, _ = self._listener.accept()
                self._ends.append(client)
                with contextlib.suppress(OSError, ValueError, Malformed, BadInput):
                    self._serve(client)
                with contextlib.suppress(OSError):
                    client.close()

    def _serve(self, client: socket.socket) -> None:
        upstream = self._open(self._url)
        requests = Units()
        try:
            while not self._over:
                buffered = isinstance(upstream.socket, ssl.SSLSocket) and upstream.socket.pending() > 0
                ready = [upstream.socket] if buffered else select.select([client, upstream.socket], [], [], 1.0)[0]
                if client in ready:
                    data = client.recv(65536)
                    if not data:
                        return
                    for message, unit in requests.feed(data):
                        if message is None:
                            upstream.socket.sendall(unit)
                        else:
                            self._pending = message, unit
                            self._tries = 0
                            self._request(upstream)
                if upstream.socket in ready:
                    data = upstream.socket.recv(65536)
                    if not data:
                        return
                    for message, unit in upstream.units.feed(data):
                        upstream = self._pass(upstream, client, message, unit)
        finally:
            upstream.close()

    def _open(self, url: Url) -> Upstream:
        upstream = Upstream(url, self._tls_verify, self._ca_file)
        self._ends.append(upstream.socket)
        return upstream

    def _pass(self, upstream: Upstream, client: socket.socket, message: Message | None, unit: bytes) -> Upstream:
        """What came from the camera, on to the client; or the answer to it, where it is a challenge or a redirection.
        The connection to go on with."""
        is_answer = message is not None and self._pending is not None and message.start[0].startswith("RTSP/")
        if message is None or not is_answer or self._tries > REDIRECTIONS:
            client.sendall(unit)
            return upstream
        if message.code == 401 and self._url.user:
            challenge = message.headers.get("www-authenticate", "")
            # A second refusal of the same proof is one of the password; a stale nonce is not.
            if not upstream.challenge or "stale=true" in challenge.lower().replace('"', ""):
                upstream.challenge = challenge
                self._tries += 1
                if message.headers.get("connection", "").lower() == "close":
                    upstream = self._again(upstream, upstream.url)
                self._request(upstream)
                return upstream
        elif message.code in _MOVED and "location" in message.headers:
            target = parse_url(message.headers["location"])
            if not target.user:
                target = replace(target, user=self._url.user, password=self._url.password)
            self._tries += 1
            upstream = self._again(upstream, target)
            upstream.challenge = ""
            self._request(upstream)
            return upstream
        self._pending = None
        client.sendall(unit)
        return upstream

    def _again(self, upstream: Upstream, url: Url) -> Upstream:
        upstream.close()
        new = self._open(url)
        new.challenge = upstream.challenge
        return new

    def _request(self, upstream: Upstream) -> None:
        """Send the pending request with the camera's own address and the proof of the password."""
        assert self._pending is not None
        message, unit = self._pending
        head, _, body = unit.partition(b"\r\n\r\n")
        method, url, _ = message.start
        own = self.address
        if url.startswith(own.rstrip("/")):
            url = upstream.base.rstrip("/") + url[len(own.rstrip("/")) :]
        elif url.startswith(f"rtsp://127.0.0.1:{self._port}"):
            url = upstream.base
        lines = head.decode().split("\r\n")[1:]
        kept = [line for line in lines if not line.lower().startswith("authorization:")]
        if upstream.challenge:
            proof = answer(upstream.challenge, upstream.url.user, upstream.url.password, method, url)
            if proof is not None:
                kept.append(f"Authorization: {proof}")
        text = "\r\n".join([f"{method} {url} RTSP/1.0", *kept, "", ""])
        try:
            upstream.socket.sendall(text.encode() + body)
        except OSError:
            if self._tries > REDIRECTIONS:
                raise
            self._tries += 1  # it closed the connection after the challenge
            fresh = self._open(upstream.url)
            upstream.socket.close()
            upstream.socket = fresh.socket
            upstream.units = fresh.units
            upstream.socket.sendall(text.encode() + body)
