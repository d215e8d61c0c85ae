"""Layers without a written rule are explained, too: compared with GradientTape, in Keras 2 and Keras 3."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import taped_nets
import tensorflow as tf
import tf_keras
from keras import layers as L

from convlens.worker.engine.cams import CAMS
from convlens.worker.engine.chain import build_chain, find_rescaling_layer
from convlens.worker.engine.explain import explain
from convlens.worker.engine.graph import UnsupportedLayer
from convlens.worker.engine.kinds import TRAINING_ONLY
from convlens.worker.engine.methods.integrated_gradients import IntegratedGradients, StraightPath
from convlens.worker.engine.network import Network
from convlens.worker.engine.plan import PREDICTED, Activation, GradCAM, Plan, Saliency

SIGNED = Saliency(reduction="none")
PACKAGES = {"keras 3": keras, "keras 2": tf_keras}
HIDING = {
    "prelu", "elu", "relu6", "odd layer as activation", "residual", "inception", "attention", "squeeze and excite",
    "tanh", "selu", "gelu", "sigmoid", "softplus", "swish", "softmax", "separable", "dilation and relu",
}  # fmt: skip
"""Cases in which a taped step has an activation inside."""


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1e-12, np.abs(expected).max()))


def tape(package, model, x, unit, layer):
    """Compute with GradientTape and Keras alone: logits, ∂logit/∂input, a layer's output, ∂logit/∂(that output)."""
    last = model.layers[-1]
    inner = package.Model(model.input, [last.input, model.get_layer(layer).output])
    above = package.Model(model.get_layer(layer).output, last.input)
    kernel, bias = (tf.constant(weight) for weight in last.get_weights())
    x = tf.constant(x, tf.float32)
    with tf.GradientTape(persistent=True) as recorded:
        recorded.watch(x)
        features, output = inner(x, training=False)
        logits = features @ kernel + bias
        recorded.watch(output)
        score = (above(output, training=False) @ kernel + bias)[:, unit]
        whole = logits[:, unit]
    return logits.numpy(), recorded.gradient(whole, x).numpy(), output.numpy(), recorded.gradient(score, output).numpy()


@pytest.mark.parametrize("generation", PACKAGES)
@pytest.mark.parametrize("name", taped_nets.cases(keras))
def test_maps_and_scores_are_those_of_the_tape(generation, name):
    package = PACKAGES[generation]
    model = taped_nets.build(package, name)
    network = Network(model, "none")
    x = taped_nets.images()
    layer = network.cam_layer if name != "one activation twice" else "behind"
    logits, gradient, output, inner = tape(package, model, x, 3, layer)
    plan = Plan((SIGNED, GradCAM(layer), Activation(network.layers[-1].name), Activation(layer)), predictions=5)
    actual = network.run(x, plan, np.full((2, 1), 3, np.int32))
    close(actual.scores[:, 0], logits[:, 3])
    close(actual.maps[SIGNED][:, 0], gradient)
    close(actual.maps[Activation(layer)], output)
    close(actual.maps[Activation(network.layers[-1].name)], model.predict(x.astype("f4"), verbose=0))
    close(actual.maps[GradCAM(layer)][:, 0], np.maximum((output * inner.mean((1, 2), keepdims=True)).sum(-1), 0), 1e-4)
    np.testing.assert_array_equal(actual.predicted[:, 0], logits.argmax(-1))
    assert bool(network.unavailable_methods) == (name in HIDING)


