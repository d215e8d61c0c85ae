"""Small model files written by Keras 2 and Keras 3 in every format, and functions that edit their configuration."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tf_keras
from tf_keras.protobuf import saved_metadata_pb2

SIZE = 32
FORMATS = ("keras3.keras", "keras3.h5", "keras2.keras", "keras2.h5", "keras2.saved_model")
"""File names: the generation of Keras that writes the file, and the format."""

Config = dict[str, Any]


def framework(name: str) -> Any:
    """The Keras package that writes the file of one of FORMATS."""
    return keras if name.startswith("keras3") else tf_keras


def small(framework: Any) -> Any:
    """A chain with a nested Sequential: body (c1, pool, c2), flat, d (3 units, softmax)."""
    layers = framework.layers
    body = framework.Sequential(
        [
            framework.Input((SIZE, SIZE, 3)),
            layers.Conv2D(4, 3, activation="relu", name="c1"),
            layers.MaxPooling2D(name="pool"),
            layers.Conv2D(6, 3, activation="relu", name="c2"),
        ],
        name="body",
    )
    inputs = framework.Input((SIZE, SIZE, 3), name="image")
    outputs = layers.Dense(3, activation="softmax", name="d")(layers.Flatten(name="flat")(body(inputs)))
    model = framework.Model(inputs, outputs)
    seed(model)
    return model


def seed(model: Any, value: int = 1) -> None:
    """Set a model's weights to seeded positive noise."""
    rng = np.random.default_rng(value)
    model.set_weights([rng.uniform(0.05, 0.4, array.shape).astype(array.dtype) for array in model.get_weights()])


def save(model: Any, path: Path) -> Path:
    """Save a model in the format of the path's suffix."""
    if path.suffix == ".saved_model":
        model.save(path, save_format="tf")
    else:
        model.save(path)
    return path


@cache
def _saved(name: str, folder: Path) -> Path:
    return save(small(framework(name)), folder / name)


def genuine(name: str, cache_folder: Path, folder: Path) -> Path:
    """Copy a file of one of FORMATS, written once into `cache_folder`, to `folder`."""
    source = _saved(name, cache_folder)
    if source.is_dir():
        return Path(shutil.copytree(source, folder / name))
    return Path(shutil.copy(source, folder / name))


def change(path: Path, edit: Callable[[Config], object]) -> Path:
    """Edit the configuration in a model's file and leave the rest unchanged."""
    if path.is_dir():
        metadata = saved_metadata_pb2.SavedMetadata.FromString((path / "keras_metadata.pb").read_bytes())
        root = json.loads(metadata.nodes[0].metadata)
        edit(root["model_config"])
        metadata.nodes[0].metadata = json.dumps(root)
        (path / "keras_metadata.pb").write_bytes(metadata.SerializeToString())
    elif path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            edit(config)
            file.attrs["model_config"] = json.dumps(config)
    else:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        config = json.loads(members["config.json"])
        edit(config)
        members["config.json"] = json.dumps(config).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    return path


def entry(config: Config, name: str) -> Config:
    """The configuration of a layer, at any depth of nesting."""
    for layer in config["config"]["layers"]:
        if layer["config"].get("name") == name:
            return layer
        if "layers" in layer["config"]:
            try:
                return entry(layer, name)
            except KeyError:
                continue
    raise KeyError(name)


def replace(config: Config, name: str, kind: str, options: Config | None = None, **keys: object) -> None:
    """Replace a layer by one of class `kind` without a module; its name and inbound calls stay."""
    layer = entry(config, name)
    layer.pop("module", None)
    layer.pop("registered_name", None)
    layer |= {"class_name": kind, "config": {"name": name, "trainable": True} | (options or {})} | keys


def images(count: int = 2) -> np.ndarray:
    """Seeded RGB noise, float32 in 0…255."""
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.float32)
