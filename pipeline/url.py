"""Redaction of addresses that hold secrets: parsed once, opened with them, shown without.

What may be shown is built from an address' parts, and not found by a pattern: the user part is never shown, and of a
query or a path only what is known to be harmless. Each secret that was parsed is remembered, so that `redact` finds it
in whatever a library says, in any of the ways it may be written there.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, unquote

from facestream.engines.errors import BadInput

HIDDEN = "***"
SHORTEST = 4  # characters of a secret that is looked for in any text; shorter ones would be found in common words
# Patterns are text: `re` compiles each on first use and keeps it.
_SCHEME = r"([A-Za-z][A-Za-z0-9+.-]+)://"
_PLACEHOLDER = r"\$\{([^{}]*)\}"
_MARK = "\ue000(\\d+)\ue001"  # a placeholder while its address is taken apart
# Query and path keys whose values may be shown: what is asked of a camera, never who asks.
# fmt: off
_HARMLESS = frozenset((
    "action", "audio", "bitrate", "camera", "channel", "ch", "chn", "codec", "compression", "cmd", "fps", "framerate",
    "height", "id", "mode", "name", "port", "profile", "proto", "quality", "rate", "res", "resolution", "size",
    "stream", "streamtype", "subtype", "transport", "transportmode", "type", "unicast", "videocodec", "width",
))
# fmt: on
_URL_IN_TEXT = r"[A-Za-z][A-Za-z0-9+.-]*\\?:\\?/\\?/[^\s'\"<>]+?(?=,[A-Za-z]+://|[\s'\"<>]|$)"
_PORTS = ("80", "88", "322", "443", "554", "1935", "7441", "7447", "8000", "8080", "8081", "8443", "8554", "8555")
_FIELD_IN_TEXT = (
    r"(?i)((?:^|[?&;,\s/_])(?:[a-z0-9_-]*(?:user|usr|login|pass|pwd|psw|token|secret|signature|credential|api_?key)"
    r"[a-z0-9_-]*|sig|auth|key|sid)=)(?!\*\*\*)[^\s&;#'\"]+"
)
_OUR_WORDS = ("user:password", "[user:password", "TOKEN", "[TOKEN")  # in hints that say how an address is written
_known: set[str] = set()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True, repr=False)
class Url:
    """An address, taken apart. Its text form is what may be shown.

    user, password: as they are, decoded. host: without brackets. port: None where none is given. rest: from the path
    on, as it was given, with its secrets.
    """

    scheme: str
    user: str
    password: str
    host: str
    port: int | None
    rest: str
    redacted: str

    def __str__(self) -> str:
        return self.redacted

    def __repr__(self) -> str:
        return f"Url({self.redacted!r})"

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def without_user(self) -> str:
        """As requests to servers hold it; its query may still hold secrets."""
        return f"{self.scheme}://{self.authority}{self.rest}"

    @property
    def with_user(self) -> str:
        """To open it, for libraries that take one text."""
        if not (self.user or self.password):
            return self.without_user
        user = quote(self.user, safe="") + (f":{quote(self.password, safe='')}" if self.password else "")
        return f"{self.scheme}://{user}@{self.authority}{self.rest}"


def remember(secret: str) -> None:
    """Let `redact` know a secret, in the ways it may be written."""
    with _lock:
        for form in (secret, quote(secret, safe=""), quote(secret), unquote(secret)):
            if len(form) >= SHORTEST and form != HIDDEN:
                _known.add(form)


def redact(text: object) -> str:
    """text without any secret: those that were parsed, and what looks like one in the addresses in it."""
    result = str(text)
    with _lock:
        known = sorted(_known, key=len, reverse=True)
    for secret in known:
        if secret in result:  # as a word of its own: a password may also be the beginning of one
            result = re.sub(_as_a_word(secret), HIDDEN, result)
    if ":" in result:
        result = re.sub(_URL_IN_TEXT, lambda match: _shown_in_text(match[0]), result)
    return re.sub(_FIELD_IN_TEXT, rf"\1{HIDDEN}", result) if "=" in result else result


def _as_a_word(secret: str) -> str:
    """A pattern that finds it; one that may be a word of a message, only where a secret stands."""
    word = re.escape(secret)
    if re.fullmatch(r"[a-z]{1,10}", secret):
        return rf"(?<=[:=/@?&#'\"]){word}(?![A-Za-z0-9])|(?<![A-Za-z0-9]){word}(?=[@&])"
    return rf"(?<![A-Za-z0-9]){word}(?![A-Za-z0-9])"


def expand(text: str, where: str) -> str:
    """text with `${NAME}` replaced from the environment and `${file:PATH}` by a file's first line.

    where: what the text belongs to, for the error. What is put in counts as a secret. Raises BadInput.
    """
    return re.sub(_PLACEHOLDER, lambda match: _value_of(match[1], where), text)


def secret(text: str, where: str) -> str:
    """A setting that is a secret: `${NAME}`, `${file:PATH}`, `file:PATH`, or the secret itself. Raises BadInput."""
    value = _read_secret(text.removeprefix("file:"), where) if text.startswith("file:") else expand(text, where)
    remember(value)
    return value


def parse_url(text: str) -> Url:
    """Take an address apart, whatever characters its password holds, and fill in `${NAME}` and `file:PATH`.

    Raises BadInput for what has no scheme or no host, and where a secret is not there.
    """
    values: list[str] = []
    template = text
    if re.match(_SCHEME, text):  # else all of the address may come from the environment
        template = re.sub(_PLACEHOLDER, lambda match: _mark(values, _value_of(match[1], "the address")), text)
    else:
        template = expand(text, "the address")
    match = re.match(_SCHEME, template)
    if match is None:
        raise BadInput("not an address", shown_text(text), "SCHEME://[user:password@]host[:port]/path")
    user_part, after = _split(template[match.end() :])
    end = next((n for n, letter in enumerate(after) if letter in "/?#"), len(after))
    host, port = _host_of(after[:end])
    rest = after[end:]
    user, password = _user_of(user_part, values)
    # Our own values may hold any character; in a path or a query they are written as addresses write them.
    redacted = f"{match[1].lower()}://{f'{HIDDEN}@' * bool(user_part)}{after[:end]}{_shown_rest(rest, values)}"
    rest = re.sub(_MARK, lambda found: quote(values[int(found[1])], safe="=&?/"), rest)
    host = _unmark(host, values)
    if not host or port == -1:
        raise BadInput("not an address: it has no host, or no number for a port", _unmark_hidden(redacted))
    remember(password or user)
    if password:
        remember(f"{user}:{password}")
        remember(base64.b64encode(f"{user}:{password}".encode()).decode())
    return Url(match[1].lower(), user, password, host, port, rest, _unmark_hidden(redacted))


def shown_text(text: str) -> str:
    """What may be shown of something that should have been an address, or that has one in it."""
    match = re.search(_SCHEME, text)
    if match is None:
        if "@" not in text:
            return redact(text)
        secret_part, _, rest = text.rpartition("@")
        remember(secret_part.partition(":")[2] or secret_part)
        return f"{HIDDEN}@{rest}"
    with contextlib.suppress(BadInput):
        return text[: match.start()] + parse_url(text[match.start() :]).redacted
    user_part, after = _split(text[match.end() :])
    return f"{text[: match.end()]}{f'{HIDDEN}@' * bool(user_part)}{_shown_rest(after, [])}"


def hide_typed(words: Iterable[str]) -> None:
    """Of a command line: remember the secrets of the addresses in it, and hide them in the process list.

    A secret that a file holds is read by who opens the address: it may be a pipe, which gives it once.
    """
    for word in words:
        if "://" in word and "file:" not in word.partition("://")[2]:
            shown_text(word)
    hide_in_process_list()


def hide_in_process_list() -> None:
    """Overwrite the secrets in this process' own command line, which every user of the machine can read (Linux)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        # arg_start and arg_end, see proc(5)
        start = int(fields[45])
        end = int(fields[46])
        line = Path("/proc/self/cmdline").read_bytes()
        if end - start != len(line):
            return
        with _lock:
            known = sorted((form.encode() for form in _known), key=len, reverse=True)
        hidden = line
        for form in known:
            hidden = hidden.replace(form, b"*" * len(form))
        if hidden != line:
            import ctypes

            ctypes.memmove(start, hidden, len(hidden))


