"""Puts a file's weights into a model, and makes sure that every weight got one: a silent mismatch is a wrong map."""

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
from convlens.worker.models.files.generations import finalize, layers

TURNED_BY_THEANO: Final = frozenset({"Conv1D", "Conv2D", "Conv2DTranspose"})
"""Layers whose kernels Theano turns by 180°, since it convolves where the others correlate. Not those of depthwise
convolutions: Keras turned these itself before it passed them to Theano."""
BACKENDS: Final = {"tensorflow": False, "cntk": False, "jax": False, "torch": False, "numpy": False, "theano": True}
"""Whether kernels are turned in files that a backend wrote."""
NAME_IN_ARCHIVE: Final = "model.weights.h5"
TAIL: Final = re.compile(r"(_\d+)+$")
"""What Keras hangs on a name that it has given before."""


class WrongWeights(ValueError):
    """Weights that are not this architecture's."""


def is_turned(*groups: h5py.Group) -> bool:
    """True when the attributes of a file say that kernels are turned. WrongWeights for a backend that is not known."""
    said = next((it for it in (hdf5.attribute(group, "backend") for group in groups) if it), "tensorflow")
    if said not in BACKENDS:
        raise WrongWeights(
            f"its weights were written by the Keras backend {said!r}, which is not known here; "
            "load it by that backend and set its weights in a model of TensorFlow's"
        )
    return BACKENDS[said]


def assign_by_layer(model: Any, group: h5py.Group, *, turned: bool = False) -> None:
    """Sets weights from the layout of whole .h5 models and of Keras 2's .h5 weights: a group a layer, in their order.

    `turned`: the kernels of convolutions are turned back.
    """
    wanted = [it for it in model.layers if _weights(it)]
    stored = [it for it in hdf5.names(group, "layer_names") if hdf5.names(group[it], "weight_names")]
    if len(wanted) != len(stored):
        raise WrongWeights(f"its architecture has {len(wanted)} layers with weights, its weights are of {len(stored)}")
    if {it.name for it in wanted} == set(stored):
        stored = [it.name for it in wanted]
    flat = layers(model) if turned else ()
    kernels = {id(it.kernel) for it in flat if type(it).__name__ in TURNED_BY_THEANO}
    for layer, name in zip(wanted, stored, strict=True):
        values = {it: group[name][it] for it in hdf5.names(group[name], "weight_names")}
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
            turn = id(variable) in kernels
            variable.assign(np.flip(array, tuple(range(array.ndim - 2))) if turn else array)
    finalize(model)


def assign_by_path(model: Any, path: Path) -> None:
    """Sets weights from the layout of .keras archives and .weights.h5 files, layers/conv2d/vars/0, of either Keras."""
    with _named(path) as named:
        with hdf5.opened(named) as file:
            found = hdf5.datasets(file)
            largest = max((int(np.prod(it.shape)) for it in model.weights), default=0)
            for name, it in found.items():
                if it.size > largest and name.startswith(("layers", "_layer")):  # others are not read
                    raise WrongWeights(f"the file's {name!r} has {it.size:,} numbers, the largest weight {largest:,}")
            moves = {name: moved for name in found if (moved := _as_written_now(name)) != name}
        if moves:
            _rename(named, moves)
        with _all_set(model):
            model.load_weights(named)
    finalize(model)


def assign_checkpoint(model: Any, prefix: Path) -> None:
    """Sets weights from the variables of a SavedModel."""
    with _all_set(model):
        model.load_weights(str(prefix)).expect_partial()
    finalize(model)


def elements_of_checkpoint(prefix: Path) -> int:
    """The numbers in the variables of a SavedModel, without its optimizer's."""
    shapes = tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
    return sum(
        int(np.prod(shape))
        for name, shape in shapes.items()
        if not name.startswith(("optimizer", "keras_api")) and ".OPTIMIZER_SLOT" not in name
    )


