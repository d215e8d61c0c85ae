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


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    fenced = [Block(block["language"], block["code"], block["reason"] or "") for block in FENCED.finditer(text)]
    indented = INDENTED.findall(FENCED.sub("", text))
    return fenced + [Block("", re.sub(r"^ {4}", "", code, flags=re.MULTILINE)) for code in indented]


def python_of(page: Path) -> list[Block]:
    """Return the Python blocks of a page in order; a reader runs them as one program."""
    return [block for block in blocks_of(page) if block.language == "python"]


def calls_of(page: Path) -> list[str]:
    """Return the calls of a client that the tables of a page show, without those that leave something out."""
    return re.findall(r"`(client\.\w+\([^`…]*\)[^`…]*)`", page.read_text(encoding="utf-8"))


def commands_of(page: Path) -> Iterator[list[str]]:
    """Yield the words of each shell command of a page, without variables before it and what follows a redirection."""
    for block in blocks_of(page):
        if block.language not in (*SHELL, ""):
            continue
        for line in block.code.replace("\\\n", " ").splitlines():
            if not line.startswith("#") and (words := _words(line.removeprefix("$ "))):
                yield words


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # no shell command: a diagram
        return []
    end = next((at for at, word in enumerate(words) if word in REDIRECTIONS), len(words))
    start = next((at for at, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)), len(words))
    return words[start:end]
