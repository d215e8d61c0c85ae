"""Names of Keras' classes, of both generations, grouped by what the engine must know of them. Imports no Keras."""

from __future__ import annotations

from typing import Final

TRAINING_ONLY: Final = frozenset({
    "Identity", "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout",
    "ActivityRegularization", "RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast",
    "RandomBrightness", "RandomHue", "RandomSaturation", "RandomColorJitter", "RandomColorDegeneration", "RandomInvert",
    "RandomGrayscale", "RandomShear", "RandomPosterization", "RandomSharpness", "RandomGaussianBlur", "RandomErasing",
    "RandomPerspective", "RandomElasticTransform", "Solarization", "Equalization", "RandAugment", "AugMix", "CutMix",
    "MixUp",
})  # fmt: skip
"""Noise and augmentation, which are the identity at inference."""

RANGE_PRESERVING: Final = TRAINING_ONLY | {
    "ZeroPadding2D", "Cropping2D", "CenterCrop", "Resizing", "Resize", "UpSampling2D", "Reshape", "Permute",
    "Transpose", "RandomCrop", "RandomHeight", "RandomWidth", "AveragePooling2D", "MaxPooling2D", "Concatenate",
    "RepeatVector", "Cast", "SaturateCast", "Clip", "GetItem", "Stack", "Unstack", "Split", "Flip", "ExpandDims",
    "Squeeze", "Repeat", "Tile", "BroadcastTo", "Moveaxis", "Swapaxes", "Take", "TakeAlongAxis", "Slice",
    "Pad", "Roll", "Ravel", "RGBToGrayscale", "CropImages", "PadImages", "AveragePool", "MaxPool", "StopGradient",
    "cast", "clip_by_value", "concat", "identity", "reshape", "transpose", "stack", "unstack", "split", "reverse",
    "expand_dims", "squeeze", "repeat", "tile", "broadcast_to", "gather", "slice", "pad", "roll", "stop_gradient",
    "__operators__.getitem", "nn.avg_pool", "nn.avg_pool2d", "nn.max_pool", "nn.max_pool2d", "image.grayscale_to_rgb",
    "image.rgb_to_grayscale", "image.resize", "image.central_crop", "image.crop_to_bounding_box",
    "image.pad_to_bounding_box", "image.resize_with_crop_or_pad",
}  # fmt: skip
"""Operations that keep pixels in their range."""

WITHOUT_HIDDEN_ACTIVATION: Final = frozenset({
    "Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense", "EinsumDense",
    "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D",
    "BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization", "Normalization", "Rescaling",
    "Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Average", "Concatenate", "Dot",
    "Flatten", "Reshape", "Permute", "RepeatVector", "Transpose", "ExpandDims", "Squeeze", "GetItem", "Stack", "Flip",
    "BroadcastTo", "Cast", "Mean", "Sum", "Negative", "Identity", "Activation", "Split", "Pad",
    "ZeroPadding2D", "Cropping2D", "UpSampling2D", "Resizing", "Resize", "CenterCrop", "Embedding",
    "SpectralNormalization",
    "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization",
    "__operators__.add", "__operators__.getitem", "math.add", "math.subtract", "math.multiply", "math.truediv",
    "math.divide", "math.reduce_mean", "math.reduce_sum", "math.negative", "stack", "concat", "reshape", "transpose",
    "reverse", "cast", "expand_dims", "squeeze", "nn.bias_add", "tile", "broadcast_to", "identity", "pad",
    "_operators_.add", "_operators_.getitem",
})  # fmt: skip
"""Classes of Keras, and functions that Keras 2 layers call, with no activation but the one in their options."""
