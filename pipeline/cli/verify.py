"""`facestream verify`: check the outputs of a batch against its manifest."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import click
from facestream.pipeline.batch import manifest
from facestream.pipeline.log import fail

log = logging.getLogger(__name__)


@click.command()
@click.argument("manifest_file", type=click.Path(path_type=Path), metavar="MANIFEST")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object on the last line")
def verify(manifest_file: Path, as_json: bool) -> int:
    """Check the outputs of a batch against its manifest.

    The exit code is 1 if an output or the manifest is missing or was changed, or if the batch was stopped before its
    end. Missing and changed inputs are reported, but are no error.
    """
    wrong, notes, good = manifest.verify(manifest_file)
    for line in notes:
        log.info("%s", line)
    for line in wrong:
        fail(line)
    print(f"{good} outputs are unchanged" + (f", {len(wrong)} problems" if wrong else ""))
    if as_json:
        print(json.dumps({"good": good, "wrong": wrong, "notes": notes}, ensure_ascii=False))
    return 1 if wrong else 0
