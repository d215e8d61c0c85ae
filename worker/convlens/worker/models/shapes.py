"""The bundled `shapes` model."""

from __future__ import annotations

from convlens.worker import shapes
from convlens.worker.models.keras_model import KerasModel
from convlens.worker.models.source import Source


def load(source: Source) -> KerasModel:
    """The model that ships with the worker."""
    from convlens.worker.shapes import model

    return KerasModel(source, model.load(), "shapes", model.PREPROCESS, list(shapes.LABELS))
