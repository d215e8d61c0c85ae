"""What an operation is: a forward rule, and a backward rule for several streams of gradients at once."""

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
    """One operation. Subclasses give `forward` and, stream by stream, `gradient`."""

    weights: tuple[Weights, ...] = ()

    def compute_in(self, dtype: Any) -> None:
        """Casts the weights; what passes is cast to them on its way in, and gradients back on their way out."""
        for name, value in vars(self).items():
            if tf.is_tensor(value):
                setattr(self, name, tf.cast(value, dtype))

    def forward(self, x: Tensor) -> Tensor:
        """The output for input `x`, batch first."""
        raise TypeError(f"{type(self).__name__} has no forward rule")

    def gradient(self, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """∂S/∂x from ∂S/∂y of one plain stream."""
        raise TypeError(f"{type(self).__name__} has no backward rule")

    def backward(self, dys: Streams, x: Tensor, y: Tensor, rules: Sequence[str]) -> Streams:
        """∂S/∂x of every stream; `rules` says how each passes rectifiers."""
        return [self.gradient(dy, x, y) for dy in dys]
