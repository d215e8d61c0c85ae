"""Models of all usual layers, saved by Keras 2 and Keras 3, compute the same after they are loaded."""

from __future__ import annotations

import importlib
import json

import h5py
import keras
import model_files
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from keras.src.applications import convnext, inception_resnet_v2
from keras.src.ops.operation import Operation
from model_files import SIZE, change, entry, save, seed
from tf_keras.src.layers.core.tf_op_layer import get_symbol_from_name

from convlens.worker.models.file import read_model
from convlens.worker.models.files import allowed
from convlens.worker.models.files.config_check import check
from convlens.worker.models.model_protocol import ModelUnavailable

GENERATIONS = {3: keras, 2: tf_keras}


def chain(framework, *layers, shape=(SIZE, SIZE, 3)):
    """A functional model of layers or functions, with a head."""
    inputs = value = framework.Input(shape)
    for layer in layers:
        value = layer(value)
    if len(value.shape) > 2:
        value = framework.layers.Flatten(name="flat")(value)
    model = framework.Model(inputs, framework.layers.Dense(3, name="d")(value))
    seed(model)
    return model


def convolutions(k):
    layers = k.layers
    return chain(
        k,
        layers.ZeroPadding2D(1),
        layers.Conv2D(4, 3, dilation_rate=2, activation=layers.LeakyReLU(), kernel_regularizer="l2"),
        layers.Conv2D(8, 3, groups=2, strides=2, padding="same", kernel_initializer=k.initializers.HeNormal(seed=7)),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.DepthwiseConv2D(3, depthwise_constraint=k.constraints.MaxNorm(3)),
        layers.SeparableConv2D(6, 3, activation="elu"),
        layers.Conv2DTranspose(4, 3),
        layers.AveragePooling2D(2),
        layers.UpSampling2D(interpolation="bilinear"),
        layers.Cropping2D(1),
        layers.GlobalMaxPooling2D(keepdims=True),
    )


def activations(k):
    layers = k.layers
    names = ("gelu", "selu", "tanh", "swish", "softplus", "hard_sigmoid", "mish", "relu6", "exponential", "softsign")
    twice = layers.ReLU(6.0, name="twice")
    return chain(
        k,
        *(layers.Conv2D(3, 1, activation=name) for name in names if hasattr(k.activations, name)),
        layers.PReLU(shared_axes=[1, 2]),
        layers.ELU(0.5),
        layers.Conv2D(3, 1),
        twice,
        layers.Conv2D(3, 1),
        twice,
        layers.Softmax(),
        layers.Dense(4, activation="sigmoid"),
    )


def identities(k):
    layers = k.layers
    body = k.Sequential(
        [k.Input((SIZE, SIZE, 3)), layers.RandomFlip("horizontal"), layers.RandomRotation(0.1), layers.RandomZoom(0.2)]
    )
    return chain(
        k,
        body,
        layers.RandomContrast(0.1),
        layers.RandomTranslation(0.1, 0.1),
        layers.GaussianNoise(0.1),
        layers.Conv2D(3, 3),
        layers.GaussianDropout(0.1),
        layers.SpatialDropout2D(0.2),
        layers.AlphaDropout(0.1),
        layers.ActivityRegularization(l2=0.1),
        layers.Dropout(0.5, seed=7),
    )


def sizes(k):
    layers = k.layers
    return chain(
        k,
        layers.Resizing(24, 20),
        layers.CenterCrop(16, 16),
        layers.Rescaling([0.1, 0.2, 0.3], offset=-1),
        layers.Permute((2, 1, 3)),
    )


def normalizations(k):
    layers = k.layers
    adapted = layers.Normalization(axis=-1)
    adapted.adapt(model_files.images(4))
    body = k.Sequential([k.Input((SIZE, SIZE, 3)), adapted, layers.Conv2D(4, 3)], name="body")
    # tf_keras builds none itself
    spectral = [layers.SpectralNormalization(layers.Conv2D(4, 3, activation="relu"))] if k is keras else []
    model = chain(
        k,
        layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0]),
        body,
        layers.LayerNormalization(),
        layers.GroupNormalization(2),
        layers.UnitNormalization(),
        *spectral,
    )
    mean, variance = model_files.images(4).mean((0, 1, 2)), model_files.images(4).var((0, 1, 2))
    adapted.set_weights([mean, variance, np.array(3)])
    adapted.finalize_state()
    return model


