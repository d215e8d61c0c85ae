"""Every row of docs/models.md holds: what it lists as served is served, what it lists as refused is refused."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import keras
import model_files
import numpy as np
import pytest
from model_files import change, entry, genuine, replace, save

from convlens.worker.method_registry import METHODS
from convlens.worker.models import source
from convlens.worker.models.file import load, read_model
from convlens.worker.models.files import memory_estimate
from convlens.worker.models.model_protocol import ModelUnavailable

PAGE = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")


def rows(heading):
    """The first cell of each row of the table under a heading."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    cells = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
    return [cell for cell in cells[1:] if not set(cell) <= set("- ")]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The folder in which `genuine()` keeps the files that it has written."""
    return tmp_path_factory.mktemp("cache")


def hdf5(path, edit):
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def theano_weights(cache, folder):
    def turn(file):
        file.attrs["backend"] = file["model_weights"].attrs["backend"] = "theano"
        for name in ("c1", "c2"):
            kernel = file[f"model_weights/body/{name}/kernel:0"]
            kernel[...] = np.flip(kernel[...], (0, 1))

    return hdf5(genuine("keras2.h5", cache, folder), turn)


def half_precision(_, folder):
    model = model_files.small(keras)
    path = save(model, folder / "m.keras")
    half = {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": "mixed_bfloat16"},
        "registered_name": None,
    }
    return change(path, lambda config: entry(config, "c1")["config"].update(dtype=half))


def fixed_batch_size(cache, folder):
    path = genuine("keras3.keras", cache, folder)
    return change(path, lambda config: entry(config, "image")["config"].update(batch_shape=[7, 32, 32, 3]))


def with_augmentation(_, folder):
    layers = keras.layers
    model = model_files.small(keras)
    head = [layers.RandomFlip(), layers.RandomZoom(0.1), layers.GaussianNoise(1.0), layers.Dropout(0.5)]
    save(keras.Sequential([keras.Input((32, 32, 3)), *head, model]), folder / "m.keras")
    return folder / "m.keras"


def with_preprocessing(_, folder):
    """A model that applies vgg16.preprocess_input and undoes it by arithmetic."""
    inputs = keras.Input((32, 32, 3))
    restored = keras.applications.vgg16.preprocess_input(inputs)[..., ::-1] + np.array([123.68, 116.779, 103.939])
    return save(keras.Model(inputs, model_files.small(keras)(restored)), folder / "m.h5")


SERVED = {
    "`.keras` of Keras 3": lambda cache, folder: genuine("keras3.keras", cache, folder),
    "`.h5`, `.hdf5` of Keras 3": lambda cache, folder: genuine("keras3.h5", cache, folder).rename(folder / "m.HDF5"),
    "`.keras` of Keras 2": lambda cache, folder: genuine("keras2.keras", cache, folder),
    "`.h5`, `.hdf5` of Keras 2": lambda cache, folder: genuine("keras2.h5", cache, folder).rename(folder / "m.hdf5"),
    "SavedModel folder of Keras 2": lambda cache, folder: genuine("keras2.saved_model", cache, folder),
    "weights that Theano wrote": theano_weights,
    "a model trained in half precision": half_precision,
    "a model for a fixed number of images": fixed_batch_size,
    "augmentation, noise and dropout": with_augmentation,
    "`preprocess_input` and arithmetic inside": with_preprocessing,
}
"""Functions that write a file whose model computes what model_files.small() computes."""
SERVED_ELSEWHERE = {
    "weights of the stock VGG16": "test_file_models.py: half a gigabyte",
    "models of keras.applications": "test_model_kinds.py: one by one",
}


def edited_file(name, edit):
    return lambda cache, folder: change(genuine(name, cache, folder), edit)


def file_with(name, content):
    def make(_, folder):
        (folder / name).write_bytes(content)
        return folder / name

    return make


def in_training(config):
    entry(config, "flat")["inbound_nodes"][0][0][3]["training"] = True


def exported_folder(_, folder):
    model_files.small(keras).export(folder / "m", verbose=False)
    return folder / "m"


def weights_without_architecture(_, folder):
    model_files.small(keras).save_weights(folder / "m.weights.h5")
    return folder / "m.weights.h5"


def unbuilt_sequential(_, folder):
    keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)]).save(folder / "m.keras")
    return folder / "m.keras"


def set_keras_1(file):
    file.attrs["keras_version"] = "1.2.2"


def add_external_link(file):
    file["model_weights/more"] = h5py.ExternalLink("/etc/passwd", "x")


def delete_weights(file):
    del file["model_weights"]


def option(name, **options):
    return lambda config: entry(config, name)["config"].update(options)


REFUSED = {
    "a Lambda layer": (
        edited_file("keras2.h5", lambda config: replace(config, "flat", "Lambda", {})),
        "'flat' is a Lambda",
    ),
    "a layer or model class of your own": (
        edited_file("keras3.keras", lambda config: replace(config, "flat", "Mine", {})),
        "layer 'flat' is a Mine: it is none of Keras' own layers",
    ),
    "an activation, initializer, regularizer or constraint of your own": (
        edited_file("keras3.keras", option("d", activation="mine")),
        "activation is 'mine', which is none of Keras' own",
    ),
    "layers that look up values, keep state, or call another framework or model": (
        edited_file("keras3.keras", lambda config: replace(config, "flat", "StringLookup", {})),
        "layer 'flat' is a StringLookup",
    ),
    "a function that is no arithmetic": (
        edited_file("keras2.h5", lambda config: replace(config, "flat", "TFOpLambda", {"function": "io.read_file"})),
        "layer 'flat' calls tf.io.read_file, which a model file must not",
    ),
    "channels before space": (
        edited_file("keras2.h5", option("c1", data_format="channels_first")),
        "channels before space",
    ),
    "a layer of Keras 2 that is called in training, which it stays; Keras 3 does not": (
        edited_file("keras2.h5", in_training),
        "'flat' .* called with training=True",
    ),
    "a quantized model": (edited_file("keras3.keras", option("d", quantization_config={})), "'d' .* is quantized"),
    "Keras 1": (lambda cache, folder: hdf5(genuine("keras2.h5", cache, folder), set_keras_1), "it is of Keras 1"),
    "a SavedModel without Keras' metadata": (exported_folder, "a SavedModel without Keras' metadata"),
    "weights of another architecture": (weights_without_architecture, "weights, but not the stock VGG16's"),
    "an architecture without weights": (
        lambda cache, folder: hdf5(genuine("keras2.h5", cache, folder), delete_weights),
        "it holds an architecture without weights",
    ),
    "a Sequential that was never built": (unbuilt_sequential, "the model was never built"),
    "more memory than the machine has": (edited_file("keras3.h5", option("d", units=1_000_000_000)), "of memory"),
    "fewer weights than the architecture has": (
        edited_file("keras3.h5", option("d", units=9000)),
        "parameters, and the file",
    ),
    "PyTorch, ONNX, TensorFlow Lite and others": (file_with("m.onnx", b"\x08\x07"), "it is a model of ONNX"),
    "a download that failed": (file_with("m.keras", b"<html>404</html>"), "it is a page of HTML"),
    "HDF5 that refers to other files": (
        lambda cache, folder: hdf5(genuine("keras2.h5", cache, folder), add_external_link),
        "is a link to elsewhere",
    ),
}
"""Functions that write a file, and the message of its refusal."""


def classifier(*first, channels=3, inner="", last=None):
    """A small model that begins with the layers `first`, or with a nested model named `inner`."""
    layers = keras.layers
    x = inputs = keras.Input((32, 32, channels))
    if inner:
        nested = keras.Input((32, 32, 3))
        first = (keras.Model(nested, layers.Conv2D(3, 3)(nested), name=inner),)
    for layer in (*first, layers.Conv2D(4, 3, activation="relu", name="c")):
        x = layer(x)
    return keras.Model(inputs, (last or layers.Dense(3, activation="softmax"))(layers.GlobalAveragePooling2D()(x)))


def normalization():
    return keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])


INPUTS = {
    "`preprocess=`, or `mean=` and `std=`, of the worker's settings": [
        (lambda: classifier(keras.layers.Rescaling(1 / 255)), {"preprocess": "unit"}, "unit", False),
        (classifier, {"mean": (1.0, 2.0, 3.0), "std": (4.0,)}, "custom", False),
    ],
    "a layer before any with weights that rescales: Rescaling, Normalization, `preprocess_input`, arithmetic": [
        (lambda: classifier(keras.layers.Rescaling(1 / 255)), {}, "none", False),
        (lambda: classifier(normalization()), {}, "none", False),
        (lambda: classifier(keras.applications.vgg16.preprocess_input), {}, "none", False),
        (lambda: classifier(lambda x: x / 127.5 - 1), {}, "none", False),
    ],
    "the name of a VGG16, VGG19 or ResNet of keras.applications, of the model or one nested in it": [
        (lambda name=name: classifier(inner=name), {}, "caffe", True)
        for name in ("vgg16", "vgg19", "resnet50", "resnet152")
    ],
    "the name of a ResNetV2, MobileNet, Inception, Xception or NASNet": [
        (lambda name=name: classifier(inner=name), {}, "tf", True)
        for name in ("resnet50v2", "mobilenet_1.00_224", "mobilenetv2_0.35_96", "inception_v3", "xception", "NASNet")
    ],
    "the name of a DenseNet": [(lambda: classifier(inner="densenet201"), {}, "torch", True)],
    "one channel, and nothing else": [(lambda: classifier(channels=1), {}, "unit", True)],
    "nothing": [(classifier, {}, "caffe", True)],
}
"""Models, options, the scheme of preprocessing, and whether it is assumed."""
INPUTS_ELSEWHERE = {
    "the sources `imagenet` and `shapes`, and the file of ImageNet's weights as it is published": "test_input_scheme.py"
}


def serve(folder, model, **options):
    path = save(model, folder / "m.keras")
    return load(source.Source("m", "file", str(path), **options))


@pytest.mark.parametrize(
    ("build", "options", "scheme", "is_assumed"),
    [pytest.param(*case, id=row) for row, cases in INPUTS.items() for case in cases],
)
def test_preprocessing_is_chosen_as_the_page_says(build, options, scheme, is_assumed, tmp_path):
    card = serve(tmp_path, build(), **options).card
    assert (card.preprocess, card.preprocess_assumed) == (scheme, is_assumed)


def residual(inner):
    layers = keras.layers

    def block(x):
        x = layers.Conv2D(3, 3, padding="same", activation="relu")(x)
        return layers.Add(name="sum")([x, layers.Conv2D(3, 3, padding="same", activation=inner)(x)])

    return block


def fully_convolutional():
    layers = keras.layers
    x = inputs = keras.Input((32, 32, 3))
    for layer in (layers.Conv2D(4, 3, name="wide"), layers.Conv2D(4, 30), layers.Conv2D(3, 1), layers.Flatten()):
        x = layer(x)
    return keras.Model(inputs, x)


def several_places():
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))
    return keras.Model(inputs, layers.Flatten()(layers.Softmax()(layers.Conv2D(3, 30)(inputs))))


def two_inputs():
    images = [keras.Input((32, 32, 3)) for _ in range(2)]
    return keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Add()(images))))


GUIDED = {"guided", "deconvnet", "guided_grad_cam"}
EXPLAINED = {
    "layers of VGG16 and of the heads usually put on it": (classifier, set(), "c"),
    "a layer without a rule, or branches, without activations inside": (
        lambda: classifier(residual("linear"), keras.layers.DepthwiseConv2D(3)), set(), "c"),
    "a layer without a rule, or branches, with activations inside": (
        lambda: classifier(residual("relu"), keras.layers.PReLU()), GUIDED, "c"),
    "dense layers written as 1×1 convolutions": (fully_convolutional, set(), "wide"),
}  # fmt: skip
"""Models, the methods that are unavailable for them, and their default layer of class activation maps."""
UNEXPLAINED = {
    "several inputs": (two_inputs, "takes 2 inputs"),
    "an output that is no score a class, or that no gradient reaches": (
        lambda: classifier(keras.ops.round), "no gradient passes"),
    "probabilities of several places, each by itself": (several_places, "makes probabilities of"),
}  # fmt: skip
EXPLAINED_ELSEWHERE = {"one unit with a sigmoid": "test_taped.py"}


@pytest.mark.parametrize("row", EXPLAINED)
def test_a_model_is_explained_as_the_page_says(row, tmp_path):
    build, unavailable, cam_layer = EXPLAINED[row]
    card = serve(tmp_path, build()).card
    assert set(card.unavailable_methods) == unavailable
    assert set(card.methods) == set(METHODS) - unavailable
    assert card.cam_layer == cam_layer


@pytest.mark.parametrize("row", UNEXPLAINED)
def test_a_model_that_cannot_be_explained_is_refused(row, tmp_path):
    build, message = UNEXPLAINED[row]
    with pytest.raises(ModelUnavailable, match=message):
        serve(tmp_path, build())


def test_the_page_has_the_rows_that_are_tested_and_no_others():
    assert {*rows("How its input is understood")} == INPUTS.keys() | INPUTS_ELSEWHERE.keys()
    assert {*rows("What can be explained of it")} == EXPLAINED.keys() | UNEXPLAINED.keys() | EXPLAINED_ELSEWHERE.keys()
    assert {*rows("What can be served")} == SERVED.keys() | SERVED_ELSEWHERE.keys()
    assert {*rows("What is refused")} == REFUSED.keys()
    options = {option for row in rows("Options") for option in re.findall(r"`(\w+)=`", row)}
    assert options == source._OPTIONS.keys() - {"device_ms"}


@pytest.mark.parametrize("row", SERVED)
def test_files_that_the_page_serves_are_served(row, cache, tmp_path):
    images = model_files.images()
    expected = model_files.small(keras).predict(images, verbose=0)
    actual = np.array(read_model(SERVED[row](cache, tmp_path)).model.predict(images, verbose=0))
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


@pytest.mark.parametrize("row", REFUSED)
def test_files_that_the_page_refuses_are_refused(row, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_estimate, "measure_available", lambda: 8 << 30)
    make, message = REFUSED[row]
    with pytest.raises(ModelUnavailable, match=message):
        read_model(make(cache, tmp_path))
