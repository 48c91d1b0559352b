"""What the documentation tells people to type and to read is there."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from pintpot.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = typer.main.get_command(app).commands

FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^(?:\$ )?pintpot (.+)$", re.MULTILINE)
INLINE = re.compile(r"`pintpot ([^`]+)`")
LINK = re.compile(r"\]\((?!https?:|#|mailto:)(?P<path>[^)#]+)")


def command_lines(page):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for block in FENCED.findall(text) for line in LINE.findall(block)]
    for line in [*lines, *INLINE.findall(FENCED.sub("", text))]:
        words = shlex.split(line, comments=True)
        if words[0].startswith("-"):  # of the root
            continue
        assert words[0] in COMMANDS, f"{page.name}: pintpot {line}"
        yield words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_flags_exist(page):
    for name, *words in command_lines(page):
        flags = {flag for option in COMMANDS[name].params for flag in option.opts} | {"-h", "--help"}
        unknown = [w for w in words if re.match(r"--?[a-zA-Z]", w) and w.split("=")[0] not in flags]
        assert not unknown, f"pintpot {name} {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for match in LINK.finditer(page.read_text(encoding="utf-8")):
        assert (page.parent / match["path"]).exists(), match["path"]


def test_the_readme_shows_every_kind_of_command():
    shown = {name for name, *_ in command_lines(ROOT / "README.md")}
    assert shown == set(COMMANDS)
