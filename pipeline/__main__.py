"""`python -m pipeline` is the same as `facestream`."""

from __future__ import annotations

import sys

from pipeline.cli import main as run


def main() -> None:
    sys.exit(run())


if __name__ == "__main__":
    main()
