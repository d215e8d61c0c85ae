"""What the files of each format hold: whose Keras wrote them, the configuration, and a way to the weights.

Nothing is deserialized here, no graph is loaded, no pickle read: JSON, HDF5's numbers, and two protocol buffers.
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
    elements_of_checkpoint,
    extracted,
    is_turned,
)

MAX_CONFIG: Final = 16 << 20
"""Bytes of a configuration; the largest of keras.applications have 2 MiB."""
MAX_GRAPH: Final = 32 << 20
"""Bytes of a saved_model.pb, which holds the configuration of models that TensorFlow before 2.5 wrote."""
MAX_VALUES: Final = 500_000
"""Lists and objects in a configuration; the largest of keras.applications have 30,000."""
PIECE: Final = 1 << 20
"""Bytes."""
SPARE: Final = 64 << 20
"""Bytes that an archive's weights may have beyond the numbers."""
OPTIMIZER: Final = 8
"""How many times the weights' bytes an archive may have, with the state of an optimizer."""


@dataclass(frozen=True, slots=True)
class Contents:
    """A model's file, opened."""

    written_by: str
    """Keras' version and the format, for people."""
    generation: int
    config: Any
    """As it is in the file: not checked."""
    elements: Callable[[], int]
    """Counts the numbers that it holds for weights, at most."""
    assign: Callable[[Any, int], None]
    """Puts the weights into a model of so many parameters."""


def opened(path: Path, file_format: Format) -> AbstractContextManager[Contents]:
    """The contents of a whole model's file.

    NoModel, WrongWeights, hdf5.UnsafeFile, json.JSONDecodeError, OSError say what is wrong with it.
    """
    return {"archive": _archive, "hdf5": _hdf5, "saved_model": _saved_model}[file_format](path)


def generation(version: object) -> int:
    """2 or 3, of the version that a file says. NoModel for others."""
    found = re.fullmatch(r"(\d+)\.[\w.+-]{1,40}", str(version))
    if found and found[1] in {"2", "3"}:
        return int(found[1])
    if version is None or (found and found[1] in {"0", "1"}):
        raise NoModel("it is of Keras 1, or says no keras_version; load it by Keras 2.2 and save it again by that")
    raise NoModel(f"it says keras_version={str(version)[:50]!r}; Keras 2 and 3 can be read")


def has_architecture(path: Path) -> bool:
    """True for an HDF5 file of a whole model, false for weights alone."""
    with h5py.File(path, "r") as file:
        return "model_config" in file.attrs


@contextmanager
def _archive(path: Path) -> Iterator[Contents]:
    """A .keras file. What else is in it, assets included, is never looked at."""
    with zipfile.ZipFile(path) as archive:
        metadata = _json(_member(archive, "metadata.json"))
        config = _json(_member(archive, "config.json"))
        version = metadata.get("keras_version") if isinstance(metadata, dict) else None
        if NAME_IN_ARCHIVE not in archive.namelist():
            raise NoModel(f"it has no {NAME_IN_ARCHIVE}; save it by model.save('model.keras')")

        def assign(model: Any, parameters: int) -> None:
            size = archive.getinfo(NAME_IN_ARCHIVE).file_size
            if size > SPARE + OPTIMIZER * 4 * parameters:
                raise WrongWeights(f"its weights have {size:,} bytes for {parameters:,} parameters")
            with _opened_member(archive, NAME_IN_ARCHIVE) as member, extracted(cast("Any", member)) as weights:
                assign_by_path(model, weights)

        yield Contents(f"Keras {version} .keras", generation(version), config, lambda: _stored(archive), assign)


