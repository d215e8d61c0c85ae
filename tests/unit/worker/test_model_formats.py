"""Other backends, layouts and suffixes of Keras' files are read; other files are refused by their kind."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import h5py
import keras
import model_files
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from model_files import SIZE, change, entry, genuine, save, seed

from convlens.worker.models.file import load, read_model
from convlens.worker.models.model_protocol import ModelUnavailable, summarize_error
from convlens.worker.models.source import parse


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The folder in which `genuine()` keeps the files that it has written."""
    return tmp_path_factory.mktemp("cache")


def assert_refused(path, message):
    with pytest.raises(ModelUnavailable, match=message) as raised:
        read_model(path)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def predict(model):
    return tf.convert_to_tensor(model(model_files.images(), training=False)).numpy()


def convolutional():
    """A model of every layer that has a spatial kernel, one of them nested."""
    layers = tf_keras.layers
    body = tf_keras.Sequential([tf_keras.Input((SIZE, SIZE, 3)), layers.Conv2D(4, 3, name="c")], name="body")
    inputs = tf_keras.Input((SIZE, SIZE, 3))
    x = layers.DepthwiseConv2D(3, name="depthwise")(body(inputs))
    x = layers.Conv2DTranspose(4, 3, name="transpose")(x)
    x = layers.SeparableConv2D(4, 3, name="separable")(x)
    x = layers.Reshape((-1, 4))(x)
    model = tf_keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Conv1D(2, 3, strides=40, name="line")(x))))
    seed(model)
    return model


def set_backend(path, backend, where="both", as_bytes=False, turn=()):
    """Set the backend in a file's attributes, and rotate the kernels of the layers `turn` by 180° in space."""
    with h5py.File(path, "r+") as file:
        for group, place in ((file, "root"), (file["model_weights"], "weights")):
            del group.attrs["backend"]
            if where in {"both", place}:
                group.attrs["backend"] = backend.encode() if as_bytes else backend

        def visit(name, data):
            if isinstance(data, h5py.Dataset) and data.ndim > 2 and any(f"/{layer}/" in f"/{name}" for layer in turn):
                data[...] = np.flip(data[...], tuple(range(data.ndim - 2)))

        file.visititems(visit)
    return path


@pytest.mark.parametrize(
    ("where", "as_bytes"), [("both", False), ("root", True), ("weights", True), ("weights", False)]
)
def test_kernels_of_theano_are_flipped_back(where, as_bytes, tmp_path):
    model = convolutional()
    path = set_backend(save(model, tmp_path / "m.h5"), "theano", where, as_bytes, turn=("c", "transpose", "line"))
    loaded = read_model(path)
    np.testing.assert_allclose(predict(loaded.model), predict(model), rtol=1e-5)
    assert loaded.format.endswith("HDF5 of Theano, kernels turned back")


def test_kernels_of_cntk_are_not_flipped(tmp_path):
    model = convolutional()
    path = set_backend(save(model, tmp_path / "m.h5"), "cntk")
    np.testing.assert_allclose(predict(read_model(path).model), predict(model), rtol=1e-6)


def test_an_unknown_backend_is_refused_by_its_name(tmp_path):
    assert_refused(
        set_backend(save(convolutional(), tmp_path / "m.h5"), "mxnet"), "by the Keras backend 'mxnet', which is not"
    )


@pytest.mark.parametrize("name", model_files.FORMATS)
def test_channels_before_space_are_refused_by_the_layers_name(name, cache, tmp_path):
    path = change(
        genuine(name, cache, tmp_path),
        lambda config: entry(config, "pool")["config"].update(data_format="channels_first"),
    )
    assert_refused(
        path, r"'pool' \(MaxPooling2D\) has data_format='channels_first', channels before space; build the model again"
    )


@pytest.mark.parametrize("version", ["1.2.2", None, "0.3"])
def test_keras_1_is_refused_by_its_name(version, cache, tmp_path):
    path = genuine("keras2.h5", cache, tmp_path)
    with h5py.File(path, "r+") as file:
        for group in (file, file["model_weights"]):
            del group.attrs["keras_version"]
            if version:
                group.attrs["keras_version"] = version
    assert_refused(path, "it is of Keras 1, or says no keras_version; load it by Keras 2.2 and save it again")


def test_an_unknown_keras_is_refused_by_its_version(cache, tmp_path):
    path = genuine("keras2.h5", cache, tmp_path)
    with h5py.File(path, "r+") as file:
        file.attrs["keras_version"] = "4.0.0"
    assert_refused(path, "it says keras_version='4.0.0'; Keras 2 and 3 can be read")


