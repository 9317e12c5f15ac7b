"""What was done to which file, written down so that it can be checked later: hashes, settings, faces, warnings."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import av
import onnxruntime
from facestream.engines.checked import checked
from facestream.engines.loader import WEIGHTS
from facestream.pipeline.config import Config
from facestream.pipeline.errors import BadInput
from facestream.pipeline.video.output import write_text
from msgspec import Struct, structs, to_builtins

FORMAT = 1


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a batch. state: `done`, `cut short` (the input was, what came was covered) or `failed`.

    input, output: absolute paths. key: fingerprint of the settings, see `fingerprint`. faces: boxes by their state,
    summed over the frames. error: why it failed or ended early. seconds: of work.
    """

    input: str
    output: str
    state: Literal["done", "cut short", "failed"]
    key: str = ""
    input_sha256: str = ""
    output_sha256: str = ""
    frames: int = 0
    tracks: int = 0
    faces: dict[str, int] = {}
    warnings: tuple[str, ...] = ()
    error: str = ""
    seconds: float = 0.0

    @property
    def has_output(self) -> bool:
        """Whether it has an output."""
        return self.state != "failed"


def sha256(path: Path) -> str:
    """A file's SHA-256 in hexadecimal; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def model_file(config: Config) -> Path:
    path = Path(config.detector.model)
    return path if path.suffix in (".onnx", ".xml", ".plan") else WEIGHTS / f"{config.detector.model}.onnx"


def fingerprint(config: Config, two_pass: bool) -> str:
    """Equal for two runs that make the same output of the same input: same settings, model and software."""
    settings = to_builtins(config)
    for section in ("decode", "anonymize", "run"):  # how the work is done, and what concerns live runs alone
        del settings[section]
    settings["advanced"] = config.advanced.every()  # those with their default value as well
    parts = [settings, two_pass, sha256(model_file(config)), software(config)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def software(config: Config) -> dict[str, str]:
    """Versions of what the output depends on."""
    used = {
        "facestream": version("facestream"),
        "python": platform.python_version(),
        "av": av.__version__,
        "ffmpeg": str(av.ffmpeg_version_info),
        "onnxruntime": onnxruntime.__version__,
    }
    if config.detector.backend != "file":  # which of them it was is said when it starts, and depends on the machine
        used |= {name: version(name) for name in ("torch", "tensorrt", "tensorrt-rtx") if _installed(name)}
    return used


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def write(path: Path, entries: Iterable[Entry], config: Config, two_pass: bool, complete: bool) -> None:
    """Write the manifest of a batch, whole or not at all. complete: every file of it was gone through."""
    files = [to_builtins(entry) for entry in entries]
    body: dict[str, Any] = {
        "format": FORMAT,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "complete": complete,
        "software": software(config),
        "model": {"name": config.detector.model, "sha256": sha256(model_file(config))},
        "settings": to_builtins(config) | {"two_pass": two_pass},
        "totals": {
            "files": len(files),
            "failed": sum(row["state"] == "failed" for row in files),
            "frames": sum(row["frames"] for row in files),
            "faces": sum(sum(row["faces"].values()) for row in files),
        },
        "files": [_relative(row, path.absolute().parent) for row in files],
    }
    text = json.dumps(body | {"sha256": _seal(body)}, indent=1, ensure_ascii=False) + "\n"
    write_text(path, text, "the manifest")


def read(path: Path) -> tuple[list[Entry], bool, bool]:
    """A manifest's entries, whether it is as it was written, and whether all of its batch was gone through. BadInput
    for what is no manifest."""
    try:
        body = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
        seal = body.pop("sha256")
        entries = [checked(row, Entry) for row in body["files"]]
        complete = bool(body["complete"])
    except OSError as e:
        raise BadInput(f"cannot read the manifest ({e.strerror})", str(path)) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadInput("it is not a manifest, or damaged", str(path)) from None
    folder = path.absolute().parent
    entries = [structs.replace(entry, output=str(folder / entry.output)) for entry in entries]
    return entries, seal == _seal(body), complete


def is_ours(path: Path) -> bool:
    """Whether a manifest, as it was written, is there."""
    try:
        return read(path)[1]
    except BadInput:
        return False


def verify(path: Path) -> tuple[list[str], list[str], int]:
    """Hold the files of today against a manifest.

    Returns what is wrong (an output that is gone or not the one that was written, a manifest that was changed or of a
    batch that did not end), what cannot be told any more (an input that is gone or was changed since), and how many
    outputs are as they were.
    """
    entries, unchanged, complete = read(path)
    wrong = [] if unchanged else [f"{path}: the manifest was changed after it was written"]
    if not complete:
        wrong.append(f"{path}: the batch was stopped before it had gone through all its files; go on with --resume")
    notes = []
    good = 0
    for entry in entries:
        if not entry.has_output:
            notes.append(f"{entry.input}: it failed: {entry.error}")
            continue
        found = sha256(Path(entry.output))
        if found == entry.output_sha256:
            good += 1
        elif not found:
            wrong.append(f"{entry.output}: it is gone, or cannot be read")
        else:
            wrong.append(f"{entry.output}: it is not the file that was written")
        source = sha256(Path(entry.input))
        if source != entry.input_sha256:
            notes.append(f"{entry.input}: {'it was changed since' if source else 'it is not there any more'}")
    return wrong, notes, good


def _relative(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Outputs beside or below the manifest are named from there, so that they can be moved together."""
    output = Path(row["output"])
    return row | {"output": str(output.relative_to(folder))} if output.is_relative_to(folder) else row


def _seal(body: dict[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
