"""A file that would need absurd memory or time is refused before it is loaded, in a sentence that names the layer."""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
import zipfile

import h5py
import keras
import numpy as np
import pytest
from model_files import FORMATS, change, entry, genuine, replace, save

from convlens.worker.models.file import read_model
from convlens.worker.models.files import memory_estimate
from convlens.worker.models.model_protocol import ModelUnavailable

SECONDS = 20
MIB = 1024
"""In KiB, the unit of ru_maxrss."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The folder in which `genuine()` keeps the files that it has written."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _eight_gibibytes(monkeypatch):
    """Let the machine seem to have 8 GiB of memory left."""
    monkeypatch.setattr(memory_estimate, "measure_available", lambda: 8 << 30)


def assert_refused(path, message):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    with pytest.raises(ModelUnavailable, match=message) as raised:
        read_model(path)
    assert time.monotonic() - began < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 500 * MIB
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 700


def option(name, **options):
    return lambda config: entry(config, name)["config"].update(options)


def swap(name, kind, **options):
    return lambda config: replace(config, name, kind, options)


def remove_build_configs(config):
    """Remove the shapes that Keras 3 stores for each layer, which would contradict a change."""
    config.pop("build_config", None)
    for layer in config["config"].get("layers", ()):
        remove_build_configs(layer)


def nest(config, times):
    """Nest the body in models, one inside the other."""
    body = entry(config, "body")
    inner = dict(body)
    for i in range(times):
        inner = {**body, "config": {"name": f"body{i}", "layers": [inner]}}
    body.update(config=inner["config"])


def double_calls(config, times):
    """Let each of the nested models be called twice: 2^times calls in a configuration of the same size."""
    nest(config, times)
    model = next(layer for layer in config["config"]["layers"] if "layers" in layer["config"])
    while "layers" in model["config"]:
        model["inbound_nodes"] = [{"args": [], "kwargs": {}}, {"args": [], "kwargs": {}}]
        model = model["config"]["layers"][-1]


ABSURD = {
    "a wide Dense": (
        option("d", units=1_000_000_000),
        r"needs about .*iB of memory \(layer 'd' has .*\), and this .*8.0 GiB",
    ),
    "many filters": (option("c2", filters=100_000_000), "layer 'body/c2' gives|layer 'c2' has"),
    "a large kernel": (option("c1", kernel_size=[30_000, 30_000], padding="same"), "layer 'c1' has .* of weights"),
    "upsampling": (swap("pool", "UpSampling2D", size=[1_000_000, 1_000_000]), "of memory"),
    "padding": (swap("pool", "ZeroPadding2D", padding=[100_000_000, 100_000_000]), "of memory|none of the numbers|pad"),
    "resizing": (swap("pool", "Resizing", height=1_000_000, width=1_000_000), "of memory"),
    "a flood of numbers": (swap("flat", "Reshape", target_shape=[1 << 30, 1 << 20]), "cannot be loaded"),
    "negative filters": (option("c1", filters=-3), "cannot be loaded: .*filters"),
    "no units": (option("d", units=0), "cannot be loaded: "),
    "no stride": (option("c1", strides=[0, 0]), "cannot be loaded: .*strides"),
    "no kernel": (option("c1", kernel_size=[0, 0]), "cannot be loaded: .*kernel_size"),
    "a number without end": (option("d", units=10**400), "layer 'd' .*allowed are 32 bits"),
    "a text for a number": (option("d", units="many"), "cannot be loaded: "),
    "an unknown option": (option("d", colour="red"), "cannot be loaded: .*colour"),
    "a missing option": (lambda config: entry(config, "d")["config"].pop("units"), "cannot be loaded: .*units"),
    "two to the eleventh calls": (lambda config: double_calls(config, 10), "calls .* layers; allowed are 3,000"),
    "models in models": (lambda config: nest(config, 40), "more than 3,000 layers, or 12 models in each other"),
    "a call of what is not there": (
        lambda config: entry(config, "flat").update(
            inbound_nodes=json.loads(json.dumps(entry(config, "flat")["inbound_nodes"]).replace('"body"', '"gone"'))
        ),
        "cannot be loaded: ",
    ),
    "a layer that is called by itself": (
        lambda config: entry(config, "flat").update(
            inbound_nodes=json.loads(json.dumps(entry(config, "flat")["inbound_nodes"]).replace('"body"', '"flat"'))
        ),
        "cannot be loaded: ",
    ),
    "lists in lists": (
        lambda config: entry(config, "d")["config"].update(units=json.loads("[" * 200 + "]" * 200)),
        "lists in each other, more than 32 deep",
    ),
    "twenty thousand layers": (
        lambda config: entry(config, "body")["config"]["layers"].extend([entry(config, "pool")] * 20_000),
        "more than 3,000 layers",
    ),
}


@pytest.mark.parametrize("name", ["keras3.keras", "keras2.h5"])
@pytest.mark.parametrize(("edit", "message"), ABSURD.values(), ids=ABSURD)
def test_an_absurd_configuration_is_refused_in_one_sentence(name, edit, message, cache, tmp_path):
    def edit_everywhere(config):
        remove_build_configs(config)
        edit(config)

    assert_refused(change(genuine(name, cache, tmp_path), edit_everywhere), message)


def test_attention_over_every_pixel_is_refused_by_its_inner_tensors(tmp_path):
    layers = keras.layers
    inputs = keras.Input((224, 224, 3))
    x = layers.Reshape((224 * 224, 3))(inputs)
    with_attention = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Attention(name="look")([x, x]))))
    save(with_attention, tmp_path / "m.keras")
    assert_refused(
        tmp_path / "m.keras", r"needs about 75.. GiB of memory \(layer 'look' gives .*50176×50176 numbers an image"
    )


@pytest.mark.parametrize("name", FORMATS)
def test_weights_that_are_fewer_than_the_architecture_has_are_refused(name, cache, tmp_path):
    path = change(genuine(name, cache, tmp_path), option("d", units=9_000))
    assert_refused(path, "its architecture has .* parameters, and the file only .* numbers")


@pytest.mark.parametrize("name", FORMATS)
def test_weights_of_another_shape_are_refused_though_there_are_enough(name, cache, tmp_path):
    assert_refused(change(genuine(name, cache, tmp_path), option("c1", filters=3)), "cannot be loaded: ")


def rewrite_members(path, **members):
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if name not in members}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (kept | members).items():
            archive.writestr(name, data)
    return path


def test_zip_bombs_are_refused(cache, tmp_path):
    path = genuine("keras3.keras", cache, tmp_path)
    bomb = b" " * (200 << 20)
    rewrite_members(path, **{"config.json": bomb})
    assert_refused(path, "its config.json has 209,715,200 bytes; allowed are 16,777,216")
    path = rewrite_members(genuine("keras3.keras", cache, tmp_path), **{"metadata.json": bomb})
    assert_refused(path, "its metadata.json has 209,715,200 bytes")
    path = rewrite_members(genuine("keras3.keras", cache, tmp_path), **{"model.weights.h5": bomb})
    assert_refused(path, "its weights have 209,715,200 bytes for .* parameters")


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, '{"a":' * 100_000, "1" * 5000, "{", "[]", "7", '"x"'])
def test_a_configuration_that_keras_cannot_have_written_is_refused(text, cache, tmp_path):
    path = rewrite_members(genuine("keras3.keras", cache, tmp_path), **{"config.json": text})
    assert_refused(path, "no JSON that Keras can have written|no layer's configuration")


def test_weights_that_are_declared_and_not_stored_are_refused(cache, tmp_path):
    path = genuine("keras3.keras", cache, tmp_path)
    inside = tmp_path / "inside.h5"
    with zipfile.ZipFile(path) as archive:
        inside.write_bytes(archive.read("model.weights.h5"))
    with h5py.File(inside, "r+") as file:
        del file["layers/dense/vars/0"]
        file.create_dataset("layers/dense/vars/0", (1 << 30, 1 << 10), "f4", chunks=(1 << 10, 1 << 10))
    assert_refused(rewrite_members(path, **{"model.weights.h5": inside.read_bytes()}), "numbers, the largest weight")
    path = genuine("keras2.h5", cache, tmp_path)
    with h5py.File(path, "r+") as file:
        name = "model_weights/d/d/kernel:0"
        shape = file[name].shape
        del file[name]
        file.create_dataset(name, shape, "f4", chunks=shape)
    assert_refused(path, "its architecture has .* parameters, and the file only .* numbers")


@pytest.mark.parametrize("how", ["missing", "one more", "another name"])
def test_an_archive_with_missing_or_unknown_weights_is_refused(how, cache, tmp_path):
    path = genuine("keras2.keras", cache, tmp_path)
    inside = tmp_path / "inside.h5"
    with zipfile.ZipFile(path) as archive:
        inside.write_bytes(archive.read("model.weights.h5"))
    with h5py.File(inside, "r+") as file:
        if how == "missing":
            del file["layers/dense/vars"]
        elif how == "one more":
            file["layers/dense/vars/2"] = np.ones(3, np.float32)
        else:
            file.move("layers/dense", "layers/denser")
    assert_refused(rewrite_members(path, **{"model.weights.h5": inside.read_bytes()}), "cannot be loaded: ")


def test_a_model_that_was_never_built_is_refused(tmp_path):
    for framework in ("keras3.keras", "keras2.keras"):
        import tf_keras

        kind = keras if framework.startswith("keras3") else tf_keras
        kind.Sequential([kind.layers.Conv2D(4, 3), kind.layers.Flatten(), kind.layers.Dense(2)]).save(
            tmp_path / framework
        )
        assert_refused(
            tmp_path / framework, "the model was never built: give it an Input as its first layer, and save it again"
        )


def test_the_memory_left_is_bounded_by_the_container(tmp_path, monkeypatch):
    monkeypatch.undo()
    assert 0 < memory_estimate.measure_available() < 1 << 50
    folder = tmp_path / "memory"
    folder.mkdir()
    for name, text in (
        ("memory.limit_in_bytes", "1000"),
        ("memory.usage_in_bytes", "700"),
        ("memory.stat", "cache 9\ntotal_inactive_file 50\n"),
    ):
        (folder / name).write_text(text)
    assert memory_estimate._remaining(folder, *memory_estimate.V1) == [350]
    (folder / "memory.max").write_text("max\n")
    (folder / "memory.current").write_text("5\n")
    assert memory_estimate._remaining(folder, *memory_estimate.V2) == []
    shutil.rmtree(folder)
    assert memory_estimate._remaining(folder, *memory_estimate.V1) == []


def test_two_objects_of_one_id_and_two_layers_of_one_name_are_refused(cache, tmp_path):
    def share(config):
        for layer in config["config"]["layers"][1:3]:
            layer["shared_object_id"] = 7

    with pytest.raises(ModelUnavailable, match="is said to be the same object as another one"):
        read_model(change(genuine("keras3.keras", cache, tmp_path), share))

    def name(config):
        config["config"]["layers"].append(dict(config["config"]["layers"][-1]))

    with pytest.raises(ModelUnavailable, match="two layers that are called"):
        read_model(change(genuine("keras2.h5", cache, tmp_path), name))


def test_layers_in_reverse_order_are_refused_at_once(tmp_path):
    x = inputs = keras.Input((8, 8, 3))
    for _ in range(200):
        x = keras.layers.ReLU()(x)
    keras.Model(inputs, keras.layers.Flatten()(x)).save(tmp_path / "m.keras")
    path = change(tmp_path / "m.keras", lambda config: config["config"]["layers"].reverse())
    with pytest.raises(ModelUnavailable, match="in no order in which they can be computed"):
        read_model(path)


@pytest.mark.parametrize("name", ["config.json", "metadata.json", "model.weights.h5"])
def test_members_with_an_unbounded_compression_are_refused(name, cache, tmp_path):
    path = genuine("keras3.keras", cache, tmp_path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data, zipfile.ZIP_BZIP2 if member == name else zipfile.ZIP_STORED)
    with pytest.raises(ModelUnavailable, match="packed in a way that Keras never writes"):
        read_model(path)


def test_a_configuration_of_too_many_values_is_refused_before_it_is_parsed(cache, tmp_path):
    path = genuine("keras3.keras", cache, tmp_path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = b"[" + b"{}," * 2_000_000 + b"1]"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    with pytest.raises(ModelUnavailable, match="2,000,001 lists and objects; allowed are 500,000"):
        read_model(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compression": "gzip"}, "are packed, as Keras never does"),
        ({"chunks": (3, 3, 3, 1 << 20), "maxshape": (None,) * 4}, "is stored in pieces"),
    ],
)
def test_weights_stored_as_keras_never_does_are_refused(options, message, cache, tmp_path):
    path = genuine("keras2.h5", cache, tmp_path)
    with h5py.File(path, "r+") as file:
        group = file["model_weights/body/c1"]
        name = next(name for name in group if name.startswith("kernel"))
        values = group[name][...]
        del group[name]
        group.create_dataset(name, values.shape, values.dtype, **options)
    with pytest.raises(ModelUnavailable, match=message):
        read_model(path)


def test_a_special_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "m.keras")
    with pytest.raises(ModelUnavailable, match="neither a file nor a folder"):
        read_model(tmp_path / "m.keras")
