"""A model from a file: a whole .keras or .h5 model, a SavedModel folder of Keras 2, or the weights of a stock VGG16.

A file cannot run code: its configuration is checked against lists before anything is made of it, its size and the
memory it would take are found before any weight is, and no graph and no pickle is ever loaded.
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
from convlens.worker.models.files.generations import build, stock_vgg16
from convlens.worker.models.files.memory_estimate import Estimate, in_bytes
from convlens.worker.models.keras_model import KerasModel
from convlens.worker.models.model_protocol import ModelUnavailable, in_one_sentence
from convlens.worker.models.source import Source

log = logging.getLogger(__name__)

IMAGENET_BYTES: Final = 553_467_096
IMAGENET_MD5: Final = "64373286793e3c8b2b4e3219cbf3544b"
"""The size and MD5 of the stock VGG16's ImageNet weights, as keras.applications publishes them."""
OURS: Final = (ConfigRefused, formats.NoModel, hdf5.UnsafeFile, weights.WrongWeights)
"""Exceptions whose messages are for people as they are."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model from a file, with its weights."""

    model: Any
    """A built model of Keras 3, or of Keras 2 (tf_keras)."""
    format: str
    """Who wrote the file and how: Keras 2.6.0 HDF5."""
    estimate: Estimate
    stock_weights: bool = False
    """True for the stock VGG16 with ImageNet's weights as they are published."""


def load(source: Source) -> KerasModel:
    """The model of `source.argument`. ModelUnavailable says what is wrong with the file."""
    try:
        loaded = read_model(Path(source.argument), source.size)
    except ModelUnavailable as error:
        raise ModelUnavailable(f"model {source.name!r}: {error}") from error
    log.info("model=%s: %s, %s parameters", source.name, loaded.format, f"{loaded.estimate.parameters:,}")
    return serve(source, loaded)


def serve(source: Source, loaded: LoadedModel) -> KerasModel:
    """The model through the engine. ModelUnavailable when it, or an option of `source`, does not fit."""
    return KerasModel(source, loaded.model, Path(source.argument).name, known="caffe" if loaded.stock_weights else None)


def read_model(path: Path, size: tuple[int, int] | None = None) -> LoadedModel:
    """The model of a file or folder.

    `size` is the input's (height, width) where the model takes any. ModelUnavailable says in one sentence what is wrong
    with the file and what to do.
    """
    file_format = _recognized(path)
    try:
        if file_format == "hdf5" and not contents.has_architecture(path):
            return _stock(path)
        return _whole(path, file_format, size)
    except OURS as error:
        raise ModelUnavailable(f"{path} cannot be loaded: {error}") from error
    except Exception as error:  # Keras, h5py and zipfile raise whatever a wrong file makes them trip over
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        raise ModelUnavailable(f"{path} cannot be loaded: {kind}{in_one_sentence(error)}") from error


def _recognized(path: Path) -> formats.Format:
    try:
        return formats.recognize(path)
    except FileNotFoundError as error:
        raise ModelUnavailable(f"there is no file {path}") from error
    except (OSError, ValueError) as error:  # it cannot be read, or is no model, or its name no path
        raise ModelUnavailable(f"{path} cannot be loaded: {error}") from error


def _whole(path: Path, file_format: formats.Format, size: tuple[int, int] | None) -> LoadedModel:
    with contents.opened(path, file_format) as found:
        config = check(found.config, found.generation)
        estimate = memory_estimate.estimate(lambda: build(config, found.generation), size)
        _check_size(estimate, found.elements())
        model = build(config, found.generation)
        found.assign(model, estimate.parameters)
        weights.check_finite(model)
        return LoadedModel(model, found.written_by, estimate)


def _stock(path: Path) -> LoadedModel:
    """The stock VGG16 with the weights of a file, of either Keras, of any number of classes."""
    with hdf5.opened(path) as file:
        classes = _classes(file)
        by_layer = bool(hdf5.names(file, "layer_names"))
        turned = weights.is_turned(file) or "_th_kernels" in path.name  # as keras.applications named them
        estimate = memory_estimate.estimate(lambda: stock_vgg16(classes))
        _check_size(estimate, hdf5.elements(file))
        model = stock_vgg16(classes)
        if by_layer:
            weights.assign_by_layer(model, file, turned=turned)
    if not by_layer:
        weights.assign_by_path(model, path)
    if turned:
        log.warning("%s: weights of Theano, kernels turned back; taken as of a model of channels_last", path)
    return LoadedModel(model, "weights of the stock VGG16, HDF5", estimate, _is_imagenet(path))


def _classes(file: h5py.File) -> int:
    """The classes of a stock VGG16's weights, read off its last kernel."""
    # a compiled model's file has its optimizer's moments, too, which have the shapes of weights
    found = {name: it for name, it in hdf5.datasets(file).items() if not name.startswith("optimizer/")}
    shapes = [it.shape for it in found.values() if it.ndim == 2]
    last = [shape[1] for shape in shapes if shape[0] == 4096]
    if (25088, 4096) not in shapes or len(last) != 2 or 4096 not in last:
        raise formats.NoModel(
            "it holds weights, but not the stock VGG16's; save another architecture whole, as a .keras file"
        )
    last.remove(4096)
    return int(last[0])


def _is_imagenet(path: Path) -> bool:
    """True for the very file that keras.applications publishes."""
    if path.stat().st_size != IMAGENET_BYTES:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == IMAGENET_MD5


def _check_size(estimate: Estimate, elements: int) -> None:
    """WrongWeights when the machine has no memory for a model, or its file not the weights that it needs."""
    available = memory_estimate.available()
    if estimate.total > available:
        raise weights.WrongWeights(
            f"the model needs about {in_bytes(estimate.total)} of memory ({estimate.largest}), "
            f"and this machine has {in_bytes(available)} left"
        )
    if elements < estimate.parameters:
        raise weights.WrongWeights(
            f"its architecture has {estimate.parameters:,} parameters, and the file only {elements:,} numbers"
        )
