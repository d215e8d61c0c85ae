"""The floating-point precisions that a network can compute in. Imports no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Precision:
    """One precision. Maps and scores are float32 in all of them."""

    dtype: str
    """Of weights and activations; the last layer computes in float32, so that logits keep their digits."""
    gradient_scale: float = 1.0
    """The loss scale of the backward pass: a power of two, so that scaling rounds nothing."""
    narrow: bool = False
    """True when float32 values can overflow it."""


PRECISIONS: Final[dict[str, Precision]] = {
    "float32": Precision("float32"),
    # 8 significant bits, float32's range
    "bfloat16": Precision("bfloat16"),
    # float32 whose factors a GPU's tensor cores round to 11 significant bits: a setting of the whole process, which the
    # caller makes
    "tf32": Precision("float32"),
    # 11 significant bits from 6e-8 to 65504: unscaled gradients would underflow, activations can overflow
    "float16": Precision("float16", gradient_scale=1024.0, narrow=True),
}
"""By name."""
