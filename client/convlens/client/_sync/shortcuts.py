# Generated from _async/shortcuts.py by scripts/generate_sync.py; do not edit.
"""One method per visualization: visualize() with a single one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from convlens.client.arrays import ValueRange
from convlens.client.images import Images
from convlens.client.options import (
    RAW,
    Activations,
    Blur,
    CamMethod,
    ChannelReduction,
    Color,
    GradCAM,
    MapReduction,
    Occlusion,
    Output,
    Saliency,
    SaliencyMethod,
    Visualization,
)
from convlens.client.progress import ProgressCallback
from convlens.client.request import Priority
from convlens.client.result import Result
from convlens.client.targets import Targets


class Shortcuts(ABC):
    """The methods that compute one kind of map; their last eleven parameters are those of visualize()."""

    @abstractmethod
    def visualize(
        self, images: Images, visualizations: Iterable[Visualization], *, model: str = "", target: Targets = None,
        scored_layer: str = "", predictions: int | None = None, request_id: str | None = None,
        priority: Priority = "normal", fresh: bool = False, timeout: float | None = None,
        value_range: ValueRange | None = None, progress: bool | ProgressCallback = False,
    ) -> Result:  # fmt: skip
        """Compute the visualizations on every image."""

    def saliency(
        self, images: Images, method: SaliencyMethod = "vanilla", *, signed: bool = False,
        reduction: MapReduction = "abs_max", samples: int | None = None, noise: float | None = None,
        steps: int | None = None, baselines: Sequence[Color | Blur] = (), output: Output = RAW, model: str = "",
        target: Targets = None, scored_layer: str = "", predictions: int | None = None, request_id: str | None = None,
        priority: Priority = "normal", fresh: bool = False, timeout: float | None = None,
        value_range: ValueRange | None = None, progress: bool | ProgressCallback = False,
    ) -> Result:  # fmt: skip
        """Compute a saliency map, float32 (N,H,W). See Saliency for its parameters, visualize() for the others."""
        saliency = Saliency(method, signed, reduction, samples, noise, steps, baselines, output)
        return self.visualize(
            images, [saliency], model=model, target=target, scored_layer=scored_layer, predictions=predictions,
            request_id=request_id, priority=priority, fresh=fresh, timeout=timeout, value_range=value_range,
            progress=progress,
        )  # fmt: skip

    def grad_cam(
        self, images: Images, layer: str | Sequence[str] | None = None, *, upsampled: bool = False,
        method: CamMethod = "grad_cam", signed: bool = False, output: Output = RAW, model: str = "",
        target: Targets = None, scored_layer: str = "", predictions: int | None = None, request_id: str | None = None,
        priority: Priority = "normal", fresh: bool = False, timeout: float | None = None,
        value_range: ValueRange | None = None, progress: bool | ProgressCallback = False,
    ) -> Result:  # fmt: skip
        """Compute a class activation map of each layer, float32 (N,h,w).

        See GradCAM for its parameters, visualize() for the others.
        """
        layers = [layer] if layer is None or isinstance(layer, str) else layer
        return self.visualize(
            images, [GradCAM(name, upsampled, method, signed, output) for name in layers], model=model, target=target,
            scored_layer=scored_layer, predictions=predictions, request_id=request_id, priority=priority, fresh=fresh,
            timeout=timeout, value_range=value_range,
            progress=progress,
        )  # fmt: skip

    def activations(
        self, images: Images, layers: Sequence[str] | str, channels: Sequence[int] | None = None, *,
        reduction: ChannelReduction = "none", output: Output = RAW, model: str = "", target: Targets = None,
        scored_layer: str = "", predictions: int | None = None, request_id: str | None = None,
        priority: Priority = "normal", fresh: bool = False, timeout: float | None = None,
        value_range: ValueRange | None = None, progress: bool | ProgressCallback = False,
    ) -> Result:  # fmt: skip
        """Return the layers' outputs, float32 (N,…). See Activations for its parameters, visualize() for the others."""
        return self.visualize(
            images, [Activations(layers, channels, reduction, output)], model=model, target=target,
            scored_layer=scored_layer, predictions=predictions, request_id=request_id, priority=priority, fresh=fresh,
            timeout=timeout, value_range=value_range,
            progress=progress,
        )  # fmt: skip

    def occlusion(
        self, images: Images, *, patch: int | None = None, stride: int | None = None, color: Color | None = None,
        output: Output = RAW, model: str = "", target: Targets = None, scored_layer: str = "",
        predictions: int | None = None, request_id: str | None = None, priority: Priority = "normal",
        fresh: bool = False, timeout: float | None = None, value_range: ValueRange | None = None,
        progress: bool | ProgressCallback = False,
    ) -> Result:  # fmt: skip
        """Compute an occlusion map, float32 (N,H,W). See Occlusion for its parameters, visualize() for the others."""
        return self.visualize(
            images, [Occlusion(patch, stride, color, output)], model=model, target=target, scored_layer=scored_layer,
            predictions=predictions, request_id=request_id, priority=priority, fresh=fresh, timeout=timeout,
            value_range=value_range,
            progress=progress,
        )  # fmt: skip