@contextmanager
def extracted(member: BinaryIO) -> Iterator[Path]:
    """An archive's weights as a file of their own, for as long as they are read."""
    with tempfile.TemporaryDirectory(prefix="convlens-") as folder:
        path = Path(folder) / NAME_IN_ARCHIVE
        with path.open("wb") as file:
            shutil.copyfileobj(member, file, 1 << 20)
        yield path


def _weights(layer: Any) -> list[Any]:
    """A layer's weights in the order of .h5 files."""
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _in_order(variables: list[Any], stored: list[str]) -> list[Any]:
    """The variables in the order of the stored names, where the names match, else as they are.

    The order of a nested model's weights depends on which of its layers are trainable, and not every Keras restores
    that as it was.
    """
    paths = [str(getattr(it, "path", it.name)) for it in variables]
    for shorten in (_short, _shortest):
        by_name = dict(zip(map(shorten, paths), variables, strict=True))
        names = [shorten(it) for it in stored]
        if len(by_name) == len(variables) and set(names) == by_name.keys():
            return [by_name[it] for it in names]
    return variables


def _short(name: str) -> str:
    """The layer and the weight of a name such as vgg16/block1_conv1/kernel:0."""
    return "/".join(name.removesuffix(":0").split("/")[-2:])


def _shortest(name: str) -> str:
    """The same without what Keras hangs on a layer's name: block1_conv1_2/kernel is block1_conv1/kernel."""
    layer, _, weight = _short(name).rpartition("/")
    return f"{TAIL.sub('', layer)}/{weight}"


def _hint(wanted: tuple[int, ...], found: tuple[int, ...]) -> str:
    """What a kernel's shape says about who wrote it."""
    is_theano = len(wanted) == 4 and found == (wanted[3], wanted[2], *wanted[:2])
    return ": kernels of Keras 1 with Theano; load them by Keras 2.2 and save them again" if is_theano else ""


@contextmanager
def _all_set(model: Any) -> Iterator[None]:
    """Marks every weight, and raises WrongWeights for one that still has its mark in the end."""
    for variable in model.weights:
        dtype = np.dtype(str(getattr(variable.dtype, "name", variable.dtype)))
        mark = np.nan if dtype.kind == "f" else np.iinfo(dtype).max
        variable.assign(np.full(tuple(variable.shape), mark, dtype))
    yield
    for variable in model.weights:
        array = tf.convert_to_tensor(variable).numpy()
        left = np.isnan(array) if array.dtype.kind == "f" else array == np.iinfo(array.dtype).max
        if array.size and left.all():
            raise WrongWeights(
                f"the file has nothing, or nothing but NaN, for the weight {getattr(variable, 'path', variable.name)!r}"
            )


@contextmanager
def _named(path: Path) -> Iterator[Path]:
    """The file by a name that ends as Keras demands, whatever it is called."""
    with tempfile.TemporaryDirectory(prefix="convlens-") as folder:
        link = Path(folder) / NAME_IN_ARCHIVE
        link.symlink_to(path.absolute())
        yield link


def _as_written_now(name: str) -> str:
    """The path of a weight as Keras writes it today; up to TensorFlow 2.13 there were other names, on Windows too."""
    return name.replace("\\", "/").replace("_layer_checkpoint_dependencies/", "layers/")


def _rename(link: Path, moves: dict[str, str]) -> None:
    """Gives weights other names, in a copy that takes the place of the link to the file, which stays as it is."""
    original = link.resolve()
    link.unlink()
    shutil.copyfile(original, link)
    with h5py.File(link, "r+") as file:
        for old, new in moves.items():
            file.move(old, new)


def check_finite(model: Any) -> None:
    """WrongWeights for a weight that is NaN or infinite somewhere: every prediction and map would be, too."""
    for variable in model.weights:
        array = tf.convert_to_tensor(variable).numpy()
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise WrongWeights(
                f"the weight {getattr(variable, 'path', variable.name)!r} holds NaN or infinite numbers; save the "
                "model from before its training diverged"
            )
