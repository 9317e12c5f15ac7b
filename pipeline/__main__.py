"""`python -m pipeline` is the same as `facestream`."""

from __future__ import annotations

import os
import sys

from facestream.pipeline.system import importing, without_huge_pages


def main() -> None:
    # numpy's own threads have nothing to do here, and only to start them takes a third of a second of CPU.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # OpenCV's own threads wait in a loop that burns CPU; the stages run side by side as it is.
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
    without_huge_pages()
    try:  # Ctrl-C may come in it
        with importing():
            from facestream.pipeline.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run())


if __name__ == "__main__":
    main()
