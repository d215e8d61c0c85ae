"""A model file cannot run code, read or write files, or name anything that is not on the lists, in any format.

Each hostile file has a payload that would write a sentinel; it must not exist when the file has been refused.
"""

from __future__ import annotations

import builtins
import zipfile

import h5py
import keras
import model_files
import numpy as np
import pytest
import tf_keras
from keras.src.utils import python_utils
from model_files import FORMATS, change, entry, genuine, replace
from tf_keras.src.utils import generic_utils

from convlens.worker.models.file import read_model
from convlens.worker.models.files import weights
from convlens.worker.models.model_protocol import ModelUnavailable

KERAS_2 = tuple(name for name in FORMATS if name.startswith("keras2"))
KERAS_3 = tuple(name for name in FORMATS if name.startswith("keras3"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The folder in which `genuine()` keeps the files that it has written."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def sentinel(tmp_path, monkeypatch):
    """The path of a file that is written where the module `payload` is imported, or `code` called."""
    sentinel = tmp_path / "sentinel"
    monkeypatch.setattr(builtins, "convlens_sentinel", str(sentinel), raising=False)
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "payload.py").write_text(
        "import builtins\nopen(builtins.convlens_sentinel, 'w').close()\n"
        "from keras.layers import Dense\nfrom os import system\nEvil = evil = Dense\n"
    )
    monkeypatch.syspath_prepend(folder)
    return sentinel


def code(x):
    import builtins  # the function is stored without its module

    open(builtins.convlens_sentinel, "w").close()  # noqa: PTH123
    return x


def function_of(name):
    """`code` in the form in which each Keras stores a Python function."""
    if name.startswith("keras3"):
        text, defaults, closure = python_utils.func_dump(code)
        return {"class_name": "__lambda__", "config": {"code": text, "defaults": defaults, "closure": closure}}
    return list(generic_utils.func_dump(code))


def assert_refused(path, message, sentinel):
    with pytest.raises(ModelUnavailable, match=message) as raised:
        read_model(path)
    assert not sentinel.exists()
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1200


def lambda_layer(config, name, function):
    legacy = {"function_type": "lambda", "module": "builtins", "output_shape_type": "raw", "output_shape_module": None}
    replace(config, name, "Lambda", {"function": function, "output_shape": None, "arguments": {}, **legacy})


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("layer", ["flat", "pool"])
def test_a_lambda_is_refused_by_its_name_and_not_run_even_when_nested(name, layer, cache, tmp_path, sentinel):
    path = change(genuine(name, cache, tmp_path), lambda config: lambda_layer(config, layer, function_of(name)))
    assert_refused(path, f"layer '{layer}' is a Lambda: a model file must not run code; replace it by", sentinel)


def test_the_payload_runs_where_keras_loads_the_file_unsafely(cache, tmp_path, sentinel):
    path = change(
        genuine("keras2.h5", cache, tmp_path), lambda config: lambda_layer(config, "pool", function_of("keras2.h5"))
    )
    with pytest.raises(ValueError, match="Shape mismatch"):  # without the pool, after the Lambda has run
        tf_keras.models.load_model(path, compile=False)
    assert sentinel.exists()


def test_a_genuine_saved_model_with_a_lambda_is_refused_and_not_run(tmp_path, sentinel):
    inputs = tf_keras.Input((8, 8, 3))
    x = tf_keras.layers.Lambda(code, name="evil")(inputs)
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(2)(tf_keras.layers.Flatten()(x)))
    model.save(tmp_path / "m", save_format="tf")
    sentinel.unlink()
    assert_refused(tmp_path / "m", "layer 'evil' is a Lambda", sentinel)


