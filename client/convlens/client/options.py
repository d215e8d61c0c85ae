"""What may be asked for: one small value a method, and targets. Turned into the wire's messages here and only here."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, SupportsIndex

from convlens.client.errors import InvalidArgument
from convlens.v1 import spec_pb2


class Visualization(Protocol):
    """Anything that can be asked for."""

    def message(self) -> spec_pb2.Visualization:
        """Itself on the wire."""


def _methods(enum: Any) -> dict[str, Any]:
    """The methods of an enum by their names here: SALIENCY_METHOD_GUIDED is guided."""
    prefix = enum.keys()[0].removesuffix("UNSPECIFIED")
    return {name.removeprefix(prefix).lower(): number for name, number in enum.items() if number}


SALIENCY_METHODS: Final = _methods(spec_pb2.SaliencyMethod)
CAM_METHODS: Final = _methods(spec_pb2.CamMethod)


@dataclass(frozen=True, slots=True)
class Saliency:
    """∂score/∂input: float32 (N,H,W), the largest absolute value of the channels; named saliency or saliency/METHOD.

    `method` is vanilla (Simonyan et al., 2013), guided (Springenberg et al., 2014), deconvnet (Zeiler and Fergus,
    2014), gradient_x_input (Shrikumar et al., 2016) or guided_grad_cam (Selvaraju et al., 2017). With `signed` all
    channels are kept with their signs, in RGB order: (N,H,W,3), and the name ends in /signed. InvalidArgument for
    another method.
    """

    method: str = "vanilla"
    signed: bool = False

    def message(self) -> spec_pb2.Visualization:
        """See Visualization."""
        if self.method not in SALIENCY_METHODS:
            allowed = ", ".join(SALIENCY_METHODS)
            raise InvalidArgument(f"no saliency method {self.method!r}; allowed: {allowed}", field="method")
        reduction = spec_pb2.CHANNEL_REDUCTION_NONE if self.signed else spec_pb2.CHANNEL_REDUCTION_ABS_MAX
        options = spec_pb2.Saliency(method=SALIENCY_METHODS[self.method], reduction=reduction)
        return spec_pb2.Visualization(saliency=options)


@dataclass(frozen=True, slots=True)
class GradCAM:
    """A class activation map: float32 (N,h,w) as the layer, raw and not negative; named as its method.

    `method` is grad_cam (Selvaraju et al., 2017), grad_cam_plus_plus (Chattopadhay et al., 2018), hires_cam (Draelos
    and Carin, 2020) or layer_cam (Jiang et al., 2021). InvalidArgument for another one.
    `layer` is a convolution or pooling layer, by default the model's last convolution; another one's name follows in
    the array's: grad_cam/LAYER. With `upsampled` (N,H,W) as the input, bilinear, and the name ends in /upsampled.
    """

    layer: str | None = None
    upsampled: bool = False
    method: str = "grad_cam"

    def message(self) -> spec_pb2.Visualization:
        """See Visualization."""
        size = spec_pb2.MAP_SIZE_INPUT if self.upsampled else spec_pb2.MAP_SIZE_LAYER
        if self.method not in CAM_METHODS:
            allowed = ", ".join(CAM_METHODS)
            raise InvalidArgument(f"no class activation method {self.method!r}; allowed: {allowed}", field="method")
        options = spec_pb2.GradCam(layer=self.layer or "", size=size, method=CAM_METHODS[self.method])
        return spec_pb2.Visualization(grad_cam=options)


@dataclass(frozen=True, slots=True, init=False)
class Activations:
    """Layers' outputs as Keras gives them: float32 (N,…), named activations/LAYER; of all channels or of `channels`."""

    layers: tuple[str, ...]
    channels: tuple[int, ...]

    def __init__(self, layers: Sequence[str] | str, channels: Sequence[int] | None = None) -> None:
        object.__setattr__(self, "layers", (layers,) if isinstance(layers, str) else tuple(layers))
        object.__setattr__(self, "channels", tuple(channels or ()))

    def message(self) -> spec_pb2.Visualization:
        """See Visualization."""
        return spec_pb2.Visualization(activations=spec_pb2.Activations(layers=self.layers, channels=self.channels))


@dataclass(frozen=True, slots=True)
class TopK:
    """A target: the k units of the highest score, best first. Adds a target axis: (N,k,…)."""

    k: int


class _AllUnits:
    """The type of ALL_UNITS."""

    def __repr__(self) -> str:
        return "ALL_UNITS"


ALL_UNITS: Final = _AllUnits()
"""A target: the mean over all units, which is keras-vis's filter_indices=None."""

Target = SupportsIndex | TopK | _AllUnits | None
"""One image's: a unit's index, TopK, ALL_UNITS, or None for the predicted unit."""
Targets = Target | Sequence[Target | Sequence[SupportsIndex]]
"""For every image alike, or a list with one an image; an inner list has several units: [[207, 281]]."""


def targets_message(targets: Targets) -> list[spec_pb2.Target]:
    """Targets on the wire. InvalidArgument for what is none."""
    if isinstance(targets, Sequence):
        return [_target(target) for target in targets]
    return [] if targets is None else [_target(targets)]


def _target(target: Target | Sequence[SupportsIndex]) -> spec_pb2.Target:
    if target is None:
        return spec_pb2.Target(predicted=True)
    if isinstance(target, TopK):
        return spec_pb2.Target(top_k=target.k)
    if isinstance(target, _AllUnits):
        return spec_pb2.Target(all_units=True)
    try:
        if isinstance(target, Sequence):
            return spec_pb2.Target(indices=spec_pb2.UnitIndices(values=[operator.index(unit) for unit in target]))
        return spec_pb2.Target(index=operator.index(target))
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f"target {target!r} is none; allowed: an index, None (predicted), TopK(k), ALL_UNITS, and a list with one "
            "of these an image",
            field="target",
        ) from error
