"""Assign a file's weights to a model, and verify that every weight is set: a silent mismatch gives wrong maps."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import h5py
import numpy as np
import tensorflow as tf

from convlens.worker.models.files import hdf5
from convlens.worker.models.files.generations import finalize, iter_layers

FLIPPED_BY_THEANO: Final = frozenset({"Conv1D", "Conv2D", "Conv2DTranspose"})
"""Layers whose kernels are flipped in space in Theano, which convolves where other backends correlate. Depthwise
kernels are not: Keras itself flipped them for Theano."""
BACKENDS: Final = {"tensorflow": False, "cntk": False, "jax": False, "torch": False, "numpy": False, "theano": True}
"""By the backend that wrote a file: whether its kernels are flipped."""
NAME_IN_ARCHIVE: Final = "model.weights.h5"
NUMBER_SUFFIX: Final = re.compile(r"(_\d+)+$")
"""Appended by Keras to a name that is used already."""


class WrongWeights(ValueError):
    """Weights that do not fit the architecture."""


def has_flipped_kernels(*groups: h5py.Group) -> bool:
    """Return True when a file was written by a backend with flipped kernels. Raises WrongWeights for an unknown one."""
    backend = next(filter(None, (hdf5.read_attribute(group, "backend") for group in groups)), "tensorflow")
    if backend not in BACKENDS:
        raise WrongWeights(
            f"its weights were written by the Keras backend {backend!r}, which is not known here; "
            "load it by that backend and set its weights in a model of TensorFlow's"
        )
    return BACKENDS[backend]


def assign_by_layer(model: Any, group: h5py.Group, *, is_flipped: bool = False) -> None:
    """Assign weights stored as one group a layer in order: whole .h5 models, and .h5 weights of Keras 2.

    With `is_flipped` the kernels of convolutions are flipped back. Raises WrongWeights.
    """
    weighted = [layer for layer in model.layers if _weights(layer)]
    stored = [name for name in hdf5.read_names(group, "layer_names") if hdf5.read_names(group[name], "weight_names")]
    if len(weighted) != len(stored):
        raise WrongWeights(
            f"its architecture has {len(weighted)} layers with weights, its weights are of {len(stored)}"
        )
    if {layer.name for layer in weighted} == set(stored):
        stored = [layer.name for layer in weighted]
    convolutions = iter_layers(model) if is_flipped else ()
    flipped = {id(layer.kernel) for layer in convolutions if type(layer).__name__ in FLIPPED_BY_THEANO}
    for layer, name in zip(weighted, stored, strict=True):
        values = {weight: group[name][weight] for weight in hdf5.read_names(group[name], "weight_names")}
        variables = _weights(layer)
        if len(values) != len(variables):
            raise WrongWeights(f"layer {layer.name!r} has {len(variables)} weights, the file {len(values)} for it")
        for variable, value in zip(_in_order(variables, list(values)), values.values(), strict=True):
            if tuple(variable.shape) != value.shape:
                raise WrongWeights(
                    f"layer {layer.name!r} has a weight of shape {tuple(variable.shape)}, "
                    f"the file one of shape {value.shape} for it{_hint(tuple(variable.shape), value.shape)}"
                )
            array = np.asarray(value)
            if id(variable) in flipped:
                array = np.flip(array, tuple(range(array.ndim - 2)))
            variable.assign(array)
    finalize(model)


def assign_by_path(model: Any, path: Path) -> None:
    """Assign weights stored by path, layers/conv2d/vars/0: .keras archives and .weights.h5 files of either Keras."""
    with _link_as_weights_file(path) as link:
        with hdf5.open_safely(link) as file:
            datasets = hdf5.list_datasets(file)
            largest = max((int(np.prod(variable.shape)) for variable in model.weights), default=0)
            for name, data in datasets.items():
                if data.size > largest and name.startswith(("layers", "_layer")):  # others are not read
                    raise WrongWeights(f"the file's {name!r} has {data.size:,} numbers, the largest weight {largest:,}")
            renamed = {name: current for name in datasets if (current := _current_path(name)) != name}
        if renamed:
            _rename(link, renamed)
        with _verify_all_set(model):
            model.load_weights(link)
    finalize(model)


def assign_checkpoint(model: Any, prefix: Path) -> None:
    """Assign the variables of a SavedModel."""
    with _verify_all_set(model):
        model.load_weights(str(prefix)).expect_partial()
    finalize(model)


def count_checkpoint_elements(prefix: Path) -> int:
    """Count the elements of a SavedModel's variables, without its optimizer's."""
    shapes = tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
    return sum(
        int(np.prod(shape))
        for name, shape in shapes.items()
        if not name.startswith(("optimizer", "keras_api")) and ".OPTIMIZER_SLOT" not in name
    )


@contextmanager
def extract(member: BinaryIO) -> Iterator[Path]:
    """Extract an archive's weights to a temporary file."""
    with tempfile.TemporaryDirectory(prefix="convlens-") as folder:
        path = Path(folder) / NAME_IN_ARCHIVE
        with path.open("wb") as file:
            shutil.copyfileobj(member, file, 1 << 20)
        yield path


