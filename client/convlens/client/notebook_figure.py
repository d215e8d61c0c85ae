"""A matplotlib figure that a notebook shows. Imports matplotlib, so it is imported where a figure is drawn."""

from __future__ import annotations

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A figure that is shown once as the last expression of a cell, whether pyplot was imported or not.

    IPython knows how to show a plain Figure once pyplot was imported, and then asks no figure for its own picture.
    """

    def _repr_png_(self) -> bytes:
        from convlens.client.figures import encoded

        return encoded(self)
