"""Imports the Python modules of TensorRT and TensorRT-RTX, and routes their logs."""

from __future__ import annotations

import importlib
import logging
from typing import Any

from facestream.engines.errors import BadConfig

MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
EXTRAS = {"tensorrt": "gpu", "rtx": "rtx"}

log = logging.getLogger(__name__)


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
    """A TensorRT logger that keeps errors in `.errors` and passes warnings on to Python's logging, each once."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warned: set[str] = set()

        def log(self, severity: Any, message: str) -> None:
            line = (message.splitlines() or [""])[0][:200]
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(line)
                log.debug("%s: %s", trt.__name__, message)
            elif severity == trt.ILogger.WARNING and line not in self.warned:
                self.warned.add(line)
                log.warning("%s: %s", trt.__name__, line)

    return Log()


def unsupported(trt: Any, backend: str, capability: int) -> str:
    """Why a GPU of this compute capability (90 for 9.0) cannot run the backend; "" where it can. TensorRT-RTX names
    those that it knows, and what is newer than all of them is left to it."""
    if backend != "rtx" or not hasattr(trt, "ComputeCapability"):
        return ""
    names = [name[2:] for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    known = sorted(int(name) for name in names if name.isdigit())
    if not known or capability in known or capability > known[-1]:
        return ""
    named = ", ".join(f"{sm // 10}.{sm % 10}" for sm in known)
    compute = f"{capability // 10}.{capability % 10}"
    return f"TensorRT-RTX {trt.__version__} is not made for compute capability {compute}, only for {named}"
