"""Real-time face detection, tracking and anonymisation for video.

    import facestream as fs

    report = fs.anonymize("in.mp4", "out.mp4", hide="solid")    # file to file
    for frame in fs.detect("in.mp4"):                           # boxes and track ids, frame by frame
        print(frame.time_s, frame.xyxy, frame.ids)
    pipe = fs.FacePipeline(fs.load_detector("plainS"))          # pictures of your own: push, flush

See docs/api.md. Importing this module is cheap: each name is loaded when it is first used.

An installed package holds `pipeline`, `engines` and `train` in this folder. In a checkout they lie beside it, so the
checkout's root is one more place where this package's parts are found.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facestream.api import FacePipeline, FrameDetections, anonymize, detect, load_detector
    from facestream.engines.base import Detector
    from facestream.pipeline.config import Config
    from facestream.pipeline.errors import BadConfig, BadInput, EngineMismatch, SinkLost, SourceLost, UserError
    from facestream.pipeline.run import Report

__all__ = [
    "BadConfig",
    "BadInput",
    "Config",
    "Detector",
    "EngineMismatch",
    "FacePipeline",
    "FrameDetections",
    "Report",
    "SinkLost",
    "SourceLost",
    "UserError",
    "anonymize",
    "detect",
    "load_detector",
]

_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "pyproject.toml").is_file() and (_ROOT / "pipeline").is_dir():
    __path__.append(str(_ROOT))

_HOMES = {
    "BadConfig": "pipeline.errors",
    "BadInput": "pipeline.errors",
    "Config": "pipeline.config",
    "Detector": "engines.base",
    "EngineMismatch": "pipeline.errors",
    "FacePipeline": "api",
    "FrameDetections": "api",
    "Report": "pipeline.run",
    "SinkLost": "pipeline.errors",
    "SourceLost": "pipeline.errors",
    "UserError": "pipeline.errors",
    "anonymize": "api",
    "detect": "api",
    "load_detector": "api",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("facestream")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