def branches(k):
    layers = k.layers
    inputs = k.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(6, 3, padding="same", name="a")(inputs)
    y = layers.Conv2D(6, 3, padding="same", name="b")(x)
    merged = [
        layers.Add()([x, y]),
        layers.Multiply()([x, y]),
        layers.Subtract()([x, y]),
        layers.Average()([x, y]),
        layers.Maximum()([x, y]),
    ]
    z = layers.Concatenate()([*merged, layers.Minimum()([x, y])])
    gate = layers.Reshape((1, 1, 36))(layers.Dense(36, activation="sigmoid")(layers.GlobalAveragePooling2D()(z)))
    model = k.Model(inputs, layers.Dense(3, name="d")(layers.Flatten()(layers.Multiply()([z, gate]))))
    seed(model)
    return model


def attention(k):
    layers = k.layers
    inputs = k.Input((SIZE, SIZE, 3))
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 8, strides=8)(inputs))
    y = layers.MultiHeadAttention(2, 4)(x, x)
    y = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([x, y]))
    y = layers.Attention()([y, x])
    y = layers.AdditiveAttention()([y, x])
    z = layers.Dot(axes=(2, 2))([y, x])
    model = k.Model(inputs, layers.Dense(3, name="d")(layers.GlobalAveragePooling1D()(layers.Conv1D(4, 3)(z))))
    seed(model)
    return model


def frozen(k):
    """A nested base with some frozen layers; .h5 files list the trainable ones first."""
    layers = k.layers
    base = k.Sequential(
        [k.Input((SIZE, SIZE, 3)), *(layers.Conv2D(3, 1, name=f"c{i}") for i in range(5)), layers.BatchNormalization()],
        name="base",
    )
    for i in (0, 2):
        base.get_layer(f"c{i}").trainable = False
    return chain(k, base, layers.Dropout(0.1))


def grey(k):
    return chain(k, k.layers.Conv2D(4, 3), shape=(SIZE, SIZE, 1))


def mixed(k):
    """Trained in half precision: its weights are float32."""
    policies = keras.dtype_policies.DTypePolicy if k is keras else tf_keras.mixed_precision.Policy
    half = policies("mixed_bfloat16")
    return chain(k, k.layers.Conv2D(4, 3, dtype=half), k.layers.BatchNormalization(dtype=half))


MODELS = (convolutions, activations, identities, sizes, normalizations, branches, attention, frozen, grey)


def predict(model, shape):
    images = np.random.default_rng(5).integers(0, 256, (2, *shape[1:])).astype(np.float32)
    return tf.convert_to_tensor(model(images, training=False)).numpy()


def assert_unchanged_by_saving(model, path, tolerance=1e-5):
    expected = predict(model, model.input_shape)
    assert np.isfinite(expected).all()
    actual = predict(read_model(save(model, path)).model, model.input_shape)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.parametrize("make", MODELS)
def test_a_model_computes_the_same_after_it_is_loaded(make, ending, generation, tmp_path):
    assert_unchanged_by_saving(make(GENERATIONS[generation]), tmp_path / f"m{ending}")


@pytest.mark.parametrize("make", [normalizations, attention, frozen])
def test_a_saved_model_folder_is_read(make, tmp_path):
    assert_unchanged_by_saving(make(tf_keras), tmp_path / "m.saved_model")


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_model_trained_in_half_precision_computes_in_float32(generation, tmp_path):
    model = mixed(GENERATIONS[generation])
    assert_unchanged_by_saving(model, tmp_path / "m.keras", tolerance=0.02)
    loaded = read_model(tmp_path / "m.keras").model
    assert {str(getattr(layer.compute_dtype, "name", layer.compute_dtype)) for layer in loaded.layers} == {"float32"}


def with_preprocessing(k, scheme):
    """A model with preprocess_input inside, as people write it."""
    return chain(k, lambda x: k.applications.imagenet_utils.preprocess_input(x, mode=scheme), k.layers.Conv2D(4, 3))


@pytest.mark.parametrize("scheme", ["caffe", "tf", "torch"])
@pytest.mark.parametrize("name", ["keras3.keras", "keras3.h5", "keras2.h5", "keras2.saved_model"])
def test_preprocess_input_inside_of_a_model_is_kept(name, scheme, tmp_path):
    assert_unchanged_by_saving(with_preprocessing(model_files.framework(name), scheme), tmp_path / name)


def arithmetic(x, ops):
    """Arithmetic that both generations of Keras accept inside a model."""
    return ops(x[:, 1:, ::-1, :] / 127.5 - 1.0) * 2 + abs(x[:, 1:]) ** 2


