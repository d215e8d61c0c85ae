"""Check the values of a configuration's options: numbers, strings, initializers, activations, dtypes, shapes.

Names must be on a list of allowed.py.
"""

from __future__ import annotations

import re
from typing import Any, Final

from convlens.worker.models.files.allowed import (
    ACTIVATIONS,
    CONSTRAINTS,
    FLOATS,
    INITIALIZERS,
    INTEGERS,
    NOT_ALLOWED,
    REGULARIZERS,
)

Config = dict[str, Any]

MAX_NESTING: Final = 32
"""Nesting of lists in an argument."""
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
"""(suffix of the key, allowed names, what they are, their replacement in the checked copy)"""
PART_SUFFIXES: Final = tuple(suffix for suffix, *_ in PARTS)


class ConfigRefused(ValueError):
    """A configuration that names something that is not allowed, or that Keras cannot have written."""


def check_origin(entry: Config, kind: str, place: str, module: re.Pattern[str], remedy: str = NOT_ALLOWED) -> None:
    """Raise ConfigRefused for an object from a module that `module` does not match, or that a program registered."""
    origin = entry.get("module")
    if origin is not None and not (isinstance(origin, str) and module.fullmatch(origin)):
        raise ConfigRefused(f"{place} is {_shorten(origin)}.{_shorten(kind)}: {remedy}")
    registered = entry.get("registered_name")
    if registered not in {None, kind}:
        raise ConfigRefused(f"{place} is {_shorten(registered)!r}, a class that a program registered: {remedy}")


def replace_part(key: str, value: object, place: str) -> str | None:
    """Check the name of an initializer, regularizer or constraint, and return its replacement."""
    names, what, replacement = next(part[1:] for part in PARTS if key.endswith(part[0]))
    named: object = value
    if value is None:
        return None
    if isinstance(value, dict):
        named = value.get("class_name")
        check_origin(value, str(named), f"{place}: {key}", PART_MODULE, REMEDY)
    if not isinstance(named, str) or named.replace("_", "").lower() not in {name.lower() for name in names}:
        raise ConfigRefused(f"{place}: {key} is {_shorten(named)!r}, which is none of Keras' own {what}s; {REMEDY}")
    return replacement


def check_activation(value: object, place: str, keras: int) -> str | None:
    """Check an activation and return its name."""
    named: object = value
    if isinstance(value, dict):
        is_function = value.get("class_name") == "function"
        named = value.get("config") if is_function else value.get("registered_name") or value.get("class_name")
        origin = value.get("module")
        if origin is not None and not (isinstance(origin, str) and FUNCTION_MODULE.fullmatch(origin)):
            raise ConfigRefused(
                f"{place}: activation is {_shorten(origin)}.{_shorten(named)}, which is none of Keras' own; {REMEDY}"
            )
        if is_function and keras == 3:  # Keras 3 writes its own activations by name alone
            raise ConfigRefused(
                f"{place}: activation is a function of your own called {_shorten(value.get('config'))!r}: {NOT_ALLOWED}"
            )
    if named is None:
        return None
    if not isinstance(named, str) or named not in ACTIVATIONS:
        raise ConfigRefused(
            f"{place}: activation is {_shorten(named)!r}, which is none of Keras' own; {REMEDY}: "
            f"{', '.join(sorted(ACTIVATIONS))}"
        )
    return {"softmax_v2": "softmax"}.get(named, named)


def check_dtype(value: object, kind: str, place: str) -> str:
    """Return float32 for any floating-point dtype, and for images; an integer dtype as it is."""
    named: object = value
    if isinstance(value, dict):
        config = value.get("config")
        if value.get("class_name") not in {"DTypePolicy", "Policy"} or not isinstance(config, dict):
            raise ConfigRefused(f"{place}: dtype is a {_shorten(value.get('class_name'))}; save the model as float32")
        named = config.get("name")
    if named is None or named in FLOATS or (kind == "InputLayer" and named in INTEGERS):
        return "float32"
    if named in INTEGERS:
        return str(named)
    raise ConfigRefused(f"{place}: dtype is {_shorten(named)!r}; save the model as float32")


def check_shape(value: object, place: str, keras: int) -> Any:
    """Check a shape, or a dictionary of shapes, and leave its batch axis open."""
    checked = check_plain(value, place, keras)
    if isinstance(checked, dict):
        return {key: check_shape(item, place, keras) for key, item in checked.items()}
    is_shape = isinstance(checked, list | tuple) and len(checked) > 1 and isinstance(checked[0], int)
    return [None, *checked[1:]] if is_shape else checked


def check_plain(value: object, place: str, keras: int, nesting: int = 0) -> Any:
    """Check numbers, strings, lists and dictionaries of them, and the few classes by which Keras marks values."""
    if nesting > MAX_NESTING:
        raise ConfigRefused(f"{place} has lists in each other, more than {MAX_NESTING} deep")
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise ConfigRefused(f"{place} has the number {_shorten(value)}; allowed are 32 bits")
        return value
    if isinstance(value, list):
        return [check_plain(item, place, keras, nesting + 1) for item in value]
    if not isinstance(value, dict) or "_TYPE" in value:  # Keras 2 would decode the value of a _TYPE
        raise ConfigRefused(f"{place} has a composite constant, which a model file must not have")
    if "class_name" not in value:
        return {str(key): check_plain(item, place, keras, nesting + 1) for key, item in value.items()}
    return _check_marked(value, place, keras, nesting + 1)


def _check_marked(value: Config, place: str, keras: int, nesting: int) -> Any:
    """Check a value that Keras marks by a class of its own."""
    kind = value["class_name"]
    if kind in {"__tuple__", "TensorShape"}:
        items = check_plain(value.get("items") or [], place, keras, nesting)
        return tuple(items) if kind == "__tuple__" else items
    if kind == "__ellipsis__":
        return Ellipsis if keras == 2 else {"class_name": kind, "config": {}}
    config = value.get("config")
    is_known = keras == 3 and kind in {"__keras_tensor__", "__tensor__", "__numpy__", "__slice__"}
    if not is_known or not isinstance(config, dict) or config.get("dtype", "float32") not in FLOATS | INTEGERS:
        raise ConfigRefused(f"{place} has a {_shorten(kind)} for a value, which a model file must not have")
    return {"class_name": kind, "config": check_plain(config, place, keras, nesting)}


def _shorten(value: object) -> str:
    """Shorten a string of the file for a message."""
    return str(value)[:100]
