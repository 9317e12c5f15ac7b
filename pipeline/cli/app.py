"""The command line: its commands, and conversion of errors to one line and an exit code."""

from __future__ import annotations

import io
import signal
import sys
from importlib import import_module
from typing import Any, ClassVar

import click
from facestream.pipeline import log
from facestream.pipeline.errors import UserError
from facestream.pipeline.system import importing
from facestream.pipeline.url import hide_typed

from facestream.checkout import benchmarks, is_checkout


class Commands(click.Group):
    """The commands, listed in this order. Each is imported on demand: importing a web server would add a third to the
    cost of a short clip."""

    COMMANDS: ClassVar = {
        "anonymize": "Copy videos and images with all faces covered.",
        "detect": "Write the faces of each frame as records.",
        "apply": "Cover the faces of saved records.",
        "review": "Check the faces of a video, correct and export it.",
        "run": "Cover faces live, from cameras and streams.",
        "verify": "Check a batch's outputs against its manifest.",
        "evaluate": "Measure leaks, tracking, and covers against face matchers.",
        "bench": "Time a whole job.",
    }
    CHECKOUT: ClassVar = ("bench",)

    def list_commands(self, ctx: click.Context) -> list[str]:
        in_checkout = is_checkout()
        return [name for name in self.COMMANDS if in_checkout or name not in self.CHECKOUT]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click's own, without importing the commands for what they say of themselves."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.COMMANDS[name]) for name in self.list_commands(ctx)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.COMMANDS:
            return None
        module: Any
        with importing():
            if cmd_name in self.CHECKOUT:
                module = benchmarks("command", cmd_name)
            else:
                module = import_module(f"facestream.pipeline.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        add_log_options(command)
        return command


def add_log_options(command: click.Command) -> None:
    """Add --log-level and --log-json to a command."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            add_log_options(inner)
        return
    if any(param.name == "log_level" for param in command.params):
        return
    for option in (
        click.Option(
            ["--log-level"], type=click.Choice(log.LEVELS), default="info", show_default=True, expose_value=False,
            is_eager=True, callback=_configure_log, help="minimum severity of messages on stderr",
        ),
        click.Option(
            ["--log-json"], is_flag=True, expose_value=False, is_eager=True, callback=_configure_log,
            help="log as JSON, one object per line",
        ),
    ):  # fmt: skip
        command.params.append(option)


def _configure_log(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    given = ctx.meta.setdefault("facestream.log", {})
    given["level" if param.name == "log_level" else "as_json"] = value
    log.configure(**given)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="facestream", message="facestream %(version)s")
def app() -> None:
    """Detect, track and anonymise faces in video."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0 done, 2 bad input or usage, 1 failed while running, 130 interrupted."""
    log.configure()
    signal.signal(signal.SIGTERM, _interrupt)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup keeps it ignored
        signal.signal(signal.SIGHUP, _interrupt)  # the session was closed
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold anything, as standard error knows
    hide_typed(sys.argv[1:] if arguments is None else arguments)
    try:
        return app.main(arguments, prog_name="facestream", standalone_mode=False) or 0
    except click.ClickException as e:
        log.fail(e.format_message())
        return 2
    except UserError as e:
        log.fail(e)
        return e.exit_code
    except (KeyboardInterrupt, click.Abort):
        log.fail("interrupted, nothing of the unfinished output is left")
        return 130


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
