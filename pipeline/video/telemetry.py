"""Places in text: subtitle tracks into which drones and action cameras write where each picture was taken."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Patterns are text: `re` compiles each on first use and keeps it; most files need none.
_MAKERS = r"(?i)dji|gopro|telemetr|gps|drone|parrot|autel|skydio|garmin|camm|insta360|blackvue|nextbase|dashcam"
_DEGREES = r"[-+]?\d{1,3}\.\d{4,}"
_PLACE = (
    rf"(?i)\b(?:gps|home|geo|pos(?:ition)?|location|coord\w*)\b\W{{0,4}}[NSEW]?\d{{1,3}}\.\d+"
    rf"|\b(?:lat|latitude|lon|long|lng|longitude|longtitude)\b\W{{0,5}}[NSEW]?\W?{_DEGREES}"
    rf"|{_DEGREES}\s*°?\s*[NS]?\s*[,;/ ]\s*{_DEGREES}\s*°?\s*[EW]?\b"
    rf"|\d{{1,3}}°\s*\d{{1,2}}[\u2032'\u2019]\s*\d{{1,2}}(?:\.\d+)?[\u2033\"\u201d]?\s*[NSEWO]\b"
    rf"|[NS]\s*{_DEGREES}\W+[EW]\s*{_DEGREES}"
    rf"|[-+]\d{{2}}\.\d{{3,}}[-+]\d{{3}}\.\d{{3,}}"
    rf"|\$G[PNL](?:GGA|RMC|GLL)\b"
)
_CAMERA = r"(?i)\bFrameCnt\b|\bSrtCnt\b|\bDiffTime\b|\bBAROMETER\b|\bH\.S\b|\bD\.H\b|\b(?:rel|abs)_alt\b"


def has_place(text: str) -> bool:
    """Does it hold coordinates."""
    return re.search(_PLACE, text) is not None


def is_telemetry(names: Iterable[str], texts: Iterable[str]) -> bool:
    """Whether a subtitle track is a camera's log. names: what its metadata says of it. texts: its first entries."""
    if any(re.search(_MAKERS, name) for name in names):
        return True
    found = list(texts)
    logged = sum(has_place(text) or re.search(_CAMERA, text) is not None for text in found)
    return len(found) > 0 and 2 * logged >= len(found)


def text_of(packet: bytes) -> str:
    """The text of a subtitle packet, whichever format it has; two bytes of length before it in MP4."""
    return packet.decode("utf-8", "replace")
