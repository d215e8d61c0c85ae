"""Targets by label: label → index of the unit that has it on the model card.

ImageNet's labels are such as golden_retriever, or synonyms with commas: "tench, Tinca tinca".
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from convlens.v1.status_error import SpecError

MAX_SUGGESTIONS: Final = 6
"""Labels that an error message suggests, at most."""
MAX_LABEL: Final = 200
"""Characters of a label that is compared with others: the time it takes is the product of their lengths."""


class Labels:
    """The labels of a model's classes, by unit."""

    def __init__(self, labels: Sequence[str], model: str) -> None:
        self._labels = labels
        self._model = model
        exact: dict[str, list[int]] = defaultdict(list)
        folded: dict[str, list[int]] = defaultdict(list)
        synonyms: dict[str, list[int]] = defaultdict(list)
        for unit, label in enumerate(labels):
            exact[label].append(unit)
            folded[_folded(label)].append(unit)
            for synonym in {_folded(synonym) for synonym in label.split(",")}:
                synonyms[synonym].append(unit)
        self._exact, self._folded, self._synonyms = exact, folded, synonyms

    def unit(self, label: str, field: str) -> int:
        """Return the unit labelled `label`: exactly, else but for case and `_` and `-` for spaces, else as a synonym.

        Raises SpecError where no unit has that label, with the most similar ones, or where several have it.
        """
        if not self._labels:
            raise SpecError(
                field,
                f"is {_quoted(label)}, but model {self._model!r} has no labels; give a class index, or serve it with "
                "labels=FILE",
            )
        folded = _folded(label)
        for units in (self._exact.get(label), self._folded.get(folded), self._synonyms.get(folded)):
            if units and len(units) == 1:
                return units[0]
            if units:
                indices = self._with_indices(units)
                raise SpecError(
                    field, f"is {_quoted(label)}, which {len(units)} classes are called; give an index: {indices}"
                )
        similar = self._similar(folded)
        known = f"the nearest: {self._with_indices(similar)}" if similar else "GetModel lists those there are"
        number = "; a class index is to be given as a number" if label.strip().isdecimal() else ""
        raise SpecError(field, f"no label {_quoted(label)} in model {self._model!r}; {known}{number}")

    def _similar(self, folded: str) -> list[int]:
        """Return units whose labels contain `folded`, then those spelt much like it, then those that share a part."""
        if not folded or len(folded) > MAX_LABEL:
            return []
        synonyms = self._synonyms
        containing = [unit for name, units in synonyms.items() if folded in name for unit in units]
        close = difflib.get_close_matches(folded, synonyms, MAX_SUGGESTIONS)
        alike = [unit for name in close for unit in synonyms[name]]
        terms = {term for term in folded.split() if len(term) > 2}
        sharing = [unit for name, units in synonyms.items() if terms & set(name.split()) for unit in units]
        return list(dict.fromkeys([*containing, *alike, *sharing]))[:MAX_SUGGESTIONS]

    def _with_indices(self, units: Sequence[int]) -> str:
        """List labels with their indices for an error message, cut where there are many."""
        shown = [f"{self._labels[unit]}: {unit}" for unit in units[: 2 * MAX_SUGGESTIONS]]
        return ", ".join(shown) + (", …" if len(units) > len(shown) else "")


def _folded(label: str) -> str:
    """Return a label without what people type differently: case, and `_`, `-` and spaces between its parts."""
    return re.sub(r"[\s_-]+", " ", label).strip().casefold()


def _quoted(label: str) -> str:
    return repr(label if len(label) <= MAX_LABEL else f"{label[:MAX_LABEL]}…")
