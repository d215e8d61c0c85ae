"""How much memory a model will take, found from its configuration before any weight is made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tensorflow as tf

from convlens.worker.models.files.generations import layers

BATCH: Final = 8
"""Images of the batch that is reckoned with: the default of max_batch_size."""
FLOAT: Final = 4
"""Bytes of a number."""
COPIES: Final = 4
"""How many of the weights there are at once while a model is loaded: the file's, Keras', the engine's."""
USUAL: Final = 224
"""The extent that is reckoned with where a model takes any."""
CGROUP: Final = Path("/sys/fs/cgroup")
V1: Final = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2: Final = ("memory.max", "memory.current", "inactive_file")
"""The files of a container's limit and usage, and the cache in its memory.stat."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a model needs."""

    parameters: int
    weights: int
    """Bytes of the weights while they are loaded, and of the turned kernels that the backward pass reads."""
    activations: int
    """Bytes that a batch of BATCH images leaves at the layers on its way forward."""
    largest: str
    """What takes the most of it, for people."""

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.weights + self.activations


def estimate(build: Callable[[], Any], size: tuple[int, int] | None = None) -> Estimate:
    """Builds the model on a graph, where variables and values are names, and adds up their shapes.

    `size` is the input's (height, width) where the model takes any. Raises as `build` does.
    """
    with tf.Graph().as_default() as graph, tf.name_scope("model"):  # a layer's name may begin as no other may
        model = build()
        shapes = {it.name: [tuple(w.shape) for w in it.weights] for it in layers(model) if not _is_model(it)}
        before = len(graph.get_operations())
        images = [tf.compat.v1.placeholder(tf.float32, _batch(tuple(it.shape), size)) for it in model.inputs]
        model(images if len(images) > 1 else images[0], training=False)
        outputs = _outputs(graph.get_operations()[before:], {it.name for it in layers(model)})
        parameters = sum(math.prod(shape) for shape in {id(w): tuple(w.shape) for w in model.weights}.values())
    kernels = sum(math.prod(shape) for found in shapes.values() for shape in found if len(shape) == 4)
    by_weights = max(shapes, key=lambda name: sum(map(math.prod, shapes[name])), default="")
    by_output = max(outputs, key=lambda name: math.prod(outputs[name]), default="")
    weights = FLOAT * sum(map(math.prod, shapes.get(by_weights, ())))
    output = FLOAT * math.prod(outputs.get(by_output, (0,)))
    return Estimate(
        parameters,
        FLOAT * (COPIES * parameters + kernels),
        FLOAT * sum(map(math.prod, outputs.values())),
        f"layer {by_weights!r} has {in_bytes(weights)} of weights"
        if weights > output
        else f"layer {by_output!r} gives {in_bytes(output)}, "
        f"{'×'.join(map(str, outputs[by_output][1:]))} numbers an image, {BATCH} images at once",
    )


def available() -> int:
    """The bytes that this process can still have: of the machine, and of the containers it is in."""
    found = [_statistics(Path("/proc/meminfo")).get("MemAvailable:", 2**53) * 1024]
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers not in {"", "memory"}:
            continue
        root = CGROUP / controllers
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            found += _left(folder, *(V1 if controllers else V2))
            if folder == root:
                break
    return max(0, min(found))


def _left(folder: Path, limit: str, usage: str, cache: str) -> list[int]:
    """What a container may still take, caches given up; nothing where it has no limit."""
    bound, used = (next(iter(_lines(folder / name)), "") for name in (limit, usage))
    if not bound.isdigit() or not used.isdigit():
        return []
    return [int(bound) - int(used) + _statistics(folder / "memory.stat").get(cache, 0)]


def in_bytes(count: int) -> str:
    """A number of bytes, for people."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.3g} EiB"


def _is_model(layer: Any) -> bool:
    return hasattr(layer, "get_layer")


def _batch(shape: tuple[int | None, ...], size: tuple[int, int] | None) -> tuple[int, ...]:
    """An input's shape with no axis left open."""
    inner = shape[1:]
    if size and len(inner) == 3 and None in inner[:2]:
        inner = (*size, inner[2])
    return (BATCH, *(USUAL if axis is None else int(axis) for axis in inner))


def _outputs(operations: list[Any], names: set[str]) -> dict[str, tuple[int, ...]]:
    """The largest value that each layer computes from the images, by the layer's path."""
    found: dict[str, tuple[int, ...]] = {}
    computed = {it.name for it in operations if it.type == "Placeholder"}
    for operation in operations:
        if operation.name not in computed and not any(it.op.name in computed for it in operation.inputs):
            continue
        computed.add(operation.name)
        path = "/".join(operation.name.split("/")[2:-1]) or operation.name  # without the scope and the model's name
        # Keras 3 enters a layer's scope a second time
        path = "/".join(it.removesuffix("_1") if it not in names else it for it in path.split("/"))
        for output in operation.outputs:
            if output.shape.is_fully_defined():
                found[path] = max(found.get(path, ()), tuple(output.shape), key=math.prod)
    return found


def _statistics(path: Path) -> dict[str, int]:
    """The lines of a file of names and numbers; none where it is not to be had."""
    lines = [line.split() for line in _lines(path)]
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
