"""The preprocessing of a model's input: stated by its settings, known from its file, or assumed with a warning."""

from __future__ import annotations

import hashlib
import logging

import keras
import numpy as np
import pytest
from keras import layers as L

from convlens.worker.engine.plan import PREDICTED, Plan, Saliency
from convlens.worker.models import file
from convlens.worker.models.files.memory_estimate import Estimate
from convlens.worker.models.keras_model import KerasModel
from convlens.worker.models.model_protocol import preprocess_of
from convlens.worker.models.source import Source

SIZE = 16


def model(*first, channels=3, name="m"):
    keras.utils.set_random_seed(2)
    x = inputs = keras.Input((SIZE, SIZE, channels))
    for layer in (
        *first,
        L.Conv2D(4, 3, activation="relu"),
        L.GlobalAveragePooling2D(),
        L.Dense(3, activation="softmax"),
    ):
        x = layer(x)
    return keras.Model(inputs, x, name=name)


def serve(keras_model, known=None, **options):
    return KerasModel(Source("m", "file", "m.keras", **options), keras_model, "m.keras", known)


def nested(name):
    inner = keras.Input((SIZE, SIZE, 3))
    return model(keras.Model(inner, L.Conv2D(3, 3, name="conv")(inner), name=name))


CASES = {
    "nothing stated": (model, {}, None, ("caffe", True)),
    "grey": (lambda: model(channels=1), {}, None, ("unit", True)),
    "stated": (model, {"preprocess": "tf"}, None, ("tf", False)),
    "stated instead of the known one": (model, {"preprocess": "unit"}, "caffe", ("unit", False)),
    "known weights": (model, {}, "caffe", ("caffe", False)),
    "rescaling": (lambda: model(L.Rescaling(1 / 255)), {}, None, ("none", False)),
    "normalization": (lambda: model(L.Normalization(mean=[1, 2, 3], variance=[4, 5, 6])), {}, None, ("none", False)),
    "rescaling behind augmentation": (lambda: model(L.RandomFlip(), L.Rescaling(2.0)), {}, None, ("none", False)),
    "a VGG16 inside": (lambda: nested("vgg16"), {}, None, ("caffe", True)),
    "a ResNet50 inside": (lambda: nested("resnet50"), {}, None, ("caffe", True)),
    "a ResNet50V2 inside": (lambda: nested("resnet50v2"), {}, None, ("tf", True)),
    "a MobileNetV2 inside": (lambda: nested("mobilenetv2_1.00_224"), {}, None, ("tf", True)),
    "a DenseNet121 inside": (lambda: nested("densenet121"), {}, None, ("torch", True)),
    "a name of its own": (lambda: nested("resnet50000"), {}, None, ("caffe", True)),
    "mean and std": (model, {"mean": (100.0, 90.0, 80.0), "std": (50.0,)}, None, ("custom", False)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_scheme_is_stated_known_or_assumed(case):
    build, options, known, expected = CASES[case]
    card = serve(build(), known, **options).card
    assert (card.preprocess, card.preprocess_assumed) == expected
    assert card.preprocess_reason.startswith("assumed" if expected[1] else ("stated", "known", "the model's own"))


def test_an_assumed_scheme_is_logged_with_the_remedy_and_a_known_one_is_not(caplog):
    with caplog.at_level(logging.INFO):
        serve(model())
        serve(model(L.Rescaling(1 / 255)))
    warnings = [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and "preprocess" in record.message
    ]
    assert len(warnings) == 1
    assert "preprocess=caffe (assumed" in warnings[0]
    assert "state another one by preprocess=" in warnings[0]


@pytest.mark.parametrize("stated", [{"preprocess": "caffe"}, {"mean": (0.5,)}])
def test_a_scheme_on_top_of_the_models_own_rescaling_is_a_warning(caplog, stated):
    card = serve(model(L.Rescaling(1 / 255, name="own")), **stated).card
    assert card.preprocess == stated.get("preprocess", "custom")
    assert "on top of it the model's own layer 'own' rescales" in card.preprocess_reason
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert card.preprocess_reason in warning


def test_a_model_that_rescales_its_own_input_predicts_what_keras_predicts_on_raw_pixels():
    built = model(L.Rescaling(1 / 127.5, offset=-1))
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    outputs = serve(built).run(images, Plan((Saliency(),), predictions=3), np.full((2, 1), PREDICTED, np.int32))
    expected = built.predict(images.astype(np.float32), verbose=0)
    np.testing.assert_allclose(outputs.predicted_probabilities, -np.sort(-expected), atol=1e-6)


def test_mean_and_std_are_applied_and_on_the_card():
    built, images = model(), np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    mean, std = (100.0, 90.0, 80.0), (50.0, 60.0, 70.0)
    actual = serve(built, mean=mean, std=std)
    outputs = actual.run(images, Plan((Saliency(),), predictions=3), np.full((2, 1), PREDICTED, np.int32))
    expected = built.predict((images - np.array(mean, "f4")) / np.array(std, "f4"), verbose=0)
    np.testing.assert_allclose(outputs.predicted_probabilities, -np.sort(-expected), atol=1e-6)
    np.testing.assert_allclose(actual.card.preprocess_mean, mean)
    np.testing.assert_allclose(actual.card.preprocess_std, std, rtol=1e-6)
    x = images[0].astype(np.float32)
    np.testing.assert_allclose(preprocess_of(actual.card).forward(x), (x - mean) / std, rtol=1e-5, atol=1e-5)


def test_the_file_of_imagenets_weights_is_known_by_its_checksum(tmp_path, monkeypatch):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"as published")
    assert not file._is_imagenet(path)
    monkeypatch.setattr(file, "IMAGENET_BYTES", 12)
    assert not file._is_imagenet(path)
    monkeypatch.setattr(file, "IMAGENET_MD5", hashlib.md5(b"as published").hexdigest())
    assert file._is_imagenet(path)
    loaded = file.FileModel(model(), "weights", Estimate(0, 0, 0, ""), stock_weights=True)
    card = file.serve(Source("m", "file", str(path)), loaded).card
    assert (card.preprocess, card.preprocess_assumed) == ("caffe", False)