def test_arithmetic_in_the_middle_of_a_model_of_keras_3_is_kept(tmp_path):
    ops = keras.ops

    def middle(x):
        y = arithmetic(x, ops.relu)
        y = ops.concatenate([ops.sqrt(y + 1), ops.clip(y, 0, 1)], axis=-1)
        y = ops.pad(ops.transpose(y, (0, 2, 1, 3)), ((0, 0), (1, 1), (0, 0), (0, 0)))
        return ops.stack([ops.mean(y, axis=1), ops.max(y, axis=1)], axis=1)

    for ending in (".keras", ".h5"):
        assert_unchanged_by_saving(chain(keras, middle), tmp_path / f"m{ending}")


def test_arithmetic_in_the_middle_of_a_model_of_keras_2_is_kept(tmp_path):
    def middle(x):
        y = arithmetic(x, tf.nn.relu)
        y = tf.concat([tf.sqrt(y + 1), tf.clip_by_value(y, 0, 1)], axis=-1)
        y = tf.pad(tf.transpose(y, (0, 2, 1, 3)), ((0, 0), (1, 1), (0, 0), (0, 0)))
        return tf.stack([tf.reduce_mean(y, axis=1), tf.reduce_max(y, axis=1)], axis=1)

    for ending in (".keras", ".h5", ".saved_model"):
        assert_unchanged_by_saving(chain(tf_keras, middle), tmp_path / f"m{ending}")


def test_a_sequential_of_keras_before_2_2_3_has_its_layers_as_a_list(tmp_path):
    k = tf_keras
    model = k.Sequential([k.Input((8, 8, 3)), k.layers.Conv2D(4, 3), k.layers.Flatten(), k.layers.Dense(2)])
    seed(model)
    path = save(model, tmp_path / "m.h5")

    def older(config):
        layers = [layer for layer in config["config"]["layers"] if layer["class_name"] != "InputLayer"]
        layers[0]["config"]["batch_input_shape"] = [None, 8, 8, 3]
        config["config"] = layers

    actual = read_model(change(path, older)).model
    np.testing.assert_allclose(predict(actual, (0, 8, 8, 3)), predict(model, (0, 8, 8, 3)), rtol=1e-6)


def test_weights_of_a_nested_model_are_matched_by_name_where_the_order_differs(tmp_path):
    """A Keras that restores them in another order must not exchange kernels of one shape."""
    model = frozen(keras)
    path = save(model, tmp_path / "m.h5")
    with h5py.File(path, "r+") as file:
        group = file["model_weights/base"]
        group.attrs["weight_names"] = group.attrs["weight_names"][::-1]
    np.testing.assert_allclose(
        predict(read_model(path).model, model.input_shape), predict(model, model.input_shape), rtol=1e-6
    )


def test_layers_are_matched_by_name_where_the_order_differs(tmp_path):
    model = branches(keras)
    path = save(model, tmp_path / "m.h5")
    with h5py.File(path, "r+") as file:
        group = file["model_weights"]
        group.attrs["layer_names"] = group.attrs["layer_names"][::-1]
    np.testing.assert_allclose(
        predict(read_model(path).model, model.input_shape), predict(model, model.input_shape), rtol=1e-6
    )


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_a_sequential_that_was_built_by_its_first_images_is_read(generation, ending, tmp_path):
    k = GENERATIONS[generation]
    model = k.Sequential([k.layers.Conv2D(4, 3), k.Sequential([k.layers.Flatten(), k.layers.Dense(2)])])
    model(np.zeros((2, SIZE, SIZE, 3), np.float32))
    seed(model)
    actual = read_model(save(model, tmp_path / f"m{ending}")).model
    shape = (0, SIZE, SIZE, 3)
    np.testing.assert_allclose(predict(actual, shape), predict(model, shape), rtol=1e-5)


def test_every_augmentation_of_keras_3_is_read(tmp_path):
    options = {"RandomCrop": (SIZE, SIZE), "RandomErasing": (), "RandomGrayscale": (), "RandomTranslation": (0.1, 0.1)}
    ones = (
        "RandomBrightness",
        "RandomContrast",
        "RandomHue",
        "RandomPosterization",
        "RandomRotation",
        "RandomSharpness",
    )
    options |= {name: (4 if name == "RandomPosterization" else 0.1,) for name in ones}
    options |= dict.fromkeys(("RandomColorDegeneration", "RandomSaturation", "RandomZoom"), (0.1,))
    # Keras does not read what it writes of RandomShear
    known = [name for name in sorted(allowed.AUGMENTATION - {"RandomShear"}) if hasattr(keras.layers, name)]
    model = chain(keras, *(getattr(keras.layers, name)(*options.get(name, ())) for name in known))
    read_model(save(model, tmp_path / "m.keras"))


