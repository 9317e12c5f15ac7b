"""Pushes a stream to an RTSP server and reconnects whenever the connection fails."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from facestream.pipeline.connection import STEADY_S, Backoff, State
from facestream.pipeline.errors import Refused, UserError
from facestream.pipeline.rtsp.client import Connection, PushOptions, reason, target_of
from facestream.pipeline.rtsp.message import Malformed
from facestream.pipeline.rtsp.rtp import Packetizer, Unit
from facestream.pipeline.url import redact


@dataclass(frozen=True, slots=True)
class PushCounts:
    """Counts of frames sent and dropped, and of connections made and lost."""

    sent: int = 0
    dropped: int = 0
    connects: int = 0
    losses: int = 0


class Pusher:
    """Pushes one stream to one server, on its own thread. send() never waits.

    on_event: called with each new state and a message without passwords.
    request_keyframe: called when the server starts recording, which needs a keyframe.
    """

    def __init__(
        self,
        address: str,
        packetizer: Packetizer,
        options: PushOptions | None = None,
        on_event: Callable[[State, str], None] = lambda state, message: None,
        request_keyframe: Callable[[], None] = lambda: None,
    ) -> None:
        self.target, self.options = target_of(address), options or PushOptions()
        self.packetizer = packetizer
        self._on_event = on_event
        self.request_keyframe = request_keyframe
        self.state = State.CONNECTING
        self.message = ""
        self._units: deque[Unit] = deque()
        self._held = 0
        # for a key picture; because some were dropped
        self._waits = True
        self._gap = False
        self._recording = False
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._described = threading.Event()
        self._sent = self._dropped = self._connects = self._losses = 0
        self._thread = threading.Thread(target=self._run, name="rtsp push", daemon=True)

    @property
    def counts(self) -> PushCounts:
        return PushCounts(self._sent, self._dropped, self._connects, self._losses)

    def start(self) -> None:
        """Once; more often does nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """Ask it to end; returns at once."""
        self._stop.set()
        self._ready.set()

    def join(self, timeout_s: float) -> bool:
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def send(self, unit: Unit) -> None:
        """Put a picture in line; where the line is too long, drop up to the next key picture."""
        if unit.key:
            self._described.set()
        with self._lock:
            if not self._recording:
                return
            if self._held + unit.size > self.options.buffer:
                self._waits = self._gap = True
            elif unit.key:
                self._waits = self._gap = False
            if self._waits:
                self._dropped += self._gap and unit.track == 0
                return
            self._units.append(unit)
            self._held += unit.size
        self._ready.set()

    def _run(self) -> None:
        backoff = Backoff(max_s=self.options.max_backoff_s, refused_s=self.options.refused_wait_s)
        while not self._stop.is_set():
            refused = False
            live_s = 0.0
            try:
                if not self._described.wait(0.2):
                    continue  # nothing to announce yet
                with Connection(self.target, self.options, self._stop) as connection:
                    connection.record(self.packetizer.sdp("facestream"))
                    live_s = time.monotonic()
                    self._connects += 1
                    self._begin()
                    self._become(State.LIVE, "")
                    self.request_keyframe()
                    self._stream(connection)
                return
            except Refused as error:
                what = f"{error.what}; tried again every {self.options.refused_wait_s:.0f} s"
                refused = True
            except UserError as error:
                what = error.what
            except (OSError, Malformed, ValueError) as error:
                what = reason(error)
            finally:
                with self._lock:
                    self._recording = False
            self._losses += bool(live_s)
            if live_s and time.monotonic() - live_s > STEADY_S:
                backoff.reset()
            self._become(State.FAILED if refused else State.RECONNECTING, what)
            self._stop.wait(backoff.next(refused))

    def _begin(self) -> None:
        with self._lock:
            self._units.clear()
            self._held = 0
            self._waits = True
            self._gap = False
            self._recording = True

    def _stream(self, connection: Connection) -> None:
        while not self._stop.is_set():
            self._ready.wait(0.5)
            self._ready.clear()
            connection.listen()
            while not self._stop.is_set():
                with self._lock:
                    if not self._units:
                        break
                    unit = self._units.popleft()
                connection.send(unit)
                with self._lock:
                    self._held -= unit.size
                    self._sent += unit.track == 0

    def _become(self, state: State, message: str) -> None:
        if (state, message) != (self.state, self.message):
            self.state = state
            self.message = message
            self._on_event(state, redact(message))
