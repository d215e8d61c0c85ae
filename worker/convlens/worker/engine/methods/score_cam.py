"""Score-CAM: a class activation map without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from convlens.worker.engine.outputs import Floats
from convlens.worker.engine.plan import Activation, Map, Score
from convlens.worker.engine.resize import resized
from convlens.worker.engine.sampling import Folded, Subject


@dataclass(frozen=True, slots=True)
class Masked:
    """The image through each channel of a layer, upsampled and scaled to 0…1; flat channels are left out.

    What is masked turns to the colour that the network's preprocessing makes 0.
    """

    layer: str

    @property
    def asks(self) -> Map:
        """Only the score."""
        return Score()

    def live(self, subject: Subject) -> Floats:
        """(C′,h,w): the channels that are not flat. A layer that has none gives its first one."""
        channels = subject.maps[Activation(self.layer)].transpose(2, 0, 1)
        live = channels.max((1, 2)) > channels.min((1, 2))
        return channels[live] if live.any() else channels[:1]

    def count(self, subject: Subject) -> int:
        """See Variants."""
        return len(self.live(subject))

    def of(self, subject: Subject) -> Iterator[Floats]:
        """See Variants."""
        zero = np.asarray(subject.preprocess.zero, np.float32)
        bare = subject.image - zero
        for channel in self.live(subject):
            low, high = channel.min(), channel.max()
            mask = resized((channel - low) / max(high - low, np.float32(1e-30)), *subject.image.shape[:2])
            yield zero + bare * mask[..., None]


@dataclass(frozen=True, slots=True)
class ScoreCAM:
    """ReLU(Σ_k w_k·A_k), w = softmax over k of S(x through A_k): (T,h,w), or (T,H,W) with `upsampled`.

    Wang et al., 2020, https://arxiv.org/abs/1910.01279. One forward pass a channel, 512 for VGG16's last convolution.
    """

    layer: str
    upsampled: bool = False

    @property
    def variants(self) -> Masked:
        """See Sampled."""
        return Masked(self.layer)

    @property
    def needs(self) -> tuple[Map, ...]:
        """The layer's activations."""
        return (Activation(self.layer),)

    def fold(self, subject: Subject) -> _Weights:
        """See Sampled."""
        return _Weights(self, subject)


class _Weights:
    def __init__(self, method: ScoreCAM, subject: Subject) -> None:
        self._method = method
        self._subject = subject
        self._scores: list[Floats] = []

    def add(self, found: Floats, scores: Floats) -> None:  # noqa: ARG002
        self._scores.append(scores)

    def result(self) -> Folded:
        scores = np.stack(self._scores, 1).astype(np.float64)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        live = self._method.variants.live(self._subject)
        map_ = np.maximum(np.einsum("tk,khw->thw", weights, live), 0).astype(np.float32)
        return Folded(resized(map_, *self._subject.image.shape[:2]) if self._method.upsampled else map_)
