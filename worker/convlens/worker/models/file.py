"""Load a model from a file: a whole .keras or .h5 model, a SavedModel folder of Keras 2, or weights of a stock VGG16.

A file cannot run code: its configuration is checked against allow lists before a model is built, its memory is
estimated before a weight is allocated, and no graph or pickle is ever loaded.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py

from convlens.worker.models.files import contents, formats, hdf5, memory_estimate, weights
from convlens.worker.models.files.config_check import check
from convlens.worker.models.files.config_values import ConfigRefused
from convlens.worker.models.files.generations import build, build_stock_vgg16
from convlens.worker.models.files.memory_estimate import Estimate, format_bytes
from convlens.worker.models.keras_model import KerasModel
from convlens.worker.models.model_protocol import ModelUnavailable, summarize_error
from convlens.worker.models.source import Source

log = logging.getLogger(__name__)

IMAGENET_BYTES: Final = 553_467_096
IMAGENET_MD5: Final = "64373286793e3c8b2b4e3219cbf3544b"
"""The size and MD5 of the stock VGG16's ImageNet weights, as keras.applications publishes them."""
DESCRIPTIVE_ERRORS: Final = (ConfigRefused, formats.NoModel, hdf5.UnsafeFile, weights.WrongWeights)
"""Exceptions of our own, whose messages are for users."""


@dataclass(frozen=True, slots=True)
class FileModel:
    """A model from a file, with its weights assigned."""

    model: Any
    """A built model of Keras 3, or of Keras 2 (tf_keras)."""
    format: str
    """The Keras version and the file format: Keras 2.6.0 HDF5."""
    estimate: Estimate
    stock_weights: bool = False
    """True for the stock VGG16 with its published ImageNet weights."""


def load(source: Source) -> KerasModel:
    """Load the model of `source.argument`. Raises ModelUnavailable, which says what is wrong with the file."""
    try:
        loaded = read_model(Path(source.argument), source.size)
    except ModelUnavailable as error:
        raise ModelUnavailable(f"model {source.name!r}: {error}") from error
    log.info("model=%s: %s, %s parameters", source.name, loaded.format, f"{loaded.estimate.parameters:,}")
    return serve(source, loaded)


def serve(source: Source, loaded: FileModel) -> KerasModel:
    """Wrap the model for the engine. Raises ModelUnavailable when it, or an option of `source`, does not fit."""
    return KerasModel(source, loaded.model, Path(source.argument).name, known="caffe" if loaded.stock_weights else None)


def read_model(path: Path, size: tuple[int, int] | None = None) -> FileModel:
    """Read the model of a file or folder.

    `size` is the input's (height, width) where the model takes any. Raises ModelUnavailable, which says in one sentence
    what is wrong with the file and what to do.
    """
    file_format = _recognize(path)
    try:
        if file_format == "hdf5" and not contents.has_architecture(path):
            return _read_stock_weights(path)
        return _read_whole_model(path, file_format, size)
    except DESCRIPTIVE_ERRORS as error:
        raise ModelUnavailable(f"{path} cannot be loaded: {error}") from error
    except Exception as error:  # Keras, h5py and zipfile may raise anything on a wrong file
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        raise ModelUnavailable(f"{path} cannot be loaded: {kind}{summarize_error(error)}") from error


def _recognize(path: Path) -> formats.Format:
    try:
        return formats.recognize(path)
    except FileNotFoundError as error:
        raise ModelUnavailable(f"there is no file {path}") from error
    except (OSError, ValueError) as error:  # an unreadable file, no model, or an invalid path
        raise ModelUnavailable(f"{path} cannot be loaded: {error}") from error


def _read_whole_model(path: Path, file_format: formats.Format, size: tuple[int, int] | None) -> FileModel:
    with contents.open_model(path, file_format) as opened:
        config = check(opened.config, opened.generation)
        estimate = memory_estimate.estimate(lambda: build(config, opened.generation), size)
        _check_memory(estimate, opened.elements())
        model = build(config, opened.generation)
        opened.assign(model, estimate.parameters)
        weights.check_finite(model)
        return FileModel(model, opened.written_by, estimate)


def _read_stock_weights(path: Path) -> FileModel:
    """Read weights of the stock VGG16, written by either Keras, for any number of classes."""
    with hdf5.open_safely(path) as file:
        classes = _count_classes(file)
        by_layer = bool(hdf5.read_names(file, "layer_names"))
        is_flipped = weights.has_flipped_kernels(file) or "_th_kernels" in path.name  # keras.applications' file name
        estimate = memory_estimate.estimate(lambda: build_stock_vgg16(classes))
        _check_memory(estimate, hdf5.count_elements(file))
        model = build_stock_vgg16(classes)
        if by_layer:
            weights.assign_by_layer(model, file, is_flipped=is_flipped)
    if not by_layer:
        weights.assign_by_path(model, path)
    if is_flipped:
        log.warning("%s: weights of Theano, kernels turned back; taken as of a model of channels_last", path)
    return FileModel(model, "weights of the stock VGG16, HDF5", estimate, _is_imagenet(path))


def _count_classes(file: h5py.File) -> int:
    """Count the classes of a stock VGG16's weights, by the shape of its last kernel. Raises NoModel for others."""
    # the optimizer's moments in a compiled model's file have the shapes of weights
    datasets = [data for name, data in hdf5.list_datasets(file).items() if not name.startswith("optimizer/")]
    shapes = [data.shape for data in datasets if data.ndim == 2]
    last = [shape[1] for shape in shapes if shape[0] == 4096]
    if (25088, 4096) not in shapes or len(last) != 2 or 4096 not in last:
        raise formats.NoModel(
            "it holds weights, but not the stock VGG16's; save another architecture whole, as a .keras file"
        )
    last.remove(4096)
    return int(last[0])


def _is_imagenet(path: Path) -> bool:
    """Return True for the file that keras.applications publishes."""
    if path.stat().st_size != IMAGENET_BYTES:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == IMAGENET_MD5


def _check_memory(estimate: Estimate, elements: int) -> None:
    """Raise WrongWeights when the machine lacks the memory for a model, or its file has too few numbers."""
    available = memory_estimate.measure_available()
    if estimate.total > available:
        raise weights.WrongWeights(
            f"the model needs about {format_bytes(estimate.total)} of memory ({estimate.largest}), "
            f"and this machine has {format_bytes(available)} left"
        )
    if elements < estimate.parameters:
        raise weights.WrongWeights(
            f"its architecture has {estimate.parameters:,} parameters, and the file only {elements:,} numbers"
        )
