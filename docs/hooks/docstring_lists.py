"""Griffe extension: a docstring's lines that begin with a parameter's name in backticks become a list."""

from __future__ import annotations

import re
from typing import Any

import griffe

PARAMETER = re.compile(r"^(`\w+`(?:(?:,| and) `\w+`)*): ")


class ParameterLists(griffe.Extension):
    """Make a Markdown list of the lines "`name`: what it is"; without it they would run on as one paragraph."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = make_list(obj.docstring.value)


def make_list(text: str) -> str:
    """Return the text with its lines of parameters as items of a list, continuation lines included."""
    lines: list[str] = []
    is_item = False
    for line in text.splitlines():
        starts_item = bool(PARAMETER.match(line))
        if starts_item and not is_item and lines and lines[-1]:
            lines.append("")
        is_item = starts_item or (is_item and bool(line))
        lines.append(f"- {line}" if starts_item else f"    {line}" if is_item else line)
    return "\n".join(lines)
