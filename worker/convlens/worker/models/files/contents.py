"""Open a model's file of each format: the Keras version, the configuration, access to the weights.

Only JSON, HDF5 numbers and two protocol buffers are read; no graph is loaded and nothing is unpickled.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import h5py

from convlens.worker.models.files import hdf5
from convlens.worker.models.files.formats import SAVE, Format, NoModel
from convlens.worker.models.files.weights import (
    NAME_IN_ARCHIVE,
    WrongWeights,
    assign_by_layer,
    assign_by_path,
    assign_checkpoint,
    count_checkpoint_elements,
    extract,
    has_flipped_kernels,
)

MAX_CONFIG_BYTES: Final = 16 << 20
"""The largest configurations of keras.applications have 2 MiB."""
MAX_GRAPH_BYTES: Final = 32 << 20
"""Of a saved_model.pb, which holds the configuration of models that TensorFlow before 2.5 wrote."""
MAX_CONTAINERS: Final = 500_000
"""Lists and objects in a configuration; the largest of keras.applications have 30,000."""
READ_BYTES: Final = 1 << 20
"""Bytes that are decompressed at once."""
OVERHEAD_BYTES: Final = 64 << 20
"""Bytes that an archive's weights may have beyond the numbers."""
MAX_COPIES: Final = 8
"""Multiples of the weights that an archive may have, with the state of an optimizer."""


@dataclass(frozen=True, slots=True)
class Contents:
    """An open model file."""

    written_by: str
    """Keras' version and the file format, as text."""
    generation: int
    config: Any
    """Unchecked, as in the file."""
    elements: Callable[[], int]
    """Returns an upper bound of the number of weights in the file."""
    assign: Callable[[Any, int], None]
    """Assigns the weights to a model, given its number of parameters."""


def open_model(path: Path, file_format: Format) -> AbstractContextManager[Contents]:
    """Open a whole model's file.

    Raises NoModel, WrongWeights, hdf5.UnsafeFile, json.JSONDecodeError or OSError.
    """
    return {"archive": _open_archive, "hdf5": _open_hdf5, "saved_model": _open_saved_model}[file_format](path)


def parse_generation(version: object) -> int:
    """Return the generation of Keras, 2 or 3, of a version. Raises NoModel for others."""
    match = re.fullmatch(r"(\d+)\.[\w.+-]{1,40}", str(version))
    if match and match[1] in {"2", "3"}:
        return int(match[1])
    if version is None or (match and match[1] in {"0", "1"}):
        raise NoModel("it is of Keras 1, or says no keras_version; load it by Keras 2.2 and save it again by that")
    raise NoModel(f"it says keras_version={str(version)[:50]!r}; Keras 2 and 3 can be read")


def has_architecture(path: Path) -> bool:
    """Return True for an HDF5 file of a whole model, False for weights alone."""
    with h5py.File(path, "r") as file:
        return "model_config" in file.attrs


@contextmanager
def _open_archive(path: Path) -> Iterator[Contents]:
    """Open a .keras file. Its other members, assets included, are never read."""
    with zipfile.ZipFile(path) as archive:
        metadata = _parse_json(_read_member(archive, "metadata.json"))
        config = _parse_json(_read_member(archive, "config.json"))
        version = metadata.get("keras_version") if isinstance(metadata, dict) else None
        if NAME_IN_ARCHIVE not in archive.namelist():
            raise NoModel(f"it has no {NAME_IN_ARCHIVE}; save it by model.save('model.keras')")

        def assign(model: Any, parameters: int) -> None:
            size = archive.getinfo(NAME_IN_ARCHIVE).file_size
            if size > OVERHEAD_BYTES + MAX_COPIES * 4 * parameters:
                raise WrongWeights(f"its weights have {size:,} bytes for {parameters:,} parameters")
            with _open_member(archive, NAME_IN_ARCHIVE) as member, extract(cast("Any", member)) as weights:
                assign_by_path(model, weights)

        yield Contents(
            f"Keras {version} .keras", parse_generation(version), config, lambda: _max_elements(archive), assign
        )


