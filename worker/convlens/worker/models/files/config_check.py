"""Check a model file's configuration against the lists of allowed.py, before a model is built from it.

The result is a copy with nothing but checked values: class names from the lists, Keras' own modules in place of the
file's, activations by name, numbers, strings and lists. Initializers become zeros, since the weights are in the file;
regularizers, constraints, seeds and everything else of training are omitted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from convlens.worker.models.files import config_values as values
from convlens.worker.models.files.allowed import (
    ACTIVATION_LAYERS,
    APPLICATIONS,
    LAYERS,
    MODELS,
    NOT_ALLOWED,
    OPERATIONS,
    RANDOM,
    REFUSED,
    RENAMED,
    TENSORFLOW,
    WRAPPERS,
)
from convlens.worker.models.files.config_values import Config, ConfigRefused

MAX_CALLS: Final = 3_000
"""Calls of layers, those inside nested models once per call; the largest of keras.applications have 1,100."""
MAX_FORWARD_REFERENCES: Final = 100
"""References to layers that are listed later."""
MAX_DEPTH: Final = 12
"""Nesting of models."""
MODULE: Final = re.compile(r"(tf_)?keras(\.src)?(\.(engine|layers|models)(\.\w+)*)?")
"""The modules of layers, as files of any Keras version name them."""
KERAS_3_MODELS: Final = {"Functional": "keras.src.models.functional", "Model": "keras", "Sequential": "keras"}

Checked = tuple[Config, int, str | None]
"""(options, number of layers that one call of it calls, its module in Keras 3)"""


def check(config: object, keras: int) -> Config:
    """Return a checked copy of a model's configuration, for the Keras of generation `keras`, 2 or 3.

    Raises ConfigRefused, which names the layer, what is not allowed, and what to do.
    """
    checked, calls = _ConfigChecker(keras).check(config, "the model", 0)
    if checked["class_name"] not in MODELS:
        raise ConfigRefused(f"it is a single {checked['class_name']}, no model")
    if calls > MAX_CALLS:
        raise ConfigRefused(f"the model calls {calls:,} layers; allowed are {MAX_CALLS:,}")
    return checked


def _check_order(layers: list[Config], names: list[object], place: str) -> None:
    """Raise ConfigRefused where many layers use outputs of later ones, which Keras would retry again and again.

    Keras lists layers in topological order; only a layer that is called repeatedly refers to later ones.
    """
    positions = {name: i for i, name in enumerate(names) if isinstance(name, str)}
    forward = sum(
        positions.get(name, 0) > i
        for i, layer in enumerate(layers)
        for name in _referenced_names(layer.get("inbound_nodes"))
    )
    if forward > MAX_FORWARD_REFERENCES:
        raise ConfigRefused(f"{place} lists its layers in no order in which they can be computed")


def _referenced_names(nodes: object) -> Iterator[str]:
    """Yield the names that a layer's calls refer to: the first items of [name, node, tensor…], of either generation."""
    if isinstance(nodes, dict):
        nodes = list(nodes.values())
    if isinstance(nodes, list | tuple):
        if len(nodes) >= 3 and isinstance(nodes[0], str) and isinstance(nodes[1], int):
            yield nodes[0]
        else:
            for node in nodes:
                yield from _referenced_names(node)


