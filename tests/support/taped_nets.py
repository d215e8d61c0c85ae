"""Small networks with a layer that the engine has no explicit rule for, built by either generation of Keras."""

from __future__ import annotations

import numpy as np

SIZE = 16


def _block(layers, layer):
    """A network around one layer or several that map a feature map to a feature map."""

    def build(x):
        x = layers.Conv2D(6, 3, padding="same", activation="relu", name="before")(x)
        for inner in layer if isinstance(layer, list) else [layer]:
            x = inner(x)
        x = layers.Conv2D(4, 3, padding="same", activation="relu", name="behind")(x)
        return layers.GlobalAveragePooling2D()(x)

    return build


def _residual(layers, activation):
    def build(x):
        x = a = layers.Conv2D(6, 3, padding="same", activation="relu", name="before")(x)
        a = layers.Conv2D(6, 3, padding="same", activation=activation, name="inner")(a)
        a = layers.Conv2D(6, 1, padding="same", name="last")(a)
        x = layers.ReLU(name="joined")(layers.Add(name="add")([x, a]))
        return layers.Flatten()(layers.AveragePooling2D(4)(x))

    return build


def _inception(layers):
    def build(x):
        x = layers.Conv2D(4, 3, padding="same", activation="relu", name="before")(x)
        branches = [
            layers.Conv2D(3, 1, activation="relu")(x),
            layers.Conv2D(3, 3, padding="same", activation="relu")(layers.Conv2D(2, 1, activation="relu")(x)),
            layers.MaxPooling2D(3, strides=1, padding="same")(x),
        ]
        x = layers.Concatenate(name="joined")(branches)
        return layers.GlobalMaxPooling2D()(x)

    return build


def _attention(layers):
    def build(x):
        x = layers.Conv2D(8, 4, strides=4, name="patches")(x)
        x = layers.Reshape((16, 8))(x)
        y = layers.LayerNormalization()(x)
        y = layers.MultiHeadAttention(2, 4, name="attention")(y, y)
        x = layers.Add(name="joined")([x, y])
        return layers.GlobalAveragePooling1D()(x)

    return build


def _squeeze(layers):
    def build(x):
        x = layers.Conv2D(6, 3, padding="same", activation="relu", name="before")(x)
        w = layers.Dense(6, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
        x = layers.Multiply(name="joined")([x, w])
        return layers.Flatten()(layers.MaxPooling2D(4)(x))

    return build


def _shared_activation(layers):
    relu = layers.ReLU(name="relu")

    def build(x):
        x = relu(layers.Conv2D(6, 3, name="before")(x))
        x = relu(layers.Conv2D(6, 3, name="behind")(x))
        return layers.GlobalAveragePooling2D()(x)

    return build


def _fully_convolutional(layers):
    def build(x):
        x = layers.Conv2D(6, 3, padding="same", activation="relu", name="before")(x)
        x = layers.MaxPooling2D(4)(x)
        x = layers.Conv2D(8, 4, activation="relu", name="fc6")(x)
        x = layers.Conv2D(8, 1, activation="relu", name="fc7")(x)
        return layers.Flatten()(x)

    return build


def _prepared(package, layers, mode):
    def build(x):
        module = {"caffe": "vgg16", "tf": "mobilenet", "torch": "densenet"}[mode]
        x = getattr(package.applications, module).preprocess_input(x)
        x = layers.Conv2D(6, 3, activation="relu", name="before")(x)
        return layers.GlobalAveragePooling2D()(x)

    return build


def cases(package):
    """Functions from the input tensor to the input of the last layer, by case name."""
    layers = package.layers
    mean, variance = [120.0, 110.0, 100.0], [4000.0, 3500.0, 3000.0]
    builders = {
        "dilation": _block(layers, layers.Conv2D(6, 3, dilation_rate=2, padding="same", name="odd")),
        "dilation and relu": _block(layers, layers.Conv2D(6, 3, dilation_rate=2, activation="relu", name="odd")),
        "groups": _block(layers, layers.Conv2D(6, 3, groups=3, padding="same", name="odd")),
        "depthwise": _block(layers, layers.DepthwiseConv2D(3, padding="same", name="odd")),
        "separable": _block(layers, layers.SeparableConv2D(6, 3, activation="relu", name="odd")),
        "transposed": _block(layers, layers.Conv2DTranspose(6, 3, strides=2, name="odd")),
        "dense on a map": _block(layers, layers.Dense(6, activation="relu", name="odd")),
        "prelu": _block(layers, layers.PReLU(shared_axes=[1, 2], alpha_initializer="random_normal", name="odd")),
        "elu": _block(layers, layers.ELU(0.7, name="odd")),
        "relu6": _block(layers, layers.ReLU(max_value=6, name="odd")),
        "up": _block(layers, [layers.UpSampling2D(2, interpolation="bilinear"), layers.Cropping2D(3)]),
        "layer normalization": _block(layers, layers.LayerNormalization(name="odd")),
        "group normalization": _block(layers, layers.GroupNormalization(2, name="odd")),
        "gaussian noise": _block(
            layers, [layers.GaussianNoise(0.5), layers.GaussianDropout(0.5), layers.SpatialDropout2D(0.5)]
        ),
        "keepdims": _block(layers, [layers.MaxPooling2D(2), layers.GlobalAveragePooling2D(keepdims=True)]),
        "layer as activation": _block(layers, layers.Conv2D(6, 3, activation=layers.LeakyReLU(0.3), name="odd")),
        "odd layer as activation": _block(layers, layers.Conv2D(6, 3, activation=layers.ELU(), name="odd")),
        "residual": _residual(layers, "relu"),
        "linear residual": _residual(layers, "linear"),
        "inception": _inception(layers),
        "attention": _attention(layers),
        "squeeze and excite": _squeeze(layers),
        "one activation twice": _shared_activation(layers),
        "fully convolutional": _fully_convolutional(layers),
        **{f"prepared as {mode}": _prepared(package, layers, mode) for mode in ("caffe", "tf", "torch")},
        "normalization": lambda x: _block(layers, [])(layers.Normalization(mean=mean, variance=variance)(x)),
        "resizing": lambda x: _block(layers, [])(layers.Resizing(12, 20)(x)),
        "center crop": lambda x: _block(layers, [])(layers.CenterCrop(12, 10)(x)),
        "augmentation": lambda x: _block(layers, [])(
            layers.RandomZoom(0.3)(layers.RandomRotation(0.2)(layers.RandomFlip()(x)))
        ),
    }
    for name in ("tanh", "selu", "gelu", "elu", "sigmoid", "softplus", "swish", "softmax"):
        builders[name] = _block(layers, layers.Conv2D(6, 3, activation=name, name="odd"))
    return builders


def build(package, name: str, units: int = 5):
    """Build the network of a case with a softmax head; no seeded weight is trivial."""
    package.utils.set_random_seed(7)
    inputs = package.Input((SIZE, SIZE, 3))
    model = package.Model(
        inputs, package.layers.Dense(units, activation="softmax", name="out")(cases(package)[name](inputs))
    )
    rng = np.random.default_rng(3)
    for variable in model.weights:
        if getattr(variable, "path", variable.name).removesuffix(":0").endswith(("bias", "beta")):
            variable.assign(rng.normal(0, 0.2, variable.shape))
    return model


def images(count: int = 2) -> np.ndarray:
    """Seeded RGB noise, uint8."""
    return np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
