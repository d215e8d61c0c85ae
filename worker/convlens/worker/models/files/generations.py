"""Keras 3 and Keras 2 (tf_keras) side by side: build a model by the generation that wrote its file."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Final, Self

import keras

from convlens.worker.models.files.config_values import Config


class NeverBuilt(ValueError):
    """A model whose layers have no weights yet, since it was never called."""


def build(config: Config, generation: int) -> Any:
    """Build the model of a configuration that config_check returned; its weights are zeros.

    Inside a TensorFlow graph this allocates no weights. Raises NeverBuilt for a Sequential without an input; Keras may
    raise anything for an inconsistent configuration.
    """
    config = copy.deepcopy(config)  # Keras modifies it
    if generation == 3:
        from keras.src.saving.serialization_lib import ObjectSharingScope

        with ObjectSharingScope():
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    else:
        import tf_keras

        kind = tf_keras.Sequential if config["class_name"] == "Sequential" else tf_keras.Model
        _limit_passes(config)
        model = kind.from_config(config["config"])
    if not model.built or not getattr(model, "inputs", None):
        raise NeverBuilt("the model was never built: give it an Input as its first layer, and save it again")
    return model


def iter_layers(model: Any) -> Iterator[Any]:
    """Yield every layer of a model, nested models included, each once."""
    return (layer for layer in model._flatten_layers() if layer is not model)  # noqa: SLF001 - both generations have it


def finalize(model: Any) -> None:
    """Let layers update what they derive from their weights, such as Normalization its mean."""
    for layer in iter_layers(model):
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def build_stock_vgg16(classes: int) -> Any:
    """Return the VGG16 of keras.applications, with random weights."""
    return keras.applications.VGG16(weights=None, classes=classes)


EXTRA_PASSES: Final = 2


class _Passes(list[Any]):
    """The layers of a functional model, with a limit on how often tf_keras may iterate over them.

    It iterates until every call is resolved, which a circular model would never be; each iteration resolves at least
    one call of a consistent model.
    """

    def __init__(self, entries: list[Any]) -> None:
        super().__init__(entries)
        self._left = EXTRA_PASSES + sum(len(entry.get("inbound_nodes", ())) for entry in entries)

    def __iter__(self) -> Iterator[Any]:
        self._left -= 1
        if self._left < 0:
            raise ValueError("its layers are connected in a loop, or to calls that are not there")
        return super().__iter__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)(copy.deepcopy(list(self), memo))


def _limit_passes(config: Config) -> None:
    """Replace the layers of each functional model by _Passes."""
    entries = config["config"]["layers"]
    for entry in entries:
        if isinstance(entry["config"].get("layers"), list):
            _limit_passes(entry)
    if config["class_name"] != "Sequential":
        config["config"]["layers"] = _Passes(entries)
