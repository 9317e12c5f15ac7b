"""One session with an RTSP server that takes streams: ANNOUNCE, SETUP, RECORD (RFC 2326), then pictures.

The sockets are ours and have time-outs: FFmpeg's own RTSP output waits for a stalled server without end.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass

from facestream.pipeline.errors import BadInput, Refused, SinkLost, UserError
from facestream.pipeline.rtsp.auth import answer
from facestream.pipeline.rtsp.message import HEAD_LIMIT, Malformed, Message, parse_head, request
from facestream.pipeline.rtsp.rtp import Unit
from facestream.pipeline.url import parse_url, redact, shown_text


@dataclass(frozen=True, slots=True)
class PushOptions:
    """Seconds, bytes. timeout_s: for connecting, each answer, and each picture on its way out.

    buffer: bytes that wait before pictures are dropped. tls_verify, ca_file: as for sources.
    """

    timeout_s: float = 5.0
    refused_wait_s: float = 30.0
    max_backoff_s: float = 10.0
    buffer: int = 1 << 20
    tls_verify: bool = True
    ca_file: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """An rtsp:// or rtsps:// address to serve at or to send to. url: without user and password, as servers want it."""

    url: str
    host: str
    port: int
    user: str
    password: str
    tls: bool
    redacted: str

    def __repr__(self) -> str:
        return f"Target({self.redacted!r})"


def target_of(text: str) -> Target:
    """Raises BadInput for what is no RTSP address. The password may hold any character, an @ and a / too."""
    try:
        url = parse_url(text)
    except BadInput as error:
        if error.what.startswith("not an address"):
            raise BadInput("not an RTSP address", shown_text(text), "rtsp://[user:password@]host[:port]/path") from None
        raise
    if url.scheme not in ("rtsp", "rtsps"):
        raise BadInput("not an RTSP address", url.redacted, "rtsp://[user:password@]host[:port]/path")
    tls = url.scheme == "rtsps"
    port = url.port or (322 if tls else 554)
    return Target(url.without_user, url.host, port, url.user, url.password, tls, url.redacted)


