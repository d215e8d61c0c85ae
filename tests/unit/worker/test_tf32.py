"""Precisions of served models: cards state them, and TF32, a setting of the process, never changes under a model."""

from __future__ import annotations

import gc
import logging

import pytest

from convlens.v1 import model_pb2
from convlens.worker.engine.precision import PRECISIONS
from convlens.worker.models import keras_model, tf32
from convlens.worker.models.loaders import load
from convlens.worker.models.model_protocol import ModelUnavailable
from convlens.worker.models.source import PRECISIONS as ON_CARDS
from convlens.worker.models.source import Source, parse


class Model:
    """Claims the setting, which refers to it weakly, as a model does."""


@pytest.fixture
def changes(monkeypatch):
    """The values that TF32 is set to."""
    changes = []
    monkeypatch.setattr(keras_model, "TF32", tf32.ProcessSetting(changes.append))
    return changes


def test_cards_and_the_api_have_the_precisions_of_the_engine():
    assert list(ON_CARDS) == list(PRECISIONS)
    names = {name.removeprefix("PRECISION_").lower() for name, _ in model_pb2.Precision.items()}
    assert names == {*PRECISIONS, "unspecified"}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["null", "shapes"])
def test_a_card_states_the_precision(kind, precision, changes):
    card = load(parse(f"a={kind},precision={precision}")).card
    assert card.precision == ON_CARDS[precision]
    assert changes == ([] if kind == "null" else [precision == "tf32"])


def test_tf32_and_other_precisions_exclude_each_other_in_a_worker(changes):
    first = load(parse("one=shapes,precision=tf32"))
    for precision in ("float32", "bfloat16", "float16"):
        with pytest.raises(
            ModelUnavailable,
            match=f"model 'two': precision={precision} cannot be served beside model 'one' with precision=tf32.*"
            "another worker",
        ):
            load(parse(f"two=shapes,precision={precision}"))
    assert load(parse("three=shapes,precision=tf32")).card.precision == first.card.precision
    assert set(changes) == {True}


def test_the_tf32_setting_is_free_again_after_its_models():
    changes = []
    setting = tf32.ProcessSetting(changes.append)
    one, other = Model(), Model()
    setting.claim(one, Source("one", "shapes"))
    with pytest.raises(ModelUnavailable, match="'other': precision=tf32 cannot be served beside model 'one'"):
        setting.claim(other, Source("other", "shapes", precision="tf32"))
    del one
    gc.collect()
    setting.claim(other, Source("other", "shapes", precision="tf32"))
    assert changes == [False, True]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_unsupported_precision_is_logged(precision, monkeypatch, caplog):
    monkeypatch.setattr(tf32.tf.config, "list_physical_devices", lambda _: [])
    monkeypatch.setattr(tf32, "_cpu_flags", lambda: {"avx512f"})
    with caplog.at_level(logging.WARNING):
        tf32.warn_if_unsupported(Source("m", "shapes", precision=precision))
    assert caplog.messages == (
        [] if precision == "float32" else [f"model=m: this device has no {precision}; float32 would be faster"]
    )


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 5), {"float32", "float16"}), ((8, 0), set(PRECISIONS)), ((9, 0), set(PRECISIONS))],
)
def test_a_gpu_supports_the_precisions_of_its_generation(capability, expected, monkeypatch):
    monkeypatch.setattr(tf32.tf.config, "list_physical_devices", lambda _: ["gpu"])
    monkeypatch.setattr(tf32.tf.config.experimental, "get_device_details", lambda _: {"compute_capability": capability})
    assert {precision for precision in PRECISIONS if tf32.is_supported(precision)} == expected
