"""A desktop window: the output of all cameras with their metrics, and keys for settings. Extra `window`.

SDL wants its window and its events on the thread that began the program, so the run's main loop calls show(). The
panes' pictures are made ready on the sinks' threads; one that was not shown yet gives way to the next.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from av.video.reformatter import VideoReformatter
from facestream.engines.boxes import Array
from facestream.pipeline.connection import State
from facestream.pipeline.errors import BadConfig, BadInput
from facestream.pipeline.live.screen import draw_boxes, scaled_bgr
from facestream.pipeline.types import CoveredFrame
from facestream.pipeline.url import redact

if TYPE_CHECKING:
    from facestream.pipeline.live.run import CameraPipeline

try:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import pygame
except ImportError:  # the extra is not installed; Window says so
    pygame = None  # type: ignore[assignment]

TITLE = "facestream"
SIZE = (960, 540)  # pixels at first; then the first picture's, if it is smaller
PACE_S = 1 / 60  # between two polls of the keys
HELP = "M boxes   H cover   F full screen   Q quit"
HELP_S = 10.0
BACK = (21, 23, 26)
DIM = (154, 164, 176)
TEXT = (240, 240, 240)
BAD = (255, 107, 107)


@dataclass(frozen=True, slots=True)
class ReadyPicture:
    """A frame to show. bgr: uint8 [h, w, 3]; arrived_s: monotonic time of its arrival."""

    bgr: Array
    arrived_s: float


class Pane:
    """One camera's part of the window: a sink for its frames."""

    upright = True

    def __init__(self, pipeline: CameraPipeline, window: Window) -> None:
        self.name = f"window {pipeline.name}"
        self.pipeline = pipeline
        self._window = window
        self.room = SIZE  # for the picture, in pixels
        self.newest: ReadyPicture | None = None
        self.last: ReadyPicture | None = None  # what the window shows
        self.written = self.dropped = 0
        self._times: deque[float] = deque(maxlen=30)  # of pictures that were shown
        self.latency_ms = 0.0
        self._scaler = VideoReformatter()  # of the sink's thread

    def wants(self, size: tuple[int, int]) -> bool:
        return True

    def write(self, covered: CoveredFrame) -> None:
        bgr = scaled_bgr(covered, *self.room, enlarge=True, scaler=self._scaler)
        if self.pipeline.tuner.boxes:
            draw_boxes(bgr, covered)
        self.dropped += self.newest is not None
        self.newest = ReadyPicture(bgr, covered.tracked.frame.arrived_s or time.monotonic())
        self.written += 1
        self._window.wake()

    def close(self) -> None:
        """Keep showing the last frame."""

    def abort(self) -> None:
        """Keep showing the last frame."""

    def take(self) -> ReadyPicture | None:
        """The frame to show now."""
        picture = self.newest
        self.newest = None
        if picture is not None:
            self.last = picture
            self._times.append(time.monotonic())
            self.latency_ms = 1000 * (time.monotonic() - picture.arrived_s)
        return self.last

    @property
    def fps(self) -> float:
        """Frames shown per second, over the last thirty; 0 if none came for two seconds."""
        times = list(self._times)
        if len(times) < 2 or time.monotonic() - times[-1] > 2:
            return 0.0
        return (len(times) - 1) / max(times[-1] - times[0], 1e-3)


