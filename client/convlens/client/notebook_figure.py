"""A matplotlib figure that a notebook shows. Imports matplotlib, so it is imported where a figure is drawn."""

from __future__ import annotations

import io
from typing import Final

from matplotlib.figure import Figure

DPI: Final = 110


class NotebookFigure(Figure):
    """A figure that is shown once as the last expression of a cell, whether pyplot was imported or not.

    IPython knows how to show a plain Figure once pyplot was imported, and then asks no figure for its own picture.
    """

    def _repr_png_(self) -> bytes:
        return self.encode()

    def encode(self, kind: str = "png") -> bytes:
        """Return the figure as the bytes of a file; `kind` is any format that matplotlib writes."""
        file = io.BytesIO()
        self.savefig(file, format=kind, dpi=DPI, facecolor="white", bbox_inches="tight")
        return file.getvalue()