def _weights(layer: Any) -> list[Any]:
    """Return a layer's weights in the order of .h5 files."""
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _in_order(variables: list[Any], stored: list[str]) -> list[Any]:
    """Return the variables in the order of the stored names where the names match, else unchanged.

    The order of a nested model's weights depends on which of its layers are trainable, which not every Keras restores.
    """
    paths = [str(getattr(variable, "path", variable.name)) for variable in variables]
    for shorten in (_short_name, _unnumbered_name):
        by_name = dict(zip(map(shorten, paths), variables, strict=True))
        names = [shorten(name) for name in stored]
        if len(by_name) == len(variables) and set(names) == by_name.keys():
            return [by_name[name] for name in names]
    return variables


def _short_name(name: str) -> str:
    """Return layer and weight: block1_conv1/kernel of vgg16/block1_conv1/kernel:0."""
    return "/".join(name.removesuffix(":0").split("/")[-2:])


def _unnumbered_name(name: str) -> str:
    """Return the short name without the layer's number: block1_conv1/kernel of block1_conv1_2/kernel."""
    layer, _, weight = _short_name(name).rpartition("/")
    return f"{NUMBER_SUFFIX.sub('', layer)}/{weight}"


def _hint(expected: tuple[int, ...], stored: tuple[int, ...]) -> str:
    """Explain a kernel whose axes are in Theano's order."""
    is_theano = len(expected) == 4 and stored == (expected[3], expected[2], *expected[:2])
    return ": kernels of Keras 1 with Theano; load them by Keras 2.2 and save them again" if is_theano else ""


@contextmanager
def _verify_all_set(model: Any) -> Iterator[None]:
    """Fill every weight with a marker, and raise WrongWeights for one that has it still at the end."""
    for variable in model.weights:
        dtype = np.dtype(str(getattr(variable.dtype, "name", variable.dtype)))
        marker = np.nan if dtype.kind == "f" else np.iinfo(dtype).max
        variable.assign(np.full(tuple(variable.shape), marker, dtype))
    yield
    for variable in model.weights:
        array = tf.convert_to_tensor(variable).numpy()
        unset = np.isnan(array) if array.dtype.kind == "f" else array == np.iinfo(array.dtype).max
        if array.size and unset.all():
            raise WrongWeights(
                f"the file has nothing, or nothing but NaN, for the weight {getattr(variable, 'path', variable.name)!r}"
            )


@contextmanager
def _link_as_weights_file(path: Path) -> Iterator[Path]:
    """Create a temporary link to the file, with the suffix that Keras demands."""
    with tempfile.TemporaryDirectory(prefix="convlens-") as folder:
        link = Path(folder) / NAME_IN_ARCHIVE
        link.symlink_to(path.absolute())
        yield link


def _current_path(name: str) -> str:
    """Return the path of a weight as current Keras versions write it; until TensorFlow 2.13 it differed."""
    return name.replace("\\", "/").replace("_layer_checkpoint_dependencies/", "layers/")


def _rename(link: Path, renamed: dict[str, str]) -> None:
    """Replace the link by a copy of the file whose weights are renamed."""
    original = link.resolve()
    link.unlink()
    shutil.copyfile(original, link)
    with h5py.File(link, "r+") as file:
        for old, new in renamed.items():
            file.move(old, new)


def check_finite(model: Any) -> None:
    """Raise WrongWeights for a weight with NaN or infinite elements, which would spread to every map."""
    for variable in model.weights:
        array = tf.convert_to_tensor(variable).numpy()
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise WrongWeights(
                f"the weight {getattr(variable, 'path', variable.name)!r} holds NaN or infinite numbers; save the "
                "model from before its training diverged"
            )
