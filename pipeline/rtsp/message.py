"""Parses and serialises RTSP 1.0 messages (RFC 2326)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

# bytes of a message that are read before it is refused
HEAD_LIMIT = 8192
BODY_LIMIT = 65536
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Request Entity Too Large",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    461: "Unsupported Transport",
    503: "Service Unavailable",
    505: "RTSP Version Not Supported",
}


class Malformed(Exception):
    """Invalid RTSP was received. code: the status code of the reply."""

    def __init__(self, what: str, code: int = 400) -> None:
        super().__init__(what)
        self.code = code


@dataclass(frozen=True, slots=True)
class Message:
    """start: the three parts of the first line. headers: names in lower case. body: usually SDP."""

    start: tuple[str, str, str]
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def length(self) -> int:
        """Number of bytes of the body. Raises Malformed."""
        text = self.headers.get("content-length", "0").strip()
        if not (text.isascii() and text.isdigit()):
            raise Malformed("Content-Length is no number")
        if int(text) > BODY_LIMIT:
            raise Malformed("the body is too long", 413)
        return int(text)

    @property
    def code(self) -> int:
        """The status code of a response."""
        return int(self.start[1])

    @property
    def session(self) -> str:
        return self.headers.get("session", "").partition(";")[0].strip()


def parse_head(head: bytes) -> Message:
    """The first line and the headers of a request or response. Raises Malformed."""
    try:
        lines = head.decode("utf-8").split("\r\n")
    except UnicodeDecodeError:
        raise Malformed("not text") from None
    start = lines[0].split(" ", 2)
    if len(start) != 3 or not any(part.startswith("RTSP/") for part in (start[0], start[2])):
        raise Malformed("not RTSP")
    if start[0].startswith("RTSP/") and not (start[1].isascii() and start[1].isdigit()):
        raise Malformed("an answer without a code")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        name = name.strip().lower()
        if not line:
            continue
        if not colon or not name:
            raise Malformed("a header without a colon")
        # A server may offer several authentication schemes, each in a header of its own.
        headers[name] = f"{headers[name]}\n{value.strip()}" if name in headers else value.strip()
    return Message((start[0], start[1], start[2]), headers)


def request(method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """A request's bytes."""
    return _message(f"{method} {url} RTSP/1.0", headers, body)


def response(code: int, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """A response's bytes."""
    return _message(f"RTSP/1.0 {code} {REASONS[code]}", headers, body)


def _message(start: str, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [start, *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def path_of(url: str) -> str:
    """The path of a request's URL, without slashes at its ends. Raises Malformed."""
    try:
        return unquote(urlsplit(url).path).strip("/")
    except ValueError:
        raise Malformed("not a URL") from None


def transport_of(header: str) -> list[dict[str, str]]:
    """The transports that a client offers, in its order: parameters of each; "" is its protocol in upper case."""
    offers = []
    for offer in header.split(","):
        kind, *parts = (part.strip() for part in offer.split(";"))
        named = (part.partition("=") for part in parts)
        offers.append({"": kind.upper()} | {name.lower(): value.strip('"') for name, _, value in named})
    return offers


def pair_of(text: str) -> tuple[int, int] | None:
    """ "8000-8001" -> (8000, 8001), "8000" -> (8000, 8001), None for anything else."""
    first, dash, second = text.partition("-")
    if not (first.isascii() and first.isdigit()) or (dash and not (second.isascii() and second.isdigit())):
        return None
    low = int(first)
    high = int(second) if dash else int(first) + 1
    return (low, high) if 0 <= low < high <= 65535 else None
