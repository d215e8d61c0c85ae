"""Recognize a model file by its first bytes and name, and name what is given by mistake instead."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final, Literal

Format = Literal["archive", "hdf5", "saved_model"]

SUFFIXES: Final = (".keras", ".h5", ".hdf5")
"""Of model files, case-insensitive."""
SAVE: Final = "load it where it was made and save it whole: model.save('model.keras')"
REBUILD: Final = "build the same network in Keras, set its weights, and save it as a .keras file"
HEAD_BYTES: Final = 64
HDF5: Final = b"\x89HDF\r\n\x1a\n"

BY_CONTENT: Final = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself; run git lfs pull"),
    (b"<", "a page of HTML or XML, perhaps of a download that failed; download the file itself"),
    (b"{", f"JSON, an architecture without weights; {SAVE}"),
    (b"[", "JSON, no model"),
    (b"\x93NUMPY", f"a NumPy array, weights without an architecture; {SAVE}"),
    (b"\x80", f"a Python pickle, such as PyTorch's, which is never loaded since it could run code; {REBUILD}"),
    (b"\x1f\x8b", "packed by gzip; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "packed by 7-Zip; unpack it first"),
    (b"Rar!", "packed by RAR; unpack it first"),
    (b"\x89PNG", "a PNG image, no model"),
    (b"\xff\xd8\xff", "a JPEG image, no model"),
)
"""(first bytes, what the file is and what to do)"""
BY_SUFFIX: Final = {
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt.pt"), f"a model of PyTorch; {REBUILD}"),
    ".onnx": f"a model of ONNX; {REBUILD}",
    ".tflite": f"a model of TensorFlow Lite, which has no gradients; convert the model that it was made from; {SAVE}",
    ".pb": "a graph of TensorFlow; give the SavedModel folder that it is in, if it was saved by Keras, or "
    f"{SAVE.removeprefix('load it where it was made and ')}",
    ".safetensors": f"weights without an architecture; {REBUILD}",
    **dict.fromkeys((".ckpt", ".index"), f"a checkpoint of TensorFlow, weights without an architecture; {SAVE}"),
    ".npz": f"NumPy arrays, weights without an architecture; {SAVE}",
    ".npy": f"a NumPy array, weights without an architecture; {SAVE}",
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), f"a Python pickle, which is never loaded; {REBUILD}"),
    **dict.fromkeys((".yaml", ".yml"), f"an architecture without weights; {SAVE}"),
    ".json": f"JSON, an architecture without weights; {SAVE}",
    **dict.fromkeys((".caffemodel", ".prototxt"), f"a model of Caffe; {REBUILD}"),
    **dict.fromkeys((".mlmodel", ".mlpackage"), f"a model of Core ML; {REBUILD}"),
}
"""What a file is and what to do, by its suffix, where its content does not tell."""


class NoModel(ValueError):
    """A file that is no Keras model; the message says what it is and what to do."""


def recognize(path: Path) -> Format:
    """Return the format of a model file. Raises NoModel for any other file, OSError for one that cannot be read."""
    if path.is_dir():
        return _recognize_folder(path)
    head = _read_head(path)
    if not head:
        raise NoModel("it is empty, perhaps of a download that failed")
    if head.startswith(HDF5):
        return "hdf5"
    if head.startswith(b"PK"):
        return _recognize_zip(path)
    if head[4:8] == b"TFL3":
        raise NoModel(f"it is {BY_SUFFIX['.tflite']}")
    stripped = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for prefix, what in BY_CONTENT:
        if stripped.startswith(prefix):
            raise NoModel(f"it is {what}")
    if path.suffix.lower() in BY_SUFFIX:
        raise NoModel(f"it is {BY_SUFFIX[path.suffix.lower()]}")
    if path.suffix.lower() in SUFFIXES:
        raise NoModel("it is damaged, or none of Keras' files: it begins neither as a zip archive nor as HDF5")
    raise NoModel("it is no model of Keras; a .keras or .h5 file or a SavedModel folder is needed")


def _read_head(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise NoModel("it is neither a file nor a folder")
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def looks_like_path(source: str) -> bool:
    """Return True for a source that is meant as a file or folder, existing or not: by its suffix, or by a slash."""
    suffix = Path(source).suffix.lower()
    return suffix in SUFFIXES or suffix in BY_SUFFIX or "/" in source


def _recognize_folder(path: Path) -> Format:
    names = {entry.name for entry in path.iterdir()}
    if "saved_model.pb" in names or "saved_model.pbtxt" in names:
        return "saved_model"
    if "config.json" in names and "model.weights.h5" in names:
        raise NoModel("it is a model of Keras 3 saved with zipped=False; save it zipped, as a .keras file")
    if "variables.index" in names:
        raise NoModel("it is the folder of a SavedModel's variables; give the folder above")
    models = sorted(name for name in names if Path(name).suffix.lower() in SUFFIXES)
    hint = f"; in it is {', '.join(models[:3])}" if models else ""
    raise NoModel(f"it is a folder without saved_model.pb{hint}")


def _recognize_zip(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise NoModel("it is a zip archive that is cut short or damaged") from error
    if "config.json" in names:
        return "archive"
    if any(name.endswith("data.pkl") for name in names):
        raise NoModel(f"it is {BY_SUFFIX['.pt']}")
    if names and all(name.endswith(".npy") for name in names):
        raise NoModel(f"it is {BY_SUFFIX['.npz']}")
    models = (name for name in names if Path(name).suffix.lower() in SUFFIXES or name.endswith("saved_model.pb"))
    model = next(models, None)
    raise NoModel(f"it is a zip archive{f' of {model}; unpack it first' if model else ' without config.json'}")
