"""What the engine knows of Keras' classes by their names, in both generations. Knows no Keras."""

from __future__ import annotations

from typing import Final

AT_TRAINING_ALONE: Final = frozenset({
    "Identity", "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout",
    "ActivityRegularization", "RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast",
    "RandomBrightness", "RandomHue", "RandomSaturation", "RandomColorJitter", "RandomColorDegeneration", "RandomInvert",
    "RandomGrayscale", "RandomShear", "RandomPosterization", "RandomSharpness", "RandomGaussianBlur", "RandomErasing",
    "RandomPerspective", "RandomElasticTransform", "Solarization", "Equalization", "RandAugment", "AugMix", "CutMix",
    "MixUp",
})  # fmt: skip
"""Noise and augmentation: the identity at inference."""

KEEPS_RANGE: Final = AT_TRAINING_ALONE | {
    "ZeroPadding2D", "Cropping2D", "CenterCrop", "Resizing", "Resize", "UpSampling2D", "Reshape", "Permute",
    "Transpose", "Concatenate", "Cast", "cast", "concat", "identity", "reshape", "transpose",
}  # fmt: skip
"""What leaves pixels in the range that they have."""
RESCALES: Final = frozenset({
    "Rescaling", "Normalization", "Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Negative", "GetItem", "Stack",
    "Flip", "Split", "ExpandDims", "Squeeze", "math.add", "math.subtract", "math.multiply", "math.divide",
    "math.truediv", "nn.bias_add", "stack", "reverse", "split", "unstack", "expand_dims", "squeeze",
    "__operators__.add", "__operators__.getitem",
})  # fmt: skip
"""Arithmetic that prepares the input where it stands before anything with trained weights, as preprocess_input does."""

LINEAR: Final = frozenset({
    "Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense", "EinsumDense",
    "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D",
    "BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization", "Normalization", "Rescaling",
    "Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Average", "Maximum", "Minimum", "Concatenate", "Dot",
    "Flatten", "Reshape", "Permute", "RepeatVector", "Transpose", "ExpandDims", "Squeeze", "GetItem", "Stack", "Flip",
    "BroadcastTo", "Cast", "Mean", "Sum", "Negative", "Identity", "Activation", "Split", "Pad",
    "ZeroPadding2D", "Cropping2D", "UpSampling2D", "Resizing", "Resize", "CenterCrop", "Embedding",
    "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization",
    "__operators__.add", "__operators__.getitem", "math.add", "math.subtract", "math.multiply", "math.truediv",
    "math.divide", "math.reduce_mean", "math.reduce_sum", "math.negative", "stack", "concat", "reshape", "transpose",
    "reverse", "cast", "expand_dims", "squeeze", "nn.bias_add", "tile", "broadcast_to", "identity", "pad",
    "_operators_.add", "_operators_.getitem",
})  # fmt: skip
"""Classes of Keras, and functions that Keras 2 layers call, that hold no activation but the one in their options."""
