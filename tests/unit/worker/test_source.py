"""The --model flag: every valid one is parsed, every invalid one is refused with what is allowed."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import numpy as np
import pytest

from convlens.jobs.runtime.command_line import read_settings
from convlens.worker.engine.plan import PREDICTED, Activation, GradCAM, Plan, Saliency
from convlens.worker.models import loaders, null, source
from convlens.worker.models.model_protocol import ModelUnavailable
from convlens.worker.models.source import Source, parse
from convlens.worker.settings import WorkerSettings

VALID = {
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
    "m=dogs.H5": Source("m", "file", "dogs.H5"),
    "m=/m/dogs.hdf5,preprocess=tf": Source("m", "file", "/m/dogs.hdf5", preprocess="tf"),
    "m=/models/saved": Source("m", "file", "/models/saved"),
    "m=model.pb": Source("m", "file", "model.pb"),
    'm="/m/a,b=c.keras",preprocess=unit': Source("m", "file", "/m/a,b=c.keras", preprocess="unit"),
    "m=/m/a,b=c.keras,preprocess=unit": Source("m", "file", "/m/a,b=c.keras", preprocess="unit"),
    'm=/m/a.keras,labels="/m/a,b.txt"': Source("m", "file", "/m/a.keras", labels=Path("/m/a,b.txt")),
    "m=~/a.keras,labels=~/l.txt": Source("m", "file", f"{Path.home()}/a.keras", labels=Path.home() / "l.txt"),
    "m=a.keras,mean=123.68:116.779:103.939": Source(
        "m", "file", "a.keras", mean=(123.68, 116.779, 103.939), std=(1.0,)
    ),
    "m=a.keras,mean=120,110,100,std=58,57,57.5,size=64": Source(
        "m", "file", "a.keras", mean=(120.0, 110.0, 100.0), std=(58.0, 57.0, 57.5), size=(64, 64)
    ),
    "m=a.keras,std=255": Source("m", "file", "a.keras", mean=(0.0,), std=(255.0,)),
    "m=a.keras,mean=0.5,std=0.25": Source("m", "file", "a.keras", mean=(127.5,), std=(63.75,)),
    "m=a.keras,mean=127.5,std=127.5": Source("m", "file", "a.keras", mean=(127.5,), std=(127.5,)),
    "m=a.keras,size=224x112,output=dogs": Source("m", "file", "a.keras", size=(224, 112), output="dogs"),
}
INVALID = {
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
    "a=model": "a .keras, .h5 or .hdf5 file, a SavedModel folder",
    "a=https://x.org/m.keras": "is a URL; download the file and give its path",
    f"a={'x' * 5000}": "a SavedModel folder",
    "a=null,": "allowed: preprocess, mean, std, size, output, labels, precision, device_ms",
    "a=null,speed=3": "no option 'speed=3'; allowed: preprocess, mean, std, size, output, labels, precision, device_ms",
    "a=m.keras,speed=3": "no option 'speed=3'; allowed: preprocess",
    "a=null,labels=": "no option 'labels='",
    "a=null,preprocess=pytorch": "no preprocess 'pytorch'; allowed: caffe, tf, torch, unit, none",
    "a=null,preprocess=unit,preprocess=tf": "preprocess is given twice",
    'a="m.keras,preprocess=unit': "a double quote is not closed",
    "a=m.keras,preprocess=unit,mean=1:2:3": "preprocess and mean or std exclude each other",
    "a=m.keras,mean=1:2": "mean is '1:2'; R:G:B is needed, such as 123.68:116.779:103.939, or one number",
    "a=m.keras,mean=red": "mean is 'red'",
    "a=m.keras,mean=nan": "mean is 'nan'",
    "a=m.keras,std=inf": "std is 'inf'",
    "a=m.keras,mean=3,std=0": "std is '0'; numbers above 0 are needed",
    "a=m.keras,mean=3,std=1:-2:1": "std is '1:-2:1'; numbers above 0 are needed",
    "a=m.keras,mean=0,std=1": "may be of pixels in 0…1 or in 0…255; say preprocess=unit or preprocess=none",
    "a=m.keras,mean=0:0:0": "say preprocess=unit or preprocess=none",
    "a=m.keras,mean=123:116:103,std=0.2": "mean is of pixels in 0…255 and std of pixels in 0…1; give both in 0…255",
    "a=m.keras,mean=0.5,std=58": "mean is of pixels in 0…1 and std of pixels in 0…255; give both in 0…255",
    "a=m.keras,size=0": "size is '0'; HEIGHTxWIDTH is needed, such as 224x224, each 1 to 4096",
    "a=m.keras,size=5000x10": "size is '5000x10'",
    "a=m.keras,size=1x2x3": "size is '1x2x3'",
    "a=m.keras,size=-1": "size is '-1'",
    "a=imagenet,size=64": "size is an option of model files alone",
    "a=shapes,output=x": "output is an option of model files alone",
    "a=random:1,device_ms=5+1": "an option of the source null alone",
    "a=null,device_ms=5": "A\\+B is needed",
    "a=null,device_ms=a+b": "A\\+B is needed",
    "a=null,device_ms=-1+0": "A\\+B is needed",
    "a=null,device_ms=nan+0": "A\\+B is needed",
    "a=null,device_ms=0+inf": "A\\+B is needed",
}


@pytest.mark.parametrize(("flag", "meaning"), VALID.items())
def test_every_valid_flag_is_parsed(flag, meaning):
    assert parse(flag) == meaning


def test_there_is_a_valid_flag_for_every_kind_of_source_and_every_option():
    assert {meaning.kind for meaning in VALID.values()} == set(loaders.LOADERS)
    assert all(any(f",{option}=" in flag for flag in VALID) for option in source._OPTIONS)
    assert all(parse(f"a=null,preprocess={scheme}").preprocess == scheme for scheme in source.PREPROCESS)


@pytest.mark.parametrize(("flag", "message"), INVALID.items())
def test_every_invalid_flag_is_refused_with_what_is_allowed(flag, message):
    with pytest.raises(ModelUnavailable, match=message):
        parse(flag)


def test_an_existing_path_with_commas_needs_no_quotes(tmp_path):
    folder = tmp_path / "a,b=c"
    folder.mkdir()
    assert parse(f"m={folder}") == Source("m", "file", str(folder))
    assert parse(f"m={folder},size=64") == Source("m", "file", str(folder), size=(64, 64))
    (tmp_path / "m.keras").touch()
    (tmp_path / "m.keras,preprocess=unit").touch()
    assert parse(f"m={tmp_path}/m.keras,preprocess=unit").argument == f"{tmp_path}/m.keras,preprocess=unit"
    assert parse(f'm="{tmp_path}/m.keras",preprocess=unit').preprocess == "unit"


def test_quotes_work_in_a_flag_and_in_a_variable(monkeypatch):
    quoted = 'm="/data/a b,c=d.keras",preprocess=unit'
    expected = Source("m", "file", "/data/a b,c=d.keras", preprocess="unit")
    flags = read_settings(WorkerSettings, "convlens worker", ["--model", quoted, "--model", "s=shapes"])
    assert [parse(flag) for flag in flags.model] == [expected, Source("s", "shapes")]
    for variable in (shlex.join([quoted, "s=shapes"]), f"{quoted} s=shapes"):
        monkeypatch.setenv("CONVLENS_MODEL", variable)
        models = read_settings(WorkerSettings, "convlens worker", []).model
        assert [parse(flag) for flag in models] == [expected, Source("s", "shapes")]


def test_means_of_pixels_in_0_to_1_are_scaled_with_a_warning(caplog):
    parsed = parse("m=a.keras,mean=0.485:0.456:0.406,std=0.229:0.224:0.225")
    np.testing.assert_allclose(parsed.mean, (123.675, 116.28, 103.53))
    np.testing.assert_allclose(parsed.std, (58.395, 57.12, 57.375))
    assert "model=m: mean and std are taken as of pixels in 0…1; in 0…255 they are mean=123.675:116.28:103.53" in (
        caplog.text
    )


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
        loaders.load(parse(f"n=null,labels={path}"))


def test_labels_are_read_a_line_each(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("".join(f"Größe {i}\n" for i in range(1000)), encoding="utf-8")
    assert list(loaders.load(parse(f"n=null,labels={path}")).card.labels) == [f"Größe {i}" for i in range(1000)]


def test_null_has_the_layers_and_the_shapes_of_the_stock_vgg16():
    import keras

    stock = keras.applications.VGG16(weights=None).layers[1:]
    assert {layer.name: (type(layer).__name__, tuple(layer.output.shape[1:])) for layer in stock} == null.LAYERS
    assert [layer.name for layer in stock] == list(null.LAYERS)


def test_null_gives_zeros_of_the_requested_shapes_after_its_device_time():
    model = loaders.load(parse("n=null,device_ms=30+10"))
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
