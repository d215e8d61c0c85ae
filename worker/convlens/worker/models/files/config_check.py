"""Checks a model file's configuration against the lists of allowed.py, before anything is made of it.

The walk gives a copy that holds what was checked and nothing else: class names from the lists, Keras' own modules in
place of the file's, activations by name, numbers, texts and lists. Initializers become zeros, since the weights are in
the file; regularizers, constraints, seeds and whatever belongs to training are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from convlens.worker.models.files import config_values as values
from convlens.worker.models.files.allowed import (
    ACTIVATION_LAYERS,
    APPLICATIONS,
    ASIDE,
    LAYERS,
    MODELS,
    OPERATIONS,
    RANDOM,
    REFUSED,
    RENAMED,
    TENSORFLOW,
    WRAPPERS,
)
from convlens.worker.models.files.config_values import Config, ConfigRefused

MAX_CALLS: Final = 3_000
"""Calls of layers, those of nested models for each call of the model; the largest of keras.applications have 1,100."""
MAX_AHEAD: Final = 100
"""References to layers that are listed later."""
MAX_DEPTH: Final = 12
"""Models in models."""
MODULE: Final = re.compile(r"(tf_)?keras(\.src)?(\.(engine|layers|models)(\.\w+)*)?")
"""Where the layers of any Keras are, by its files."""
KERAS_3_MODELS: Final = {"Functional": "keras.src.models.functional", "Model": "keras", "Sequential": "keras"}

Checked = tuple[Config, int, str | None]
"""The options of a layer, how many layers are called where it is called once, and Keras 3's module of it."""


def check(config: object, keras: int) -> Config:
    """A copy of a model's configuration that the Keras of generation `keras` can be given.

    ConfigRefused names the layer, what is not allowed, and what to do.
    """
    checked, calls = _Walk(keras).layer(config, "the model", 0)
    if checked["class_name"] not in MODELS:
        raise ConfigRefused(f"it is a single {checked['class_name']}, no model")
    if calls > MAX_CALLS:
        raise ConfigRefused(f"the model calls {calls:,} layers; allowed are {MAX_CALLS:,}")
    return checked


def _check_order(found: list[Config], names: list[object], place: str) -> None:
    """ConfigRefused where many layers take what only later ones give: Keras would try them again and again.

    Keras lists layers as they are computed; a layer that is called again takes what comes later.
    """
    places = {name: i for i, name in enumerate(names) if isinstance(name, str)}
    ahead = sum(places.get(name, 0) > i for i, it in enumerate(found) for name in _sources(it.get("inbound_nodes")))
    if ahead > MAX_AHEAD:
        raise ConfigRefused(f"{place} lists its layers in no order in which they can be computed")


def _sources(nodes: object) -> Iterator[str]:
    """The names that a layer's calls refer to: the beginnings of [name, node, tensor…], of either generation."""
    if isinstance(nodes, dict):
        nodes = list(nodes.values())
    if isinstance(nodes, list | tuple):
        if len(nodes) >= 3 and isinstance(nodes[0], str) and isinstance(nodes[1], int):
            yield nodes[0]
        else:
            for it in nodes:
                yield from _sources(it)