@pytest.mark.parametrize("name", sorted(HIDING))
def test_guided_backpropagation_is_refused_naming_the_layer_that_hides_activations(name):
    network = Network(taped_nets.build(keras, name), "none")
    assert set(network.unavailable_methods) == {"guided", "deconvnet", "guided_grad_cam"}
    assert "hides" in network.unavailable_methods["guided"] or "activation" in network.unavailable_methods["guided"]
    with pytest.raises(ValueError, match=r"guided: layer '.*'"):
        network.run(taped_nets.images(), Plan((Saliency("guided"),)))


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
@pytest.mark.parametrize("name", ["linear residual", "depthwise", "dilation", "groups", "dense on a map"])
def test_guided_backpropagation_passes_taped_steps_without_activations(name, rule):
    model = taped_nets.build(keras, name)

    @tf.custom_gradient
    def rectify(value):
        def gradient(dy):
            return tf.nn.relu(dy) * (tf.cast(value > 0, tf.float32) if rule == "guided" else 1.0)

        return tf.nn.relu(value), gradient

    def replace_relu(layer):
        config = layer.get_config()
        if isinstance(layer, L.ReLU):
            return L.Activation(rectify, name=layer.name)
        if getattr(layer, "activation", None) is keras.activations.relu:
            copy = type(layer).from_config(config | {"activation": "linear"})
            copy.activation = rectify
            return copy
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=replace_relu)
    copy.set_weights(model.get_weights())
    x = taped_nets.images()
    _, expected, _, _ = tape(keras, copy, x, 2, "before")
    item = Saliency(rule, reduction="none")
    actual = Network(model, "none").run(x, Plan((item,)), np.full((2, 1), 2, np.int32))
    close(actual.maps[item][:, 0], expected)
    plain = Network(model, "none").run(x, Plan((SIGNED,)), np.full((2, 1), 2, np.int32)).maps[SIGNED][:, 0]
    assert np.abs(plain - expected).max() > 0.01 * np.abs(plain).max()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_taped_steps_work_in_other_precisions(precision):
    model = taped_nets.build(keras, "residual")
    x, plan, units = taped_nets.images(), Plan((SIGNED,)), np.full((2, 1), 3, np.int32)
    exact = Network(model, "unit").run(x, plan, units).maps[SIGNED]
    actual = Network(model, "unit", precision).run(x, plan, units).maps[SIGNED]
    assert (actual * exact).sum() / np.linalg.norm(actual) / np.linalg.norm(exact) > 0.98


def test_integrated_gradients_add_up_through_taped_steps():
    network = Network(taped_nets.build(keras, "residual"), "unit")
    item = IntegratedGradients(StraightPath(200), "none")
    outputs = explain(network, taped_nets.images(), [item], np.full((2, 1), 1, np.int32), batch_size=50)
    actual = outputs.completeness[item]
    assert (np.abs(actual.delta) < 0.02 * np.abs(outputs.scores - actual.baseline_scores)).all()


class Doubled(L.Conv2D):
    """A subclass that computes something else."""

    def call(self, inputs):
        return 2 * super().call(inputs)


def test_a_subclass_of_a_layer_is_explained_by_what_it_computes():
    inputs = keras.Input((16, 16, 3))
    x = L.GlobalAveragePooling2D()(Doubled(4, 3, activation="relu", name="doubled")(inputs))
    model = keras.Model(inputs, L.Dense(3, name="out")(x))
    actual = Network(model, "none").run(taped_nets.images(), Plan((SIGNED,)), np.zeros((2, 1), np.int32))
    logits, gradient, _, _ = tape(keras, model, taped_nets.images(), 0, "doubled")
    close(actual.scores[:, 0], logits[:, 0])
    close(actual.maps[SIGNED][:, 0], gradient)


def test_a_users_function_named_relu_is_explained_by_what_it_computes():
    def relu(x):
        return tf.nn.relu(x) ** 2

    inputs = keras.Input((16, 16, 3))
    x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation=relu, name="c")(inputs))
    model = keras.Model(inputs, L.Dense(3, name="out")(x))
    network = Network(model, "unit")
    actual = network.run(taped_nets.images(), Plan((SIGNED,)), np.zeros((2, 1), np.int32))
    logits, gradient, _, _ = tape(keras, model, taped_nets.images() / np.float32(255), 0, "c")
    close(actual.scores[:, 0], logits[:, 0])
    close(actual.maps[SIGNED][:, 0], gradient)
    assert "guided" in network.unavailable_methods