def hide_in_tracebacks() -> None:
    """What ends the program, or one of its threads, is printed without secrets."""

    def show(kind: type[BaseException], error: BaseException | None, traceback_: TracebackType | None) -> None:
        print(redact("".join(traceback.format_exception(kind, error, traceback_))), end="", file=sys.stderr)

    sys.excepthook = show
    threading.excepthook = lambda failed: show(failed.exc_type, failed.exc_value, failed.exc_traceback)


def _mark(values: list[str], value: str) -> str:
    values.append(value)
    return f"\ue000{len(values) - 1}\ue001"


def _unmark(text: str, values: list[str]) -> str:
    return re.sub(_MARK, lambda found: values[int(found[1])], text)


def _unmark_hidden(text: str) -> str:
    return re.sub(_MARK, HIDDEN, text)


def _value_of(name: str, where: str) -> str:
    if name.startswith("file:"):
        value = _read_secret(name.removeprefix("file:"), where)
    elif name in os.environ:
        value = os.environ[name]
    else:
        raise BadInput(f"the environment variable {name} is not set", where, f"export {name}=...")
    remember(value)
    return value


def _read_secret(path: str, where: str) -> str:
    """A file's first line. Raises BadInput."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadInput(f"the secret of {where} cannot be read ({reason})", path) from None
    if not lines or not lines[0]:
        raise BadInput(f"the secret of {where} is empty", path)
    return lines[0]


def _user_of(user_part: str, values: list[str]) -> tuple[str, str]:
    """User and password, each filled in."""
    if user_part.startswith("file:"):  # both, or a token
        user, _, password = _read_secret(user_part.removeprefix("file:"), "the address").partition(":")
        remember(password or user)
        return user, password
    user, _, password = user_part.partition(":")
    if password.startswith("file:"):
        return _unmark(unquote(user), values), _read_secret(password.removeprefix("file:"), "the address")
    return _unmark(unquote(user), values), _unmark(unquote(password), values)


def _split(rest: str) -> tuple[str, str]:
    """The user part ("" where there is none) and what follows it. People type passwords with a bare @ / ? # in them."""
    end = next((n for n, letter in enumerate(rest) if letter in "/?#"), len(rest))
    authority = rest[:end]
    at = authority.rfind("@")
    if at >= 0 and (_is_host(authority[at + 1 :], strong=True) or "@" not in rest[end:]):
        return rest[:at], rest[at + 1 :]
    name, colon, word = authority.partition(":")
    if (not colon and at < 0) or authority.startswith("["):
        return "", rest
    is_port = word.isdigit() and at < 0
    is_usual = word in _PORTS or _is_host(name, strong=True)
    for place in (n for n in range(len(rest) - 1, end, -1) if rest[n] == "@"):
        following = rest[place + 1 :]
        host = following[: next((n for n, letter in enumerate(following) if letter in "/?#"), len(following))]
        is_sure = _is_host(host, strong=True)
        if is_port and ("=" in rest[end:place] or (is_usual and not (is_sure and _is_better(host, name)))):
            continue  # it stands in the path or the query
        is_near = is_port and not is_usual and "/" not in rest[end + 1 : place]  # admin:1234/word@cam
        if is_sure or ((is_near or not is_port) and _is_host(host, strong=False)):
            return rest[:place], following
    return (rest[:at], rest[at + 1 :]) if at >= 0 else ("", rest)


