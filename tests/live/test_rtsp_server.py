"""The RTSP server with real players: PyAV, Debian's ffmpeg and GStreamer, and with sockets that misbehave."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from facestream.pipeline.errors import BadInput
from facestream.pipeline.rtsp.message import Malformed, parse_head, transport_of
from facestream.pipeline.rtsp.player import Limits, Player
from facestream.pipeline.rtsp.server import Mount, RtspServer

from tests.feed import Feed, number_of
from tests.servers import free_port, until

USERS = {"viewer": "secret"}


@contextlib.contextmanager
def serving(
    users: dict[str, str] | None = None, limits: Limits | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[RtspServer, Mount, Feed]]:
    server = RtspServer("127.0.0.1", 0, limits, tls)
    mount = server.mount("door", users)
    server.start()
    with Feed(lambda unit: server.send(mount, unit), mount.packetizer) as feed:
        mount.request_keyframe = feed.encoder.request_keyframe
        try:
            yield server, mount, feed
        finally:
            server.stop()
    assert server._thread is not None
    assert not server._thread.is_alive()


def address(server: RtspServer, user: str = "") -> str:
    return f"{'rtsps' if server.tls else 'rtsp'}://{user}{'@' if user else ''}127.0.0.1:{server.port}/door"


def play(url: str, frames: int = 20, **options: str) -> list[int]:
    """The numbers of the first pictures that PyAV gets."""
    given = {"rtsp_transport": "tcp", "analyzeduration": "500000", **options}
    numbers = []
    with av.open(url, options=given, timeout=(5.0, 3.0)) as container:
        for picture in container.decode(video=0):
            numbers.append(number_of(picture))
            if len(numbers) == frames:
                break
    return numbers


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    words = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run(
        ["openssl", "req", *words, *names, "-keyout", str(key), "-out", str(cert)], capture_output=True, check=True
    )
    return cert, key


ROUTES = pytest.mark.parametrize("route", ["tcp", "udp", "tls"])  # over TLS there is no UDP, which nothing would hide
WHO = pytest.mark.parametrize("users", [None, USERS], ids=["open", "digest"])


def secured(route: str, certificate: tuple[Path, Path]) -> ssl.SSLContext | None:
    if route != "tls":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@ROUTES
@WHO
def test_pyav_plays_from_a_key_picture_on_without_a_loss(
    route: str, users: dict[str, str] | None, certificate: tuple[Path, Path]
) -> None:
    with serving(users, tls=secured(route, certificate)) as (server, mount, feed):
        until(lambda: feed.sent > 5)
        at = feed.sent
        url = address(server, "viewer:secret" if users else "")
        numbers = play(url, rtsp_transport="tcp" if route == "tls" else route, tls_verify="0")
        assert numbers == list(range(numbers[0], numbers[0] + 20))
        assert numbers[0] >= at - 1
        until(lambda: mount.counts.players == 0)
        assert mount.counts.sent >= 20
        assert mount.counts.dropped == 0


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@ROUTES
@WHO
def test_debians_ffmpeg_and_ffprobe_play(
    route: str, users: dict[str, str] | None, certificate: tuple[Path, Path]
) -> None:
    with serving(users, tls=secured(route, certificate)) as (server, _, _):
        url = address(server, "viewer:secret" if users else "")
        words = ["-v", "error", "-rtsp_transport", "tcp" if route == "tls" else route, "-i", url]
        done = subprocess.run(
            ["ffmpeg", "-nostdin", *words, "-frames:v", "15", "-f", "framemd5", "-"],
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len([line for line in done.stdout.splitlines() if not line.startswith("#")]) == 15
        show = ["-show_entries", "stream=codec_name,width,height,has_b_frames", "-of", "csv=p=0"]
        probed = subprocess.run(["ffprobe", *words, *show], capture_output=True, text=True, timeout=90, check=False)
        assert probed.stdout.strip() == "h264,320,240,0", probed.stderr


@functools.cache
def has_gstreamer() -> bool:
    needed = ("rtspsrc", "rtph264depay", "h264parse", "avdec_h264")
    return shutil.which("gst-inspect-1.0") is not None and all(
        subprocess.run(["gst-inspect-1.0", part], capture_output=True, check=False).returncode == 0 for part in needed
    )


# Told to end while it still starts, rtspsrc breaks off its own write and reports that as an end of file. The request
# has arrived whole all the same, and the server answers it: tried on a busy machine, with the server's log beside it.
OWN_RACE = re.compile(r"gst_rtspsrc_try_send.*\n.*Could not send message\. \(Received end-of-file\)")


@ROUTES
@WHO
def test_gstreamer_plays(
    route: str, users: dict[str, str] | None, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_gstreamer():
        pytest.skip("GStreamer's rtspsrc and avdec_h264 are not installed")
    asked: list[str] = []
    act = Player._act

    def noted(player: Player, mount: Mount, method: str, headers: dict[str, str]) -> None:
        asked.append(method)
        act(player, mount, method, headers)

    monkeypatch.setattr(Player, "_act", noted)
    with serving(users, tls=secured(route, certificate)) as (server, mount, _):
        # Of TLS it knows another name; whom it trusts cannot be said on its command line.
        protocols = "protocols=tcp+tls" if route == "tls" else f"protocols={route}"
        source = ["rtspsrc", f"location={address(server)}", protocols, "latency=100"]
        source += ["tls-validation-flags=0"] if route == "tls" else []
        source += ["user-id=viewer", "user-pw=secret"] if users else []
        chain = ["rtph264depay", "!", "h264parse", "!", "avdec_h264", "!", "identity", "eos-after=15", "!"]
        done = subprocess.run(
            ["gst-launch-1.0", "-v", *source, "!", *chain, "fakesink", "silent=false"],
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert done.stdout.count("chain  ") >= 14, said  # pictures that came out of its decoder
        assert done.returncode == 0 or OWN_RACE.search(said), said
        until(lambda: "TEARDOWN" in asked)  # it was the player who ended the session, not the server
        assert mount.counts.dropped == 0


def test_tls_is_checked_and_carries_the_stream(certificate: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serving(USERS, tls=context) as (server, _, _):
        url = address(server, "viewer:secret").replace("127.0.0.1", "localhost")
        numbers = play(url, tls_verify="1", ca_file=str(certificate[0]))
        assert numbers == list(range(numbers[0], numbers[0] + 20))
        with pytest.raises((av.FFmpegError, OSError)):
            play(url, tls_verify="1", ca_file=ssl.get_default_verify_paths().openssl_cafile)
        with pytest.raises((av.FFmpegError, OSError)):  # plain RTSP to a TLS port
            play(url.replace("rtsps", "rtsp"))


def test_a_wrong_password_and_a_wrong_path_are_refused() -> None:
    with serving(USERS) as (server, mount, _):
        for user in ("", "viewer:wrong", "nobody:secret"):
            with pytest.raises(av.error.HTTPUnauthorizedError):
                play(address(server, user))
        with pytest.raises(av.error.HTTPUnauthorizedError):  # who may not look may not know what there is
            play(address(server) + "way")
        with pytest.raises(av.error.HTTPNotFoundError):
            play(address(server, "viewer:secret") + "way")
        assert mount.counts.sent == 0


class Raw:
    """A client by hand."""

    def __init__(self, server: RtspServer, timeout: float = 5.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout)
        self.sequence = 0
        self.url = address(server)

    def call(self, method: str, url: str = "", **headers: str) -> tuple[int, dict[str, str]]:
        self.sequence += 1
        lines = [f"{method} {url or self.url} RTSP/1.0", f"CSeq: {self.sequence}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        return self.answer()

    def answer(self) -> tuple[int, dict[str, str]]:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            assert byte, "closed"
            head += byte
        message = parse_head(head[:-4])
        length = message.length
        while length:
            length -= len(self.socket.recv(length))
        return message.code, dict(message.headers)

    def start(self) -> None:
        assert self.call("DESCRIBE")[0] == 200
        code, headers = self.call("SETUP", self.url + "/track0", Transport="RTP/AVP/TCP;unicast;interleaved=0-1")
        assert code == 200
        assert self.call("PLAY", Session=headers["session"].partition(";")[0])[0] == 200

    def closed(self) -> bool:
        """Whether the server closes the connection before the time-out."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True


