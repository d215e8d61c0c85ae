"""Targets by label: any spelling that is not ambiguous; others are refused with suggestions."""

from __future__ import annotations

import pytest
from specs import CARD, saliency, target

from convlens.v1 import model_pb2, spec_pb2
from convlens.v1.request.plan import resolve
from convlens.v1.status_error import SpecError

IMAGENET = [
    "tench, Tinca tinca", "golden_retriever", "Labrador_retriever", "crane", "maillot", "Maillot",
    "flat-coated retriever", "maillot, tank suit", "crane", "Egyptian cat",
]  # fmt: skip


def plan_of_labels(*targets, labels=IMAGENET, images=1, **fields):
    card = model_pb2.Model()
    card.CopyFrom(CARD)
    card.labels[:] = labels
    spec = spec_pb2.JobSpec(visualizations=[saliency()], targets=targets, **fields)
    spec.images.extend(spec_pb2.Image() for _ in range(images))
    return resolve(spec, card)


def several(*labels):
    return target(labels=spec_pb2.UnitLabels(values=labels))


@pytest.mark.parametrize(
    ("label", "unit"),
    [
        ("golden_retriever", 1),
        ("golden retriever", 1),
        ("Golden-Retriever", 1),
        (" GOLDEN   retriever ", 1),
        ("flat coated_retriever", 6),
        ("maillot", 4),
        ("Maillot", 5),
        ("tench", 0),
        ("tinca tinca", 0),
        ("tench, Tinca tinca", 0),
        ("Tank Suit", 7),
        ("egyptian cat", 9),
    ],
)
def test_a_label_names_its_unit_in_any_spelling_that_is_not_ambiguous(label, unit):
    plan = plan_of_labels(target(label=label))
    assert (plan.targets, plan.target_axis) == (((unit,),), False)


def test_labels_are_targets_one_or_several_an_image():
    plan = plan_of_labels(target(label="tench"), target(index=4), images=2)
    assert (plan.targets, plan.target_axis) == (((0,), (4,)), False)
    plan = plan_of_labels(several("maillot", "tench"), images=2)
    assert (plan.targets, plan.target_axis) == (((4, 0),) * 2, True)


@pytest.mark.parametrize(
    ("targets", "fields", "field", "message"),
    [
        ([target(label="crane")], {}, "[0].label", r"'crane', which 2 classes .* an index: crane: 3, crane: 8"),
        ([target(label="MAILLOT")], {}, "[0].label", "an index: maillot: 4, Maillot: 5"),
        ([target(label="retriever")], {}, "[0].label", "no label 'retriever' in model 'net'; the nearest: golden_ret"),
        ([target(label="retriever")], {}, "[0].label", ": 1, Labrador_retriever: 2, flat-coated retriever: 6$"),
        ([target(label="goldn retreiver")], {}, "[0].label", "the nearest: golden_retriever: 1"),
        ([target(label="tabby cat")], {}, "[0].label", "the nearest: Egyptian cat: 9"),
        ([target(label="xylophone")], {}, "[0].label", "no label 'xylophone' in model 'net'; GetModel lists those"),
        ([target(label="")], {}, "[0].label", "no label ''"),
        ([target(label="7")], {}, "[0].label", "a class index is to be given as a number"),
        ([target(label="x" * 300)], {}, "[0].label", "no label 'x{200}…'"),
        ([target(index=1), target(label="dog")], {"images": 2}, "[1].label", "no label 'dog'"),
        ([several("tench", "dog")], {}, "[0].labels.values[1]", "no label 'dog'"),
        ([several("tench", "Tench")], {}, "[0].labels", "names a unit twice"),
        ([several()], {}, "[0].labels", "is empty; name at least one unit"),
        ([target(label="tench")], {"labels": []}, "[0].label", "model 'net' has no labels; give a class index"),
        ([target(label="tench")], {"scored_layer": "c2"}, "[0].label", "the units of the scored layer 'c2' have none"),
        ([several("tench"), several("crane", "maillot")], {"images": 2}, "[1].labels.values[0]", "which 2 classes"),
    ],
)  # fmt: skip
def test_a_label_of_no_or_several_classes_is_refused_with_suggestions(targets, fields, field, message):
    with pytest.raises(SpecError, match=message) as caught:
        plan_of_labels(*targets, **fields)
    assert caught.value.field == f"spec.targets{field}"


def test_one_sigmoid_unit_is_two_classes_with_a_label_each():
    card = model_pb2.Model(
        name="net", input_shape=[8, 8, 3], score_layer="p", labels=["cat", "dog"], classes=2, methods=["vanilla"],
        layers=[model_pb2.Layer(name="p", kind="Dense", shape=[1])],
    )  # fmt: skip
    for requested, unit in ((target(index=1), 1), (target(label="cat"), 0), (target(label="Dog"), 1)):
        spec = spec_pb2.JobSpec(images=[spec_pb2.Image()], visualizations=[saliency()], targets=[requested])
        assert resolve(spec, card).targets == ((unit,),)
