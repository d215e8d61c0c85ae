"""The code blocks of the documentation, and the commands in them.

A block that cannot run has a comment on the line before it: <!-- not run: the reason -->. Its types are checked still.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted({*ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md"), ROOT / "README.md"})
FENCED: Final = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
INDENTED: Final = re.compile(r"(?<=\n\n)(?: {4}.*\n|\n(?= {4}))+")
SHELL: Final = ("sh", "console")
REDIRECTIONS: Final = (">", ">>", "|", "&&", ";")


@dataclass(frozen=True, slots=True)
class Block:
    """A code block; one that is indented has no language."""

    language: str
    code: str
    not_run: str = ""
    """Why it cannot run; empty if it can."""


def find_blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    fenced = [Block(block["language"], block["code"], block["reason"] or "") for block in FENCED.finditer(text)]
    indented = INDENTED.findall(FENCED.sub("", text))
    return fenced + [Block("", re.sub(r"^ {4}", "", code, flags=re.MULTILINE)) for code in indented]


def find_python(page: Path) -> list[Block]:
    """Return the Python blocks of a page in order; a reader runs them as one program."""
    return [block for block in find_blocks(page) if block.language == "python"]


def find_calls(page: Path) -> list[str]:
    """Return the calls of a client that the tables of a page show, without those that leave something out."""
    return re.findall(r"`(client\.\w+\([^`…]*\)[^`…]*)`", page.read_text(encoding="utf-8"))


def find_commands(page: Path) -> Iterator[list[str]]:
    """Yield each shell command of a page as its arguments, without variables before it and redirections after it."""
    for block in find_blocks(page):
        if block.language not in (*SHELL, ""):
            continue
        for line in block.code.replace("\\\n", " ").splitlines():
            if not line.startswith("#") and (arguments := _split(line.removeprefix("$ "))):
                yield arguments


def _split(line: str) -> list[str]:
    try:
        parts = shlex.split(line, comments=True)
    except ValueError:  # no shell command: a diagram
        return []
    end = next((at for at, part in enumerate(parts) if part in REDIRECTIONS), len(parts))
    start = next((at for at, part in enumerate(parts) if not re.match(r"[A-Z_]+=", part)), len(parts))
    return parts[start:end]