@pytest.mark.parametrize("separator", ["/", "\\"])
def test_archives_of_tensorflow_2_12_and_of_windows_with_other_weight_names_are_read(separator, cache, tmp_path):
    path = genuine("keras2.keras", cache, tmp_path)
    expected = predict(read_model(path).model)
    inside = tmp_path / "inside.h5"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    inside.write_bytes(members["model.weights.h5"])
    with h5py.File(inside, "r+") as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in names:
            file.move(name, name.replace("layers/", "_layer_checkpoint_dependencies/").replace("/", separator))
        del file["layers"]
    members["model.weights.h5"] = inside.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    np.testing.assert_allclose(predict(read_model(path).model), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "file_name"),
    [
        ("keras3.keras", "m.Keras"),
        ("keras3.keras", "M.KERAS"),
        ("keras3.h5", "m.H5"),
        ("keras3.h5", "m.hdf5"),
        ("keras3.h5", "m.HDF5"),
        ("keras2.h5", "m.keras"),  # what Keras before 2.12 wrote by that name
        ("keras3.h5", "a,b=c, d.h5"),
        ("keras2.saved_model", "folder"),
        ("keras2.saved_model", "folder.keras"),
        ("keras2.saved_model", "a,b=c"),
    ],
)
def test_a_format_is_recognized_by_its_content(name, file_name, cache, tmp_path):
    path = genuine(name, cache, tmp_path).rename(tmp_path / file_name)
    source = parse(f"m={path}")
    assert (source.kind, source.argument) == ("file", str(path))
    assert len(read_model(path).model.layers) == 4
    if name.startswith("keras3"):
        assert load(source).card.source == file_name


HTML = b"<!DOCTYPE html><html><body>404</body></html>"
OTHER_FILES = {
    "pointer.keras": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n", "a pointer of Git LFS"),
    "page.h5": (HTML, "a page of HTML or XML, perhaps of a download that failed"),
    "page2.keras": (b"\xef\xbb\xbf\n" + HTML, "a page of HTML"),
    "empty.h5": (b"", "it is empty, perhaps of a download that failed"),
    "nonsense.keras": (b"nonsense" * 9, "it is damaged, or none of Keras' files"),
    "cut.keras": (b"PK\x03\x04" + b"x" * 99, "it is a zip archive that is cut short or damaged"),
    "model.json": (
        b'{"class_name": "Sequential"}',
        "JSON, an architecture without weights; load it where it was made",
    ),
    "model.yaml": (b"class_name: Sequential", "an architecture without weights"),
    "old.pth": (
        b"\x80\x02}q\x00.",
        "a Python pickle, such as PyTorch's, which is never loaded since it could run code",
    ),
    "raw.pt": (b"\x00\x01\x02\x03", "a model of PyTorch; build the same network in Keras"),
    "net.onnx": (b"\x08\x07\x12\x07pytorch", "a model of ONNX; build the same network"),
    "lite.tflite": (b"\x1c\x00\x00\x00TFL3\x14\x00", "a model of TensorFlow Lite, which has no gradients"),
    "lite.keras": (b"\x1c\x00\x00\x00TFL3\x14\x00", "a model of TensorFlow Lite"),
    "saved_model.pb": (b"\x08\x01\x12\x10", "a graph of TensorFlow; give the SavedModel folder that it is in"),
    "w.safetensors": (b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "weights without an architecture; build"),
    "model.ckpt": (b"\x00\x01", "a checkpoint of TensorFlow, weights without an architecture"),
    "model.index": (b"\x00\x01", "a checkpoint of TensorFlow"),
    "w.npy": (b"\x93NUMPY\x01\x00", "a NumPy array, weights without an architecture"),
    "m.pkl": (b"(lp0\n.", "a Python pickle, which is never loaded"),
    "m.caffemodel": (b"\x0a\x05", "a model of Caffe; build"),
    "m.keras.gz": (b"\x1f\x8b\x08\x00", "packed by gzip; unpack it first"),
    "photo.h5": (b"\x89PNG\r\n\x1a\n", "a PNG image, no model"),
    "what.ever": (b"\x00\x01", "it is no model of Keras; a .keras or .h5 file or a SavedModel folder is needed"),
}


