"""A model from a file: a whole .keras or .h5 model, or the weights of a stock VGG16. A file cannot run code."""

from __future__ import annotations

from pathlib import Path

import h5py
import keras

from convlens.worker.models import stock
from convlens.worker.models.keras_model import KerasModel
from convlens.worker.models.served import ModelUnavailable
from convlens.worker.models.source import Source


def load(source: Source) -> KerasModel:
    """The model of `source.argument`. ModelUnavailable says what is wrong with the file."""
    path = Path(source.argument)
    if not path.is_file():
        raise ModelUnavailable(f"model {source.name!r}: there is no file {path}")
    try:
        if path.suffix == ".h5" and not _is_whole(path):
            return stock.with_weights(source, path, _classes(path))
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except ModelUnavailable:
        raise
    except Exception as error:  # Keras and h5py raise whatever a wrong file makes them trip over
        raise ModelUnavailable(f"model {source.name!r}: {path} cannot be loaded: {error}") from error
    return KerasModel(source, model, path.name)


def _is_whole(path: Path) -> bool:
    """True for a model with its architecture, false for weights alone."""
    with h5py.File(path) as file:
        return "model_config" in file.attrs


def _classes(path: Path) -> int:
    """The classes of a stock VGG16's weights, read off its last kernel."""
    shapes: list[tuple[int, ...]] = []

    def visit(name: str, it: object) -> None:
        # a compiled model's file has its optimizer's moments, too, which have the shapes of weights
        if isinstance(it, h5py.Dataset) and it.ndim == 2 and not name.startswith("optimizer/"):
            shapes.append(it.shape)

    with h5py.File(path) as file:
        file.visititems(visit)
    last = [shape[1] for shape in shapes if shape[0] == 4096]
    if (25088, 4096) not in shapes or len(last) != 2 or 4096 not in last:
        raise ModelUnavailable(
            f"{path} holds weights, but not the stock VGG16's; save another architecture whole, as a .keras file"
        )
    last.remove(4096)
    return last[0]
