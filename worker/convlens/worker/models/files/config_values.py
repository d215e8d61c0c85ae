"""Checks the values of a configuration's options: numbers and texts, initializers, activations, dtypes, shapes.

What a value names must be on a list of allowed.py; what is not named there is refused.
"""

from __future__ import annotations

import re
from typing import Any, Final

from convlens.worker.models.files.allowed import (
    ACTIVATIONS,
    ASIDE,
    CONSTRAINTS,
    FLOATS,
    INITIALIZERS,
    INTEGERS,
    REGULARIZERS,
)

Config = dict[str, Any]

MAX_NESTING: Final = 32
"""Lists in lists of an argument."""
MAX_INTEGER: Final = 2**31 - 1
REMEDY: Final = "use one of Keras' own and save again"
FUNCTION_MODULE: Final = re.compile(r"builtins|(tf_)?keras(\.src)?\.activations(\.\w+)*")
PART_MODULE: Final = re.compile(
    r"keras|(tf_)?keras(\.src)?\.(initializers|regularizers|constraints)(\.\w+)*|tensorflow\.python\.ops\.init_ops(_v2)?"
)

PARTS: Final = (
    ("_initializer", INITIALIZERS, "initializer", "zeros"),
    ("_regularizer", REGULARIZERS, "regularizer", None),
    ("_constraint", CONSTRAINTS, "constraint", None),
)
"""What a key's ending says: the names allowed, what they are, and what stands for each in the checked copy."""


class ConfigRefused(ValueError):
    """A configuration that names something that is not on the lists, or that Keras cannot have written."""


def own(entry: Config, kind: str, place: str, module: re.Pattern[str], remedy: str = ASIDE) -> None:
    """ConfigRefused when an object is said to be from elsewhere than Keras' `module`, or registered by a program."""
    said = entry.get("module")
    if said is not None and not (isinstance(said, str) and module.fullmatch(said)):
        raise ConfigRefused(f"{place} is {_cut(said)}.{_cut(kind)}: {remedy}")
    registered = entry.get("registered_name")
    if registered not in {None, kind}:
        raise ConfigRefused(f"{place} is {_cut(registered)!r}, a class that a program registered: {remedy}")


def part(key: str, value: object, place: str) -> str | None:
    """What stands for an initializer, regularizer or constraint, once its name is found on the list."""
    names, what, instead = next(it[1:] for it in PARTS if key.endswith(it[0]))
    named: object = value
    if value is None:
        return None
    if isinstance(value, dict):
        named = value.get("class_name")
        own(value, str(named), f"{place}: {key}", PART_MODULE, REMEDY)
    if not isinstance(named, str) or named.replace("_", "").lower() not in {it.lower() for it in names}:
        raise ConfigRefused(f"{place}: {key} is {_cut(named)!r}, which is none of Keras' own {what}s; {REMEDY}")
    return instead


def activation(value: object, place: str, keras: int) -> str | None:
    """An activation's name."""
    named: object = value
    if isinstance(value, dict):
        is_function = value.get("class_name") == "function"
        named = value.get("config") if is_function else value.get("registered_name") or value.get("class_name")
        said = value.get("module")
        if said is not None and not (isinstance(said, str) and FUNCTION_MODULE.fullmatch(said)):
            raise ConfigRefused(
                f"{place}: activation is {_cut(said)}.{_cut(named)}, which is none of Keras' own; {REMEDY}"
            )
        if is_function and keras == 3:  # which writes its own ones by their names alone
            raise ConfigRefused(
                f"{place}: activation is a function of your own called {_cut(value.get('config'))!r}: {ASIDE}"
            )
    if named is None:
        return None
    if not isinstance(named, str) or named not in ACTIVATIONS:
        raise ConfigRefused(
            f"{place}: activation is {_cut(named)!r}, which is none of Keras' own; {REMEDY}: "
            f"{', '.join(sorted(ACTIVATIONS))}"
        )
    return {"softmax_v2": "softmax"}.get(named, named)


def dtype(value: object, kind: str, place: str) -> str:
    """float32 for whatever floats a layer was trained in, and for images; integers as they are."""
    named: object = value
    if isinstance(value, dict):
        config = value.get("config")
        if value.get("class_name") not in {"DTypePolicy", "Policy"} or not isinstance(config, dict):
            raise ConfigRefused(f"{place}: dtype is a {_cut(value.get('class_name'))}; save the model as float32")
        named = config.get("name")
    if named is None or named in FLOATS or (kind == "InputLayer" and named in INTEGERS):
        return "float32"
    if named in INTEGERS:
        return str(named)
    raise ConfigRefused(f"{place}: dtype is {_cut(named)!r}; save the model as float32")


def shape(value: object, place: str, keras: int) -> Any:
    """A shape, or a dictionary of shapes, for any number of images."""
    checked = plain(value, place, keras)
    if isinstance(checked, dict):
        return {key: shape(it, place, keras) for key, it in checked.items()}
    is_shape = isinstance(checked, list | tuple) and len(checked) > 1 and isinstance(checked[0], int)
    return [None, *checked[1:]] if is_shape else checked


def plain(value: object, place: str, keras: int, nesting: int = 0) -> Any:
    """Numbers, texts, and lists and dictionaries of them, with the few kinds of values that Keras marks."""
    if nesting > MAX_NESTING:
        raise ConfigRefused(f"{place} has lists in each other, more than {MAX_NESTING} deep")
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise ConfigRefused(f"{place} has the number {_cut(value)}; allowed are 32 bits")
        return value
    if isinstance(value, list):
        return [plain(it, place, keras, nesting + 1) for it in value]
    if not isinstance(value, dict) or "_TYPE" in value:  # Keras 2 would decode the text behind a _TYPE
        raise ConfigRefused(f"{place} has a composite constant, which a model file must not have")
    if "class_name" not in value:
        return {str(key): plain(it, place, keras, nesting + 1) for key, it in value.items()}
    return _marked(value, place, keras, nesting + 1)


def _marked(value: Config, place: str, keras: int, nesting: int) -> Any:
    """A value that Keras marks by a class of its own."""
    kind = value["class_name"]
    if kind in {"__tuple__", "TensorShape"}:
        items = plain(value.get("items") or [], place, keras, nesting)
        return tuple(items) if kind == "__tuple__" else items
    if kind == "__ellipsis__":
        return Ellipsis if keras == 2 else {"class_name": kind, "config": {}}
    config = value.get("config")
    is_known = keras == 3 and kind in {"__keras_tensor__", "__tensor__", "__numpy__", "__slice__"}
    if not is_known or not isinstance(config, dict) or config.get("dtype", "float32") not in FLOATS | INTEGERS:
        raise ConfigRefused(f"{place} has a {_cut(kind)} for a value, which a model file must not have")
    return {"class_name": kind, "config": plain(config, place, keras, nesting)}


def _cut(value: object) -> str:
    """What a file says, no longer than a message bears."""
    return str(value)[:100]