WRAPPED = {"class_name": "Lambda", "config": {"name": "evil", "trainable": True}, "module": "keras.layers"}
LAYERS = {
    "a wrapper on the list": (
        "SpectralNormalization",
        {"power_iterations": 1, "layer": WRAPPED},
        "layer 'evil' is a Lambda",
    ),
    "a wrapper": ("TimeDistributed", {"layer": WRAPPED}, "layer 'flat' is a TimeDistributed"),
    "another wrapper": ("Bidirectional", {"layer": WRAPPED}, "layer 'flat' is a Bidirectional: .*keep state"),
    "a reader of files": ("TextVectorization", {"vocabulary": "/etc/passwd"}, "layer 'flat' is a TextVectorization"),
    "a lookup": ("StringLookup", {"vocabulary": "/etc/passwd"}, "'flat' is a StringLookup: layers that look values up"),
    "a loader of models": ("TFSMLayer", {"filepath": "/tmp"}, "layer 'flat' is a TFSMLayer: .* must not load another"),
    "another framework": ("TorchModuleWrapper", {"module": "x"}, "'flat' is a TorchModuleWrapper: .*another framework"),
    "a graph's operation": ("TensorFlowOpLayer", {"node_def": "op: 'WriteFile'"}, "'flat' is a TensorFlowOpLayer"),
    "a recurrent layer": ("LSTM", {"units": 3}, "layer 'flat' is a LSTM: layers that keep state"),
    "a class of a program": ("Custom>Evil", {}, "layer 'flat' is a Custom>Evil: it is none of Keras' own layers"),
    "no layer": ("load_model", {"filepath": "/tmp"}, "layer 'flat' is a load_model: it is none of Keras' own"),
    "an attribute": ("InstanceMethod", {"attr_name": "__reduce__"}, "layer 'flat' is a InstanceMethod"),
    "any layer": ("Layer", {}, "layer 'flat' is a Layer"),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("kind", "options", "message"), LAYERS.values(), ids=LAYERS)
def test_a_layer_that_is_not_on_the_list_is_refused_by_its_name(
    name, kind, options, message, cache, tmp_path, sentinel
):
    path = change(genuine(name, cache, tmp_path), lambda config: replace(config, "flat", kind, options))
    assert_refused(path, message, sentinel)


MODULES = {
    "os": ("os", "system", None),
    "subprocess": ("subprocess", "Popen", None),
    "builtins": ("builtins", "eval", None),
    "a module of the file's": ("payload", "Dense", None),
    "Keras' downloads": ("keras.utils", "get_file", None),
    "Keras' insides": ("keras.src.utils.file_utils", "Dense", None),
    "Keras' loaders": ("keras.src.saving.saving_lib", "load_model", None),
    "a registered class": ("keras.layers", "Dense", "Custom>Evil"),
    "a class of a file": (None, "Dense", "payload>Evil"),
}


@pytest.mark.parametrize("name", ["keras3.keras", "keras2.keras"])
@pytest.mark.parametrize(("module", "kind", "registered"), MODULES.values(), ids=MODULES)
def test_a_module_that_is_not_keras_own_is_refused_and_not_imported(
    name, module, kind, registered, cache, tmp_path, sentinel
):
    def edit(config):
        entry(config, "d").update(module=module, class_name=kind, registered_name=registered)

    assert_refused(change(genuine(name, cache, tmp_path), edit), "layer 'd' is .*none of Keras' own layers", sentinel)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("activation", "__import__", "activation is '__import__'"),
        ("activation", "payload>evil", "activation is 'payload>evil'"),
        ("activation", {"module": "os", "class_name": "function", "config": "system"}, "activation is os.system"),
        ("activation", {"module": "payload", "class_name": "function", "config": "relu"}, "activation is payload.relu"),
        ("activation", WRAPPED, "activation is keras.layers.Lambda"),
        ("activation", {"class_name": "__lambda__", "config": {"code": "x"}}, "activation is '__lambda__'"),
        ("kernel_initializer", {"class_name": "Evil", "config": {}}, "kernel_initializer is 'Evil'"),
        ("kernel_initializer", "evil", "kernel_initializer is 'evil', which is none of Keras' own initializers"),
        (
            "kernel_initializer",
            {"module": "payload", "class_name": "Zeros", "config": {}},
            "kernel_initializer is payload.Zeros",
        ),
        ("kernel_regularizer", {"class_name": "Custom>Evil", "config": {}}, "kernel_regularizer is 'Custom>Evil'"),
        ("bias_constraint", "evil", "bias_constraint is 'evil'"),
        ("dtype", {"module": "payload", "class_name": "Evil", "config": {}}, "dtype is a Evil"),
        ("units", {"class_name": "__lambda__", "config": {"code": "x"}}, "units has a __lambda__"),
        ("units", {"class_name": "__typespec__", "spec_name": "x", "config": []}, "units has a __typespec__"),
        (
            "units",
            {"class_name": "Dense", "config": {}},
            "units has a Dense for a value, which a model file must not have",
        ),
    ],
)
def test_an_option_that_names_something_else_is_refused(name, key, value, message, cache, tmp_path, sentinel):
    path = change(genuine(name, cache, tmp_path), lambda config: entry(config, "d")["config"].update({key: value}))
    assert_refused(path, rf"layer 'd' \(Dense\): {message}", sentinel)


