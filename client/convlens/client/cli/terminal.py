"""Output of the command line: lines and tables in which no name or message can be markup or move the cursor."""

from __future__ import annotations

import io
import sys
import unicodedata
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

for _stream in (sys.stdout, sys.stderr):
    if isinstance(_stream, io.TextIOWrapper):  # None where it is closed
        _stream.reconfigure(errors="backslashreplace")  # arrows and names, where the encoding is not UTF-8

_WIDTH: Final = None if sys.stdout and sys.stdout.isatty() else 200
"""Columns of the output; what a program reads is not wrapped."""
out: Final = Console(width=_WIDTH, markup=False, emoji=False, highlight=False)
err: Final = Console(stderr=True, markup=False, emoji=False, highlight=False)

_HIDDEN: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of characters that a terminal obeys, or cannot encode, rather than shows."""
_REORDERING: Final = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: object, keep: str = "") -> str:
    """Return a text in which what a terminal would obey rather than show is escaped, except characters in `keep`."""
    return "".join(
        character if character in keep or not _is_hidden(character) else _escaped(character) for character in str(text)
    )


def line(console: Console, text: object, label: str = "") -> None:
    """Print a text, which may have several lines, behind a red `label`, without wrapping it."""
    console.print(Text.assemble((f"{visible(label)} " if label else "", "red"), visible(text, "\n")), soft_wrap=True)


def note(text: str) -> None:
    """Print a line on stderr."""
    line(err, text)


def table(first: str, *columns: str) -> Table:
    """Return an empty table; add rows with row()."""
    empty = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    empty.add_column(first, no_wrap=True, overflow="ignore")  # an id or a name is to be copied
    for column in columns:
        empty.add_column(column)
    return empty


def row(into: Table, first: object, *cells: object) -> None:
    """Add a row; a cell may have several lines, the first one has one."""
    into.add_row(visible(first), *(visible(cell, "\n") for cell in cells))


def _is_hidden(character: str) -> bool:
    return not character.isprintable() and (unicodedata.category(character) in _HIDDEN or character in _REORDERING)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
