"""Estimate a model's memory from its configuration, before any weight is allocated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tensorflow as tf

from convlens.v1.request.plan import FLOAT_BYTES
from convlens.worker.engine.graph import is_model
from convlens.worker.models.files.generations import iter_layers
from convlens.worker.settings import DEFAULT_BATCH_SIZE

BATCH: Final = DEFAULT_BATCH_SIZE
"""Images in the assumed batch."""
COPIES: Final = 4
"""Copies of the weights in memory while a model is loaded: the file's, Keras', the engine's."""
DEFAULT_SIDE: Final = 224
"""The assumed height and width where a model takes any."""
CGROUP: Final = Path("/sys/fs/cgroup")
V1: Final = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2: Final = ("memory.max", "memory.current", "inactive_file")
"""Of cgroup v1 and v2: the files of the limit and the usage, and the reclaimable cache in memory.stat."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The memory that a model needs."""

    parameters: int
    weights: int
    """Bytes of the weights while they are loaded, and of the flipped kernels of the backward pass."""
    activations: int
    """Bytes of all layers' outputs for BATCH images."""
    largest: str
    """The largest part, as text."""

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.weights + self.activations


def estimate(build: Callable[[], Any], size: tuple[int, int] | None = None) -> Estimate:
    """Estimate by building the model in a graph, which allocates nothing, and adding up shapes.

    `size` is the input's (height, width) where the model takes any. Raises what `build` raises.
    """
    with tf.Graph().as_default() as graph, tf.name_scope("model"):  # the scope allows any layer's name
        model = build()
        shapes = {
            layer.name: [tuple(w.shape) for w in layer.weights] for layer in iter_layers(model) if not is_model(layer)
        }
        before = len(graph.get_operations())
        images = [
            tf.compat.v1.placeholder(tf.float32, _batch_shape(tuple(tensor.shape), size)) for tensor in model.inputs
        ]
        model(images if len(images) > 1 else images[0], training=False)
        outputs = _outputs(graph.get_operations()[before:], {layer.name for layer in iter_layers(model)})
        parameters = sum(math.prod(shape) for shape in {id(w): tuple(w.shape) for w in model.weights}.values())
    kernels = sum(math.prod(shape) for of_layer in shapes.values() for shape in of_layer if len(shape) == 4)
    by_weights = max(shapes, key=lambda name: sum(map(math.prod, shapes[name])), default="")
    by_output = max(outputs, key=lambda name: math.prod(outputs[name]), default="")
    weights = FLOAT_BYTES * sum(map(math.prod, shapes.get(by_weights, ())))
    output = FLOAT_BYTES * math.prod(outputs.get(by_output, (0,)))
    return Estimate(
        parameters,
        FLOAT_BYTES * (COPIES * parameters + kernels),
        FLOAT_BYTES * sum(map(math.prod, outputs.values())),
        f"layer {by_weights!r} has {format_bytes(weights)} of weights"
        if weights > output
        else f"layer {by_output!r} gives {format_bytes(output)}, "
        f"{'×'.join(map(str, outputs[by_output][1:]))} numbers an image, {BATCH} images at once",
    )


def measure_available() -> int:
    """Return the bytes that this process can still allocate: of the machine, and of the containers it is in."""
    limits = [_statistics(Path("/proc/meminfo")).get("MemAvailable:", 2**53) * 1024]
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers not in {"", "memory"}:
            continue
        root = CGROUP / controllers
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            limits += _remaining(folder, *(V1 if controllers else V2))
            if folder == root:
                break
    return max(0, min(limits))


def _remaining(folder: Path, limit: str, usage: str, cache: str) -> list[int]:
    """Return what a container may still allocate, its cache reclaimed; empty where it has no limit."""
    bound, used = (next(iter(_lines(folder / name)), "") for name in (limit, usage))
    if not bound.isdigit() or not used.isdigit():
        return []
    return [int(bound) - int(used) + _statistics(folder / "memory.stat").get(cache, 0)]


def format_bytes(count: int) -> str:
    """Format a number of bytes: 1.5 MiB."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.3g} EiB"


def _batch_shape(shape: tuple[int | None, ...], size: tuple[int, int] | None) -> tuple[int, ...]:
    """Return an input's shape with every axis known."""
    inner = shape[1:]
    if size and len(inner) == 3 and None in inner[:2]:
        inner = (*size, inner[2])
    return (BATCH, *(DEFAULT_SIDE if axis is None else int(axis) for axis in inner))


def _outputs(operations: list[Any], names: set[str]) -> dict[str, tuple[int, ...]]:
    """Return the shape of the largest tensor that each layer computes from the images, by the layer's path."""
    shapes: dict[str, tuple[int, ...]] = {}
    computed = {operation.name for operation in operations if operation.type == "Placeholder"}
    for operation in operations:
        if operation.name not in computed and not any(tensor.op.name in computed for tensor in operation.inputs):
            continue
        computed.add(operation.name)
        path = "/".join(operation.name.split("/")[2:-1]) or operation.name  # without the scope and the model's name
        # Keras 3 enters a layer's scope a second time
        path = "/".join(part if part in names else part.removesuffix("_1") for part in path.split("/"))
        for output in operation.outputs:
            if output.shape.is_fully_defined():
                shapes[path] = max(shapes.get(path, ()), tuple(output.shape), key=math.prod)
    return shapes


def _statistics(path: Path) -> dict[str, int]:
    """Parse a file of names and numbers; empty where it cannot be read."""
    lines = [line.split() for line in _lines(path)]
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
