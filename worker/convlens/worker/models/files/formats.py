"""What a file is, by its first bytes and its name: a model that can be read, or what else people give by mistake."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final, Literal

Format = Literal["archive", "hdf5", "saved_model"]

SUFFIXES: Final = (".keras", ".h5", ".hdf5")
"""Of model files, in any case."""
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
"""How a file begins, what it is, and what to do."""
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
"""What a file is by its name, where its content does not say."""


class NoModel(ValueError):
    """A file that is no model of Keras: what it is, and what to do."""


def recognize(path: Path) -> Format:
    """The format of a model that can be read. NoModel says what else it is; OSError that it cannot be read at all."""
    if path.is_dir():
        return _folder(path)
    head = _head(path)
    if not head:
        raise NoModel("it is empty, perhaps of a download that failed")
    if head.startswith(HDF5):
        return "hdf5"
    if head.startswith(b"PK"):
        return _zip(path)
    if head[4:8] == b"TFL3":
        raise NoModel(f"it is {BY_SUFFIX['.tflite']}")
    stripped = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for begins, what in BY_CONTENT:
        if stripped.startswith(begins):
            raise NoModel(f"it is {what}")
    if path.suffix.lower() in BY_SUFFIX:
        raise NoModel(f"it is {BY_SUFFIX[path.suffix.lower()]}")
    if path.suffix.lower() in SUFFIXES:
        raise NoModel("it is damaged, or none of Keras' files: it begins neither as a zip archive nor as HDF5")
    raise NoModel("it is no model of Keras; a .keras or .h5 file or a SavedModel folder is needed")


def _head(path: Path) -> bytes:
    """A file's first bytes."""
    if path.exists() and not path.is_file():
        raise NoModel("it is neither a file nor a folder")
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def is_path_of_a_model(word: str) -> bool:
    """True for what is meant as a file or folder, whether it is there or not: by its suffix, or by a slash."""
    suffix = Path(word).suffix.lower()
    return suffix in SUFFIXES or suffix in BY_SUFFIX or "/" in word


def _folder(path: Path) -> Format:
    names = {it.name for it in path.iterdir()}
    if "saved_model.pb" in names or "saved_model.pbtxt" in names:
        return "saved_model"
    if "config.json" in names and "model.weights.h5" in names:
        raise NoModel("it is a model of Keras 3 saved with zipped=False; save it zipped, as a .keras file")
    if "variables.index" in names:
        raise NoModel("it is the folder of a SavedModel's variables; give the folder above")
    inside = sorted(it for it in names if Path(it).suffix.lower() in SUFFIXES)
    there = f"; in it is {', '.join(inside[:3])}" if inside else ""
    raise NoModel(f"it is a folder without saved_model.pb{there}")


def _zip(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise NoModel("it is a zip archive that is cut short or damaged") from error
    if "config.json" in names:
        return "archive"
    if any(it.endswith("data.pkl") for it in names):
        raise NoModel(f"it is {BY_SUFFIX['.pt']}")
    if names and all(it.endswith(".npy") for it in names):
        raise NoModel(f"it is {BY_SUFFIX['.npz']}")
    inside = next((it for it in names if Path(it).suffix.lower() in SUFFIXES or it.endswith("saved_model.pb")), None)
    raise NoModel(f"it is a zip archive{f' of {inside}; unpack it first' if inside else ' without config.json'}")
