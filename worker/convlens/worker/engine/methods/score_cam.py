"""Score-CAM: a class activation map without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from convlens.worker.engine.outputs import Floats
from convlens.worker.engine.perturbation import MethodResult, Original
from convlens.worker.engine.plan import Activation, Map, Score
from convlens.worker.engine.resize import resize


@dataclass(frozen=True, slots=True)
class ChannelMasks:
    """The image masked by each channel of a layer, upsampled and scaled to 0…1; constant channels are skipped.

    What is masked turns to the colour that preprocessing maps to 0.
    """

    layer: str

    @property
    def evaluated_map(self) -> Map:
        """Only the score."""
        return Score()

    def select_varying_channels(self, original: Original) -> Floats:
        """Return the channels that are not constant, (C′,h,w); the first one where all are."""
        channels = original.maps[Activation(self.layer)].transpose(2, 0, 1)
        varying = channels.max((1, 2)) > channels.min((1, 2))
        return channels[varying] if varying.any() else channels[:1]

    def count(self, original: Original) -> int:
        """See Perturbation."""
        return len(self.select_varying_channels(original))

    def generate(self, original: Original) -> Iterator[Floats]:
        """See Perturbation."""
        zero = np.asarray(original.preprocess.zero, np.float32)
        offset = original.image - zero
        for channel in self.select_varying_channels(original):
            low, high = channel.min(), channel.max()
            mask = resize((channel - low) / max(high - low, np.float32(1e-30)), *original.image.shape[:2])
            yield zero + offset * mask[..., None]


@dataclass(frozen=True, slots=True)
class ScoreCAM:
    """ReLU(Σ_k w_k·A_k), w = softmax over k of S(x masked by A_k), A_k the channels of `layer`.

    Wang et al., 2020, https://arxiv.org/abs/1910.01279. Gives (N,T,h,w) float32, or (N,T,H,W) with `upsampled`. One
    forward pass a channel: 512 for VGG16's last convolution.
    """

    layer: str
    upsampled: bool = False

    @property
    def perturbation(self) -> ChannelMasks:
        """See PerturbationMethod."""
        return ChannelMasks(self.layer)

    @property
    def required_maps(self) -> tuple[Map, ...]:
        """The layer's activations."""
        return (Activation(self.layer),)

    def accumulate(self, original: Original) -> _ChannelScores:
        """See PerturbationMethod."""
        return _ChannelScores(self, original)


class _ChannelScores:
    def __init__(self, method: ScoreCAM, original: Original) -> None:
        self._method = method
        self._original = original
        self._scores: list[Floats] = []

    def add(self, evaluation: Floats, scores: Floats) -> None:  # noqa: ARG002
        self._scores.append(scores)

    def result(self) -> MethodResult:
        scores = np.stack(self._scores, 1).astype(np.float64)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        channels = self._method.perturbation.select_varying_channels(self._original)
        map_ = np.maximum(np.einsum("tk,khw->thw", weights, channels), 0).astype(np.float32)
        return MethodResult(resize(map_, *self._original.image.shape[:2]) if self._method.upsampled else map_)