class Window:
    """Call start() on the main thread, then show() repeatedly until it returns False, then stop()."""

    def __init__(self, pipelines: Sequence[CameraPipeline]) -> None:
        """Raises BadConfig without the extra. channels: the camera pipelines, in the order of their panes."""
        if pygame is None:
            raise BadConfig("the window needs one more library", "window", "pip install 'facestream[window]'")
        self._pipelines = pipelines
        self.panes: list[Pane] = []
        self._news = threading.Event()
        self._screen: Any = None
        self._before: tuple[int, int] | None = None  # its size, while it fills the screen
        self._sized = False  # to the first picture, or by hand
        self._help_s = self._drawn_s = 0.0
        self._note = self.failed = ""

    def pane(self, pipeline: CameraPipeline) -> Pane:
        self.panes.append(Pane(pipeline, self))
        return self.panes[-1]

    def wake(self) -> None:
        """Notify of a new frame in a pane; from any thread."""
        self._news.set()

    def start(self) -> None:
        """Open the window. Raises BadInput without a display."""
        try:
            pygame.display.init()
            pygame.font.init()
            wished = os.environ.get("SDL_VIDEODRIVER", "")
            if pygame.display.get_driver() in ("offscreen", "dummy") and not wished:  # SDL's last resorts
                raise pygame.error("no display")
            self._screen = pygame.display.set_mode(SIZE, pygame.RESIZABLE)
        except pygame.error as error:
            pygame.display.quit()
            do = "run it on a desktop, or look at a page: --to http://127.0.0.1:8080"
            raise BadInput(f"cannot be opened ({error})", "window", do) from None
        pygame.display.set_caption(TITLE)
        self._font = pygame.font.Font(None, 20)
        self._help_s = time.monotonic() + HELP_S
        self._arrange()

    def stop(self) -> None:
        if self._screen is not None:
            self._screen = None
            pygame.font.quit()
            pygame.display.quit()

    def show(self) -> bool:
        """Wait a moment for a picture, obey the keys and draw; False when the window was closed, or when the display
        failed: then `failed` says how."""
        try:
            return self._show()
        except pygame.error as error:
            self.failed = str(error)
            return False

    def _show(self) -> bool:
        fresh = self._news.wait(PACE_S)
        self._news.clear()
        for event in pygame.event.get():
            if event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and not self._obey(event)):
                return False
            if event.type == pygame.VIDEORESIZE:
                self._screen = pygame.display.get_surface()
                self._sized = True
                self._arrange()
        if fresh or time.monotonic() - self._drawn_s > 0.25:
            self._draw()
        return True

    def _obey(self, event: Any) -> bool:
        """False when the key ends the run."""
        key = event.key
        if key in (pygame.K_q, pygame.K_ESCAPE):
            return False
        if key == pygame.K_f:
            self._fill()
        elif key == pygame.K_m:
            self._turn("mode")
        elif key == pygame.K_h:
            self._turn("hide")
        else:
            self._help_s = time.monotonic() + HELP_S
        return True

    def _fill(self) -> None:
        """Full screen, or back."""
        if self._before is None:
            self._before, size, how = self._screen.get_size(), pygame.display.get_desktop_sizes()[0], pygame.FULLSCREEN
        else:
            size = self._before
            self._before = None
            how = pygame.RESIZABLE
        self._screen = pygame.display.set_mode(size, how)
        self._sized = True
        self._arrange()

    def _turn(self, key: str) -> None:
        """The next choice, for all cameras."""
        for pipeline in self._pipelines:
            values = pipeline.tuner.values
            choices = values["choices"][key]
            settings_patch = choices[(choices.index(values[key]) + 1) % len(choices)]
            self._note = key + (f": {settings_patch}" if len(choices) > 1 else ": the run allows no other (run.change)")
            if settings_patch != values[key]:
                pipeline.tune({key: settings_patch})
        self._help_s = time.monotonic() + HELP_S / 3

    def _arrange(self) -> None:
        """Give each pane its room."""
        width, height = self._screen.get_size()
        columns = math.ceil(math.sqrt(max(1, len(self.panes))))
        rows = math.ceil(max(1, len(self.panes)) / columns)
        for pane in self.panes:
            pane.room = max(2, width // columns), max(2, height // rows)

    def _fit(self, picture: Array) -> None:
        """The window as large as the first camera's picture wants it, once."""
        self._sized = True
        height, width = picture.shape[:2]
        size = (SIZE[0], round(SIZE[0] * height / width)) if width >= height else (SIZE[1] * width // height, SIZE[1])
        if len(self.panes) == 1 and size != self._screen.get_size():
            self._screen = pygame.display.set_mode(size, pygame.RESIZABLE)
            self._arrange()

    def _draw(self) -> None:
        self._drawn_s = time.monotonic()
        pictures = [pane.take() for pane in self.panes]
        if not self._sized and pictures and pictures[0] is not None:
            self._fit(pictures[0].bgr)
        self._screen.fill(BACK)
        for number, (pane, picture) in enumerate(zip(self.panes, pictures, strict=True)):
            width, height = pane.room
            columns = max(1, self._screen.get_width() // width)
            left = number % columns * width
            top = number // columns * height
            if picture is not None:
                self._put(picture.bgr, left, top, width, height)
            self._caption(pane, left, top)
        if time.monotonic() < self._help_s:
            text = f"{self._note}      {HELP}" if self._note else HELP
            self._write(text, 8, self._screen.get_height() - 26, DIM)
        else:
            self._note = ""
        pygame.display.flip()

    def _put(self, bgr: Array, left: int, top: int, width: int, height: int) -> None:
        surface = pygame.image.frombuffer(bgr.tobytes(), (bgr.shape[1], bgr.shape[0]), "BGR")
        if surface.get_width() > width or surface.get_height() > height:  # made before the window shrank
            scale = min(width / surface.get_width(), height / surface.get_height())
            surface = pygame.transform.scale_by(surface, scale)
        middle = left + (width - surface.get_width()) // 2, top + (height - surface.get_height()) // 2
        self._screen.blit(surface, middle)

    def _caption(self, pane: Pane, left: int, top: int) -> None:
        pipeline = pane.pipeline
        status = pipeline.camera.status
        settings = pipeline.tuner.now
        parts = [pipeline.name, f"{pane.fps:.1f} fps", f"{pane.latency_ms:.0f} ms", f"{settings.mode}, {settings.hide}"]
        dropped = pipeline.counts.dropped + pipeline.counts.sink_dropped + pane.dropped
        parts += [f"{dropped} dropped"] * bool(dropped)
        self._write("   ".join(parts), left + 8, top + 8, TEXT)
        trouble = pipeline.fail_closed.trouble
        if status.state not in (State.LIVE, State.ENDED):
            trouble = ", ".join(filter(None, (str(status.state), status.message)))
        if trouble:
            self._write(redact(trouble), left + 8, top + 32, BAD)

    def _write(self, text: str, left: int, top: int, colour: tuple[int, int, int]) -> None:
        rendered = self._font.render(text, True, colour)
        shade = pygame.Surface((rendered.get_width() + 8, rendered.get_height() + 6), pygame.SRCALPHA)
        shade.fill((0, 0, 0, 150))
        self._screen.blit(shade, (left - 4, top - 3))
        self._screen.blit(rendered, (left, top))
