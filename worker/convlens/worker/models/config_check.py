"""Checks a model file's configuration against the lists of allowed.py, before anything is made of it.

The walk gives a copy that holds what was checked and nothing else: class names from the lists, Keras' own modules in
place of the file's, activations by name, numbers, texts and lists. Initializers become zeros, since the weights are in
the file; regularizers, constraints, seeds and whatever belongs to training are left out.
"""

from __future__ import annotations

import re
from typing import Any, Final

from convlens.worker.models.allowed import (
    ACTIVATION_LAYERS,
    ACTIVATIONS,
    APPLICATIONS,
    ASIDE,
    CONSTRAINTS,
    FLOATS,
    INITIALIZERS,
    INTEGERS,
    LAYERS,
    MODELS,
    OPERATIONS,
    RANDOM,
    REFUSED,
    REGULARIZERS,
    RENAMED,
    TENSORFLOW,
    WRAPPERS,
)

Config = dict[str, Any]

MAX_CALLS: Final = 5_000
"""Calls of layers, those of nested models for each call of the model; the largest of keras.applications have 1,100."""
MAX_DEPTH: Final = 12
"""Models in models."""
MAX_NESTING: Final = 32
"""Lists in lists of an argument."""
MAX_INTEGER: Final = 2**31 - 1

KERAS_MODULE: Final = re.compile(r"(tf_)?keras(\.src)?(\.(engine|layers|models)(\.\w+)*)?")
"""Where the layers of any Keras are, by its files."""
FUNCTION_MODULE: Final = re.compile(r"builtins|(tf_)?keras(\.src)?\.activations(\.\w+)*")
PART_MODULE: Final = re.compile(r"(tf_)?keras(\.src)?\.(initializers|regularizers|constraints|dtype_policies)(\.\w+)*|keras")
MODULES: Final = {"Functional": "keras.src.models.functional", "Model": "keras", "Sequential": "keras"}
"""Where Keras 3 finds models; layers are in keras.layers."""

PARTS: Final = (
    ("_initializer", INITIALIZERS, "initializer", "zeros"),
    ("_regularizer", REGULARIZERS, "regularizer", None),
    ("_constraint", CONSTRAINTS, "constraint", None),
)
"""What a key's ending says: the names allowed, what they are, and what stands for each in the checked copy."""


class ConfigRefused(ValueError):
    """A configuration that names something that is not on the lists, or that Keras cannot have written."""


def check(config: object, keras: int) -> Config:
    """A copy of a model's configuration that Keras' `keras`th generation can be given.

    ConfigRefused names the layer, what is not allowed, and what to do.
    """
    walk = _Walk(keras)
    checked, calls = walk.layer(config, "the model", 0)
    if checked["class_name"] not in MODELS:
        raise ConfigRefused(f"it is a single {checked['class_name']}, no model")
    if calls > MAX_CALLS:
        raise ConfigRefused(f"the model calls {calls:,} layers; allowed are {MAX_CALLS:,}")
    return checked


