"""The table that --show-config prints: each setting's value, and where it comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from convlens.jobs.runtime.configuration import PREFIX, read_file
from convlens.jobs.runtime.settings import JobsSettings


def format_settings(settings: JobsSettings, flags: Iterable[str]) -> str:
    """Return a table of the settings, a line each: name, value, source. Passwords are masked."""
    rows = list(_rows(settings, set(flags)))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"{name:{widths[0]}}  {value:{min(widths[1], 40)}}  {source}" for name, value, source in rows)


def _rows(settings: JobsSettings, flags: set[str]) -> Iterator[tuple[str, str, str]]:
    file = read_file(settings.SECTIONS, type(settings).model_fields)
    variables = {name.upper(): name for name in os.environ}
    for name in type(settings).model_fields:
        variable = variables.get(f"{PREFIX}{name.upper()}")
        source = "default"
        if name in flags:
            source = f"--{name.replace('_', '-')}"
        elif variable:
            source = variable
        elif name in file:
            source = file[name].source
        yield name, _text(name, getattr(settings, name)), source


def _text(name: str, value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return _mask_passwords(value) if name == "redis_url" else str(value)


def _mask_passwords(url: str) -> str:
    """Return a URL without its passwords."""
    parts = urlsplit(url)
    credentials, at, address = parts.netloc.rpartition("@")
    if at and ":" in credentials:
        credentials = f"{credentials.partition(':')[0]}:***"
    query = re.sub(r"(?<=password=)[^&]*", "***", parts.query)
    return parts._replace(netloc=f"{credentials}{at}{address}", query=query).geturl()
