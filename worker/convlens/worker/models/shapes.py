"""The bundled `shapes` model."""

from __future__ import annotations

from convlens.worker.models.keras_model import KerasModel
from convlens.worker.models.source import Source
from convlens.worker.shapes import LABELS
from convlens.worker.shapes.model import PREPROCESS
from convlens.worker.shapes.model import load as load_trained


def load(source: Source) -> KerasModel:
    """Load the model that ships with the worker."""
    return KerasModel(source, load_trained(), "shapes", PREPROCESS, list(LABELS))
