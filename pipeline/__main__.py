"""`python -m pipeline` is the same as `facestream`."""

from __future__ import annotations

import sys


def main() -> None:
    try:
        from pipeline.cli import main as run  # takes a second: Ctrl-C may come in it
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run())


if __name__ == "__main__":
    main()
