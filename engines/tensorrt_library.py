"""The Python modules of TensorRT and TensorRT-RTX, and what they have to say."""

from __future__ import annotations

import importlib
from typing import Any

from facestream.engines.errors import BadConfig

MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
EXTRAS = {"tensorrt": "gpu", "rtx": "rtx"}


def library(backend: str) -> Any:
    """The Python module of a backend. BadConfig, with what to install, when there is none."""
    name, oldest = {"tensorrt": ("TensorRT", 10), "rtx": ("TensorRT-RTX", 1)}[backend]
    try:
        trt = importlib.import_module(MODULES[backend])
    except (ImportError, OSError, RuntimeError) as e:
        absent = isinstance(e, ModuleNotFoundError) and e.name == MODULES[backend]
        why = "which is not installed" if absent else f"which does not load ({str(e).splitlines()[0][:100]})"
        install = f"pip install 'facestream[{EXTRAS[backend]}]', see docs/gpu.md"
        raise BadConfig(f"needs {name}, {why}", f"--backend {backend}", install) from None
    if int(trt.__version__.split(".")[0]) < oldest:
        do = f"pip install -U '{MODULES[backend].replace('_', '-')}>={oldest}'"
        raise BadConfig(f"needs {name} {oldest} or newer, here is {trt.__version__}", f"--backend {backend}", do)
    return trt


def logger(trt: Any) -> Any:
    """A TensorRT logger that keeps errors in `.errors` instead of printing them."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message.splitlines()[0][:200])

    return Log()
