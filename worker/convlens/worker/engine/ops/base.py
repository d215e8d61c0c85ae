"""The base of the operations: a forward pass, and a backward pass of several gradient streams at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Tensor = Any
Weights = npt.NDArray[np.float32]
Streams = list[Tensor]


class Op:
    """One operation. Subclasses implement `forward`, and `gradient` of one stream or `backward` of all."""

    weights: tuple[Weights, ...] = ()

    def cast_weights(self, dtype: Any) -> None:
        """Cast the weights to `dtype`; inputs are cast to it too, and gradients back to the input's dtype."""
        for name, value in vars(self).items():
            if tf.is_tensor(value):
                setattr(self, name, tf.cast(value, dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output for input `x`, batch first."""
        raise TypeError(f"{type(self).__name__} has no forward rule")

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Compute ∂S/∂x from `dy` = ∂S/∂y of one stream; `x` and `y` are the forward pass's."""
        raise TypeError(f"{type(self).__name__} has no backward rule")

    def backward(self, dys: Streams, x: Tensor, y: Tensor, rules: Sequence[str]) -> Streams:
        """Compute ∂S/∂x of every stream; `rules` has the key of RECTIFIERS of each."""
        return [self.gradient(dy, x, y) for dy in dys]
