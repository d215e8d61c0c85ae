"""Models from files: what can be explained loads and predicts as in Keras; the rest is refused, and no code is run."""

from __future__ import annotations

import gc

import h5py
import keras
import numpy as np
import pytest
from keras import layers as L

from convlens.worker.engine.plan import PREDICTED, Plan, Saliency
from convlens.worker.models import file, stock
from convlens.worker.models.model_protocol import ModelUnavailable
from convlens.worker.models.source import parse

SIZE = 32
CLASSES = 7


def load(path, options=""):
    return file.load(parse(f"m={path}{options}"))


def fine_tuned(seed=5):
    """A nested VGG-like backbone below a new head, as transfer learning makes it."""
    keras.utils.set_random_seed(seed)
    backbone = keras.Sequential(name="backbone")
    backbone.add(keras.Input((SIZE, SIZE, 3)))
    for block, channels in enumerate((8, 16), start=1):
        for i in (1, 2):
            name = f"block{block}_conv{i}"
            backbone.add(L.Conv2D(channels, 3, padding="same", activation="relu", name=name))
        backbone.add(L.MaxPooling2D(name=f"block{block}_pool"))
    inputs = keras.Input((SIZE, SIZE, 3))
    x = L.GlobalAveragePooling2D(name="gap")(backbone(inputs))
    x = L.BatchNormalization(name="norm")(x)
    x = L.Dropout(0.5, name="drop")(x)
    model = keras.Model(inputs, L.Dense(4, activation="softmax", name="classes")(x))
    norm = model.get_layer("norm")
    rng = np.random.default_rng(seed)
    norm.set_weights([rng.uniform(0.5, 2, weight.shape) for weight in norm.get_weights()])
    return model


def predict(model, images):
    """Return the served model's best classes and their probabilities, descending."""
    targets = np.full((len(images), 1), PREDICTED, np.int32)
    outputs = model.run(images, Plan((Saliency(),), predictions=4), targets)
    assert np.isfinite(outputs.maps[Saliency()]).all()
    return outputs.predicted, outputs.predicted_probabilities


