"""Allow lists for model files: layers, activations, operations. Everything else is refused.

A name is allowed when it computes a function of its input and its weights alone: it runs no code of the file, accesses
no files or network, looks up no strings and keeps no state between calls.
"""

from __future__ import annotations

from typing import Final

MODELS: Final = frozenset({"Functional", "Model", "Sequential"})
WRAPPERS: Final = frozenset({"SpectralNormalization"})
"""Layers that wrap another one, under the key `layer`."""

AUGMENTATION: Final = frozenset(
    {
        *("RandomBrightness", "RandomContrast", "RandomCrop", "RandomFlip", "RandomHeight", "RandomRotation"),
        *("RandomTranslation", "RandomWidth", "RandomZoom"),
        *("AugMix", "AutoContrast", "CutMix", "MixUp", "RandAugment", "RandomColorDegeneration"),
        *("RandomColorJitter", "RandomElasticTransform", "RandomErasing", "RandomGaussianBlur", "RandomGrayscale"),
        *("RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomSaturation"),
        *("RandomSharpness", "RandomShear", "Solarization"),
    }
)
RANDOM: Final = AUGMENTATION | {
    *("AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise"),
    *("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "StochasticDepth"),
}
"""Layers that differ in training by randomness alone, so that `training=True` of a call may be dropped."""
APPLICATIONS: Final = {
    "CustomScaleLayer": "keras.src.applications.inception_resnet_v2",
    "LayerScale": "keras.src.applications.convnext",
    "StochasticDepth": "keras.src.applications.convnext",
}
"""Layers that Keras 3 has for its applications alone, with their modules."""
LAYERS: Final = (
    (RANDOM - APPLICATIONS.keys())
    | WRAPPERS
    | {
        *("InputLayer", "Activation", "ActivityRegularization", "Identity", "Masking"),
        *("Dense", "EinsumDense", "Embedding"),
        *("Conv1D", "Conv2D", "Conv2DTranspose", "DepthwiseConv2D", "SeparableConv2D"),
        *("AveragePooling1D", "AveragePooling2D", "MaxPooling1D", "MaxPooling2D"),
        *("AdaptiveAveragePooling2D", "AdaptiveMaxPooling2D"),
        *("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D"),
        *("BatchNormalization", "GroupNormalization", "LayerNormalization", "RMSNormalization", "UnitNormalization"),
        *("ELU", "LeakyReLU", "PReLU", "ReLU", "Softmax", "ThresholdedReLU"),
        *("Add", "Average", "Concatenate", "Dot", "Maximum", "Minimum", "Multiply", "Subtract"),
        *("AdditiveAttention", "Attention", "GroupQueryAttention", "MultiHeadAttention"),
        *("Flatten", "Permute", "RepeatVector", "Reshape"),
        *("Cropping2D", "UpSampling2D", "ZeroPadding2D"),
        *("CenterCrop", "Normalization", "Rescaling", "Resizing"),
    }
)
"""Of both generations of Keras; each knows its own names only."""
RENAMED: Final = {"BatchNormalizationV1": "BatchNormalization", "BatchNormalizationV2": "BatchNormalization"}
"""Class names of early tf.keras."""

REFUSED: Final = {
    "Lambda": "a model file must not run code; replace it by a Rescaling, Normalization or another of Keras' layers, "
    "or by plain operations on its input, and save the model again",
    "TensorFlowOpLayer": "a model file must not name operations of a graph; save the model again by TensorFlow 2.4 or "
    "newer, or replace it by one of Keras' layers",
    "TFSMLayer": "a model file must not load another one; save the model that it loads whole, as a .keras file",
    **dict.fromkeys(
        ("TorchModuleWrapper", "JaxLayer", "FlaxLayer"),
        "a model file must not run another framework's code; build it from Keras' layers",
    ),
    **dict.fromkeys(
        ("StringLookup", "IntegerLookup", "TextVectorization", "Hashing", "HashedCrossing", "Discretization"),
        "layers that look values up have no place in an image classifier; leave it out and save the model again",
    ),
    **dict.fromkeys(
        ("LSTM", "GRU", "SimpleRNN", "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "Bidirectional"),
        "layers that keep state have no place in an image classifier",
    ),
    **dict.fromkeys(
        ("Convolution2D", "Merge", "AtrousConvolution2D", "MaxoutDense", "Highway"),
        "that is Keras 1's; load the model by Keras 2.2 and save it again",
    ),
}
"""Common layers that are refused: why, and what to do."""
NOT_ALLOWED: Final = (
    "it is none of Keras' own layers that a model file may have; build it from those, or replace it, and save again"
)

ACTIVATIONS: Final = frozenset(
    {
        *("celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish"),
        *("hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu"),
        *("sigmoid", "silu", "soft_shrink", "softmax", "softmax_v2", "softplus", "softsign", "sparse_plus"),
        *("sparse_sigmoid", "sparsemax", "squareplus", "swish", "tanh", "tanh_shrink", "threshold"),
    }
)
ACTIVATION_LAYERS: Final = frozenset({"ELU", "LeakyReLU", "PReLU", "ReLU", "Softmax", "ThresholdedReLU"})
"""Layers that may be the activation of another layer."""

INITIALIZERS: Final = frozenset(
    {
        *("Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "Identity", "IdentityInitializer"),
        *("LecunNormal", "LecunUniform", "Ones", "Orthogonal", "OrthogonalInitializer", "RandomNormal"),
        *("RandomUniform", "TruncatedNormal", "VarianceScaling", "Zeros"),
    }
)
REGULARIZERS: Final = frozenset({"L1", "L2", "L1L2", "OrthogonalRegularizer"})
CONSTRAINTS: Final = frozenset({"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"})
FLOATS: Final = frozenset({"float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16"})
INTEGERS: Final = frozenset({"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"})

OPERATIONS: Final[dict[str, frozenset[str]]] = {
    "keras.src.ops.numpy": frozenset(
        {
            *("Abs", "Absolute", "Add", "All", "Amax", "Amin", "Any", "Arctan", "Average", "BroadcastTo", "Cbrt"),
            *("Ceil", "Clip", "Concatenate", "Cos", "Cosh", "Cumsum", "Divide", "DivideNoNan", "Dot", "Einsum"),
            *("Equal", "Exp", "Exp2", "ExpandDims", "Expm1", "Flip", "Floor", "FloorDivide", "GetItem", "Greater"),
            *("GreaterEqual", "Less", "LessEqual", "Log", "Log10", "Log1p", "Log2", "Logaddexp", "LogicalAnd"),
            *("LogicalNot", "LogicalOr", "Matmul", "Max", "Maximum", "Mean", "Median", "Min", "Minimum", "Mod"),
            *("Moveaxis", "Multiply", "NanToNum", "Negative", "NotEqual", "OnesLike", "Pad", "Power", "Prod"),
            *("Ravel", "Reciprocal", "Repeat", "Reshape", "Roll", "Round", "Sign", "Sin", "Sinh", "Split", "Sqrt"),
            *("Square", "Squeeze", "Stack", "Std", "Subtract", "Sum", "Swapaxes", "Take", "TakeAlongAxis", "Tan"),
            *("Tanh", "Tensordot", "Tile", "Transpose", "TrueDivide", "Trunc", "Var", "Where", "ZerosLike"),
        }
    ),
    "keras.src.ops.nn": frozenset(
        {
            *("AdaptiveAveragePool", "AdaptiveMaxPool", "AveragePool", "Celu", "Conv", "ConvTranspose"),
            *("DepthToSpace", "DepthwiseConv", "DotProductAttention", "Elu", "Gelu", "Glu", "HardShrink"),
            *("HardSigmoid", "HardSilu", "HardTanh", "LayerNorm", "LeakyRelu", "LogSigmoid", "LogSoftmax", "MaxPool"),
            *("Moments", "Normalize", "OneHot", "RMSNorm", "Relu", "Relu6", "Selu", "SeparableConv", "Sigmoid"),
            *("Silu", "SoftShrink", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "SparsePlus", "SparseSigmoid"),
            *("Sparsemax", "Squareplus", "TanhShrink", "Threshold"),
        }
    ),
    "keras.src.ops.math": frozenset({"Erf", "Logsumexp", "Rsqrt"}),
    "keras.src.ops.core": frozenset({"Cast", "SaturateCast", "Slice", "StopGradient", "Unstack"}),
    "keras.src.ops.image": frozenset({"CropImages", "PadImages", "RGBToGrayscale", "Resize"}),
    "keras.src.ops.linalg": frozenset({"Norm"}),
}
"""Operations of Keras 3, by the module and class in the file."""

TENSORFLOW: Final = frozenset(
    {
        *("__operators__.add", "__operators__.getitem"),
        *("broadcast_to", "cast", "clip_by_value", "concat", "expand_dims", "gather", "identity", "linalg.matmul"),
        *("one_hot", "ones_like", "pad", "repeat", "reshape", "reverse", "roll", "shape", "slice", "split", "squeeze"),
        *("stack", "stop_gradient", "tile", "transpose", "unstack", "where", "zeros_like", "compat.v1.shape"),
        *("compat.v1.transpose", "compat.v1.gather", "compat.v1.pad", "einsum", "linalg.l2_normalize", "linalg.norm"),
        *("image.adjust_brightness", "image.adjust_contrast", "image.central_crop", "image.crop_to_bounding_box"),
        *("image.grayscale_to_rgb", "image.pad_to_bounding_box", "image.per_image_standardization", "image.resize"),
        *("image.resize_with_crop_or_pad", "image.rgb_to_grayscale"),
        *(
            f"math.{name}"
            for name in (
                *("abs", "add", "add_n", "atan", "ceil", "cos", "divide", "divide_no_nan", "equal", "erf", "exp"),
                *("expm1", "floor", "floordiv", "floormod", "greater", "greater_equal", "l2_normalize", "less"),
                *("less_equal", "log", "log1p", "log_sigmoid", "log_softmax", "logical_and", "logical_not"),
                *("logical_or", "maximum", "minimum", "mod", "multiply", "multiply_no_nan", "negative", "not_equal"),
                *("pow", "reciprocal", "reduce_all", "reduce_any", "reduce_logsumexp", "reduce_max", "reduce_mean"),
                *("reduce_min", "reduce_prod", "reduce_std", "reduce_sum", "reduce_variance", "round", "rsqrt"),
                *("scalar_mul", "sigmoid", "sign", "sin", "softmax", "softplus", "softsign", "sqrt", "square"),
                *("squared_difference", "subtract", "tan", "tanh", "truediv", "xdivy"),
            )
        ),
        *(
            f"nn.{name}"
            for name in (
                *("avg_pool", "avg_pool2d", "bias_add", "conv2d", "crelu", "depth_to_space", "depthwise_conv2d"),
                *("elu", "gelu", "l2_normalize", "leaky_relu", "local_response_normalization", "log_softmax", "lrn"),
                *("max_pool", "max_pool2d", "moments", "relu", "relu6", "selu", "sigmoid", "silu", "softmax"),
                *("softplus", "softsign", "space_to_depth", "swish", "tanh"),
            )
        ),
    }
)
"""TensorFlow functions that a TFOpLambda or SlicingOpLambda of Keras 2 may call."""
