"""Choose a model's preprocessing: stated, known, or assumed, with the reason."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from convlens.worker.engine.chain import find_rescaling_layer
from convlens.worker.engine.graph import is_model
from convlens.worker.engine.preprocess import PREPROCESS, Preprocess, from_mean_and_std
from convlens.worker.models.model_protocol import CUSTOM
from convlens.worker.models.source import Source

FAMILIES: Final = (
    (r"vgg(16|19)|resnet(50|101|152)", "caffe"),
    (r"resnet(50|101|152)v2|mobilenet(v2)?|mobilenetv3(small|large)|inception_(v3|resnet_v2)|xception|nasnet", "tf"),
    (r"densenet(121|169|201)", "torch"),
)
"""(pattern of keras.applications' model names, the scheme that these were trained with)"""


@dataclass(frozen=True, slots=True)
class InputScheme:
    """A scheme, and why it was chosen."""

    name: str
    """A key of PREPROCESS, or custom."""
    preprocess: Preprocess
    is_assumed: bool
    reason: str
    """For the user."""
    is_on_top: bool = False
    """True for a stated one of a model that also rescales the pixels itself, which is rarely meant."""


def choose_scheme(source: Source, model: Any, channels: int, known: str | None = None) -> InputScheme:
    """Choose by the settings, else by `known` of the loader, else by the model's own layers, else by an assumption."""
    rescaling = find_rescaling_layer(model, source.output)
    if source.mean is not None or source.std is not None:
        return _stated(CUSTOM, from_mean_and_std(source.mean or (0.0,), source.std or (1.0,)), rescaling)
    if source.preprocess is not None:
        name = source.preprocess
        return _stated(name, PREPROCESS[name], rescaling if name != "none" else "")
    if known is not None:
        return _scheme(known, False, "known of these weights")
    if rescaling:
        return _scheme("none", False, f"the model's own layer {rescaling!r} rescales the pixels")
    for name in _names(model):
        for pattern, scheme in FAMILIES:
            if re.match(rf"({pattern})(?![a-z0-9])", name.lower()):
                return _scheme(scheme, True, f"assumed, as keras.applications trained {name}")
    if channels == 1:
        return _scheme("unit", True, "assumed, as the file does not tell: grey in 0…1")
    return _scheme("caffe", True, "assumed, as the file does not tell: VGG16's own")


def _scheme(name: str, is_assumed: bool, reason: str) -> InputScheme:
    return InputScheme(name, PREPROCESS[name], is_assumed, reason)


def _stated(name: str, preprocess: Preprocess, rescaling: str) -> InputScheme:
    on_top = f"; on top of it the model's own layer {rescaling!r} rescales the pixels" if rescaling else ""
    return InputScheme(name, preprocess, False, f"stated by the worker's settings{on_top}", bool(rescaling))


def _names(model: Any) -> Iterator[str]:
    """Yield the names of a model and of the models nested in it."""
    yield model.name
    for layer in model.layers:
        if is_model(layer):
            yield from _names(layer)