@pytest.mark.parametrize("generation", PACKAGES)
def test_training_only_layers_are_the_identity_in_keras(generation):
    package = PACKAGES[generation]
    x = taped_nets.images().astype(np.float32)
    arguments = {"RandomTranslation": (0.2, 0.2), "RandomPosterization": (4,), "Identity": ()}
    arguments |= dict.fromkeys(("RandomRotation", "RandomZoom", "RandomContrast", "RandomBrightness"), (0.5,))
    arguments |= dict.fromkeys(("RandomHue", "RandomSaturation", "RandomColorDegeneration", "RandomSharpness"), (0.5,))
    arguments |= {name: (0.5,) for name in TRAINING_ONLY if "Dropout" in name or "Noise" in name}
    checked = 0
    for name in TRAINING_ONLY:
        if layer := getattr(package.layers, name, None):
            np.testing.assert_array_equal(layer(*arguments.get(name, ()))(x, training=False), x, err_msg=name)
            checked += 1
    assert checked > 10


@pytest.mark.parametrize("generation", PACKAGES)
def test_equal_models_have_equal_digests_and_others_different_ones(generation, tmp_path):
    package = PACKAGES[generation]
    for name in ("residual", "prepared as caffe", "attention"):
        model = taped_nets.build(package, name)
        path = tmp_path / ("m.keras" if package is keras else "m.h5")
        model.save(path)
        one, other = (package.models.load_model(path) for _ in range(2))
        digest = Network(one, "none").digest
        assert Network(other, "none").digest == digest
        for i in range(len(model.get_weights())):
            changed = model.get_weights()
            changed[i] = changed[i] + np.float32(1e-3)
            other.set_weights(changed)
            assert Network(other, "none").digest != digest


def save_and_load(package, path, *layers):
    """Save a model of these layers and operations with seeded weights, and load it."""
    package.utils.set_random_seed(1)
    package.backend.clear_session()
    x = inputs = package.Input((16, 16, 3))
    for layer in layers:
        x = layer(x)
    package.Model(inputs, x).save(path)
    return package.models.load_model(path, compile=False)


K = keras.ops
OPTIONS = {
    "leaky_relu": (lambda x: K.leaky_relu(x, 0.1), lambda x: K.leaky_relu(x, 3.0)),
    "clip": (lambda x: K.clip(x, 0, 1), lambda x: K.clip(x, 0, 6)),
    "flip": (lambda x: K.flip(x, 1), lambda x: K.flip(x, 2)),
    "mean": (lambda x: K.mean(x, 1), lambda x: K.mean(x, 2)),
    "power": (lambda x: x**2, lambda x: x**3),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_options_of_operations_are_in_the_digest(name, tmp_path):
    path = tmp_path / "m.keras"
    models = [save_and_load(keras, path, L.Conv2D(4, 3), layer, L.Flatten(), L.Dense(3)) for layer in OPTIONS[name]]
    one, other = (Network(model, "unit").digest for model in models)
    assert one != other


HEADS = {
    "keras 3": [
        L.Softmax(axis=1), L.Softmax(axis=[-1]), K.softmax, keras.activations.softmax, K.sigmoid,
        keras.activations.sigmoid,
    ],
    "keras 2": [
        tf.nn.softmax, tf_keras.activations.softmax, tf_keras.layers.Softmax(axis=1), tf.nn.sigmoid,
        tf_keras.activations.sigmoid,
    ],
}  # fmt: skip


@pytest.mark.parametrize(("generation", "head"), [(name, head) for name, heads in HEADS.items() for head in heads])
def test_probabilities_of_any_function_are_not_used_as_scores(generation, head):
    package = PACKAGES[generation]
    inputs = package.Input((16, 16, 3))
    z = package.layers.Dense(3, name="z")(package.layers.Flatten()(inputs))
    model = package.Model(inputs, head(z))
    actual = Network(model, "none").run(taped_nets.images(), Plan((SIGNED,), predictions=3), np.zeros((2, 1), np.int32))
    x = taped_nets.images().astype("f4")
    close(actual.scores[:, 0], package.Model(inputs, z).predict(x, verbose=0)[:, 0])
    close(actual.probabilities[:, 0], model.predict(x, verbose=0)[:, 0])
    close(actual.maps[SIGNED][0, 0].ravel(), model.get_layer("z").get_weights()[0][:, 0])


def test_one_unit_with_a_sigmoid_called_as_a_function_is_two_classes():
    inputs = keras.Input((16, 16, 3))
    assert Network(keras.Model(inputs, K.sigmoid(L.Dense(1)(L.Flatten()(inputs)))), "none").units == 2


@pytest.mark.parametrize("generation", PACKAGES)
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_probabilities_of_several_places_are_refused(generation, head):
    layers = PACKAGES[generation].layers
    inputs = PACKAGES[generation].Input((16, 16, 3))
    x = layers.Activation(head)(layers.Reshape((2, 10))(layers.Dense(20)(layers.Flatten()(inputs))))
    with pytest.raises(UnsupportedLayer, match=r"makes probabilities of \(2, 10\), of each place by itself"):
        Network(PACKAGES[generation].Model(inputs, layers.Flatten()(x)), "none")


def test_an_operation_is_not_mistaken_for_the_layer_of_its_name():
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, L.Dense(3, name="out")(K.reshape(inputs, (-1, 768))))
    actual = Network(model, "none").run(taped_nets.images(), Plan((SIGNED,)), np.zeros((2, 1), np.int32))
    close(actual.maps[SIGNED][0, 0].ravel(), model.get_layer("out").get_weights()[0][:, 0])