def assert_predicts(served, probabilities, images):
    order, actual = predict(served, images)
    assert order[:, 0].tolist() == probabilities.argmax(1).tolist()
    np.testing.assert_allclose(actual, np.take_along_axis(probabilities, order, 1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(actual, -np.sort(-probabilities, axis=1)[:, :4], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("scheme", ["caffe", "unit", "none"])
def test_a_fine_tuned_model_saved_whole_predicts_what_keras_predicts(tmp_path, suffix, scheme):
    model = fine_tuned()
    model.compile("adam", "categorical_crossentropy")
    path = tmp_path / f"dogs{suffix}"
    model.save(path)
    served = load(path, f",preprocess={scheme}")
    images = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    x = {
        "caffe": keras.applications.vgg16.preprocess_input(images.astype(np.float32)),
        "unit": images / np.float32(255),
        "none": images.astype(np.float32),
    }[scheme]
    assert_predicts(served, model.predict(x, verbose=0), images)
    card = served.card
    assert card.source == path.name
    assert (card.cam_layer, card.score_layer, card.preprocess) == ("block2_conv2", "classes", scheme)
    assert card.has_probability
    assert not card.synthetic
    assert len(card.digest) == 64


def test_labels_of_a_file_are_on_the_card(tmp_path):
    fine_tuned().save(tmp_path / "m.keras")
    (tmp_path / "l.txt").write_text("a\nb\nc\nd\n")
    assert list(load(tmp_path / "m.keras", f",labels={tmp_path}/l.txt").card.labels) == ["a", "b", "c", "d"]
    (tmp_path / "l.txt").write_text("a\nb\n")
    with pytest.raises(ModelUnavailable, match="has 2 labels, the model 4 units"):
        load(tmp_path / "m.keras", f",labels={tmp_path}/l.txt")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The weights of a stock VGG16 of seven classes, its head trained a little, and what Keras predicts with them."""
    folder = tmp_path_factory.mktemp("weights")
    model = keras.applications.VGG16(weights=None, classes=CLASSES)
    stock.randomise(model, 3)
    images = np.random.default_rng(2).integers(0, 256, (1, 224, 224, 3), np.uint8)
    expected = model.predict(keras.applications.vgg16.preprocess_input(images.astype(np.float32)), verbose=0)
    for layer in model.layers[:-1]:
        layer.trainable = False
    model.compile("adam", "categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)  # its moments go into the file, too
    path = folder / "dogs.weights.h5"
    model.save_weights(path)
    names = [(layer.name, len(layer.weights)) for layer in model.layers]
    del model
    gc.collect()
    yield path, names, images, expected
    for path in folder.iterdir():
        path.unlink()


def test_weights_of_the_stock_vgg16_predict_what_keras_predicts(weights):
    path, _, images, expected = weights
    served = load(path)
    assert_predicts(served, expected, images)
    assert served.card.layers[-1].shape == [CLASSES]
    assert served.card.cam_layer == "block5_conv3"


def test_weights_in_the_older_layout_are_read(weights):
    path, names, images, expected = weights
    old = path.with_name("dogs.h5")
    path.rename(old)
    kinds = {"conv": 0, "dense": 0}
    with h5py.File(old, "r+") as stored_file:  # the same bytes under the names that keras.applications gave them
        stored_file.attrs["layer_names"] = [name.encode() for name, _ in names]
        stored_file.attrs["backend"] = b"tensorflow"
        stored_file.attrs["keras_version"] = b"2.0.0"
        for name, count in names:
            group = stored_file.create_group(name)
            keys = [f"{name}/{part}:0" for part in ("kernel", "bias")][:count]
            group.attrs["weight_names"] = [key.encode() for key in keys]
            kind = "conv" if "conv" in name else "dense"
            for i, key in enumerate(keys):
                stored = {"conv": "conv2d", "dense": "dense"}[kind] + (f"_{kinds[kind]}" if kinds[kind] else "")
                group[key] = stored_file[f"layers/{stored}/vars/{i}"]
            kinds[kind] += bool(count)
        for key in ("layers", "optimizer"):
            del stored_file[key]
    assert_predicts(load(old), expected, images)
    with h5py.File(old, "r+") as stored_file:  # as Theano writes them
        stored_file.attrs["backend"] = b"theano"
        for name, _ in names:
            if "conv" in name:
                kernel = stored_file[f"{name}/{name}/kernel:0"]
                kernel[...] = kernel[...][::-1, ::-1]
    assert_predicts(load(old), expected, images)


def test_weights_of_another_architecture_are_refused(tmp_path):
    fine_tuned().save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(ModelUnavailable, match=r"not the stock VGG16's; save another architecture whole, as a .keras"):
        load(tmp_path / "m.weights.h5")


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
def test_a_missing_file_is_reported_by_its_path(tmp_path, suffix):
    with pytest.raises(ModelUnavailable, match=f"model 'm': there is no file .*gone{suffix}"):
        load(tmp_path / f"gone{suffix}")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("damage", ["nonsense", "half", "empty"])
def test_a_damaged_file_is_reported_by_its_path(tmp_path, suffix, damage):
    path = tmp_path / f"m{suffix}"
    fine_tuned().save(path)
    whole = path.read_bytes()
    path.write_bytes({"nonsense": b"nonsense" * 99, "half": whole[: len(whole) // 2], "empty": b""}[damage])
    with pytest.raises(ModelUnavailable, match=f"m{suffix} cannot be loaded: "):
        load(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, suffix):
    sentinel = tmp_path / "sentinel"
    code = eval(f"lambda x: (open({str(sentinel)!r}, 'w').close(), x)[1]")
    inputs = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(inputs, L.Dense(2)(L.Flatten()(L.Lambda(code, output_shape=(SIZE, SIZE, 3))(inputs))))
    path = tmp_path / f"m{suffix}"
    model.save(path)
    sentinel.unlink(missing_ok=True)
    with pytest.raises(ModelUnavailable, match=r"cannot be loaded: .*[Ll]ambda"):
        load(path)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "layers",
    [
        [L.Conv2D(4, 3), L.UpSampling2D(name="up"), L.Flatten(), L.Dense(4, activation="softmax")],
        [L.Conv2D(4, 3, activation="gelu", name="c"), L.Flatten(), L.Dense(4, activation="softmax")],
    ],
)
def test_a_layer_without_a_rule_predicts_what_keras_predicts(tmp_path, layers):
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), *layers])
    model.save(tmp_path / "m.keras")
    images = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    assert_predicts(load(tmp_path / "m.keras", ",preprocess=unit"), model.predict(images / np.float32(255)), images)


def test_a_layer_that_keeps_state_is_refused_by_its_name(tmp_path):
    keras.Sequential([keras.Input((8, 8)), L.LSTM(4, name="rnn"), L.Dense(2)]).save(tmp_path / "m.keras")
    with pytest.raises(ModelUnavailable, match="layer 'rnn' is a LSTM: layers that keep state"):
        load(tmp_path / "m.keras")


@pytest.mark.parametrize(("shape", "option"), [((SIZE, SIZE, 1), ""), ((None, None, 3), f",size={SIZE}x{SIZE}")])
def test_grey_models_and_models_of_any_size_predict_what_keras_predicts(tmp_path, shape, option):
    layers = [L.Conv2D(4, 3), L.GlobalAveragePooling2D(), L.Dense(4, activation="softmax")]
    model = keras.Sequential([keras.Input(shape), *layers])
    model.save(tmp_path / "m.keras")
    images = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, shape[-1]), np.uint8)
    assert_predicts(
        load(tmp_path / "m.keras", f",preprocess=unit{option}"), model.predict(images / np.float32(255)), images
    )


def test_a_model_of_any_size_without_a_size_is_refused(tmp_path):
    keras.Sequential([keras.Input((None, None, 3)), L.GlobalMaxPooling2D(), L.Dense(2)]).save(tmp_path / "m.keras")
    with pytest.raises(ModelUnavailable, match="takes images of any size; say which by size=HEIGHTxWIDTH"):
        load(tmp_path / "m.keras")
