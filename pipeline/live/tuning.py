"""Settings that can be changed during a live run: covers, detection threshold, and whether boxes are drawn.

By default a change can only cover more than the run's settings do, never less (`run.change`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Protocol

from facestream.pipeline.config import HIDE, Config, CoverConfig, changed
from facestream.pipeline.errors import BadConfig
from facestream.pipeline.stages.anonymise import Anonymizer
from facestream.pipeline.stages.overlay import Drawer
from facestream.pipeline.types import CoveredFrame, TrackedFrame
from msgspec import structs

KEYS = {"hide": "cover.hide", "scale": "cover.scale", "threshold": "detector.threshold"}
STRENGTH = {"blur": 0, "pixelate": 1, "solid": 2}  # an image hides as much as solid does
LEAST_THRESHOLD = 0.02
MOST_THRESHOLD = 0.95
MOST_SCALE = 5.0


class Mode(StrEnum):
    """What a camera's output shows."""

    COVER = "cover"  # faces covered
    BOXES = "boxes"  # faces covered, boxes and ids drawn
    BARE = "bare"  # boxes drawn on uncovered faces: only if the run was started that way


@dataclass(frozen=True, slots=True)
class Tuning:
    """hide, scale, threshold: as cover.hide, cover.scale and detector.threshold; for all outputs of a camera.
    mode: for the page and the window; for all outputs if the run draws on all of them."""

    mode: Mode
    hide: str
    scale: float
    threshold: float


class Coverer(Protocol):
    """Creates covered frames: an Anonymizer, or a Drawer on explicit request."""

    def cover(self, tracked: TrackedFrame) -> CoveredFrame: ...


class Tuner:
    """One camera's current settings, and the limits of changes.

    coverer: covers frames according to the current settings. drawn: the run draws boxes on all outputs. bare: the run
    shows uncovered faces. adjustable: the detector's threshold can be lowered.
    """

    def __init__(self, config: Config, drawn: bool = False, bare: bool = False, adjustable: bool = True) -> None:
        self.config = config
        self._drawn = drawn
        self._bare = bare
        self._adjustable = adjustable
        mode = Mode.BARE if bare else Mode.BOXES if drawn else Mode.COVER
        self.start = Tuning(mode, config.cover.hide, config.cover.scale, config.detector.threshold)
        self.now, self.coverer = self.start, self._coverer(self.start, config.cover)

    @property
    def boxes(self) -> bool:
        """Whether the page and the window are to draw boxes themselves."""
        return self.now.mode is Mode.BOXES and not self._drawn

    @property
    def choices(self) -> dict[str, Any]:
        """The allowed values: lists of strings, [lowest, highest] for numbers."""
        policy = self.config.run.change
        start = self.start
        own = ["image"] if start.hide not in HIDE else []  # never another image: that would read any file here
        min_s = 0 if policy == "any" else STRENGTH.get(start.hide, 2)
        hides = [*own, *(name for name in HIDE if STRENGTH[name] >= min_s)]
        scale = [1.0 if policy == "any" else start.scale, MOST_SCALE]
        threshold = [
            min(LEAST_THRESHOLD, start.threshold) if self._adjustable else start.threshold,
            max(MOST_THRESHOLD, start.threshold) if policy == "any" else start.threshold,
        ]
        modes = [Mode.COVER, Mode.BOXES, *([Mode.BARE] if self._bare else [])]
        if policy == "no":
            modes = [start.mode]
            hides = [_word(start.hide)]
            scale = [start.scale] * 2
            threshold = [start.threshold] * 2
        return {"mode": [str(mode) for mode in modes], "hide": hides, "scale": scale, "threshold": threshold}

    @property
    def values(self) -> dict[str, Any]:
        """The current settings and the allowed values, for a page."""
        return {**asdict(self.now), "hide": _word(self.now.hide), "choices": self.choices}

    def change(self, settings_patch: Mapping[str, Any]) -> Tuning:
        """Change some settings; returns the result. Raises BadConfig and leaves settings unchanged if a value is not
        allowed."""
        choices = self.choices
        for key in settings_patch:
            if key not in choices:
                raise BadConfig(f"unknown key {key!r}", "page", "known: " + ", ".join(choices))
        values = {KEYS[key]: value for key, value in settings_patch.items() if key in KEYS}
        if settings_patch.get("hide") == "image" and "image" in choices["hide"]:
            values["cover.hide"] = self.start.hide
        config = changed(self._as_config(), values, "page")
        mode = settings_patch.get("mode", self.now.mode)
        new = {"scale": config.cover.scale, "threshold": config.detector.threshold}
        for key, asked in settings_patch.items():
            allowed = choices[key]
            if not (allowed[0] <= new[key] <= allowed[1] if key in new else asked in allowed):
                limits = f"{allowed[0]:g} to {allowed[1]:g}" if key in new else ", ".join(allowed)
                raise BadConfig(f"{key} is {asked!r}: the run allows {limits}", "page", "see run.change")
        tuning = Tuning(Mode(mode), config.cover.hide, config.cover.scale, config.detector.threshold)
        self.now, self.coverer = tuning, self._coverer(tuning, config.cover)
        return tuning

    def _coverer(self, tuning: Tuning, cover: CoverConfig) -> Coverer:
        anonymizer = Anonymizer(cover, self.config.advanced.anonymise)
        if not self._drawn or tuning.mode is Mode.COVER:
            return anonymizer
        return Drawer(None if tuning.mode is Mode.BARE else anonymizer)

    def _as_config(self) -> Config:
        """The run's configuration with the current settings."""
        cover = structs.replace(self.config.cover, hide=self.now.hide, scale=self.now.scale)
        detector = structs.replace(self.config.detector, threshold=self.now.threshold)
        return structs.replace(self.config, cover=cover, detector=detector)


def _word(hide: str) -> str:
    """The cover's name on a page, without an image's path."""
    return "image" if hide.startswith("image:") else hide
