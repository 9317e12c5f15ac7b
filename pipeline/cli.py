"""The command line: words to jobs, errors to one line and an exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import click
from facestream.engines.base import Detector
from facestream.pipeline.batch.listed import Listed, place
from facestream.pipeline.config import Config
from facestream.pipeline.errors import BadInput, UserError
from facestream.pipeline.flags import batching, config_of, covering, detector_of, say, shared
from facestream.pipeline.records import RecordSink, read_records
from facestream.pipeline.run import Job, Recorder, Report, run, run_stages
from facestream.pipeline.saved import Saved
from facestream.pipeline.video.output import sweep
from facestream.pipeline.video.uri import Kind, expand, parse

Run = Callable[[Job, Config, Detector, Recorder | None, bool], Report]


class Target(click.ParamType[Path]):
    """An output; with a slash at its end it is a folder, and made."""

    name = "PATH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(value)
        if str(value).endswith(os.sep):
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as e:
                raise BadInput(f"cannot make the folder ({e.strerror})", str(value)) from None
        return path


class Commands(click.Group):
    """A group some of whose commands are imported when they are asked for: what a web server or a benchmark needs
    would else be a third of the cost of covering a short clip."""

    ELSEWHERE: ClassVar = {
        "bench": "facestream.pipeline.measure.benching:bench",
        "evaluate": "facestream.pipeline.measure.evaluate:evaluate",
        "run": "facestream.pipeline.live.command:run",
        "verify": "facestream.pipeline.batch.verify:verify",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (where := self.ELSEWHERE.get(cmd_name)) is None:
            return super().get_command(ctx, cmd_name)
        module, name = where.split(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="facestream", message="facestream %(version)s")
def app() -> None:
    """Find, track and hide faces in video."""


@app.command()
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option("-o", "--output", required=True, type=Target(), help="file, or folder for several inputs")
@covering
@click.option("--two-pass", is_flag=True, help="go through each video twice: later frames tell what earlier ones hid")
@click.option(
    "--records", type=click.Path(path_type=Path), metavar="FILE", help="write what was found: .jsonl, .csv or .mot"
)
@batching
@shared
def anonymize(
    inputs: tuple[str, ...], output: Path, records: Path | None, two_pass: bool, list_file: Path | None,
    resume: bool, manifest: Path | None, ray: str, **flags: Any,
) -> int:  # fmt: skip
    """Write videos and images again with every face covered.

    Folders keep their structure; of several files, one bad one does not stop the rest.
    """
    if not inputs and list_file is None:
        raise BadInput("no input is given", do="name files, folders or globs, or a --list")
    jobs = _jobs(inputs, output, flags["overwrite"]) if inputs else []
    listed = Listed((), ())
    if list_file is not None:
        listed = Listed.read(list_file)
        jobs += listed.jobs(output, flags["overwrite"])
    alone = len(jobs) == 1 and jobs[0].output == output and not (resume or manifest or listed.missing or ray)
    if alone:
        return _all(jobs, records, flags, _twice if two_pass else run)
    from facestream.pipeline.batch.run import Batch, run_batch

    config = config_of(flags)
    return run_batch(
        Batch(
            jobs, output, config, two_pass, records, manifest, resume, flags["overwrite"], flags["quiet"],
            config.run.workers, listed.missing, ray,
        )
    )  # fmt: skip


@app.command()
@click.argument("input_", metavar="INPUT")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="FILE", help="records: .jsonl, .csv, .mot"
)
@shared
def detect(input_: str, output: Path, **flags: Any) -> int:
    """Write the faces of each frame, and no video."""
    jobs = [Job(str(file.path), None) for file in expand([input_])]
    return _all(jobs, output, flags)


@app.command()
@click.argument("input_", metavar="INPUT")
@click.argument("records", type=click.Path(path_type=Path), metavar="FILE.jsonl")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="file to write")
@covering
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="settings, see config.toml")
@click.option("--overwrite", is_flag=True, help="replace an existing output")
@click.option("--quiet", is_flag=True, help="no progress bar and no summary")
def apply(input_: str, records: Path, output: Path, **flags: Any) -> int:
    """Cover the faces that records name: saved before, perhaps edited by hand (.jsonl, .csv or MOT)."""
    config = config_of(flags)
    (job,) = _jobs((input_,), output, flags["overwrite"])
    report = run_stages(job, config, Saved(read_records(records, job.source), records), progress=not flags["quiet"])
    _tell(job, report, flags["quiet"])
    return 1 if report.lost else 0


def _twice(job: Job, config: Config, detector: Detector, notes: Recorder | None, progress: bool) -> Report:
    from facestream.pipeline.twopass import run_twice

    return run_twice(job, config, detector, notes, progress)


def _jobs(inputs: tuple[str, ...], output: Path, overwrite: bool) -> list[Job]:
    """One job a file. A single file goes to the output itself, anything else into it as a folder."""
    for text in inputs:
        uri = parse(text)
        if uri.kind not in (Kind.FILE, Kind.IMAGE, Kind.FOLDER):
            raise BadInput("not a file or folder", uri.shown, "anonymize works on files")
    files = expand(inputs, skip=output if output.is_dir() else None)
    single = len(inputs) == 1 and files[0].path == Path(inputs[0])
    if single and not output.is_dir():
        return [Job(str(files[0].path), output, overwrite)]
    if output.exists() and not output.is_dir():
        raise BadInput("is a file, and several inputs need a folder", str(output))
    return place(files, output, overwrite)


def _all(jobs: list[Job], records: Path | None, flags: dict[str, Any], do: Run = run) -> int:
    """Run the jobs one after the other; a bad one does not stop the rest. The exit code is the worst one's."""
    config = config_of(flags)
    detector = detector_of(config)
    for written in (records, *(job.output for job in jobs)):
        if written is not None:
            sweep(written, dead=False)  # what a run left that was killed
    notes = RecordSink(records, flags["overwrite"]) if records else None
    worst = 0
    done = 0

    def work(job: Job) -> Report:
        return do(job, config, detector, notes, not flags["quiet"])

    try:
        for job in jobs:
            code = _one(work, job, notes, flags["quiet"], len(jobs) > 1)
            done += code != 2
            worst = max(worst, code)
    except BaseException:
        if notes:
            notes.abort()
        raise
    if notes:
        notes.close() if done else notes.abort()
    if len(jobs) > 1 and not flags["quiet"]:
        print(f"{done} of {len(jobs)} files done")
    return worst


def _one(do: Callable[[Job], Report], job: Job, notes: RecordSink | None, quiet: bool, many: bool) -> int:
    try:
        report = do(job)
    except UserError as e:
        if notes:
            notes.rollback()
        if not many:
            raise
        say("error", e)
        return e.exit_code
    if notes:
        notes.commit()
    _tell(job, report, quiet)
    return 1 if report.lost else 0


def _tell(job: Job, report: Report, quiet: bool) -> None:
    for warning in report.warnings:
        say("warning", f"{job.source}: {warning}")
    if report.lost:
        say("warning", report.lost)
    if not quiet:
        arrow = f" -> {job.output}" if job.output else ""
        print(f"{job.source}{arrow}: {report.line()}")


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
