"""The arithmetics a network can compute in. Knows no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Precision:
    """One arithmetic. Maps and scores come as float32 from all of them."""

    dtype: str
    """Of weights and of what passes; but the last layer's products are float32, so that logits keep their digits."""
    gradient_scale: float = 1.0
    """What gradients are multiplied by on their way down: a power of two, so that nothing is rounded by it."""
    narrow: bool = False
    """True when a value of float32 can be too large for it."""


PRECISIONS: Final[dict[str, Precision]] = {
    "float32": Precision("float32"),
    # 8 significant bits, float32's range
    "bfloat16": Precision("bfloat16"),
    # float32 whose factors a GPU's tensor cores round to 11 significant bits: a switch of the whole process, which is
    # left to who loads the models
    "tf32": Precision("float32"),
    # 11 significant bits from 6e-8 to 65504: gradients would drown at the one end, activations can burst at the other
    "float16": Precision("float16", gradient_scale=1024.0, narrow=True),
}
"""By name."""
