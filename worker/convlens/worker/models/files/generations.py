"""Keras 3 and Keras 2 (tf_keras), side by side: models from checked configurations, by whichever wrote the file."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Final, Self

import keras

from convlens.worker.models.files.config_values import Config


class NeverBuilt(ValueError):
    """A model whose layers have no weights yet, since it never saw an input."""


def build(config: Config, generation: int) -> Any:
    """The model of a configuration that config_check gave, with zeros for weights.

    Within a graph of TensorFlow no memory is taken for them. NeverBuilt for a Sequential without an input; Keras raises
    whatever else a configuration that makes no sense makes it trip over.
    """
    config = copy.deepcopy(config)  # Keras takes it apart
    if generation == 3:
        from keras.src.saving.serialization_lib import ObjectSharingScope

        with ObjectSharingScope():
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    else:
        import tf_keras

        kind = tf_keras.Sequential if config["class_name"] == "Sequential" else tf_keras.Model
        _bound(config)
        model = kind.from_config(config["config"])
    if not model.built or not getattr(model, "inputs", None):
        raise NeverBuilt("the model was never built: give it an Input as its first layer, and save it again")
    return model


def layers(model: Any) -> Iterator[Any]:
    """Every layer of a model, nested models opened, each once."""
    return (it for it in model._flatten_layers() if it is not model)  # noqa: SLF001 - the one road of both generations


def finalize(model: Any) -> None:
    """Lets layers derive what they keep from their weights, Normalization its mean, once the weights are set."""
    for layer in layers(model):
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def stock_vgg16(classes: int) -> Any:
    """The VGG16 of keras.applications, with random weights."""
    return keras.applications.VGG16(weights=None, classes=classes)


EXTRA_PASSES: Final = 2


class _Passes(list[Any]):
    """The layers of a functional model, which tf_keras goes through until every call is resolved.

    One that refers to itself would keep it there for ever; each pass resolves at least one call of a model that makes
    sense.
    """

    def __init__(self, entries: list[Any]) -> None:
        super().__init__(entries)
        self._left = EXTRA_PASSES + sum(len(it.get("inbound_nodes", ())) for it in entries)

    def __iter__(self) -> Iterator[Any]:
        self._left -= 1
        if self._left < 0:
            raise ValueError("its layers are connected in a loop, or to calls that are not there")
        return super().__iter__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)(copy.deepcopy(list(self), memo))


def _bound(config: Config) -> None:
    """Puts _Passes in the place of the layers of each functional model."""
    entries = config["config"]["layers"]
    for entry in entries:
        if isinstance(entry["config"].get("layers"), list):
            _bound(entry)
    if config["class_name"] != "Sequential":
        config["config"]["layers"] = _Passes(entries)