def _is_host(text: str, strong: bool) -> bool:
    """Whether it may be a host with a port; strong: only what is hardly anything else."""
    if text.startswith("["):
        return "]" in text
    name, colon, port = text.partition(":")
    if (colon and not port.isdigit()) or not re.fullmatch(r"[A-Za-z0-9_.\ue000\ue001-]+", name):
        return False
    return not strong or bool(colon) or "." in name or name == "localhost"


def _is_better(host: str, other: str) -> bool:
    return _is_address(host.partition(":")[0]) and not _is_address(other)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _host_of(authority: str) -> tuple[str, int | None]:
    """Host and port; port -1 for one that is no number up to 65535."""
    if authority.startswith("["):
        host, bracket, port = authority[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return "", -1
        port = port[1:]
    else:
        host, _, port = authority.partition(":")
    if not port:
        return host, None
    return host, int(port) if port.isascii() and port.isdigit() and int(port) <= 65535 else -1


def _shown_rest(rest: str, values: list[str]) -> str:
    path, mark, fragment = rest.partition("#")
    path, question, query = path.partition("?")
    after_word = False
    segments = []
    for segment in path.split("/"):
        segments.append(_hide(segment, values) if segment and after_word else _shown_segment(segment, values))
        after_word = segment.lower() in ("password", "passwd", "pass", "pwd", "token", "key", "auth", "secret")
    redacted = "/".join(segments)
    if question:
        parts = re.split(r"([&;])", query)
        redacted += "?" + "".join(_shown_field(part, values) if n % 2 == 0 else part for n, part in enumerate(parts))
    return redacted + (f"#{_hide(fragment, values)}" if mark else "")


def _shown_segment(segment: str, values: list[str]) -> str:
    plain = unquote(segment)
    keys = re.findall(r"(?:^|[&_;,!-])([A-Za-z][A-Za-z0-9]*)=", plain)
    odd = "=" in plain and (not keys or any(key.lower() not in _HARMLESS for key in keys))
    mixed = len(re.findall(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])", plain)) >= 4 and len(plain) >= 12
    if odd or mixed or any(letter in plain for letter in ":\ue000 ") or len(plain) > 64:
        if odd:
            for value in re.findall(r"=([^&;,!]+?)(?=[&;,!]|_[A-Za-z]+=|$)", plain):
                _hide(value, values)
        return _hide(segment, values)
    return segment


def _shown_field(field: str, values: list[str]) -> str:
    key, equals, value = field.partition("=")
    if not equals:
        is_word = re.fullmatch(r"[A-Za-z_.-]{0,24}", key)
        return key if is_word else _hide(key, values)
    if not value:
        return field
    if key.lower() in _HARMLESS and re.fullmatch(r"[A-Za-z0-9_.,x-]{1,16}", value):
        return field
    if value.startswith("file:"):
        value = _mark(values, _read_secret(value.removeprefix("file:"), "the address"))
    return f"{key}={_hide(value, values)}"


def _hide(text: str, values: list[str]) -> str:
    plain = _unmark(text, values)
    if (plain != HIDDEN and len(plain) >= 6) or (re.search(r"\d", plain) and len(plain) >= SHORTEST):
        remember(plain)
    return HIDDEN


def _shown_in_text(found: str) -> str:
    """An address in the midst of a text, which is none of ours, or a hint."""
    start = found.index("/", found.index(":")) if ":" in found else 0
    rest = found[start:].lstrip("\\/")
    user_part, after = _split(rest)
    if user_part in _OUR_WORDS and after.startswith(("host", "]host")):
        return found
    head = found[: len(found) - len(rest)]
    tail = ""
    while after and after[-1] in ".,:;)]":  # of the sentence
        if after[-1] == "]" and "[" in after:
            break
        tail = after[-1] + tail
        after = after[:-1]
    end = next((n for n, letter in enumerate(after) if letter in "/?#"), len(after))
    return f"{head}{f'{HIDDEN}@' * bool(user_part)}{after[:end]}{_shown_rest(after[end:], [])}{tail}"
