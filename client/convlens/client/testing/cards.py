"""What the fake server says of its models and limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from google.protobuf.duration_pb2 import Duration

from convlens.client.model_card import Layer, ModelCard
from convlens.v1 import model_pb2, spec_pb2
from convlens.v1.enums import values_by_name

LIMITS: Final = model_pb2.Limits(
    max_request_bytes=64 << 20, max_images=64, max_image_pixels=64_000_000, max_result_bytes=1 << 30,
    max_visualizations=32, max_targets=16, max_jobs=10_000, max_timeout=Duration(seconds=3600),
    default_timeout=Duration(seconds=300), result_ttl=Duration(seconds=3600), max_passes=100_000,
    max_queued_bytes=1 << 30, max_stored_bytes=2 << 30, tenant_share=0.5,
)  # fmt: skip
"""The defaults of the real server."""
METHODS: Final = (
    *values_by_name(spec_pb2.SaliencyMethod), *values_by_name(spec_pb2.CamMethod), "activations", "occlusion",
)  # fmt: skip


def vgg16(name: str = "vgg16", labels: Sequence[str] = ()) -> ModelCard:
    """Return the card of a VGG16: 224×224 inputs, 1000 classes, with `labels`, by default class_0, class_1…"""
    layers = []
    for block, (convolutions, channels) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), start=1):
        size = 224 >> (block - 1)
        layers += [Layer(f"block{block}_conv{i + 1}", "Conv2D", (size, size, channels)) for i in range(convolutions)]
        layers.append(Layer(f"block{block}_pool", "MaxPooling2D", (size // 2, size // 2, channels)))
    layers.append(Layer("flatten", "Flatten", (7 * 7 * 512,)))
    layers += [Layer(name, "Dense", (n,)) for name, n in (("fc1", 4096), ("fc2", 4096), ("predictions", 1000))]
    return ModelCard(
        name=name, source="fake", input_shape=(224, 224, 3), layers=tuple(layers), preprocess="caffe",
        labels=tuple(labels) or tuple(f"class_{n}" for n in range(1000)), precision="float32", cam_layer="block5_conv3",
        has_probability=True,
    )  # fmt: skip


def to_message(card: ModelCard) -> model_pb2.Model:
    """Convert a card, and fill in what it leaves out: the last layer is scored, every method is available."""
    score_layer = card.score_layer or card.layers[-1].name
    (units,) = (layer.shape[-1] for layer in card.layers if layer.name == score_layer)
    fields = dataclasses.asdict(card) | {
        "precision": f"PRECISION_{(card.precision or 'float32').upper()}",
        "score_layer": score_layer,
        "classes": card.classes or units,
        "methods": card.methods or METHODS,
        "workers": card.workers or 1,
    }
    return model_pb2.Model(**fields)
