"""The command line as a whole: which commands there are, errors to one line and an exit code."""

from __future__ import annotations

import io
import signal
import sys
from importlib import import_module
from typing import Any, ClassVar

import click
from facestream.pipeline.errors import UserError
from facestream.pipeline.log import say

from facestream.checkout import benchmarks


class Commands(click.Group):
    """Each command is imported when it is asked for: what a web server or a benchmark needs would else be a third of
    the cost of covering a short clip. They are listed in this order."""

    COMMANDS: ClassVar = ("anonymize", "detect", "apply", "run", "verify", "evaluate", "bench")
    CHECKOUT: ClassVar = ("bench",)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.COMMANDS:
            return None
        module: Any
        if cmd_name in self.CHECKOUT:
            module = benchmarks("command", cmd_name)
        else:
            module = import_module(f"facestream.pipeline.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="facestream", message="facestream %(version)s")
def app() -> None:
    """Find, track and hide faces in video."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code: 0 done, 2 bad input or usage, 1 failed while running, 130 interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold anything, as standard error knows
    try:
        return app.main(arguments, prog_name="facestream", standalone_mode=False) or 0
    except click.ClickException as e:
        say("error", e.format_message())
        return 2
    except UserError as e:
        say("error", e)
        return e.exit_code
    except (KeyboardInterrupt, click.Abort):
        say("error", "interrupted, nothing of the unfinished output is left")
        return 130


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