@pytest.mark.parametrize("name", KERAS_2)
@pytest.mark.parametrize(
    "function",
    [
        *("io.write_file", "io.read_file", "print", "py_function", "numpy_function", "raw_ops.WriteFile"),
        *("strings.join", "debugging.assert_equal", "random.uniform", "map_fn", "while_loop", "saved_model.load"),
    ],
)
def test_a_function_of_tensorflow_that_is_no_arithmetic_is_refused(name, function, cache, tmp_path, sentinel):
    options = {"function": function, "filename": str(sentinel)}
    path = change(genuine(name, cache, tmp_path), lambda config: replace(config, "flat", "TFOpLambda", options))
    assert_refused(path, f"layer 'flat' calls tf.{function}, which a model file must not", sentinel)


@pytest.mark.parametrize("name", KERAS_3)
@pytest.mark.parametrize(
    ("module", "kind"),
    [
        ("keras.src.ops.core", "Map"),
        ("keras.src.ops.core", "WhileLoop"),
        ("keras.src.ops.numpy", "Evil"),
        ("keras.src.ops.evil", "Add"),
        ("keras.src.ops.operation", "Operation"),
    ],
)
def test_an_operation_that_is_no_arithmetic_is_refused(name, module, kind, cache, tmp_path, sentinel):
    def edit(config):
        replace(config, "flat", kind, {"function": "x"})
        entry(config, "flat").update(module=module, registered_name=kind)

    assert_refused(change(genuine(name, cache, tmp_path), edit), f"layer 'flat' is .*{kind}", sentinel)


@pytest.mark.parametrize("name", FORMATS)
def test_an_argument_of_a_call_that_names_something_is_refused(name, cache, tmp_path, sentinel):
    evil = {"class_name": "Evil", "config": {}, "module": "payload"}

    def edit(config):
        nodes = entry(config, "flat")["inbound_nodes"]
        if name.startswith("keras3"):
            nodes[0]["kwargs"]["mask"] = evil
        else:
            nodes[0][0][3]["mask"] = evil

    assert_refused(change(genuine(name, cache, tmp_path), edit), "layer 'flat' has a Evil", sentinel)


@pytest.mark.parametrize("name", KERAS_2)
def test_a_constant_that_would_be_decoded_is_refused(name, cache, tmp_path, sentinel):
    def edit(config):
        entry(config, "flat")["inbound_nodes"] = [["_CONSTANT_VALUE", -1, [{"_TYPE": "COMPOSITE"}, "{}"], {}]]

    assert_refused(change(genuine(name, cache, tmp_path), edit), "layer 'flat' has a composite constant", sentinel)


@pytest.mark.parametrize("name", FORMATS)
def test_a_subclassed_model_is_refused(name, cache, tmp_path, sentinel):
    def edit(config):
        config.update(class_name="Functional", config={"name": "mine"})

    assert_refused(change(genuine(name, cache, tmp_path), edit), "the model is a subclassed model", sentinel)


def test_training_options_are_ignored(cache, tmp_path, sentinel):
    evil = {"class_name": "Evil", "module": "payload", "config": {}, "registered_name": "payload>Evil"}
    path = change(genuine("keras3.keras", cache, tmp_path), lambda config: config.update(compile_config={"loss": evil}))
    read_model(path)
    path = genuine("keras2.h5", cache, tmp_path)
    with h5py.File(path, "r+") as file:
        file.attrs["training_config"] = '{"loss": {"class_name": "Evil", "module": "payload"}}'
    read_model(path)
    assert not sentinel.exists()


def test_members_of_an_archive_are_never_extracted_by_their_paths(cache, tmp_path, sentinel):
    path = genuine("keras3.keras", cache, tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"../../../../../../..{sentinel}", "x")
        archive.writestr("assets/../../../../../../../../.." + str(sentinel), "x")
        archive.writestr("/etc/convlens", "x")
    read_model(path)
    assert not sentinel.exists()


