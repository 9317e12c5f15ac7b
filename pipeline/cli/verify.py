"""`facestream verify`: are the files still those that a manifest speaks of?"""

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
@click.option("--json", "as_json", is_flag=True, help="the last line is one JSON object")
def verify(manifest_file: Path, as_json: bool) -> int:
    """Check the outputs of a batch against the manifest that it wrote.

    Exit code 1 when an output is gone or was changed, or the manifest was, or when its batch was stopped on the way.
    Inputs that are gone or were changed since are named, and are no error.
    """
    wrong, notes, good = manifest.verify(manifest_file)
    for line in notes:
        log.info("%s", line)
    for line in wrong:
        fail(line)
    print(f"{good} outputs are as they were written" + (f", {len(wrong)} things are wrong" if wrong else ""))
    if as_json:
        print(json.dumps({"good": good, "wrong": wrong, "notes": notes}, ensure_ascii=False))
    return 1 if wrong else 0