def _stored(archive: zipfile.ZipFile) -> int:
    """How many numbers an archive's weights can be at most, with two bytes each."""
    return archive.getinfo(NAME_IN_ARCHIVE).file_size // 2


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A small member of an archive. NoModel where it is not there, or is not small."""
    if name not in archive.namelist():
        raise NoModel(f"it is a zip archive without {name}")
    if archive.getinfo(name).file_size > MAX_CONFIG:
        raise NoModel(f"its {name} has {archive.getinfo(name).file_size:,} bytes; allowed are {MAX_CONFIG:,}")
    with _opened_member(archive, name) as member:
        pieces = []
        while piece := member.read(PIECE):  # no more is unpacked at once
            pieces.append(piece)
        return b"".join(pieces)


def _opened_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipExtFile:
    """A member that can be read piece by piece. NoModel for one packed as Keras never does, which cannot be bounded."""
    if archive.getinfo(name).compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise NoModel(f"its {name} is packed in a way that Keras never writes; save the model again")
    return cast("zipfile.ZipExtFile", archive.open(name))


@contextmanager
def _hdf5(path: Path) -> Iterator[Contents]:
    """A whole model's .h5 file, of either generation."""
    with hdf5.opened(path) as file:
        group = file.get("model_weights")
        version = hdf5.attribute(file, "keras_version")
        if version is None and isinstance(group, h5py.Group):
            version = hdf5.attribute(group, "keras_version")
        config = hdf5.attribute(file, "model_config") or ""
        if len(config) > MAX_CONFIG:
            raise NoModel(f"its configuration has {len(config):,} characters; allowed are {MAX_CONFIG:,}")
        which = generation(version)
        if not isinstance(group, h5py.Group):
            raise NoModel(f"it holds an architecture without weights; {SAVE}")
        turned = is_turned(file, group)
        yield Contents(
            f"Keras {version} HDF5" + (" of Theano, kernels turned back" if turned else ""),
            which,
            _json(config),
            lambda: hdf5.elements(group),
            lambda model, _: assign_by_layer(model, group, turned=turned),
        )


@contextmanager
def _saved_model(path: Path) -> Iterator[Contents]:
    """A SavedModel folder, as far as Keras' metadata go: its graph is never loaded."""
    metadata = _json(_root_metadata(path))
    if not isinstance(metadata, dict):
        raise NoModel(f"its metadata are not Keras'; {SAVE}")
    version = metadata.get("keras_version")
    # model_config has the ids of shared layers, too
    config = metadata.get("model_config") or {it: metadata.get(it) for it in ("class_name", "config")}
    prefix = path / "variables" / "variables"
    if not prefix.with_suffix(".index").is_file():
        raise NoModel("its variables are not there: variables/variables.index is missing")
    yield Contents(
        f"Keras {version} SavedModel",
        generation(version),
        config,
        lambda: elements_of_checkpoint(prefix),
        lambda model, _: assign_checkpoint(model, prefix),
    )


def _root_metadata(path: Path) -> str:
    """The JSON that Keras 2 wrote about the model itself."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2
    from tf_keras.protobuf import saved_metadata_pb2

    beside, graph = path / "keras_metadata.pb", path / "saved_model.pb"
    try:
        if beside.is_file():
            metadata = saved_metadata_pb2.SavedMetadata.FromString(_small(beside, MAX_CONFIG))
            found = [it.metadata for it in metadata.nodes if it.node_id == 0]
        elif graph.is_file():  # TensorFlow 2.0 to 2.4
            saved = saved_model_pb2.SavedModel.FromString(_small(graph, MAX_GRAPH))
            nodes = [it.object_graph_def.nodes for it in saved.meta_graphs[:1]]
            found = [it[0].user_object.metadata for it in nodes if it]
        else:
            found = []
    except DecodeError as error:
        raise NoModel("its saved_model.pb or keras_metadata.pb is cut short or damaged") from error
    text = str(found[0]) if found else ""
    if not text.startswith("{"):
        raise NoModel(
            "it is a SavedModel without Keras' metadata, a graph that cannot be taken apart, such as export() and "
            f"TensorFlow 1 write; {SAVE}"
        )
    if len(text) > 2 * MAX_CONFIG:
        raise NoModel(f"its configuration has {len(text):,} characters; allowed are {2 * MAX_CONFIG:,}")
    return text


def _small(path: Path, limit: int) -> bytes:
    size = path.stat().st_size
    if size > limit:
        raise NoModel(f"its {path.name} has {size:,} bytes; allowed are {limit:,}")
    return path.read_bytes()


def _json(text: str | bytes) -> Any:
    found = len(re.findall(r"[\[{]", text) if isinstance(text, str) else re.findall(rb"[\[{]", text))
    if found > MAX_VALUES:
        raise NoModel(f"its configuration has {found:,} lists and objects; allowed are {MAX_VALUES:,}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NoModel(f"its configuration is no JSON that Keras can have written: {error}") from error