def test_four_players_of_whom_one_stalls_and_the_others_lose_nothing() -> None:
    with serving(limits=Limits(buffer=100_000, stall_s=1.5)) as (server, mount, feed):
        feed.noise = True
        stalled = Raw(server)
        stalled.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.start()  # and then it takes nothing
        seen: dict[str, list[int]] = {}

        def watch(name: str, transport: str) -> None:
            seen[name] = play(address(server), frames=100, rtsp_transport=transport)

        threads = [threading.Thread(target=watch, args=a) for a in (("a", "tcp"), ("b", "udp"), ("c", "tcp"))]
        for thread in threads:
            thread.start()
        until(lambda: mount.counts.players == 4)
        until(lambda: mount.counts.dropped > 0)
        for thread in threads:
            thread.join(60)
        assert [numbers == list(range(numbers[0], numbers[0] + 100)) for numbers in seen.values()] == [True] * 3
        until(lambda: not server.connections)  # the stalled one was let go, the others left
        stalled.socket.close()


def test_the_first_packet_belongs_to_a_key_picture_and_a_report_comes_before_it() -> None:
    with serving() as (server, _, feed):
        until(lambda: feed.sent > 5)
        raw = Raw(server)
        raw.start()
        packets = []
        for _ in range(2):
            head = receive(raw.socket, 4)
            assert head[:1] == b"$"
            packets.append((head[1], receive(raw.socket, int.from_bytes(head[2:], "big"))))
        (pipeline, report), (other, packet) = packets
        assert (pipeline, report[1]) == (1, 200)
        assert (other, packet[12] & 31) == (0, 7)  # the parameter sets