class _ConfigChecker:
    """Checks one configuration of a generation of Keras."""

    def __init__(self, keras: int) -> None:
        self._keras = keras
        self._layers = 0
        self._shared: dict[int, tuple[str, Config]] = {}
        """By shared_object_id: class name and options."""

    def check(self, entry: object, place: str, depth: int) -> tuple[Config, int]:
        """Check a layer, nested model or operation; return the copy and how many layers its calls call."""
        if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
            raise ConfigRefused(f"{place} is no layer's configuration")
        self._layers += 1
        if self._layers > MAX_CALLS or depth > MAX_DEPTH:
            raise ConfigRefused(f"{place}: more than {MAX_CALLS:,} layers, or {MAX_DEPTH} models in each other")
        kind = str(RENAMED.get(entry["class_name"], entry["class_name"]))
        config = entry.get("config")
        name = entry.get("name") or (config.get("name") if isinstance(config, dict) else None)
        place = f"layer {str(name)[:100]!r}" if depth and name else place
        options, calls, module = self._choose_check(entry, kind, place)(entry, kind, place, depth)
        checked: Config = {"class_name": kind, "config": options}
        if self._keras == 3:
            checked |= {"module": module, "registered_name": None}
            if isinstance(entry.get("build_config"), dict):
                checked["build_config"] = values.check_shape(entry["build_config"], place, 3)
        if isinstance(shared := entry.get("shared_object_id"), int):
            if self._shared.setdefault(shared, (kind, options)) != (kind, options):
                raise ConfigRefused(f"{place} is said to be the same object as another one, which it is not")
            checked["shared_object_id"] = shared
        if "name" in entry:
            checked["name"] = self._check_plain(entry["name"], place)
        if isinstance(nodes := entry.get("inbound_nodes"), list):
            for node in nodes:
                self._remove_training(node, kind, place)
            checked["inbound_nodes"] = self._check_plain(nodes, place)
            calls *= max(1, len(nodes))
        return checked, calls

    def _choose_check(self, entry: Config, kind: str, place: str) -> Callable[[Config, str, str, int], Checked]:
        """Return the method that checks this kind of layer. Raises ConfigRefused for a kind that is not allowed."""
        if kind in MODELS:
            return self._check_model
        if self._keras == 3 and self._is_operation(entry, kind):
            return self._check_operation
        if self._keras == 2 and kind in {"TFOpLambda", "SlicingOpLambda"}:
            return self._check_function
        if kind in LAYERS or (self._keras == 3 and kind in APPLICATIONS):
            return self._check_layer
        raise ConfigRefused(f"{place} is a {kind[:100]}: {REFUSED.get(kind, NOT_ALLOWED)}")

    def _is_operation(self, entry: Config, kind: str) -> bool:
        """Return True for an operation of Keras 3. In files without modules (.h5) only a layer has options."""
        if "module" in entry:
            return str(entry["module"]).startswith("keras.src.ops.")
        config = entry.get("config")
        is_layer = isinstance(config, dict) and "trainable" in config
        return not is_layer and any(kind in names for names in OPERATIONS.values())

    def _check_model(self, entry: Config, kind: str, place: str, depth: int) -> Checked:
        """Check a Sequential or functional model and its layers."""
        values.check_origin(entry, kind, place, MODULE)
        config = entry.get("config")
        if isinstance(config, list):  # Sequential before Keras 2.2.3
            config = {"name": "sequential", "layers": config}
        if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
            raise ConfigRefused(f"{place} is a subclassed model, whose code is not in the file: {NOT_ALLOWED}")
        checked = [self.check(layer, f"layer {i}", depth + 1) for i, layer in enumerate(config["layers"])]
        layers = [layer for layer, _ in checked]
        names = [layer["config"].get("name") for layer in layers]
        if duplicate := next((name for name in names if name is not None and names.count(name) > 1), None):
            raise ConfigRefused(f"{place} has two layers that are called {str(duplicate)[:100]!r}")
        if kind != "Sequential":
            _check_order(layers, names, place)
        others = {key: value for key, value in config.items() if key not in {"layers", "build_input_shape", "dtype"}}
        options = self._check_plain(others, place)
        if config.get("build_input_shape") is not None:
            options["build_input_shape"] = values.check_shape(config["build_input_shape"], place, self._keras)
        if kind == "Sequential":
            options.setdefault("name", "sequential")
        options["layers"] = layers
        return options, 1 + sum(calls for _, calls in checked), KERAS_3_MODELS[kind]

    def _check_operation(self, entry: Config, kind: str, place: str, _: int) -> Checked:
        """Check an operation of Keras 3."""
        module = entry.get("module") or next(name for name, kinds in OPERATIONS.items() if kind in kinds)
        if kind not in OPERATIONS.get(module, ()):
            raise ConfigRefused(f"{place} is the operation {str(module)[:100]}.{kind[:100]}: {NOT_ALLOWED}")
        values.check_origin(entry, kind, place, re.compile(re.escape(module)))
        config = entry.get("config")
        return self._check_plain(config if isinstance(config, dict) else {}, place), 1, module

    def _check_function(self, entry: Config, kind: str, place: str, _: int) -> Checked:
        """Check a layer of Keras 2 that calls a TensorFlow function."""
        values.check_origin(entry, kind, place, MODULE)
        config = entry.get("config")
        function = config.get("function") if isinstance(config, dict) else None
        if not isinstance(config, dict) or not isinstance(function, str) or function not in TENSORFLOW:
            raise ConfigRefused(
                f"{place} calls tf.{str(function)[:100]}, which a model file must not; allowed are TensorFlow's "
                "functions of arithmetic and shape; replace it by one of those or by a layer, and save again"
            )
        return self._check_plain(config, place) | {"dtype": "float32"}, 1, None

    def _check_layer(self, entry: Config, kind: str, place: str, depth: int) -> Checked:
        """Check a layer of Keras."""
        module = APPLICATIONS.get(kind)
        values.check_origin(entry, kind, place, re.compile(re.escape(module)) if module else MODULE)
        place = f"{place} ({kind})"
        config = entry.get("config")
        if not isinstance(config, dict):
            raise ConfigRefused(f"{place} has no configuration")
        calls = 1
        options: Config = {}
        for key, value in config.items():
            if key == "layer" and kind in WRAPPERS:
                options[key], inner_calls = self.check(value, f"{place}: its layer", depth + 1)
                calls += inner_calls
                if options[key]["class_name"] in MODELS:
                    raise ConfigRefused(f"{place} wraps a model; wrap its layers instead, and save again")
            elif key == "activation" and isinstance(value, dict) and value.get("class_name") in ACTIVATION_LAYERS:
                options[key], _ = self.check(value, f"{place}: its activation", depth + 1)
            else:
                options[key] = self._check_option(key, value, kind, place)
        return options, calls, module or "keras.layers"

    def _check_option(self, key: str, value: object, kind: str, place: str) -> object:
        """Check an option of a layer."""
        if (key == "data_format" and value == "channels_first") or (key == "dim_ordering" and value == "th"):
            raise ConfigRefused(
                f"{place} has {key}={value!r}, channels before space; build the model again with channels_last, set "
                "its weights from this one's (kernels have one shape in both), and save it"
            )
        if key.endswith(values.PART_SUFFIXES):
            return values.replace_part(key, value, place)
        if key == "activation":
            return values.check_activation(value, place, self._keras)
        if key == "dtype":
            return values.check_dtype(value, kind, place)
        if key in {"batch_shape", "batch_input_shape"}:
            return values.check_shape(value, place, self._keras)
        if key == "seed":
            return None
        if key == "quantization_config" and value is not None:
            raise ConfigRefused(f"{place} is quantized; save the model as it was before")
        return self._check_plain(value, f"{place}: {key}")

    def _remove_training(self, node: object, kind: str, place: str) -> None:
        """Remove the argument `training` from a call: images are explained at inference."""
        if self._keras == 3:
            arguments = [node.get("kwargs")] if isinstance(node, dict) else []
        else:  # [[name, node, tensor, arguments], …], or that of a TFOpLambda alone
            calls = node if isinstance(node, list) else []
            calls = [calls] if calls and isinstance(calls[0], str) else calls
            arguments = [call[3] for call in calls if isinstance(call, list) and len(call) > 3]
        for kwargs in arguments:
            is_training = isinstance(kwargs, dict) and kwargs.pop("training", None)
            # Keras 3 overrides the recorded value, Keras 2 keeps it
            if is_training and self._keras == 2 and kind not in RANDOM:
                raise ConfigRefused(
                    f"{place} ({kind}) is called with training=True, so that what it computes depends on the other "
                    "images; call it without, and save again"
                )

    def _check_plain(self, value: object, place: str) -> Any:
        return values.check_plain(value, place, self._keras)
