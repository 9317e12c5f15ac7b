"""Loopback servers for tests that misbehave on demand."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from facestream.pipeline.connection import State
from facestream.pipeline.live.camera import Camera
from facestream.pipeline.live.state import CameraOptions, Status
from facestream.pipeline.types import Frame
from facestream.pipeline.video.options import SourceOptions
from facestream.pipeline.video.uri import parse

QUICK = SourceOptions(threads=1, open_timeout_s=1.0, read_timeout_s=0.4)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait for something that must come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "never came true"
        time.sleep(0.01)


@contextlib.contextmanager
def talking(answer: Callable[[socket.socket], None], port: int = 0) -> Iterator[int]:
    """A server that gives each connection to `answer` on a thread of its own; yields its port.

    At the end everything is cut off: with a reset where data is on its way, as a killed process does.
    """
    listener = socket.create_server(("127.0.0.1", port))
    open_now: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            answer(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                open_now.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in open_now:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


class Stream:
    """An HTTP stream of MPEG-TS bytes at about the pace of a camera. What it does can be changed while it runs.

    stalled: nothing is sent. data: what is sent, over and over.
    """

    def __init__(self, path: Path, seconds: float = 1.0) -> None:
        self.data, self.seconds = path.read_bytes(), seconds
        self.stalled = False
        self.taken = 0  # connections so far

    def __call__(self, connection: socket.socket) -> None:
        connection.recv(4096)
        self.taken += 1
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n")
        while True:
            data, piece = self.data, 188 * 7
            for at in range(0, len(data), piece):
                while self.stalled:
                    time.sleep(0.01)
                if data is not self.data:
                    break
                connection.sendall(data[at : at + piece])
                time.sleep(self.seconds * piece / len(data))


class Proxy:
    """Passes on what goes between a camera and its server. frozen: it stops, in the middle of what it was sending.

    slow: one byte of what the server sends goes on each hundredth of a second.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.frozen = self.slow = False
        self.taken = 0  # connections so far
        self._open: list[socket.socket] = []

    def __call__(self, near: socket.socket) -> None:
        self.taken += 1
        self._open.append(near)
        with socket.create_connection(("127.0.0.1", self.port)) as far:
            threading.Thread(target=self._pass, args=(near, far, False), daemon=True).start()
            self._pass(far, near, True)

    def _pass(self, source: socket.socket, target: socket.socket, halt: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1000):
                while self.slow and halt and data:
                    target.sendall(data[:1])
                    data = data[1:]
                    time.sleep(0.01)
                if self.frozen and halt:
                    target.sendall(data[: len(data) // 2])
                    data = data[len(data) // 2 :]
                    while self.frozen:
                        time.sleep(0.01)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Break all connections off with an RST."""
        for end in self._open:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RD)
                end.close()
        self._open.clear()


BUSY_S = 5.0  # by which a busy machine may be late


class Watched:
    """A camera with a memory: every state and message, every frame it gave, and a watchdog."""

    def __init__(self, address: str, name: str = "door", **options: Any) -> None:
        given = {
            "source": QUICK,
            "stall_s": 0.2,
            "max_backoff_s": 0.5,
            "refused_wait_s": 0.5,
            "first_frame_s": 2.0,
            "dead_s": 1.5,
        }
        self.statuses: list[Status] = []
        self.frames: list[tuple[int, int, tuple[int, int]]] = []  # index, pts, size
        self.camera = Camera(
            name, parse(address), CameraOptions(**{**given, **options}), self.take, self.statuses.append
        )
        self.over = threading.Event()

    def take(self, frame: Frame) -> None:
        assert frame.pts is not None
        self.frames.append((frame.index, frame.pts, frame.size))

    def watch(self) -> None:
        while not self.over.wait(0.05):
            self.camera.check()

    def __enter__(self) -> Watched:
        self.camera.start()
        threading.Thread(target=self.watch, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.camera.stop()
        joined = self.camera.join(15)
        self.over.set()
        assert joined or self.camera.status.hangs, "the camera's thread hangs"
        assert "secret" not in str(self.statuses)

    def wait(self, state: State, seconds: float = 30.0) -> Status:
        until(lambda: self.camera.status.state is state, seconds)
        return self.camera.status

    def wait_frames(self, more: int = 5, seconds: float = 30.0) -> None:
        want = len(self.frames) + more
        until(lambda: len(self.frames) >= want, seconds)

    def wait_back(self, gop_s: float) -> None:
        """What was wrong is right again: pictures must come within back-off + GOP + twice the time-out."""
        options, frames = self.camera.options, len(self.frames)
        timeout_s = max(options.source.open_timeout_s, options.source.read_timeout_s)
        bound = max(options.max_backoff_s, options.refused_wait_s) + gop_s + 2 * timeout_s
        until(lambda: len(self.frames) > frames, bound + BUSY_S)

    @property
    def states(self) -> list[State]:
        """The states it went through, each once for a stretch."""
        all_ = [status.state for status in self.statuses]
        return [state for n, state in enumerate(all_) if n == 0 or state is not all_[n - 1]]
