"""`--json`: what a command says as JSON on stdout, one object, or one a line where a command says several things."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from convlens.client.json_values import to_json_value

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def print_json(value: object) -> None:
    """Print a value as one line of JSON in ASCII, so that no text in it can move a terminal's cursor."""
    sys.stdout.write(json.dumps(to_json_value(value)) + "\n")
    sys.stdout.flush()