class Connection:
    """One session with a server: announce, set up, record, then pictures. Raises OSError and UserError."""

    def __init__(self, target: Target, options: PushOptions, stop: threading.Event) -> None:
        self.target = target
        self.options = options
        self._stop = stop
        self._sequence = 0
        self._session = ""
        self._channels: dict[int, tuple[int, int]] = {}  # RTP and RTCP, of each track that was set up
        self._challenge = ""
        self._keep_s, self._asked_s = 30.0, time.monotonic()
        self._waiting = b""  # received, not yet looked at

    def __enter__(self) -> Connection:
        plain = socket.create_connection((self.target.host, self.target.port), self.options.timeout_s)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
            self._socket = self._secure(plain) if self.target.tls else plain
        except BaseException:
            plain.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            if self._session and error[0] is None:
                self._socket.settimeout(0.5)
                self._socket.sendall(self._request("TEARDOWN", self.target.url, {}))
        self._socket.close()

    def _secure(self, plain: socket.socket) -> socket.socket:
        context = ssl.create_default_context(cafile=self.options.ca_file or None)
        if not self.options.tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(plain, server_hostname=self.target.host)

    def record(self, sdp: str) -> None:
        """From ANNOUNCE to RECORD (RFC 2326 sections 10.3, 10.4, 10.11)."""
        url = self.target.url
        self._exchange("OPTIONS", url, {})
        self._exchange("ANNOUNCE", url, {"Content-Type": "application/sdp"}, sdp.encode())
        for track in range(sdp.count("\r\nm=")):
            rtp = 2 * track
            rtcp = 2 * track + 1
            transport = {"Transport": f"RTP/AVP/TCP;unicast;interleaved={rtp}-{rtcp};mode=record"}
            done = self._exchange("SETUP", f"{url.rstrip('/')}/track{track}", transport)
            self._session, self._channels[track] = done.session, (rtp, rtcp)
        _, _, timeout = done.headers.get("session", "").partition("timeout=")
        if timeout.strip().isdigit():
            self._keep_s = max(1.0, int(timeout) / 3)
        self._exchange("RECORD", url, {"Range": "npt=0.000-"})

    def probe(self) -> None:
        """Wait for an answer, whatever it says, to a request that changes nothing."""
        self._send_all(self._request("OPTIONS", self.target.url, {}))
        self._answer()

    def send(self, unit: Unit) -> None:
        """A picture, within the time-out."""
        self._send_all(unit.interleaved(self._channels))

    def listen(self) -> None:
        """Take what the server says meanwhile, and show that we are here. Raises where it has gone."""
        while self._readable():
            data = self._socket.recv(65536)
            if not data:
                raise SinkLost("the server closed the connection")
            self._waiting = (self._waiting + data)[-(1 << 17) :]
            while (message := self._take()) is not None:
                if message.start[0].startswith("RTSP/") and message.code >= 400 and message.code != 405:
                    raise SinkLost(f"the server ended the session ({message.code} {message.start[2]})")
                if message.start[0] == "TEARDOWN":
                    raise SinkLost("the server ended the session")
        if time.monotonic() - self._asked_s > self._keep_s:
            self._send_all(self._request("OPTIONS", self.target.url, {}))

    def _readable(self) -> bool:
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        return bool(select.select([self._socket], [], [], 0)[0])

    def _send_all(self, data: bytes) -> None:
        """Within the time-out, and no longer than until somebody asks to stop."""
        end = time.monotonic() + self.options.timeout_s
        view = memoryview(data)
        self._socket.settimeout(0.5)
        while view:
            try:
                view = view[self._socket.send(view) :]
                end = time.monotonic() + self.options.timeout_s
            except TimeoutError:
                if self._stop.is_set() or time.monotonic() > end:
                    raise SinkLost("the server takes nothing any more") from None

    def _exchange(self, method: str, url: str, headers: dict[str, str], body: bytes = b"") -> Message:
        """A request and its answer; with the proof of the password once the server wants that."""
        for first in (True, False):
            self._send_all(self._request(method, url, headers, body))
            message = self._answer()
            if message.code != 401:
                break
            self._challenge = message.headers.get("www-authenticate", "")
            known = answer(self._challenge, self.target.user, self.target.password, method, url) is not None
            if not first or not self.target.user or not known:
                break
        if message.code == 200:
            return message
        raise _refusal(message, method)

    def _request(self, method: str, url: str, headers: dict[str, str], body: bytes = b"") -> bytes:
        self._sequence += 1
        self._asked_s = time.monotonic()
        named = {"CSeq": str(self._sequence), "User-Agent": "facestream"}
        if self._session:
            named["Session"] = self._session
        if self._challenge and self.target.user:
            proof = answer(self._challenge, self.target.user, self.target.password, method, url)
            if proof is not None:
                named["Authorization"] = proof
        return request(method, url, named | headers, body)

    def _answer(self) -> Message:
        """The answer to the request just sent, within the time-out."""
        end = time.monotonic() + self.options.timeout_s
        while True:
            while (message := self._take()) is not None:
                if message.start[0].startswith("RTSP/") and message.headers.get("cseq") == str(self._sequence):
                    return message
            if self._stop.is_set():
                raise SinkLost("stopped")
            if time.monotonic() > end:
                raise SinkLost("the server did not answer in time")
            self._socket.settimeout(0.25)
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                continue
            if not data:
                raise SinkLost("the server closed the connection")
            self._waiting += data

    def _take(self) -> Message | None:
        """The next whole message of what was received; RTCP between messages is passed over."""
        while self._waiting[:1] == b"$":
            length = 4 + int.from_bytes(self._waiting[2:4], "big")
            if len(self._waiting) < max(4, length):
                return None
            self._waiting = self._waiting[length:]
        end = self._waiting.find(b"\r\n\r\n")
        if end < 0:
            if len(self._waiting) > HEAD_LIMIT:
                raise Malformed("the answer is no RTSP")
            return None
        message = parse_head(self._waiting[:end])
        if len(self._waiting) < end + 4 + message.length:
            return None
        self._waiting = self._waiting[end + 4 + message.length :]
        return message


def answers(address: str, options: PushOptions) -> bool:
    """Whether an RTSP server answers there within the time-out, and be it with a refusal."""
    try:
        with Connection(target_of(address), options, threading.Event()) as connection:
            connection.probe()
    except (OSError, UserError, Malformed, ValueError):
        return False
    return True


def _refusal(message: Message, method: str) -> UserError:
    status = f"{method} {message.code} {message.start[2]}"
    if message.code == 401:
        return Refused(f"the user name or password is missing or wrong ({status})", "", "give user:password@")
    if message.code in (403, 404, 405, 501):
        return Refused(f"the server does not take the stream there ({status})")
    return SinkLost(f"the server refused ({status})")


def reason(error: Exception) -> str:
    """Why a connection could not be made or broke, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return "it speaks no TLS, or another kind of it"
    if isinstance(error, ConnectionRefusedError):
        return "it refused the connection"
    if isinstance(error, socket.gaierror):
        return "the host cannot be found"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, Malformed):
        return f"what it said is no RTSP ({error})"
    if isinstance(error, ConnectionError):
        return "the connection broke off"
    return redact(getattr(error, "strerror", None) or error)
