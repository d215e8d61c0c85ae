"""Files of labels: text with a label a line, a JSON list, or JSON of names and indices either way round."""

from __future__ import annotations

import codecs
import io
import json
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 16 << 20
MARKS: Final = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
"""How a text begins that says how it is written."""


class WrongLabels(ValueError):
    """A file of labels that cannot be understood: which line or entry, and what is allowed."""


def read(path: Path) -> list[str]:
    """The labels in the order of the units. WrongLabels says what is wrong, OSError that it cannot be read."""
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
            return _of_json(json.loads(text))
        except (json.JSONDecodeError, RecursionError) as error:
            if path.suffix.lower() == ".json":
                raise WrongLabels(f"it is no JSON: {error}") from error
    return _of_lines(text)


def _of_lines(text: str) -> list[str]:
    if "\0" in text:
        raise WrongLabels("it holds NUL characters, as UTF-16 without its mark does; save it as UTF-8")
    labels = [line.strip() for line in io.StringIO(text, newline=None)]
    while labels and not labels[-1]:
        labels.pop()
    if "" in labels:
        raise WrongLabels(f"line {labels.index('') + 1} is blank; each line is the label of a unit")
    return labels


def _of_json(found: object) -> list[str]:
    """The labels of a list, of class_indices (name → index), or of index → name, or index → [id, name]."""
    if isinstance(found, list):
        return [_label(it, f"entry {i}") for i, it in enumerate(found)]
    if not isinstance(found, dict):
        raise WrongLabels("its JSON is neither a list of labels nor an object of labels and indices")
    if all(isinstance(it, int) and not isinstance(it, bool) for it in found.values()):
        return _in_order([(index, name) for name, index in found.items()])
    if not all(key.isascii() and key.isdigit() for key in found):
        key = next(key for key in found if not (key.isascii() and key.isdigit()))
        raise WrongLabels(f"entry {key!r}: an object gives each label its index, or each index its label")
    return _in_order([(int(key), _label(it, f"entry {key!r}")) for key, it in found.items()])


def _in_order(pairs: list[tuple[int, str]]) -> list[str]:
    """Labels by their indices, which are 0 to n−1, each once."""
    by_index: dict[int, str] = {}
    for index, name in pairs:
        if index in by_index:
            raise WrongLabels(f"index {index} is of both {by_index[index]!r} and {name!r}")
        if not 0 <= index < len(pairs):
            raise WrongLabels(f"{name!r} has the index {index}; {len(pairs)} labels have 0 to {len(pairs) - 1}")
        by_index[index] = _label(name, f"index {index}")
    return [by_index[i] for i in range(len(pairs))]


def _label(found: object, place: str) -> str:
    """A label; of a pair of an identifier and a label, as in ImageNet's class index, the second."""
    if isinstance(found, list) and len(found) == 2:
        found = found[1]
    if not isinstance(found, str) or not found.strip():
        raise WrongLabels(f"{place} is {json.dumps(found)[:50]}; a label is needed")
    return found.strip()
