"""`python -m pipeline` is the same as `facestream`."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys


def _no_huge_pages() -> None:
    """x264 asks Linux for pages of 2 MB, which rounds each of its pictures up: 10 MB more at 1080p, and no faster."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE of prctl(2)


def main() -> None:
    # numpy's own threads have nothing to do here, and only to start them takes a third of a second of CPU.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # OpenCV's own threads wait in a loop that burns CPU; the stages run side by side as it is.
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
    _no_huge_pages()
    gc.disable()  # what is imported stays: no need to look through it again and again
    try:
        from facestream.pipeline.cli.app import main as run  # takes a second: Ctrl-C may come in it
    except KeyboardInterrupt:
        sys.exit(130)
    gc.freeze()
    gc.enable()
    sys.exit(run())


if __name__ == "__main__":
    main()
