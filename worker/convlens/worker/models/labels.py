"""Read label files: text with a label a line, a JSON list, or a JSON object of names and indices, either way round."""

from __future__ import annotations

import codecs
import io
import json
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 16 << 20
MARKS: Final = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
"""Byte order marks and their encodings."""


class WrongLabels(ValueError):
    """A label file that cannot be parsed; the message names the line or entry and what is allowed."""


def read(path: Path) -> list[str]:
    """Read the labels in the order of the units. Raises WrongLabels, or OSError for an unreadable file."""
    if path.stat().st_size > MAX_BYTES:
        raise WrongLabels(f"it has {path.stat().st_size:,} bytes; allowed are {MAX_BYTES:,}")
    data = path.read_bytes()
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise WrongLabels(f"it is no UTF-8: {error}; save it as UTF-8") from error
    if path.suffix.lower() == ".json" or text.lstrip().startswith(("[", "{")):
        try:
            return _from_json(json.loads(text))
        except (json.JSONDecodeError, RecursionError) as error:
            if path.suffix.lower() == ".json":
                raise WrongLabels(f"it is no JSON: {error}") from error
    return _from_lines(text)


def _from_lines(text: str) -> list[str]:
    if "\0" in text:
        raise WrongLabels("it holds NUL characters, as UTF-16 without its mark does; save it as UTF-8")
    labels = [line.strip() for line in io.StringIO(text, newline=None)]
    while labels and not labels[-1]:
        labels.pop()
    if "" in labels:
        raise WrongLabels(f"line {labels.index('') + 1} is blank; each line is the label of a unit")
    return labels


def _from_json(document: object) -> list[str]:
    """Parse a list, class_indices (name → index), index → name, or index → [id, name]."""
    if isinstance(document, list):
        return [_parse_label(entry, f"entry {i}") for i, entry in enumerate(document)]
    if not isinstance(document, dict):
        raise WrongLabels("its JSON is neither a list of labels nor an object of labels and indices")
    if all(isinstance(value, int) and not isinstance(value, bool) for value in document.values()):
        return _sort([(index, name) for name, index in document.items()])
    if not all(key.isascii() and key.isdigit() for key in document):
        key = next(key for key in document if not (key.isascii() and key.isdigit()))
        raise WrongLabels(f"entry {key!r}: an object gives each label its index, or each index its label")
    return _sort([(int(key), _parse_label(value, f"entry {key!r}")) for key, value in document.items()])


def _sort(pairs: list[tuple[int, str]]) -> list[str]:
    """Sort labels by their indices. Raises WrongLabels unless these are 0 to n−1, each once."""
    by_index: dict[int, str] = {}
    for index, name in pairs:
        if index in by_index:
            raise WrongLabels(f"index {index} is of both {by_index[index]!r} and {name!r}")
        if not 0 <= index < len(pairs):
            raise WrongLabels(f"{name!r} has the index {index}; {len(pairs)} labels have 0 to {len(pairs) - 1}")
        by_index[index] = _parse_label(name, f"index {index}")
    return [by_index[i] for i in range(len(pairs))]


def _parse_label(value: object, place: str) -> str:
    """Parse a label, or a pair of an identifier and a label, as in ImageNet's class index."""
    if isinstance(value, list) and len(value) == 2:
        value = value[1]
    if not isinstance(value, str) or not value.strip():
        raise WrongLabels(f"{place} is {json.dumps(value)[:50]}; a label is needed")
    return value.strip()
