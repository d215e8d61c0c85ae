"""The functions of keras-vis, computed by a Convlens server: docs/coming-from-keras-vis.md.

They return what the last version of keras-vis computes, normalised as it does, for one image; Client has raw maps and
many images. Needs convlens-client[keras-vis] (SciPy) for class activation maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from convlens.client._sync.client import Client
from convlens.client.errors import InvalidArgument
from convlens.client.extras import require_extra
from convlens.client.images import ImageLike
from convlens.client.model_card import ModelCard
from convlens.client.options import GradCAM, Saliency
from convlens.client.targets import ALL_UNITS, Targets

Floats = npt.NDArray[np.float32]

EPSILON: Final = np.float32(1e-7)
GRAD_MODIFIERS: Final[dict[str | None, Callable[[Floats], Floats]]] = {
    None: lambda g: g,
    "absolute": np.abs,
    "negate": lambda g: -g,
    "invert": lambda g: np.float32(1) / (g + EPSILON),
    "relu": lambda g: np.maximum(g, 0),
    "small_values": lambda g: np.abs(np.float32(1) / (g + EPSILON)),
}
BACKPROP_MODIFIERS: Final = {
    None: "vanilla",
    "guided": "guided",
    "rectified": "deconvnet",
    "relu": "deconvnet",
    "deconv": "deconvnet",
}


class Model:
    """A served model in place of the Keras model of keras-vis; by default the server's default model."""

    def __init__(self, client: Client, name: str = "") -> None:
        self.client = client
        self.name = name

    @cached_property
    def card(self) -> ModelCard:
        """The card of the model."""
        return self.client.model(self.name or self.client.server_info().default_model)

    def layer(self, layer_idx: int) -> int:
        """Return the position in the card of the layer at an index of keras-vis, which counts the input as 0."""
        count = len(self.card.layers)
        place = layer_idx - 1 if layer_idx > 0 else count + layer_idx
        if layer_idx == 0 or not 0 <= place < count:
            raise InvalidArgument(f"layer_idx is {layer_idx}; allowed: 1…{count}, -{count}…-1", field="layer_idx")
        return place


def find_layer_idx(model: Model, layer_name: str) -> int:
    """Return the index of a layer by its name; the input is 0. InvalidArgument lists the layers there are."""
    names = [layer.name for layer in model.card.layers]
    if layer_name not in names:
        raise InvalidArgument(f"no layer {layer_name!r}; allowed: {', '.join(names)}", field="layer_name")
    return names.index(layer_name) + 1


def visualize_saliency(
    model: Model,
    layer_idx: int,
    filter_indices: int | Sequence[int] | None,
    seed_input: ImageLike,
    backprop_modifier: str | None = None,
    grad_modifier: str | None = "absolute",
) -> Floats:
    """Compute the gradient of the units' summed score, modified, its channel maximum scaled to 0…1: float32 (H,W).

    `filter_indices` None is all units; `backprop_modifier` None, guided, rectified, relu or deconv (three names for
    one thing); `grad_modifier` None, absolute, negate, invert, relu or small_values. Several units go with the plain
    gradient alone, since a guided gradient of a sum is no sum of guided gradients. InvalidArgument for all else.
    """
    method = _named(BACKPROP_MODIFIERS, backprop_modifier, "backprop_modifier")
    modify = _named(GRAD_MODIFIERS, grad_modifier, "grad_modifier")
    target = _target(filter_indices)
    if isinstance(target, list) and len(target[0]) > 1 and method != "vanilla":
        raise InvalidArgument(
            f"backprop_modifier {backprop_modifier!r} takes one unit or None, not several", field="filter_indices"
        )
    gradient = _summed(model, layer_idx, target, seed_input, Saliency(method, signed=True))
    return _scaled(modify(gradient).max(-1))


def visualize_cam(
    model: Model,
    layer_idx: int,
    filter_indices: int | Sequence[int] | None,
    seed_input: ImageLike,
    penultimate_layer_idx: int | None = None,
    backprop_modifier: str | None = None,
    grad_modifier: str | None = None,
) -> Floats:
    """Compute Grad-CAM of the units' summed score, zoomed to the input by cubic splines, scaled to 0…1: float32 (H,W).

    `penultimate_layer_idx` None is the convolution or pool next below the layer. `grad_modifier` may be None or negate,
    `backprop_modifier` only None; InvalidArgument for others. keras-vis turns the map's sign around where all gradients
    are negative, since it divides by the largest of them; this does not. MissingExtra without SciPy.
    """
    require_extra("keras-vis", "visualize_cam()")
    from scipy.ndimage import zoom

    _named({None: None}, backprop_modifier, "backprop_modifier")
    sign = _named({None: np.float32(1), "negate": np.float32(-1)}, grad_modifier, "grad_modifier")
    place = model.layer(layer_idx) if penultimate_layer_idx is None else model.layer(penultimate_layer_idx)
    layers = model.card.layers
    if penultimate_layer_idx is None:
        below = [i for i in range(place) if layers[i].kind in {"Conv2D", "MaxPooling2D", "AveragePooling2D"}]
        if not below:
            raise InvalidArgument(f"no convolution or pool below {layers[place].name!r}", field="layer_idx")
        place = below[-1]
    grad_cam = GradCAM(layers[place].name, signed=True)
    heat = np.maximum(sign * _summed(model, layer_idx, _target(filter_indices), seed_input, grad_cam), 0)
    height, width, _ = model.card.input_shape
    return _scaled(zoom(heat, (height / heat.shape[0], width / heat.shape[1])))


def _summed(
    model: Model, layer_idx: int, target: Targets, image: ImageLike, visualization: Saliency | GradCAM
) -> Floats:
    """Compute one map of one image, summed over several units."""
    scored = model.card.layers[model.layer(layer_idx)].name
    result = model.client.visualize([image], [visualization], model=model.card.name, target=target, scored_layer=scored)
    (name,) = result
    maps: Floats = result[name][0].astype(np.float32)
    return maps.sum(0) if isinstance(target, list) else maps


def _target(filter_indices: int | Sequence[int] | None) -> Targets:
    if filter_indices is None:
        return ALL_UNITS
    return [list(filter_indices)] if isinstance(filter_indices, Sequence) else [[filter_indices]]


def _scaled(array: Floats) -> Floats:
    """Scale to 0…1 as normalize() of keras-vis does."""
    scaled: Floats = ((array - array.min()) / (array.max() - array.min() + EPSILON)).astype(np.float32)
    return scaled


def _named(table: dict[str | None, Any], name: str | None, field: str) -> Any:
    if name not in table:
        raise InvalidArgument(f"no {field} {name!r}; allowed: {', '.join(map(repr, table))}", field=field)
    return table[name]
