"""Places in text: subtitle tracks into which drones and action cameras write where each picture was taken."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MAKERS = re.compile(
    r"dji|gopro|telemetr|gps|drone|parrot|autel|skydio|garmin|camm|insta360|blackvue|nextbase|dashcam", re.IGNORECASE
)
_DEGREES = r"[-+]?\d{1,3}\.\d{4,}"
_PLACE = re.compile(
    rf"\b(?:gps|home|geo|pos(?:ition)?|location|coord\w*)\b\W{{0,4}}[NSEW]?\d{{1,3}}\.\d+"
    rf"|\b(?:lat|latitude|lon|long|lng|longitude|longtitude)\b\W{{0,5}}[NSEW]?\W?{_DEGREES}"
    rf"|{_DEGREES}\s*°?\s*[NS]?\s*[,;/ ]\s*{_DEGREES}\s*°?\s*[EW]?\b"
    rf"|\d{{1,3}}°\s*\d{{1,2}}[\u2032'\u2019]\s*\d{{1,2}}(?:\.\d+)?[\u2033\"\u201d]?\s*[NSEWO]\b"
    rf"|[NS]\s*{_DEGREES}\W+[EW]\s*{_DEGREES}"
    rf"|[-+]\d{{2}}\.\d{{3,}}[-+]\d{{3}}\.\d{{3,}}"
    rf"|\$G[PNL](?:GGA|RMC|GLL)\b",
    re.I,
)
_CAMERA = re.compile(r"\bFrameCnt\b|\bSrtCnt\b|\bDiffTime\b|\bBAROMETER\b|\bH\.S\b|\bD\.H\b|\b(?:rel|abs)_alt\b", re.I)


def has_place(text: str) -> bool:
    """Does it hold coordinates."""
    return _PLACE.search(text) is not None


def is_telemetry(names: Iterable[str], texts: Iterable[str]) -> bool:
    """Whether a subtitle track is a camera's log. names: what its metadata says of it. texts: its first entries."""
    if any(_MAKERS.search(name) for name in names):
        return True
    found = list(texts)
    logged = sum(has_place(text) or _CAMERA.search(text) is not None for text in found)
    return len(found) > 0 and 2 * logged >= len(found)


def text_of(packet: bytes) -> str:
    """The text of a subtitle packet, whichever format it has; two bytes of length before it in MP4."""
    return packet.decode("utf-8", "replace")
