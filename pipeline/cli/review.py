"""`facestream review`: see what may be wrong, correct it, export it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from facestream.pipeline.cli.options import config_of, covering, shared
from facestream.pipeline.review.command import list_moments, serve
from facestream.pipeline.review.groups import GroupBy


@click.command()
@click.argument("video", metavar="VIDEO")
@click.option(
    "--records", type=click.Path(path_type=Path), metavar="FILE", help="existing records: .jsonl, .csv or .mot"
)
@click.option("--list", "list_only", is_flag=True, help="print the moments at risk, without a page")
@click.option("--json", "as_json", is_flag=True, help="with --list: the last line is one JSON object")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="port of the page on 127.0.0.1; 0: a free one")
@click.option("--no-browser", is_flag=True, help="print the page's address, without opening a browser")
@click.option(
    "--group-by",
    type=click.Choice(["appearance", "embedding"]),
    default="appearance",
    help="which tracks are one person: hair and clothes, or a face matcher (biometric; extra `embedding`)",
)
@covering
@shared
def review(
    video: str,
    records: Path | None,
    list_only: bool,
    as_json: bool,
    port: int,
    no_browser: bool,
    group_by: GroupBy,
    **flags: Any,
) -> int:
    """Check the faces of a video, correct them and export it.

    Opens a page that only this machine can reach. It shows first the moments at which a face may be visible. Without
    --records the faces are detected, and stored beside the video in VIDEO.faces.jsonl.
    """
    config = config_of(flags)
    if list_only:
        found = list_moments(Path(video), records, config, not flags["quiet"])
        print(found.text())
        if as_json:
            print(json.dumps(found.as_dict()))
        return 0
    overwrite = flags["overwrite"]
    return serve(Path(video), records, config, port, not no_browser, overwrite, not flags["quiet"], group_by)
