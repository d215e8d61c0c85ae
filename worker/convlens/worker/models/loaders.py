"""The loader of each kind of source. Each imports its own module, so that null needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from convlens.worker.models.model_protocol import ServedModel
from convlens.worker.models.source import Source


def load(source: Source) -> ServedModel:
    """Load the model of a source. Raises ModelUnavailable."""
    return LOADERS[source.kind](source)


def _imagenet(source: Source) -> ServedModel:
    from convlens.worker.models import stock

    return stock.imagenet(source)


def _random(source: Source) -> ServedModel:
    from convlens.worker.models import stock

    return stock.random(source)


def _file(source: Source) -> ServedModel:
    from convlens.worker.models import file

    return file.load(source)


def _shapes(source: Source) -> ServedModel:
    from convlens.worker.models.keras_model import KerasModel
    from convlens.worker.shapes import LABELS, model

    return KerasModel(source, model.load(), "shapes", model.PREPROCESS, list(LABELS))


def _null(source: Source) -> ServedModel:
    from convlens.worker.models import null

    return null.NullModel(source)


LOADERS: Final[dict[str, Callable[[Source], ServedModel]]] = {
    "shapes": _shapes,
    "imagenet": _imagenet,
    "random": _random,
    "file": _file,
    "null": _null,
}
"""By Source.kind."""
