"""What the words of --model mean: every right one is understood, every wrong one is refused with what is allowed."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from convlens.worker.engine.plan import PREDICTED, Activation, GradCAM, Plan, Saliency
from convlens.worker.models import catalogue, null, source
from convlens.worker.models.served import ModelUnavailable
from convlens.worker.models.source import Source, parse

WORDS = {
    "shapes=shapes": Source("shapes", "shapes"),
    "imagenet=imagenet": Source("imagenet", "imagenet"),
    "load=random:7": Source("load", "random", "7"),
    "n=null": Source("n", "null"),
    "n=null,device_ms=12.5+1": Source("n", "null", device_ms=(12.5, 1.0)),
    "a.B-c_9=/m/dogs.keras": Source("a.B-c_9", "file", "/m/dogs.keras"),
    "dogs=dogs.h5,preprocess=unit": Source("dogs", "file", "dogs.h5", preprocess="unit"),
    "dogs=a=b.weights.h5,labels=/m/l.txt,preprocess=none": Source(
        "dogs", "file", "a=b.weights.h5", preprocess="none", labels=Path("/m/l.txt")
    ),
    "fast=shapes,precision=bfloat16": Source("fast", "shapes", precision="bfloat16"),
    "x" * 64 + "=null": Source("x" * 64, "null"),
}
WRONG = {
    "": "NAME=SOURCE is needed",
    "shapes": "NAME=SOURCE is needed",
    "shapes=": "NAME=SOURCE is needed",
    "=shapes": "NAME=SOURCE is needed",
    "-a=shapes": "NAME=SOURCE is needed",
    "a b=shapes": "letters, digits",
    "x" * 65 + "=null": "64 characters at most",
    "a=vgg": "allowed: shapes, imagenet, null, random:SEED",
    "a=random": "random:SEED",
    "a=random:x": "random:SEED",
    "a=random:1234567890": "random:SEED",
    "a=null:3": "allowed: shapes",
    "a=model.pb": "a file ending in .keras, .h5 or .weights.h5",
    "a=null,": "allowed: preprocess, labels, precision, device_ms",
    "a=null,speed=3": "no option 'speed=3'; allowed: preprocess, labels, precision, device_ms",
    "a=null,labels=": "no option 'labels='",
    "a=null,preprocess=torch": "no preprocess 'torch'; allowed: caffe, unit, none",
    "a=random:1,device_ms=5+1": "an option of the source null alone",
    "a=null,device_ms=5": "A\\+B is needed",
    "a=null,device_ms=a+b": "A\\+B is needed",
    "a=null,device_ms=-1+0": "A\\+B is needed",
    "a=null,device_ms=nan+0": "A\\+B is needed",
    "a=null,device_ms=0+inf": "A\\+B is needed",
}


@pytest.mark.parametrize(("word", "meaning"), WORDS.items())
def test_every_right_word_is_understood(word, meaning):
    assert parse(word) == meaning


def test_there_is_a_right_word_for_every_kind_of_source_and_every_option():
    assert {it.kind for it in WORDS.values()} == set(catalogue.KINDS)
    assert all(any(f",{option}=" in word for word in WORDS) for option in source._OPTIONS)
    assert all(parse(f"a=null,preprocess={scheme}").preprocess == scheme for scheme in source.PREPROCESS)


@pytest.mark.parametrize(("word", "message"), WRONG.items())
def test_every_wrong_word_is_refused_naming_what_is_allowed(word, message):
    with pytest.raises(ModelUnavailable, match=message):
        parse(word)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat\ndog\n", "has 2 labels, the model 1000 units"),
        ("", "has 0 labels, the model 1000 units"),
        ("caf\xe9\n".encode("latin-1"), "cannot read labels"),
        (None, "cannot read labels .*No such file"),
    ],
)
def test_a_file_of_labels_that_does_not_fit_is_refused(tmp_path, text, message):
    path = tmp_path / "labels.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelUnavailable, match=message):
        catalogue.load(parse(f"n=null,labels={path}"))


def test_labels_are_read_a_line_each(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("".join(f"Größe {i}\n" for i in range(1000)), encoding="utf-8")
    assert list(catalogue.load(parse(f"n=null,labels={path}")).card.labels) == [f"Größe {i}" for i in range(1000)]


def test_null_has_the_layers_and_the_shapes_of_the_stock_vgg16():
    import keras

    stock = keras.applications.VGG16(weights=None).layers[1:]
    assert {it.name: (type(it).__name__, tuple(it.output.shape[1:])) for it in stock} == null.LAYERS
    assert [it.name for it in stock] == list(null.LAYERS)


def test_null_gives_zeros_of_the_shapes_that_are_asked_for_and_takes_its_time():
    model = catalogue.load(parse("n=null,device_ms=30+10"))
    shapes = {
        Saliency(): (2, 3, 224, 224),
        Saliency("guided", reduction="none"): (2, 3, 224, 224, 3),
        GradCAM("block5_conv3"): (2, 3, 14, 14),
        GradCAM("block4_pool", upsampled=True): (2, 3, 224, 224),
        Activation("block1_conv1", (0, 5)): (2, 224, 224, 2),
        Activation("fc1"): (2, 4096),
    }
    began = time.perf_counter()
    outputs = model.run(
        np.zeros((2, 224, 224, 3), np.uint8),
        Plan(tuple(shapes), targets=3, predictions=5),
        np.array([[7, PREDICTED, PREDICTED - 1]] * 2, np.int32),
    )
    assert time.perf_counter() - began >= 0.05
    assert {item: array.shape for item, array in outputs.maps.items()} == shapes
    assert not any(array.any() for array in outputs.maps.values())
    assert outputs.targets.tolist() == [[7, 0, 1]] * 2
    assert outputs.predicted.shape == outputs.predicted_logits.shape == (2, 5)
