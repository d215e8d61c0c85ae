"""Pydantic models made of the SDK's dataclasses, so that JSON has their fields, types and defaults, and no others."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

DESCRIPTIONS: Final = {
    "baselines": "integrated gradients and XRAI: colours (black, white, gray, RGB in 0…255) or blurs of the image",
    "channels": "channels of each layer, or the number of the first ones; null: all",
    "color": "of the square that covers the image: black, white, gray or RGB in 0…255; null: what becomes 0",
    "dtype": "float32, float16, or uint8: 256 even steps from each map's smallest to its largest value",
    "layer": "a convolution or pooling layer; null: the model's last convolution",
    "layers": "names of layers",
    "method": "how the map is computed; the model's card lists those that it supports",
    "noise": "smooth_grad and its variants: σ as a share of the range of the model's input; null: 0.15",
    "normalization": "of each map by itself: none, min_max (to 0…1) or max_abs (to −1…1)",
    "output": "the form of the array",
    "patch": "side of the square that covers the image, in pixels of the model's input; null: 32",
    "reduction": "how the channels become one",
    "samples": "smooth_grad and its variants: noisy copies; null: 25",
    "signed": "keep the sign: negative values speak against the target",
    "size": "height and width to resize each map to; null: as computed",
    "steps": "integrated gradients and XRAI: steps from each baseline; null: 25",
    "stride": "pixels by which the square moves; null: half of patch",
    "type": "the kind of visualization",
    "upsampled": "as large as the model's input, bilinear",
}
"""What the fields of visualizations mean, by name."""


class Strict(BaseModel):
    """A model that refuses keys it does not have, and values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


def model_of(
    kind: type[Any], annotations: Mapping[str, Any], *, base: type[BaseModel] = BaseModel, tag: str = ""
) -> type[BaseModel]:
    """Return a model with the parameters of a dataclass; `annotations` replace the types of some.

    `tag` is the value of a further field `type`, by which a union is told apart.
    """
    fields: dict[str, Any] = {}
    if tag:
        fields["type"] = (Literal[tag], Field(description=DESCRIPTIONS["type"]))
    for name, parameter in inspect.signature(kind, eval_str=True).parameters.items():
        default = ... if parameter.default is parameter.empty else parameter.default
        annotation = annotations.get(name, parameter.annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and default is not ...:
            default = annotation()
        fields[name] = (annotation, Field(default, description=DESCRIPTIONS.get(name)))
    return create_model(kind.__name__, __base__=base, __doc__=inspect.getdoc(kind), **fields)