def receive(end: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = end.recv(length - len(data))
        assert part
        data += part
    return data


def test_a_new_size_goes_on_in_the_same_stream() -> None:
    with serving() as (server, _, feed):
        sizes = []
        with av.open(address(server), options={"rtsp_transport": "tcp"}, timeout=(5.0, 3.0)) as container:
            for n, picture in enumerate(container.decode(video=0)):
                sizes.append((picture.width, picture.height))
                if n == 10:
                    feed.size = (480, 256)
                assert n < 200
                if sizes.count((480, 256)) == 10:
                    break
        assert sizes[0] == (320, 240)


def test_too_many_connections_are_refused_and_room_is_given_back() -> None:
    with serving(limits=Limits(connections=2)) as (server, _, _):
        first, second = Raw(server), Raw(server)
        assert first.call("OPTIONS")[0] == second.call("OPTIONS")[0] == 200
        third = Raw(server)
        assert third.answer()[0] == 503
        assert third.closed()
        assert server.refused == 1
        first.socket.close()
        until(lambda: len(server.connections) == 1)
        assert Raw(server).call("OPTIONS")[0] == 200
        second.socket.close()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\xff" * 100 + b"\r\n\r\n", 400),
        (b"OPTIONS * RTSP/1.0\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 413),
        (b"a" * 100_000, 413),
        (b"ANNOUNCE rtsp://x/y RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"OPTIONS * RTSP/1.0\r\nContent-Length: -5\r\n\r\n", 400),
        (b"OPTIONS * RTSP/1.0\r\nno colon\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_refused_and_cut_off(sent: bytes, code: int) -> None:
    with serving() as (server, _, _):
        raw = Raw(server)
        with contextlib.suppress(ConnectionError):
            raw.socket.sendall(sent)
        with contextlib.suppress(ConnectionError):
            assert raw.answer()[0] == code
        assert raw.closed()
        assert Raw(server).call("OPTIONS")[0] == 200


def test_who_says_nothing_is_cut_off() -> None:
    with serving(limits=Limits(idle_s=0.4)) as (server, _, _):
        silent, slow = Raw(server), Raw(server)
        slow.socket.sendall(b"OPTIONS * RT")
        assert silent.closed()
        assert slow.closed()


def test_requests_out_of_place_are_answered() -> None:
    with serving() as (server, _, _):
        raw = Raw(server)
        assert raw.call("PLAY")[0] == 454
        assert raw.call("RECORD")[0] == 405
        assert raw.call("SETUP", Transport="RTP/AVP;multicast")[0] == 461
        assert raw.call("SETUP", Transport="RTP/AVP;unicast;client_port=80-81")[0] == 461
        assert raw.call("SETUP", Transport="RTP/AVP/TCP;interleaved=999-1000")[0] == 461
        assert raw.call("GET_PARAMETER")[0] == 200
        code, headers = raw.call("SETUP", Transport="RTP/SAVP;unicast, RTP/AVP/TCP;unicast;interleaved=4-5")
        assert code == 200
        assert "interleaved=4-5" in headers["transport"]
        assert raw.call("PLAY", Session="other")[0] == 454
        assert raw.call("OPTIONS", CSeq2="x")[0] == 200


def test_passwords_cannot_be_guessed_for_ever() -> None:
    with serving(USERS) as (server, _, _):
        raw = Raw(server)
        proof = 'Digest username="viewer", realm="facestream", nonce="x", uri="/", response="00"'
        assert [raw.call("DESCRIBE", Authorization=proof)[0] for _ in range(5)] == [401] * 5
        assert raw.closed()


def test_a_stream_without_a_picture_yet_says_to_come_back() -> None:
    server = RtspServer("127.0.0.1", 0, Limits(describe_s=0.1))
    server.mount("door")
    server.start()
    assert Raw(server).call("DESCRIBE")[0] == 503
    server.stop()


def test_a_player_over_udp_who_is_gone_is_let_go() -> None:
    with serving(limits=Limits(session_s=0.5, stall_s=0.5)) as (server, mount, _):
        raw = Raw(server)
        assert raw.call("DESCRIBE")[0] == 200
        port = free_port()
        code, headers = raw.call("SETUP", Transport=f"RTP/AVP;unicast;client_port={port}-{port + 1}")
        assert code == 200
        raw.call("PLAY", Session=headers["session"].partition(";")[0])
        until(lambda: mount.counts.players == 1)
        until(lambda: mount.counts.players == 0)
        assert raw.closed()


def test_a_port_in_use_says_so() -> None:
    with serving() as (server, _, _), pytest.raises(BadInput, match="cannot listen"):
        RtspServer("127.0.0.1", server.port).start()
    with pytest.raises(BadInput, match="same path"):
        server.mount("door")


def test_a_server_may_be_stopped_as_soon_as_it_was_started() -> None:
    for _ in range(200):
        server = RtspServer("127.0.0.1", 0)
        server.start()
        server.stop()
        assert server._thread is not None
        assert not server._thread.is_alive()


def test_a_late_player_sees_a_picture_at_once() -> None:
    """With a key picture every ten seconds, it must be made for whom begins to watch."""
    with serving() as (server, _, feed):
        object.__setattr__(feed.encoder.options, "gop_s", 10.0)
        until(lambda: feed.sent > 30)
        at = feed.sent
        assert play(address(server), frames=1)[0] - at < 200  # by itself the next one would be the 250th


def test_messages_are_taken_apart() -> None:
    message = parse_head(b"SETUP rtsp://h/p RTSP/1.0\r\nCSeq: 3\r\nSession: ab;timeout=60")
    assert (message.start[0], message.session, message.length) == ("SETUP", "ab", 0)
    assert transport_of("RTP/AVP;unicast;client_port=4-5,RTP/AVP/TCP")[0]["client_port"] == "4-5"
    with pytest.raises(Malformed):
        parse_head(b"HELLO")