def test_pickled_arrays_are_no_weights(cache, tmp_path, sentinel):
    class Evil:
        def __reduce__(self):
            return open, (str(sentinel), "w")

    path = genuine("keras3.keras", cache, tmp_path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name != "model.weights.h5"}
    np.savez(tmp_path / "w.npz", a=np.array([Evil()], object))
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.write(tmp_path / "w.npz", "model.weights.npz")
    assert_refused(path, "it has no model.weights.h5", sentinel)


@pytest.fixture(params=["keras2.h5", "keras3.h5", "keras3.keras"])
def weights_of(request, cache, tmp_path):
    """The path of a model file, and a function that edits its HDF5 by `change(file, name of a weight)`."""
    path = genuine(request.param, cache, tmp_path)

    def edit(change):
        if path.suffix == ".h5":
            with h5py.File(path, "r+") as file:
                names = []
                file["model_weights"].visititems(
                    lambda n, item: names.append(n) if isinstance(item, h5py.Dataset) else None
                )
                change(file, "model_weights/" + names[0])
            return
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        inside = tmp_path / "inside.h5"
        inside.write_bytes(members["model.weights.h5"])
        with h5py.File(inside, "r+") as file:
            change(file, "layers/dense/vars/0")
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, inside.read_bytes() if name == "model.weights.h5" else data)

    return path, edit


def test_hdf5_that_refers_to_other_files_is_refused(weights_of, tmp_path, sentinel):
    path, edit = weights_of
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.ones((4, 4))

    def external_link(file, name):
        del file[name]
        file[name] = h5py.ExternalLink(str(secret), "x")

    edit(external_link)
    assert_refused(path, "is a link to elsewhere", sentinel)


def test_hdf5_with_soft_links_is_refused(weights_of, sentinel):
    path, edit = weights_of

    def soft_link(file, name):
        file[name + "2"] = h5py.SoftLink("/" + name)

    edit(soft_link)
    assert_refused(path, "is a link to elsewhere", sentinel)


@pytest.mark.parametrize("how", ["external", "virtual", "objects"])
def test_hdf5_with_external_or_non_numeric_data_is_refused(weights_of, how, tmp_path, sentinel):
    path, edit = weights_of
    (tmp_path / "secret").write_bytes(b"secret" * 1000)

    def elsewhere(file, name):
        shape = file[name].shape
        size = int(np.prod(shape)) * 4
        del file[name]
        if how == "external":
            file.create_dataset(name, shape, "f4", external=[(str(tmp_path / "secret"), 0, size)])
        elif how == "virtual":
            layout = h5py.VirtualLayout(shape, "f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret"), "x", shape)
            file.create_virtual_dataset(name, layout)
        else:
            file.create_dataset(name, shape, h5py.string_dtype())

    edit(elsewhere)
    assert_refused(path, "are in another file|holds object, no numbers", sentinel)


def test_the_genuine_files_are_served(cache, tmp_path):
    for name in FORMATS:
        expected = model_files.small(model_files.framework(name))
        actual = read_model(genuine(name, cache, tmp_path)).model
        images = model_files.images()
        np.testing.assert_allclose(
            np.array(actual.predict(images, verbose=0)), expected.predict(images, verbose=0), rtol=1e-6
        )
    assert keras.__version__.startswith("3")


def test_a_programs_activation_is_refused_even_with_the_name_of_one_of_keras(tmp_path):
    def swish(x):
        return x * keras.activations.sigmoid(3.0 * x)

    layers = keras.layers
    for name in ("m.keras", "m.h5"):
        model = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(3, activation=swish)])
        model.save(tmp_path / name)
        with pytest.raises(ModelUnavailable, match="activation is a function of your own called 'swish'"):
            read_model(tmp_path / name)


def test_a_users_weights_file_is_never_written(tmp_path):
    path = tmp_path / weights.NAME_IN_ARCHIVE
    model = model_files.small(keras)
    model.save_weights(path)
    with h5py.File(path, "r+") as file:
        file.move("layers", "_layer_checkpoint_dependencies")
    before = path.read_bytes()
    weights.assign_by_path(model, path)
    link = tmp_path / "linked" / weights.NAME_IN_ARCHIVE
    link.parent.mkdir()
    link.symlink_to(path)
    weights.assign_by_path(model, link)
    assert path.read_bytes() == before
    assert link.is_symlink()
