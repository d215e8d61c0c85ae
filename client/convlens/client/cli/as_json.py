"""`--json`: what a command says as JSON on stdout, one object, or one a line where a command says several things.

Keys are the names of the SDK's dataclasses' fields. Times are ISO 8601 in UTC, states and priorities are words, what is
not known is null. Keys may be added, but are neither renamed nor removed.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def print_json(value: object) -> None:
    """Print a value as one line of JSON in ASCII, so that no text in it can move a terminal's cursor."""
    sys.stdout.write(json.dumps(_plain(value)) + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    """Return a value made of dictionaries, lists, text and numbers."""
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value) if isinstance(value, Enum) or not isinstance(value, int | float | None) else value
