"""The plan of a job: which arrays its result has, of which names, shapes and formats, for which targets, at what cost.

The server checks a request by it before anything is queued, the worker computes and names the result by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from convlens.v1 import tensor_pb2, tensors
from convlens.v1.image_formats import LARGE_PIXELS
from convlens.v1.request.methods import LayerOutput, Method

FLOAT_BYTES: Final = 4
LARGE_BYTES: Final = 16 << 20
"""Bytes of arrays that take about as long to make as a pass of an image, or as LARGE_PIXELS to decode."""


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """The format of an array of the result, applied in this order."""

    size: tuple[int, int] | None = None
    """(height, width) to resize to; None: as computed."""
    normalization: str = "none"
    """none, min_max or max_abs, of each map by itself."""
    datatype: tensor_pb2.DataType.ValueType = tensor_pb2.DATA_TYPE_FP32


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One array of a result."""

    name: str
    method: Method
    shape: tuple[int, ...]
    """(N,…), or (N,T,…) where there is a target axis."""
    targeted: bool
    """True for a map that explains a target."""
    format: OutputFormat = OutputFormat()
    computed_bytes: int = 0
    """Of the float32 arrays that the worker holds to make it, before they are formatted."""
    copied_bytes: int = 0
    """That resizing takes besides: a copy of one map, of all its channels."""

    @property
    def byte_size(self) -> int:
        """Bytes of its elements, in its datatype."""
        return tensors.byte_size(self.format.datatype, self.shape)

    @property
    def channels(self) -> tuple[int, ...]:
        """The layer's channels that were selected; empty for all of them."""
        return self.method.channels if isinstance(self.method, LayerOutput) and self.method.reduction == "none" else ()


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What a job computes on the model that it was resolved against."""

    tensors: tuple[PlannedTensor, ...]
    targets: tuple[tuple[int, ...], ...]
    """(N,T): a unit's index, or a code of targets.py."""
    target_axis: bool
    """True when the maps have a target axis behind the batch axis."""
    scored_layer: str
    """The layer whose units are targets; empty: the model's own logits."""
    predictions: int
    """How many best classes to report."""
    variant_bytes: int = 0
    """Of the gradients of the passes under way, for methods that look at many variants of each image."""

    @property
    def result_bytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(tensor.byte_size for tensor in self.tensors)

    @property
    def working_bytes(self) -> int:
        """Bytes that a worker holds at once to make the result, but for some slices; arrays are formatted in turn."""
        computed = sum(tensor.computed_bytes for tensor in self.tensors)
        return self.variant_bytes + computed + max((tensor.copied_bytes for tensor in self.tensors), default=0)

    @property
    def header_bytes(self) -> int:
        """An estimate of what the result's header takes at most."""
        explained = sum(len(tensor.name) + 100 for tensor in self.tensors if tensor.targeted)
        image = 64 * self.predictions + len(self.targets[0]) * explained
        maps = len(self.targets) * len(self.targets[0])
        specs = sum(100 + 8 * maps + 5 * len(tensor.channels) for tensor in self.tensors)
        return 512 + len(self.targets) * image + specs

    @property
    def passes(self) -> int:
        """Images that pass through the model: the job's own, and the variants of them that methods look at."""
        return len(self.targets) * (1 + sum(tensor.method.passes for tensor in self.tensors))

    def cost(self, pixels: int) -> int:
        """Return the cost in passes of an image, with `pixels` to decode; large jobs cost more than a pass an image."""
        return self.passes + pixels // LARGE_PIXELS + max(self.working_bytes, self.result_bytes) // LARGE_BYTES