class _Walk:
    """One generation's way through a configuration."""

    def __init__(self, keras: int) -> None:
        self._keras = keras
        self._layers = 0
        self._shared: dict[int, tuple[str, Config]] = {}
        """By the id of an object that stands in several places: what it is."""

    def layer(self, entry: object, place: str, depth: int) -> tuple[Config, int]:
        """A checked layer, nested model or operation, and how many layers it calls for all its calls."""
        if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
            raise ConfigRefused(f"{place} is no layer's configuration")
        self._layers += 1
        if self._layers > MAX_CALLS or depth > MAX_DEPTH:
            raise ConfigRefused(f"{place}: more than {MAX_CALLS:,} layers, or {MAX_DEPTH} models in each other")
        kind = str(RENAMED.get(entry["class_name"], entry["class_name"]))
        config = entry.get("config")
        name = entry.get("name") or (config.get("name") if isinstance(config, dict) else None)
        place = f"layer {str(name)[:100]!r}" if depth and name else place
        options, calls, module = self._reader(entry, kind, place)(entry, kind, place, depth)
        found: Config = {"class_name": kind, "config": options}
        if self._keras == 3:
            found |= {"module": module, "registered_name": None}
            if isinstance(entry.get("build_config"), dict):
                found["build_config"] = values.shape(entry["build_config"], place, 3)
        if isinstance(shared := entry.get("shared_object_id"), int):
            if self._shared.setdefault(shared, (kind, options)) != (kind, options):
                raise ConfigRefused(f"{place} is said to be the same object as another one, which it is not")
            found["shared_object_id"] = shared
        if "name" in entry:
            found["name"] = self._plain(entry["name"], place)
        if isinstance(nodes := entry.get("inbound_nodes"), list):
            for node in nodes:
                self._leave_training(node, kind, place)
            found["inbound_nodes"] = self._plain(nodes, place)
            calls *= max(1, len(nodes))
        return found, calls

    def _reader(self, entry: Config, kind: str, place: str) -> Callable[[Config, str, str, int], Checked]:
        """What checks a layer of this kind. ConfigRefused for a kind that is not on the lists."""
        if kind in MODELS:
            return self._model
        if self._keras == 3 and self._is_operation(entry, kind):
            return self._operation
        if self._keras == 2 and kind in {"TFOpLambda", "SlicingOpLambda"}:
            return self._function
        if kind in LAYERS or (self._keras == 3 and kind in APPLICATIONS):
            return self._layer
        raise ConfigRefused(f"{place} is a {kind[:100]}: {REFUSED.get(kind, ASIDE)}")

    def _is_operation(self, entry: Config, kind: str) -> bool:
        """True for an operation of Keras 3. In files without modules (.h5) only a layer has options."""
        if "module" in entry:
            return str(entry["module"]).startswith("keras.src.ops.")
        config = entry.get("config")
        is_layer = isinstance(config, dict) and "trainable" in config
        return not is_layer and any(kind in names for names in OPERATIONS.values())

    def _model(self, entry: Config, kind: str, place: str, depth: int) -> Checked:
        """A Sequential's or functional model's options, its layers checked."""
        values.own(entry, kind, place, MODULE)
        config = entry.get("config")
        if isinstance(config, list):  # Sequential before Keras 2.2.3
            config = {"name": "sequential", "layers": config}
        if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
            raise ConfigRefused(f"{place} is a subclassed model, whose code is not in the file: {ASIDE}")
        found = [self.layer(it, f"layer {i}", depth + 1) for i, it in enumerate(config["layers"])]
        names = [it["config"].get("name") for it, _ in found]
        if twice := next((it for it in names if it is not None and names.count(it) > 1), None):
            raise ConfigRefused(f"{place} has two layers that are called {str(twice)[:100]!r}")
        if kind != "Sequential":
            _check_order([it for it, _ in found], names, place)
        rest = {key: it for key, it in config.items() if key not in {"layers", "build_input_shape", "dtype"}}
        options = self._plain(rest, place)
        if config.get("build_input_shape") is not None:
            options["build_input_shape"] = values.shape(config["build_input_shape"], place, self._keras)
        if kind == "Sequential":
            options.setdefault("name", "sequential")
        options["layers"] = [it for it, _ in found]
        return options, 1 + sum(calls for _, calls in found), KERAS_3_MODELS[kind]

    def _operation(self, entry: Config, kind: str, place: str, _: int) -> Checked:
        """An operation of Keras 3, which is arithmetic."""
        module = entry.get("module") or next(it for it, names in OPERATIONS.items() if kind in names)
        if kind not in OPERATIONS.get(module, ()):
            raise ConfigRefused(f"{place} is the operation {str(module)[:100]}.{kind[:100]}: {ASIDE}")
        values.own(entry, kind, place, re.compile(re.escape(module)))
        config = entry.get("config")
        return self._plain(config if isinstance(config, dict) else {}, place), 1, module

    def _function(self, entry: Config, kind: str, place: str, _: int) -> Checked:
        """A layer of Keras 2 that calls a function of TensorFlow."""
        values.own(entry, kind, place, MODULE)
        config = entry.get("config")
        function = config.get("function") if isinstance(config, dict) else None
        if not isinstance(config, dict) or not isinstance(function, str) or function not in TENSORFLOW:
            raise ConfigRefused(
                f"{place} calls tf.{str(function)[:100]}, which a model file must not; allowed are TensorFlow's "
                "functions of arithmetic and shape; replace it by one of those or by a layer, and save again"
            )
        return self._plain(config, place) | {"dtype": "float32"}, 1, None

    def _layer(self, entry: Config, kind: str, place: str, depth: int) -> Checked:
        """One of Keras' layers."""
        module = APPLICATIONS.get(kind)
        values.own(entry, kind, place, re.compile(re.escape(module)) if module else MODULE)
        place = f"{place} ({kind})"
        config = entry.get("config")
        if not isinstance(config, dict):
            raise ConfigRefused(f"{place} has no configuration")
        calls = 1
        options: Config = {}
        for key, value in config.items():
            if key == "layer" and kind in WRAPPERS:
                options[key], more = self.layer(value, f"{place}: its layer", depth + 1)
                calls += more
                if options[key]["class_name"] in MODELS:
                    raise ConfigRefused(f"{place} wraps a model; wrap its layers instead, and save again")
            elif key == "activation" and isinstance(value, dict) and value.get("class_name") in ACTIVATION_LAYERS:
                options[key], _ = self.layer(value, f"{place}: its activation", depth + 1)
            else:
                options[key] = self._option(key, value, kind, place)
        return options, calls, module or "keras.layers"

    def _option(self, key: str, value: object, kind: str, place: str) -> object:
        """An option of a layer."""
        if (key == "data_format" and value == "channels_first") or (key == "dim_ordering" and value == "th"):
            raise ConfigRefused(
                f"{place} has {key}={value!r}, channels before space; build the model again with channels_last, set "
                "its weights from this one's (kernels have one shape in both), and save it"
            )
        if key.endswith(tuple(it[0] for it in values.PARTS)):
            return values.part(key, value, place)
        if key == "activation":
            return values.activation(value, place, self._keras)
        if key == "dtype":
            return values.dtype(value, kind, place)
        if key in {"batch_shape", "batch_input_shape"}:
            return values.shape(value, place, self._keras)
        if key == "seed":
            return None
        if key == "quantization_config" and value is not None:
            raise ConfigRefused(f"{place} is quantized; save the model as it was before")
        return self._plain(value, f"{place}: {key}")

    def _leave_training(self, node: object, kind: str, place: str) -> None:
        """Takes the argument `training` from a call: no image is explained in training."""
        if self._keras == 3:
            arguments = [node.get("kwargs")] if isinstance(node, dict) else []
        else:  # [[name, node, tensor, arguments], …], or that of a TFOpLambda alone
            calls = node if isinstance(node, list) else []
            calls = [calls] if calls and isinstance(calls[0], str) else calls
            arguments = [it[3] for it in calls if isinstance(it, list) and len(it) > 3]
        for found in arguments:
            is_training = isinstance(found, dict) and found.pop("training", None)
            # Keras 3 overrides what was recorded, Keras 2 obeys it
            if is_training and self._keras == 2 and kind not in RANDOM:
                raise ConfigRefused(
                    f"{place} ({kind}) is called with training=True, so that what it computes depends on the other "
                    "images; call it without, and save again"
                )

    def _plain(self, value: object, place: str) -> Any:
        return values.plain(value, place, self._keras)
