"""The documentation: links lead somewhere, commands, flags, files and settings exist, README stays short."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest
from facestream.pipeline.cli.app import app
from facestream.pipeline.config import Config
from msgspec import to_builtins

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("engines/**/*.md"), *ROOT.glob("deploy/**/*.md")]
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text.lower())) for text in headings]
    return {text.strip().replace(" ", "-") for text in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link}: there is no such file"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: there is no such heading"


def test_no_picture_of_the_documentation_is_left_over() -> None:
    listed = subprocess.run(["git", "ls-files", "docs"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = [Path(name).name for name in listed.splitlines() if name.endswith((".png", ".jpg", ".svg", ".gif"))]
    assert [name for name in pictures if name not in text] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


# Diaries and the list of changes speak of flags and files as they were.
REFERENCE = [page for page in PAGES if page.name != "CHANGELOG.md" and page.parent.name != "experiments"]
CODE = re.compile(r"`([^`\n]+)`|^(?: {4}|\$ )(.+)$", re.M)
CALL = re.compile(r"(facestream|build_engine\.py|python -m [\w.]+|(?:benchmarks/|tools/)?\w+\.py)((?: +[^\s#|;&]+)*)")


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """Each call of the project's programs that a page shows, with its arguments."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    codes = [inline or line for inline, line in CODE.findall(text)]
    return [(name, rest.split()) for code in codes for name, rest in CALL.findall(code)]


def flags_of(name: str, arguments: list[str]) -> set[str] | None:
    """What a program takes; None for one that is not ours. Of scripts, every flag that their folder's source names."""
    if name == "facestream":
        command: click.Command | None = app
        for argument in arguments:
            if isinstance(command, click.Group):
                command = command.get_command(click.Context(command), argument) or command
        assert command is not None
        return {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)} | {"-h", "--help"}
    module = name.removeprefix("python -m ").removeprefix("facestream.")  # the package's folders lie side by side
    folder = module.split(".")[0]
    if name.endswith(".py"):
        files = [*ROOT.glob(name), *(ROOT / "benchmarks").glob(Path(name).name), *ROOT.glob(f"facestream/{name}")]
        assert files or "/" not in name, f"{name}: there is no such file"
    elif (ROOT / folder).is_dir():
        assert (ROOT / folder / "__main__.py").exists() or (ROOT / (module.replace(".", "/") + ".py")).exists(), name
        files = list((ROOT / folder).glob("*.py"))
    else:
        files = []
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    return set(re.findall(r"""["'](--?[a-z][\w-]*)(?:/--[\w-]+)?["']""", source)) if files else None


@pytest.mark.parametrize("page", REFERENCE, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_flag_that_a_page_shows_exists(page: Path) -> None:
    for name, arguments in commands(page):
        known = flags_of(name, arguments)
        for argument in arguments:
            flag = argument.strip("[],.)(").split("=")[0]
            if known is not None and re.fullmatch(r"--?[a-zA-Z][\w-]*", flag):
                assert flag in known, f"{name} {' '.join(arguments)}: there is no {flag}"


def test_flags_are_found_where_they_are_shown() -> None:
    """The test above reads most commands of the pages."""
    shown = [(name, arguments) for page in REFERENCE for name, arguments in commands(page)]
    assert sum(name == "facestream" for name, _ in shown) > 60
    assert sum(name.startswith("python -m train") for name, _ in shown) > 15
    assert sum("benchmarks/" in name for name, _ in shown) > 10


@pytest.mark.parametrize("page", REFERENCE, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_and_setting_that_a_page_names_exists(page: Path) -> None:
    names = re.findall(r"`([\w./]+)`", page.read_text(encoding="utf-8"))
    sections = {name: set(fields) for name, fields in to_builtins(Config()).items() if isinstance(fields, dict)}
    for name in names:
        folder = name.split("/")[0]
        if folder not in ("", "build") and "/" in name and (ROOT / folder).is_dir():
            assert (ROOT / name).exists(), f"{name}: there is no such file"
        section, _, key = name.partition(".")
        if section in sections and re.fullmatch(r"[a-z]\w*", key) and key not in ("py", "md", "toml"):
            assert key in sections[section], f"{name}: there is no such setting"