def test_a_rectifier_that_is_a_maximum_hides_from_guided_backpropagation():
    inputs = keras.Input((16, 16, 3))
    x = K.maximum(L.Conv2D(4, 3)(inputs), 0.0)
    assert "guided" in Network(keras.Model(inputs, L.Dense(3)(L.Flatten()(x))), "none").unavailable_methods


def test_a_relu_called_as_a_function_is_recognized():
    inputs = keras.Input((16, 16, 3))
    x = K.relu(L.Conv2D(4, 3)(inputs))
    assert not Network(keras.Model(inputs, L.Dense(3)(L.Flatten()(x))), "none").unavailable_methods


def test_layer_names_that_are_invalid_in_a_graph_are_accepted():
    inputs = keras.Input((16, 16, 3))
    x = L.DepthwiseConv2D(3, name="_stem")(inputs)
    network = Network(keras.Model(inputs, L.Dense(3)(L.Flatten()(x))), "none")
    assert network.run(taped_nets.images(), Plan((SIGNED,))).maps[SIGNED].any()


def test_a_wrapped_convolution_is_recognized():
    inputs = keras.Input((16, 16, 3))
    x = L.SpectralNormalization(L.Conv2D(4, 3), name="wrapped")(L.Conv2D(4, 3, name="first")(inputs))
    network = Network(keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x))), "none")
    assert network.cam_layer == "wrapped"
    assert not network.unavailable_methods


RESCALING = {
    "behind a pool": lambda x: L.Rescaling(1 / 255)(L.AveragePooling2D(2)(x)),
    "behind a clip": lambda x: K.clip(x, 0, 255) / 255.0,
    "behind a crop": lambda x: L.Rescaling(1 / 255)(L.RandomCrop(12, 12)(x)),
    "less its own mean": lambda x: x - K.mean(x, (1, 2), keepdims=True),
    "a root": lambda x: K.sqrt(x) / 16.0,
}
NOT_RESCALING = {
    "channels turned": lambda x: x[..., ::-1],
    "one channel": lambda x: x[..., :1],
    "grey repeated": lambda x: L.Concatenate()([x[..., :1]] * 3),
}


@pytest.mark.parametrize("name", [*RESCALING, *NOT_RESCALING])
def test_operations_that_rescale_pixels_are_detected(name):
    inputs = keras.Input((16, 16, 3))
    x = (RESCALING | NOT_RESCALING)[name](inputs)
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(L.Conv2D(4, 3)(x))))
    assert bool(find_rescaling_layer(model)) == (name in RESCALING)


