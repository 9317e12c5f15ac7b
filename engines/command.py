"""Runs developer commands with one-line errors and the common exit codes."""

from __future__ import annotations

import logging
import sys

import click
from facestream.engines.errors import UserError
from tqdm.contrib.logging import logging_redirect_tqdm

ROOT = logging.getLogger("facestream")


def finish(command: click.Command, name: str, interrupted: str = "interrupted") -> None:
    """Run a click command as the whole program. Exit codes: 0 done, 2 usage or input, 1 failed, 130 interrupted.

    The package's log messages go to stderr, above progress bars.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
    ROOT.handlers[:] = [handler]
    ROOT.setLevel(logging.INFO)
    try:
        with logging_redirect_tqdm([ROOT]):
            command.main(prog_name=name, standalone_mode=False)
    except click.ClickException as e:
        code = 2
        message = f"error: {e.format_message()}"
    except UserError as e:
        code = e.exit_code
        message = f"error: {e}"
    except ModuleNotFoundError as e:
        # onnx alone is what a backend for GPUs lacks who has its library; all else comes with an extra.
        what = {"openvino": "'facestream[openvino]'", "nncf": "'facestream[openvino]'", "onnx": "onnx"}
        package = what.get(e.name or "", "'facestream[train]'")
        code = 2
        message = f"error: {e.name} is not installed (pip install {package})"
    except (KeyboardInterrupt, click.Abort):
        code = 130
        message = interrupted
    else:
        return
    print(f"{name}: {message}", file=sys.stderr)
    sys.exit(code)