def _max_elements(archive: zipfile.ZipFile) -> int:
    """Return the most weights that an archive can hold, of two bytes each."""
    return archive.getinfo(NAME_IN_ARCHIVE).file_size // 2


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a small member of an archive. Raises NoModel where it is missing or too large."""
    if name not in archive.namelist():
        raise NoModel(f"it is a zip archive without {name}")
    if archive.getinfo(name).file_size > MAX_CONFIG_BYTES:
        raise NoModel(f"its {name} has {archive.getinfo(name).file_size:,} bytes; allowed are {MAX_CONFIG_BYTES:,}")
    with _open_member(archive, name) as member:
        return b"".join(iter(lambda: member.read(READ_BYTES), b""))


def _open_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipExtFile:
    """Open a member. Raises NoModel for a compression that Keras never uses, whose memory cannot be bounded."""
    if archive.getinfo(name).compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise NoModel(f"its {name} is packed in a way that Keras never writes; save the model again")
    return cast("zipfile.ZipExtFile", archive.open(name))


@contextmanager
def _open_hdf5(path: Path) -> Iterator[Contents]:
    """Open a whole model's .h5 file, of either generation."""
    with hdf5.open_safely(path) as file:
        group = file.get("model_weights")
        version = hdf5.read_attribute(file, "keras_version")
        if version is None and isinstance(group, h5py.Group):
            version = hdf5.read_attribute(group, "keras_version")
        config = hdf5.read_attribute(file, "model_config") or ""
        if len(config) > MAX_CONFIG_BYTES:
            raise NoModel(f"its configuration has {len(config):,} characters; allowed are {MAX_CONFIG_BYTES:,}")
        generation = parse_generation(version)
        if not isinstance(group, h5py.Group):
            raise NoModel(f"it holds an architecture without weights; {SAVE}")
        is_flipped = has_flipped_kernels(file, group)
        yield Contents(
            f"Keras {version} HDF5" + (" of Theano, kernels turned back" if is_flipped else ""),
            generation,
            _parse_json(config),
            lambda: hdf5.count_elements(group),
            lambda model, _: assign_by_layer(model, group, is_flipped=is_flipped),
        )


@contextmanager
def _open_saved_model(path: Path) -> Iterator[Contents]:
    """Open a SavedModel folder by its Keras metadata; its graph is never loaded."""
    metadata = _parse_json(_read_root_metadata(path))
    if not isinstance(metadata, dict):
        raise NoModel(f"its metadata are not Keras'; {SAVE}")
    version = metadata.get("keras_version")
    # model_config also has the ids of shared layers
    config = metadata.get("model_config") or {key: metadata.get(key) for key in ("class_name", "config")}
    prefix = path / "variables" / "variables"
    if not prefix.with_suffix(".index").is_file():
        raise NoModel("its variables are not there: variables/variables.index is missing")
    yield Contents(
        f"Keras {version} SavedModel",
        parse_generation(version),
        config,
        lambda: count_checkpoint_elements(prefix),
        lambda model, _: assign_checkpoint(model, prefix),
    )


def _read_root_metadata(path: Path) -> str:
    """Return the JSON that Keras 2 wrote for the model itself."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2
    from tf_keras.protobuf import saved_metadata_pb2

    keras_metadata, graph = path / "keras_metadata.pb", path / "saved_model.pb"
    try:
        if keras_metadata.is_file():
            metadata = saved_metadata_pb2.SavedMetadata.FromString(_read_small(keras_metadata, MAX_CONFIG_BYTES))
            texts = [node.metadata for node in metadata.nodes if node.node_id == 0]
        elif graph.is_file():  # TensorFlow 2.0 to 2.4
            saved = saved_model_pb2.SavedModel.FromString(_read_small(graph, MAX_GRAPH_BYTES))
            nodes = [meta_graph.object_graph_def.nodes for meta_graph in saved.meta_graphs[:1]]
            texts = [of_graph[0].user_object.metadata for of_graph in nodes if of_graph]
        else:
            texts = []
    except DecodeError as error:
        raise NoModel("its saved_model.pb or keras_metadata.pb is cut short or damaged") from error
    text = str(texts[0]) if texts else ""
    if not text.startswith("{"):
        raise NoModel(
            "it is a SavedModel without Keras' metadata, a graph that cannot be taken apart, such as export() and "
            f"TensorFlow 1 write; {SAVE}"
        )
    if len(text) > 2 * MAX_CONFIG_BYTES:
        raise NoModel(f"its configuration has {len(text):,} characters; allowed are {2 * MAX_CONFIG_BYTES:,}")
    return text


def _read_small(path: Path, limit: int) -> bytes:
    size = path.stat().st_size
    if size > limit:
        raise NoModel(f"its {path.name} has {size:,} bytes; allowed are {limit:,}")
    return path.read_bytes()


def _parse_json(text: str | bytes) -> Any:
    containers = len(re.findall(r"[\[{]", text) if isinstance(text, str) else re.findall(rb"[\[{]", text))
    if containers > MAX_CONTAINERS:
        raise NoModel(f"its configuration has {containers:,} lists and objects; allowed are {MAX_CONTAINERS:,}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NoModel(f"its configuration is no JSON that Keras can have written: {error}") from error