def test_a_model_built_for_a_number_of_images_takes_any(tmp_path):
    model = model_files.small(keras)
    path = change(
        save(model, tmp_path / "m.keras"),
        lambda config: entry(config, "image")["config"].update(batch_shape=[1, 32, 32, 3]),
    )
    assert read_model(path).model.input_shape[0] is None


def test_integers_as_input_are_read_as_numbers(tmp_path):
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    save(keras.Model(inputs, keras.layers.Dense(2)(x)), tmp_path / "m.keras")
    assert read_model(tmp_path / "m.keras").model.inputs[0].dtype == "float32"


def test_batch_statistics_at_inference_are_refused(tmp_path):
    k = tf_keras
    inputs = k.Input((8, 8, 3))
    x = k.layers.BatchNormalization(name="norm")(inputs, training=True)
    x = k.layers.Dropout(0.5, name="drop")(x, training=True)
    path = save(k.Model(inputs, k.layers.Dense(2)(k.layers.Flatten()(x))), tmp_path / "m.h5")
    with pytest.raises(Exception, match=r"'norm' \(BatchNormalization\) is called with training=True"):
        read_model(path)


@pytest.mark.parametrize(
    "application",
    [
        *("ResNet50", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "DenseNet121", "InceptionV3", "Xception"),
        *("NASNetMobile", "ConvNeXtTiny"),
    ],
)
def test_the_applications_of_keras_3_pass_the_check(application):
    with tf.Graph().as_default():
        model = getattr(keras.applications, application)(weights=None)
    check(json.loads(json.dumps(keras.saving.serialize_keras_object(model))), 3)


@pytest.mark.parametrize("application", ["ResNet50", "MobileNetV3Small", "EfficientNetB0", "EfficientNetV2B0"])
def test_the_applications_of_keras_2_pass_the_check(application):
    check(json.loads(getattr(tf_keras.applications, application)(weights=None).to_json()), 2)


def test_layers_that_keras_3_has_for_its_applications_alone_are_read(tmp_path):
    inputs = keras.Input((SIZE, SIZE, 3))
    scaled = inception_resnet_v2.CustomScaleLayer(0.2)([inputs, keras.layers.Conv2D(3, 1)(inputs)])
    x = convnext.StochasticDepth(0.1)(convnext.LayerScale(0.1, 3)(scaled))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    seed(model)
    assert_unchanged_by_saving(model, tmp_path / "m.keras")


def test_every_name_on_the_lists_is_one_of_keras_or_tensorflow():
    layers = {*dir(keras.layers), *dir(tf_keras.layers)}
    assert layers >= allowed.LAYERS
    assert not allowed.LAYERS & allowed.REFUSED.keys()
    for name, module in allowed.APPLICATIONS.items():
        assert issubclass(getattr(importlib.import_module(module), name), keras.layers.Layer)
    for module, names in allowed.OPERATIONS.items():
        for name in names:
            assert issubclass(getattr(importlib.import_module(module), name), Operation), name
    assert [name for name in allowed.TENSORFLOW if get_symbol_from_name(name) is None] == []
    assert {name.lower() for name in allowed.INITIALIZERS} <= {
        name.lower() for name in (*dir(keras.initializers), *dir(tf_keras.initializers))
    }
    assert {*dir(keras.regularizers)} >= allowed.REGULARIZERS
    assert {*dir(keras.constraints)} >= allowed.CONSTRAINTS
    known = {*keras.src.activations.ALL_OBJECTS_DICT, *dir(tf_keras.activations), "softmax_v2"}
    assert known >= allowed.ACTIVATIONS


@pytest.mark.parametrize("name", model_files.FORMATS)
def test_weights_that_are_not_numbers_are_refused(name, tmp_path):
    framework = model_files.framework(name)
    model = model_files.small(framework)
    kernel, bias = model.layers[-1].get_weights()
    kernel[0, 0] = np.nan
    model.layers[-1].set_weights([kernel, bias])
    model_files.save(model, tmp_path / name)
    with pytest.raises(ModelUnavailable, match="holds NaN or infinite numbers; save the model from before"):
        read_model(tmp_path / name)


def test_a_layers_name_may_begin_with_an_underscore(tmp_path):
    x = inputs = keras.Input((32, 32, 3))
    x = keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.DepthwiseConv2D(3, name="_stem")(x)))
    keras.Model(inputs, x).save(tmp_path / "m.keras")
    assert read_model(tmp_path / "m.keras").model.get_layer("_stem")