def test_rescaling_is_detected_only_where_every_branch_rescales():
    inputs = keras.Input((16, 16, 3))
    towers = [L.Conv2D(4, 3)(L.Rescaling(1 / divisor)(inputs)) for divisor in (255, 127.5)]
    both = keras.Model(inputs, L.Dense(3)(L.Flatten()(L.Add()(towers))))
    one = keras.Model(inputs, L.Dense(3)(L.Flatten()(L.Add()([towers[0], L.Conv2D(4, 3)(inputs)]))))
    assert find_rescaling_layer(both)
    assert find_rescaling_layer(one) == ""


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("prepared as caffe", True), ("prepared as tf", True), ("prepared as torch", True), ("normalization", True),
        ("augmentation", False), ("resizing", False), ("residual", False), ("center crop", False), ("attention", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("generation", PACKAGES)
def test_a_rescaling_layer_of_the_model_is_detected(generation, name, layer):
    assert bool(find_rescaling_layer(taped_nets.build(PACKAGES[generation], name))) == layer


def test_rescaling_after_augmentation_is_detected_and_after_a_convolution_is_not():
    inputs = keras.Input((16, 16, 3))

    def model(*layers):
        x = inputs
        for layer in (*layers, L.GlobalAveragePooling2D(), L.Dense(2)):
            x = layer(x)
        return keras.Model(inputs, x)

    convolution, rescaling = L.Conv2D(3, 3), L.Rescaling(1 / 255, name="own")
    inner = keras.Sequential([keras.Input((16, 16, 3)), rescaling, convolution])
    assert find_rescaling_layer(model(L.RandomFlip(), L.ZeroPadding2D(), rescaling, convolution)) == "own"
    assert find_rescaling_layer(model(inner)) == "own"
    assert find_rescaling_layer(model(convolution, rescaling)) == ""
    assert find_rescaling_layer(model(L.BatchNormalization(), convolution)) == ""


def test_the_default_cam_layer_is_the_last_one_with_more_than_one_place():
    expected = {
        "fully convolutional": "before", "residual": "joined", "inception": "joined", "relu6": "behind",
        "one activation twice": "relu#2", "attention": "patches", "keepdims": "before",
    }  # fmt: skip
    actual = {name: Network(taped_nets.build(keras, name), "none").cam_layer for name in expected}
    assert actual == expected


def test_methods_of_class_activation_maps_are_their_formulas_at_a_residual_sum():
    model = taped_nets.build(keras, "residual")
    _, _, a, g = tape(keras, model, taped_nets.images(), 1, "add")
    plan = Plan(tuple(GradCAM("add", method=method, signed=True) for method in CAMS))
    actual = Network(model, "none").run(taped_nets.images(), plan, np.full((2, 1), 1, np.int32)).maps
    for method, formula in CAMS.items():
        close(actual[GradCAM("add", method=method, signed=True)][:, 0], formula(a, g).numpy(), 1e-4)


def _unsupported_models():
    x = keras.Input((16, 16, 3), name="photo")
    other = keras.Input((4,), name="age")
    features = L.GlobalAveragePooling2D()(L.Conv2D(3, 3)(x))
    of_any_size = keras.Sequential([keras.Input((None, None, 3)), L.GlobalMaxPooling2D(), L.Dense(2)])
    masked = L.Masking(name="masking")(features)
    photo = tf_keras.Input((8, 8, 3))
    always = tf_keras.Model(photo, tf_keras.layers.Dropout(0.5)(photo, training=True))
    never_built = keras.Sequential([L.Conv2D(3, 3), L.Flatten(), L.Dense(2)], name="bare")
    rounded = L.Dense(2)(L.Flatten()(keras.ops.round(x)))
    return {
        "takes 2 inputs ('photo', 'age')": keras.Model([x, other], L.Dense(2)(L.Concatenate()([features, other]))),
        "has 2 outputs; choose one by output=": keras.Model(x, {"a": L.Dense(2)(features), "b": L.Dense(3)(features)}),
        "was never built": never_built,
        "is a Lambda": keras.Model(x, L.Dense(2)(L.Lambda(lambda x: x[:, :2])(features))),
        "training=True": tf_keras.Sequential([tf_keras.Input((8, 8, 3)), always, tf_keras.layers.Flatten()]),
        "one score a class is needed": keras.Model(x, L.Conv2D(2, 3)(x)),
        "no gradient passes layer 'round": keras.Model(x, rounded),
        "takes (10,)": keras.Sequential([keras.Input((10,)), L.Dense(2)]),
        "3 channels, or 1": keras.Sequential([keras.Input((8, 8, 4)), L.Flatten(), L.Dense(2)]),
        "any size; say which by size=": of_any_size,
        "'masking' (Masking) makes a mask": keras.Model(x, L.Dense(2)(masked)),
        "PReLU has weights": keras.Model(x, L.Dense(2)(L.Flatten()(L.Conv2D(3, 3, activation=L.PReLU())(x)))),
        "channels_first": keras.Model(x, L.Dense(2)(L.GlobalAveragePooling2D(data_format="channels_first")(x))),
    }  # fmt: skip


@pytest.mark.parametrize("message", _unsupported_models())
def test_unsupported_models_are_refused_by_name(message):
    with pytest.raises(UnsupportedLayer) as caught:
        Network(_unsupported_models()[message], "none")
    assert message in str(caught.value)


def test_one_of_several_outputs_is_explained_by_its_name():
    x = keras.Input((16, 16, 3))
    features = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu", name="c")(x))
    model = keras.Model(x, [L.Dense(2, name="sex")(features), L.Dense(3, name="kind")(features)])
    for name in ("sex", "kind"):
        single = Network(keras.Model(x, model.get_layer(name).output), "none")
        network = Network(model, "none", output=name)
        one, other = (
            explained.run(taped_nets.images(), Plan((SIGNED,))).maps[SIGNED] for explained in (network, single)
        )
        np.testing.assert_array_equal(one, other)
    with pytest.raises(UnsupportedLayer, match="no output 'age'; allowed: sex, kind"):
        Network(model, "none", output="age")


def test_a_model_of_any_size_takes_images_of_the_stated_size():
    x = keras.Input((None, None, 3))
    model = keras.Model(x, L.Dense(3, name="out")(L.GlobalAveragePooling2D()(L.Conv2D(4, 3, name="c")(x))))
    network = Network(model, "none", size=(16, 16))
    actual = network.run(taped_nets.images(), Plan((SIGNED,)), np.zeros((2, 1), np.int32))
    close(actual.maps[SIGNED][:, 0], tape(keras, model, taped_nets.images(), 0, "c")[1])
    fixed = taped_nets.build(keras, "elu")
    with pytest.raises(UnsupportedLayer, match="takes images of 16×16, not of 32×16"):
        Network(fixed, "none", size=(32, 16))


@pytest.mark.parametrize("scheme", ["unit", "tf", "none"])
def test_grey_images_are_explained_in_one_channel(scheme):
    x = keras.Input((16, 16, 1))
    features = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu", name="c")(x))
    model = keras.Model(x, L.Dense(3, name="out")(features))
    grey = taped_nets.images()[..., :1]
    network = Network(model, scheme)
    prepared = {"unit": grey / np.float32(255), "tf": grey / np.float32(127.5) - 1, "none": grey}[scheme]
    actual = network.run(grey, Plan((SIGNED, GradCAM("c"))), np.zeros((2, 1), np.int32))
    logits, gradient, _, _ = tape(keras, model, prepared, 0, "c")
    close(actual.scores[:, 0], logits[:, 0])
    close(actual.maps[SIGNED][:, 0], gradient)
    item = IntegratedGradients(StraightPath(100), "none")
    completeness = explain(network, grey, [item], np.zeros((2, 1), np.int32)).completeness[item]
    assert (np.abs(completeness.delta) < 0.02).all()
    with pytest.raises(UnsupportedLayer, match="three channels"):
        Network(model, "caffe")


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch"])
def test_schemes_are_those_of_keras_applications(mode):
    model = taped_nets.build(keras, "residual")
    x = taped_nets.images()
    prepared = keras.applications.imagenet_utils.preprocess_input(x.astype(np.float32), mode=mode)
    actual = Network(model, mode).run(x, Plan((SIGNED,)), np.zeros((2, 1), np.int32))
    logits, gradient, _, _ = tape(keras, model, prepared, 0, "before")
    close(actual.scores[:, 0], logits[:, 0])
    close(actual.maps[SIGNED][:, 0], gradient[..., ::-1] if mode == "caffe" else gradient)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("generation", PACKAGES)
def test_one_unit_with_a_sigmoid_is_two_classes(generation):
    package = PACKAGES[generation]
    package.utils.set_random_seed(1)
    x = package.Input((16, 16, 3))
    features = package.layers.GlobalAveragePooling2D()(package.layers.Conv2D(4, 3, activation="relu", name="c")(x))
    model = package.Model(x, package.layers.Dense(1, activation="sigmoid", name="out")(features))
    images = taped_nets.images(4)
    z, gradient, a, g = tape(package, model, images, 0, "c")
    model.layers[-1].set_weights([model.layers[-1].get_weights()[0], -np.median(z, 0)])  # some of each class
    z = z - np.median(z)
    network = Network(model, "none")
    assert network.units == 2
    plan = Plan((SIGNED, GradCAM("c", signed=True)), predictions=2)
    for unit, sign in ((1, 1), (0, -1)):
        actual = network.run(images, plan, np.full((4, 1), unit, np.int32))
        close(actual.scores[:, 0], sign * z[:, 0])
        close(actual.probabilities[:, 0], sigmoid(sign * z[:, 0]))
        close(actual.maps[SIGNED][:, 0], sign * gradient)
        close(actual.maps[GradCAM("c", signed=True)][:, 0], sign * (a * g.mean((1, 2), keepdims=True)).sum(-1), 1e-4)
        np.testing.assert_array_equal(
            actual.predicted[:, 0], (model.predict(images.astype("f4"), verbose=0) >= 0.5)[:, 0]
        )
        close(actual.predicted_probabilities.sum(1), np.ones(4))
    chosen = network.run(images, plan, np.full((4, 1), PREDICTED, np.int32))
    np.testing.assert_array_equal(chosen.targets[:, 0], (z[:, 0] >= 0).astype(int))
    assert (chosen.scores >= 0).all()
    ranked = network.run(images, Plan((SIGNED,), targets=2)).targets
    np.testing.assert_array_equal(np.sort(ranked, 1), [[0, 1]] * 4)
    close(network.run(images, Plan((Activation("out"),))).maps[Activation("out")], sigmoid(z))


def test_a_tie_of_two_classes_is_the_second_one():
    x = keras.Input((16, 16, 3))
    model = keras.Model(x, L.Dense(1, activation="sigmoid", kernel_initializer="zeros")(L.Flatten()(x)))
    actual = Network(model, "none").run(taped_nets.images(), Plan((SIGNED,), predictions=1))
    assert actual.targets.tolist() == [[1], [1]]
    assert actual.predicted.tolist() == [[1], [1]]


def test_flattened_probabilities_belong_to_the_head():
    x = keras.Input((16, 16, 3))
    y = L.GlobalAveragePooling2D(keepdims=True)(L.Conv2D(6, 3, activation="relu", name="c")(x))
    y = L.Conv2D(5, 1, name="logits")(y)
    model = keras.Model(x, L.Flatten()(L.Activation("softmax", name="chances")(y)))
    network = Network(model, "none")
    assert (network.score_layer, network.units, network.has_probability) == ("logits", 5, True)
    actual = network.run(taped_nets.images(), Plan((SIGNED,), predictions=5))
    close(actual.predicted_probabilities, -np.sort(-model.predict(taped_nets.images().astype("f4"), verbose=0)))


def test_layers_with_rules_are_not_taped_beside_taped_ones():
    taped = [
        step.layer for step in build_chain(taped_nets.build(keras, "residual")) if type(step.op).__name__ == "Taped"
    ]
    assert taped == ["add"]
