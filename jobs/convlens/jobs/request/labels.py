"""Targets by label: the unit that a label of a model card names.

Knows a card's labels and nothing of jobs. ImageNet's labels are such as golden_retriever, or synonyms with commas:
"tench, Tinca tinca".
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from convlens.jobs.request.fields import SpecError

NEAREST: Final = 6
"""Labels that an error suggests."""
LONGEST: Final = 200
"""Characters of a label that is compared with others, since comparing takes the product of their lengths."""


class Labels:
    """The labels of a model, by unit; those of its classes alone."""

    def __init__(self, labels: Sequence[str], model: str) -> None:
        self._labels = labels
        self._model = model
        exact: dict[str, list[int]] = defaultdict(list)
        whole: dict[str, list[int]] = defaultdict(list)
        parts: dict[str, list[int]] = defaultdict(list)
        for unit, label in enumerate(labels):
            exact[label].append(unit)
            whole[_folded(label)].append(unit)
            for part in {_folded(part) for part in label.split(",")}:
                parts[part].append(unit)
        self._exact, self._whole, self._parts = exact, whole, parts

    def unit(self, label: str, field: str) -> int:
        """The unit named `label`: exactly, else in any case and with spaces for `_` and `-`, else as one of synonyms.

        SpecError of `field` where none has that label, naming the nearest, or where several have it.
        """
        if not self._labels:
            raise SpecError(
                field,
                f"is {_quoted(label)}, but model {self._model!r} has no labels; give a class index, or serve it with "
                "labels=FILE",
            )
        folded = _folded(label)
        for found in (self._exact.get(label), self._whole.get(folded), self._parts.get(folded)):
            if found and len(found) == 1:
                return found[0]
            if found:
                raise SpecError(
                    field,
                    f"is {_quoted(label)}, which {len(found)} classes are called; give an index: {self._listed(found)}",
                )
        nearest = self._nearest(folded)
        known = f"the nearest: {self._listed(nearest)}" if nearest else "GetModel lists those there are"
        number = "; a class index is to be given as a number" if label.strip().isdecimal() else ""
        raise SpecError(field, f"no label {_quoted(label)} in model {self._model!r}; {known}{number}")

    def _nearest(self, folded: str) -> list[int]:
        """The units whose labels contain the words of `folded`, then those spelt much like it."""
        if not folded or len(folded) > LONGEST:
            return []
        names = self._parts
        containing = [unit for name, units in names.items() if folded in name for unit in units]
        alike = [unit for name in difflib.get_close_matches(folded, names, NEAREST) for unit in names[name]]
        words = {word for word in folded.split() if len(word) > 2}
        sharing = [unit for name, units in names.items() if words & set(name.split()) for unit in units]
        return list(dict.fromkeys([*containing, *alike, *sharing]))[:NEAREST]

    def _listed(self, units: Sequence[int]) -> str:
        """Labels with their indices, not endlessly many."""
        shown = [f"{self._labels[unit]}: {unit}" for unit in units[: 2 * NEAREST]]
        return ", ".join(shown) + (", …" if len(units) > len(shown) else "")


def _folded(label: str) -> str:
    """Without what people type differently: case, and `_`, `-` and spaces between words."""
    return re.sub(r"[\s_-]+", " ", label).strip().casefold()


def _quoted(label: str) -> str:
    return repr(label if len(label) <= LONGEST else f"{label[:LONGEST]}…")