class _Walk:
    """One generation's way through a configuration."""

    def __init__(self, keras: int) -> None:
        self._keras = keras
        self._layers = 0

    def layer(self, entry: object, place: str, depth: int) -> tuple[Config, int]:
        """A checked layer, nested model or operation, and how many layers are called where it is called once."""
        if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
            raise ConfigRefused(f"{place} is no layer's configuration")
        self._layers += 1
        if self._layers > MAX_CALLS:
            raise ConfigRefused(f"the model has more than {MAX_CALLS:,} layers")
        kind = RENAMED.get(entry["class_name"], entry["class_name"])
        config = entry.get("config")
        name = entry.get("name") or (config.get("name") if isinstance(config, dict) else None)
        place = f"layer {str(name)[:100]!r}" if depth else place
        if kind in MODELS:
            if depth > MAX_DEPTH:
                raise ConfigRefused(f"{place}: more than {MAX_DEPTH} models in each other")
            self._own(entry, kind, place, KERAS_MODULE)
            checked, calls = self._model(kind, config, place, depth)
            module = MODULES[kind]
        elif self._keras == 3 and self._is_operation(entry, kind, config):
            module = entry.get("module") or next(it for it, names in OPERATIONS.items() if kind in names)
            if kind not in OPERATIONS.get(module, ()):
                raise ConfigRefused(f"{place} is the operation {module}.{kind}: {ASIDE}")
            self._own(entry, kind, place, re.compile(re.escape(module)))
            checked, calls = self._plain(config if isinstance(config, dict) else {}, place), 1
        elif self._keras == 2 and kind in {"TFOpLambda", "SlicingOpLambda"}:
            self._own(entry, kind, place, KERAS_MODULE)
            checked, calls, module = self._tensorflow(config, place), 1, None
        elif self._keras == 3 and kind in APPLICATIONS:
            module = APPLICATIONS[kind]
            self._own(entry, kind, place, re.compile(re.escape(module)))
            checked, calls = self._options(kind, config, place, depth)
        elif kind in LAYERS:
            self._own(entry, kind, place, KERAS_MODULE)
            checked, calls = self._options(kind, config, place, depth)
            module = "keras.layers"
        else:
            raise ConfigRefused(f"{place} is a {kind[:100]}: {REFUSED.get(kind, ASIDE)}")
        found: Config = {"class_name": kind, "config": checked}
        if self._keras == 3:
            found |= {"module": module, "registered_name": None}
            if isinstance(build := entry.get("build_config"), dict):
                found["build_config"] = {key: self._shape(it, place) for key, it in build.items()}
        if isinstance(shared := entry.get("shared_object_id"), int):
            found["shared_object_id"] = shared
        if "name" in entry:
            found["name"] = self._plain(entry["name"], place)
        if isinstance(nodes := entry.get("inbound_nodes"), list):
            found["inbound_nodes"] = self._plain([self._call(it, kind, place) for it in nodes], place)
            calls *= max(1, len(nodes))
        return found, calls

    def _own(self, entry: Config, kind: str, place: str, module: re.Pattern[str]) -> None:
        """ConfigRefused when an object is said to be from elsewhere than Keras, or registered by a program."""
        said = entry.get("module")
        if said is not None and not (isinstance(said, str) and module.fullmatch(said)):
            raise ConfigRefused(f"{place} is {str(said)[:100]}.{kind}: {ASIDE}")
        registered = entry.get("registered_name")
        if registered not in {None, kind}:
            raise ConfigRefused(f"{place} is {str(registered)[:100]!r}, a class that a program registered: {ASIDE}")

    def _model(self, kind: str, config: object, place: str, depth: int) -> tuple[Config, int]:
        """A Sequential's or functional model's options, its layers checked."""
        if isinstance(config, list):  # Sequential before Keras 2.2.3
            config = {"name": "sequential", "layers": config}
        if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
            raise ConfigRefused(f"{place} is a subclassed model, whose code is not in the file: {ASIDE}")
        found = [self.layer(it, f"layer {i}", depth + 1) for i, it in enumerate(config["layers"])]
        rest = {key: it for key, it in config.items() if key not in {"layers", "build_input_shape", "dtype"}}
        checked = {key: self._plain(it, place) for key, it in rest.items()}
        if config.get("build_input_shape") is not None:
            checked["build_input_shape"] = self._shape(config["build_input_shape"], place)
        if kind == "Sequential":
            checked.setdefault("name", "sequential")
        return checked | {"layers": [it for it, _ in found]}, 1 + sum(calls for _, calls in found)

    def _options(self, kind: str, config: object, place: str, depth: int) -> tuple[Config, int]:
        """A layer's options, and how many layers it calls."""
        if not isinstance(config, dict):
            raise ConfigRefused(f"{place} ({kind}) has no configuration")
        place = f"{place} ({kind})"
        checked: Config = {}
        calls = 1
        for key, value in config.items():
            part = next((it for it in PARTS if key.endswith(it[0])), None)
            if part:
                checked[key] = None if value is None else self._part(value, part, f"{place}: {key}")
            elif key == "activation":
                checked[key] = self._activation(value, place, depth)
            elif key == "dtype":
                checked[key] = self._dtype(value, kind, place)
            elif key == "layer" and kind in WRAPPERS:
                checked[key], more = self.layer(value, f"{place}: its layer", depth + 1)
                calls += more
            elif key in {"batch_shape", "batch_input_shape"}:
                checked[key] = self._shape(value, place)
            elif key == "seed":
                checked[key] = None
            elif key == "quantization_config" and value is not None:
                raise ConfigRefused(f"{place} is quantized; save the model before it is quantized")
            else:
                checked[key] = self._plain(value, f"{place}: {key}")
            if value == "channels_first" or (key == "dim_ordering" and value == "th"):
                raise ConfigRefused(
                    f"{place} has {key}={value!r}: channels before space; build the model again with "
                    "channels_last, set its weights from this one's (kernels have one shape in both), and save it"
                )
        return checked, calls

    def _tensorflow(self, config: object, place: str) -> Config:
        """The options of a layer of Keras 2 that calls a function of TensorFlow."""
        function = config.get("function") if isinstance(config, dict) else None
        if not isinstance(config, dict) or function not in TENSORFLOW:
            raise ConfigRefused(
                f"{place} calls tf.{str(function)[:100]}, which a model file must not; allowed are TensorFlow's "
                "functions of arithmetic and shape; replace it by one of those or by a layer, and save again"
            )
        found = {key: self._plain(it, place) for key, it in config.items() if key != "dtype"}
        return found | {"dtype": "float32"}

    def _part(self, value: object, part: tuple[str, frozenset[str], str, str | None], place: str) -> str | None:
        """What stands for an initializer, regularizer or constraint, once its name is found on the list."""
        _, names, what, instead = part
        named: object = value
        if isinstance(value, dict):
            self._own(value, str(value.get("class_name")), place, PART_MODULE)
            named = value.get("class_name")
            self._plain(value.get("config"), place)
        if not isinstance(named, str) or named.replace("_", "").lower() not in {it.lower() for it in names}:
            raise ConfigRefused(f"{place} is {str(named)[:100]!r}, which is none of Keras' own {what}s: {ASIDE}")
        return instead

    def _activation(self, value: object, place: str, depth: int) -> object:
        """An activation's name, or the layer that stands for one."""
        if isinstance(value, dict) and value.get("class_name") in ACTIVATION_LAYERS:
            checked, _ = self.layer(value, f"{place}: activation", depth + 1)
            return checked
        named: object = value
        if isinstance(value, dict) and value.get("class_name") == "function":
            named = value.get("config")
            said = value.get("module")
            if said is not None and not (isinstance(said, str) and FUNCTION_MODULE.fullmatch(said)):
                raise ConfigRefused(f"{place}: activation is {str(said)[:100]}.{str(named)[:100]}: {ASIDE}")
        elif isinstance(value, dict):
            named = value.get("registered_name") or value.get("class_name")
        if named is not None and named not in ACTIVATIONS:
            raise ConfigRefused(
                f"{place}: activation is {str(named)[:100]!r}, which is none of Keras' own: {ASIDE}; "
                f"allowed are {', '.join(sorted(ACTIVATIONS))}"
            )
        return {"softmax_v2": "softmax"}.get(str(named), named)

    def _dtype(self, value: object, kind: str, place: str) -> str | None:
        """float32 for whatever floats a layer was trained in, and for images; integers as they are."""
        named: object = value
        if isinstance(value, dict):
            config = value.get("config")
            if value.get("class_name") not in {"DTypePolicy", "Policy"} or not isinstance(config, dict):
                raise ConfigRefused(f"{place}: dtype is a {str(value.get('class_name'))[:100]}; save it as float32")
            named = config.get("name")
        if named is None or named in FLOATS or (kind == "InputLayer" and named in INTEGERS):
            return "float32"
        if named in INTEGERS:
            return str(named)
        raise ConfigRefused(f"{place}: dtype is {str(named)[:100]!r}; save the model as float32")

    def _is_operation(self, entry: Config, kind: str, config: object) -> bool:
        """True for an operation of Keras 3. Files without modules (.h5) tell Add from Add by the options of a layer."""
        if "module" in entry:
            return str(entry["module"]).startswith("keras.src.ops.")
        is_layer = isinstance(config, dict) and "trainable" in config
        return not is_layer and any(kind in names for names in OPERATIONS.values())

    def _shape(self, value: object, place: str) -> Any:
        """A shape, or a dictionary of shapes, for any number of images."""
        plain = self._plain(value, place)
        if isinstance(plain, dict):
            return {key: self._shape(it, place) for key, it in plain.items()}
        is_shape = isinstance(plain, list | tuple) and len(plain) > 1 and isinstance(plain[0], int)
        return [None, *plain[1:]] if is_shape else plain

    def _call(self, node: object, kind: str, place: str) -> object:
        """A layer's call, which is not in training, whatever was recorded."""
        calls = [node] if isinstance(node, dict) else node if isinstance(node, list) else []
        if self._keras == 2:  # [[name, node, tensor, arguments], …], or that of a TFOpLambda alone
            lists = [calls] if calls and isinstance(calls[0], str) else [it for it in calls if isinstance(it, list)]
            calls = [{"kwargs": it[3]} for it in lists if len(it) > 3]
        for call in calls:
            arguments = call.get("kwargs") if isinstance(call, dict) else None
            # Keras 3 overrides what was recorded, Keras 2 obeys it
            if isinstance(arguments, dict) and arguments.pop("training", None) and self._keras == 2:
                if kind not in RANDOM:
                    raise ConfigRefused(
                        f"{place} ({kind}) is called with training=True, so that what it computes depends on the "
                        "other images; call it without, and save again"
                    )
        return node

    def _plain(self, value: object, place: str, nesting: int = 0) -> Any:
        """Numbers, texts, and lists and dictionaries of them, with the few kinds of values that Keras marks."""
        if nesting > MAX_NESTING:
            raise ConfigRefused(f"{place} has lists in each other, more than {MAX_NESTING} deep")
        if value is None or isinstance(value, bool | float | str):
            return value
        if isinstance(value, int):
            if abs(value) > MAX_INTEGER:
                raise ConfigRefused(f"{place} has the number {str(value)[:30]}; allowed are 32 bits")
            return value
        if isinstance(value, list):
            return [self._plain(it, place, nesting + 1) for it in value]
        if not isinstance(value, dict):
            raise ConfigRefused(f"{place} has a {type(value).__name__}, which a model file must not have")
        kind = value.get("class_name")
        if "_TYPE" in value:  # Keras 2 would decode the text that follows
            raise ConfigRefused(f"{place} has a composite constant, which a model file must not have")
        if kind is None:
            return {str(key): self._plain(it, place, nesting + 1) for key, it in value.items()}
        return self._marked(str(kind), value, place, nesting)

    def _marked(self, kind: str, value: Config, place: str, nesting: int) -> Any:
        """A value that Keras marks by a class of its own."""
        if kind in {"__tuple__", "TensorShape"}:
            items = [self._plain(it, place, nesting + 1) for it in value.get("items") or []]
            return tuple(items) if kind == "__tuple__" else items
        if kind == "__ellipsis__":
            return Ellipsis if self._keras == 2 else {"class_name": kind, "config": {}}
        if self._keras == 3 and kind in {"__keras_tensor__", "__tensor__", "__numpy__", "__slice__"}:
            config = value.get("config")
            if not isinstance(config, dict) or config.get("dtype", "float32") not in FLOATS | INTEGERS:
                raise ConfigRefused(f"{place} has a value of an unknown kind of numbers")
            return {
                "class_name": kind,
                "config": {str(key): self._plain(it, place, nesting + 1) for key, it in config.items()},
            }
        raise ConfigRefused(f"{place} has a {kind[:100]}, which a model file must not have: {ASIDE}")
