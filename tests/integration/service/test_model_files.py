"""Models served from their files: what the model cards and results say, and which models are refused."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
import taped_nets
from keras import layers as L
from PIL import Image

from convlens.client import ALL_UNITS, Client, GradCAM, InvalidArgument, NotFound, Occlusion, Saliency, TopK

SIZE = taped_nets.SIZE


def small(*first, units=2, activation="softmax", shape=(SIZE, SIZE, 3)):
    keras.utils.set_random_seed(4)
    x = inputs = keras.Input(shape)
    for layer in (*first, L.Conv2D(6, 3, activation="relu", name="conv"), L.GlobalAveragePooling2D()):
        x = layer(x)
    return keras.Model(inputs, L.Dense(units, activation=activation, name="out")(x))


def two_classes():
    """A model with one sigmoid unit that predicts class 0 for some of the images and class 1 for others."""
    model = small(L.Rescaling(1 / 255), units=1, activation="sigmoid")
    kernel, bias = model.layers[-1].get_weights()
    logits = model.predict(taped_nets.images(4).astype("f4"), verbose=0)
    logits = np.log(logits / (1 - logits))
    model.layers[-1].set_weights([50 * kernel, bias - 50 * np.median(logits)])
    return model


MODELS = {
    "pets": two_classes,
    "own": lambda: small(L.Rescaling(1 / 255, name="own_rescaling")),
    "plain": small,
    "grey": lambda: small(shape=(None, None, 1)),
    "residual": lambda: taped_nets.build(keras, "residual"),
    "lambda": lambda: small(L.Lambda(lambda x: x / 255, output_shape=(SIZE, SIZE, 3), name="scaled")),
    "branches": lambda: keras.Model(x := keras.Input((SIZE, SIZE, 3)), [L.Flatten()(x), L.GlobalMaxPooling2D()(x)]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, build in MODELS.items():
        build().save(folder / f"{name}.keras")
    (folder / "damaged.keras").write_bytes((folder / "plain.keras").read_bytes()[:5000])
    (folder / "pets.txt").write_text("cat\ndog\n")
    return folder


@pytest.fixture(scope="module")
def target(start_service, folder):
    service = start_service()
    options = {"pets": f",labels={folder}/pets.txt", "grey": f",size={SIZE}x{2 * SIZE}"}
    service.worker(*(f"{name}={folder}/{name}.keras{options.get(name, '')}" for name in (*MODELS, "damaged")))
    return service.server()[1]


@pytest.fixture(scope="module")
def client(target):
    with Client(target, timeout=60) as client:
        yield client


def probabilities(result):
    """The predicted probabilities of each image, by class index."""
    return [[p.probability for p in sorted(image, key=lambda p: p.index)] for image in result.predictions]


def test_model_cards_say_how_inputs_are_preprocessed(client):
    cards = {card.name: card for card in client.models()}
    assert set(cards) == {"pets", "own", "plain", "grey", "residual"}
    preprocessing = {name: (card.preprocess, card.preprocess_assumed) for name, card in cards.items()}
    assert preprocessing == {
        "pets": ("none", False), "own": ("none", False), "plain": ("caffe", True), "residual": ("caffe", True),
        "grey": ("unit", True),
    }  # fmt: skip
    assert "own_rescaling" in cards["own"].preprocess_reason


@pytest.mark.parametrize("name", ["own", "plain"])
def test_predictions_agree_with_keras_and_say_which_preprocessing_was_assumed(client, folder, name):
    images = taped_nets.images(3)
    x = images.astype(np.float32)
    x = x if name == "own" else keras.applications.vgg16.preprocess_input(x)
    expected = keras.models.load_model(folder / f"{name}.keras").predict(x, verbose=0)
    result = client.saliency(images, model=name)
    np.testing.assert_allclose(probabilities(result), expected, atol=1e-5)
    assert (result.preprocess, result.preprocess_assumed) == (("none", False) if name == "own" else ("caffe", True))


def test_a_grey_model_gets_grey_images_unchanged_and_colour_images_as_luma(client, folder):
    rng = np.random.default_rng(2)
    grey = rng.integers(0, 256, (SIZE, 2 * SIZE), dtype=np.uint8)
    colour = rng.integers(0, 256, (SIZE, 2 * SIZE, 3), dtype=np.uint8)
    x = np.stack([grey, np.asarray(Image.fromarray(colour).convert("L"))])[..., None] / np.float32(255)
    expected = keras.models.load_model(folder / "grey.keras").predict(x, verbose=0)
    methods = [Saliency(signed=True), GradCAM(), Occlusion(8, color="gray"), Saliency("integrated_gradients")]
    result = client.visualize([grey, colour], methods, model="grey")
    np.testing.assert_allclose(probabilities(result), expected, atol=1e-5)
    assert result["saliency/signed"].shape == (2, SIZE, 2 * SIZE, 1)
    assert all(np.isfinite(array).all() and array.any() for array in result.values())


def test_refused_models_are_listed_with_the_reason_beside_the_served_ones(client):
    refused = {model.name: model.reason for model in client.refused_models()}
    assert set(refused) == {"lambda", "branches", "damaged"}
    assert "'scaled' is a Lambda" in refused["lambda"]
    assert "2 outputs" in refused["branches"]
    assert "damaged.keras cannot be loaded" in refused["damaged"]
    with pytest.raises(NotFound, match="'scaled' is a Lambda"):
        client.saliency(taped_nets.images(1), model="lambda")


def test_one_sigmoid_unit_has_two_labelled_classes(client, folder):
    images = taped_nets.images(4)
    p = keras.models.load_model(folder / "pets.keras").predict(images.astype("f4"), verbose=0)[:, 0]
    assert 0 < (p >= 0.5).sum() < 4
    result = client.visualize(images, [Saliency(), GradCAM()], model="pets")
    for (best, other), chance in zip(result.predictions, p, strict=True):
        assert (best.label, other.label) == (("dog", "cat") if chance >= 0.5 else ("cat", "dog"))
        expected = sorted([chance, 1 - chance])[::-1]
        np.testing.assert_allclose([best.probability, other.probability], expected, atol=1e-5)
        assert best.logit == -other.logit >= 0
    assert [explained["saliency"].index for explained in result.explained] == (p >= 0.5).astype(int).tolist()
    assert (result["saliency"].reshape(4, -1).max(1) > 0).all()
    cat, dog = (client.saliency(images, signed=True, model="pets", target=label) for label in ("cat", "dog"))
    np.testing.assert_array_equal(cat["saliency"], -dog["saliency"])
    both = client.saliency(images, model="pets", target=TopK(2))
    assert both["saliency"].shape == (4, 2, SIZE, SIZE)
    with pytest.raises(InvalidArgument, match="0…1"):
        client.saliency(images, model="pets", target=2)
    with pytest.raises(InvalidArgument, match="opposite scores"):
        client.saliency(images, model="pets", target=ALL_UNITS)


def test_the_command_line_leaves_out_methods_that_a_model_does_not_support(target, tmp_path):
    Image.fromarray(taped_nets.images(1)[0]).save(tmp_path / "photo.png")
    command = [sys.executable, "-m", "convlens.client", "--server", target, "visualize", str(tmp_path / "photo.png")]
    command += ["--model", "residual", "-o", str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    assert "note: guided is left out: layer 'add'" in process.stderr
    assert "'caffe' is assumed" in process.stderr
    with np.load(tmp_path / "photo" / "arrays.npz") as arrays:
        assert set(arrays) == {"saliency", "grad_cam"}


def test_only_guided_backpropagation_is_refused_for_activations_inside_a_taped_step(client):
    images = taped_nets.images(1)
    with pytest.raises(InvalidArgument, match=r"guided: layer 'add'.*inner") as refused:
        client.saliency(images, "guided", model="residual")
    assert refused.value.field == "spec.visualizations[0].saliency.method"
    result = client.visualize(images, [Saliency(), GradCAM("add"), Saliency("integrated_gradients")], model="residual")
    assert {name: array.shape for name, array in result.items()} == {
        "saliency": (1, SIZE, SIZE), "grad_cam/add": (1, SIZE, SIZE), "saliency/integrated_gradients": (1, SIZE, SIZE)
    }  # fmt: skip