@pytest.mark.parametrize(
    ("name", "content", "message"), [(name, *row) for name, row in OTHER_FILES.items()], ids=OTHER_FILES
)
def test_a_file_of_another_kind_is_refused_by_its_kind(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    source = parse(f"m={tmp_path / name}")
    with pytest.raises(ModelUnavailable, match=f"model 'm': .*{name} cannot be loaded: it is .*") as raised:
        load(source)
    assert message in str(raised.value)


ARCHIVES = {
    "torch.pt": (("archive/data.pkl", "archive/version"), "a model of PyTorch"),
    "arrays.npz": (("a.npy", "b.npy"), "NumPy arrays, weights without an architecture"),
    "packed.zip": (("dogs/model.h5",), "a zip archive of dogs/model.h5; unpack it first"),
    "folder.zip": (("m/saved_model.pb",), "a zip archive of m/saved_model.pb; unpack it first"),
    "other.keras": (("readme",), "a zip archive without config.json"),
    "half.keras": (("config.json",), "a zip archive without metadata.json"),
}


@pytest.mark.parametrize(("name", "members", "message"), [(name, *row) for name, row in ARCHIVES.items()], ids=ARCHIVES)
def test_an_archive_of_another_kind_is_refused_by_its_content(name, members, message, tmp_path):
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for member in members:
            archive.writestr(member, "{}")
    assert_refused(tmp_path / name, f"it is {message}")


def test_folders_that_are_no_models_are_refused_by_their_content(cache, tmp_path):
    assert_refused(tmp_path, "it is a folder without saved_model.pb")
    keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)]).save(tmp_path / "best.keras")
    assert_refused(tmp_path, "it is a folder without saved_model.pb; in it is best.keras")
    model_files.small(keras).save(tmp_path / "unzipped", zipped=False)
    assert_refused(
        tmp_path / "unzipped", "a model of Keras 3 saved with zipped=False; save it zipped, as a .keras file"
    )
    assert_refused(
        genuine("keras2.saved_model", cache, tmp_path) / "variables", "a SavedModel's variables; give the folder above"
    )


def test_a_saved_model_that_keras_cannot_rebuild_is_refused(cache, tmp_path):
    model_files.small(keras).export(tmp_path / "exported", verbose=False)
    assert_refused(tmp_path / "exported", r"without Keras' metadata.*save it whole: model.save\('model.keras'\)")
    path = genuine("keras2.saved_model", cache, tmp_path)
    (path / "keras_metadata.pb").write_bytes(b"\xff\xff\xff")
    assert_refused(path, "its saved_model.pb or keras_metadata.pb is cut short or damaged")
    (path / "keras_metadata.pb").unlink()
    (path / "saved_model.pb").write_bytes(b"")
    assert_refused(path, "without Keras' metadata")


def test_an_architecture_without_weights_is_refused(cache, tmp_path):
    path = genuine("keras2.h5", cache, tmp_path)
    with h5py.File(path, "r+") as file:
        del file["model_weights"]
    assert_refused(path, "it holds an architecture without weights")


def test_an_unreadable_file_is_refused_by_its_path(tmp_path):
    assert assert_refused(tmp_path / "gone.keras", "there is no file") == f"there is no file {tmp_path / 'gone.keras'}"
    (tmp_path / "looped.keras").symlink_to(tmp_path / "looped.keras")
    assert_refused(tmp_path / "looped.keras", "cannot be loaded: .*Too many levels of symbolic links")
    assert_refused(tmp_path / f"{'x' * 5000}.keras", "cannot be loaded: .*File name too long")
    assert_refused(tmp_path / "nul\0.keras", "there is no file|null")


def test_tf_keras_is_not_imported_without_a_keras_2_file(cache, tmp_path):
    path = genuine("keras3.keras", cache, tmp_path)
    code = f"""
import sys, pathlib
from convlens.worker.models.file import read_model
read_model(pathlib.Path({str(path)!r}))
print("tf_keras" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("Wrong units. Please see the guide.", "Wrong units"),
        ("Unknown layer: 'X'.\n\nconfig={'a': 1}", "Unknown layer: 'X'"),
        ("Error when deserializing class 'Dense'.\n\nException encountered: bad `units`.", "bad `units`"),
        (
            "Exception encountered when calling Conv2D.call().\n\n\x1b[1mNegative size 2.5. It is.\x1b[0m\n\nGot: x",
            "Conv2D.call(): Negative size 2.5",
        ),
        ("x" * 1000, "x" * 299 + "…"),
        ("", "ValueError"),
    ],
)
def test_a_keras_error_is_summarized_by_its_first_sentence(message, sentence):
    assert summarize_error(ValueError(message)) == sentence
