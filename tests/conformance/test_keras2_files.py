"""Genuine files of Keras 2.2.4, TensorFlow 2.6 and 2.15 give the logits and gradients of their own framework."""

from __future__ import annotations

from pathlib import Path

import keras
import model_files
import numpy as np
import pytest
import tf_keras
from tensorflow.core.protobuf import saved_model_pb2
from tf_keras.protobuf import saved_metadata_pb2

from convlens.worker.engine.plan import GradCAM, Plan, Saliency
from convlens.worker.models.file import load, read_model
from convlens.worker.models.source import Source

SIGNED = Saliency(reduction="none")
FOLDER = Path(__file__).parent / "keras2"
FILES = sorted(path for path in FOLDER.glob("*/*") if path.suffix in {".h5", ".keras"})


def logits(model, path):
    images = np.load(FOLDER / "images.npy").astype(np.float32)
    if not path.name.startswith("inner_"):
        images = keras.applications.vgg16.preprocess_input(images)
    model.layers[-1].activation = tf_keras.activations.linear
    return np.asarray(model(images, training=False))


def test_all_thirty_files_exist():
    assert len(FILES) == 30


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_file_gives_the_logits_of_its_own_framework(path):
    loaded = read_model(path)
    expected = np.load(path.with_suffix(".npz"))["y"]
    np.testing.assert_allclose(logits(loaded.model, path), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    version = path.parent.name.removeprefix("keras").removeprefix("tf")
    assert loaded.format.startswith(f"Keras {version}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_file_is_served_with_the_scores_and_gradients_of_its_own_framework(path):
    """Scores are compared by their maximum, gradients through rectifiers by median and angle."""
    rescales = path.name.startswith("inner_")
    served = load(Source("m", "file", str(path)))
    assert (served.card.preprocess, served.card.preprocess_assumed) == (
        ("none", False) if rescales else ("caffe", True)
    )
    unit = served.card.classes - 1 if path.stem == "seq_add_sigmoid" else 0  # its only unit is class 1
    plan = Plan((SIGNED, GradCAM(served.card.cam_layer), Saliency("guided")), predictions=served.card.classes)
    outputs = served.run(np.load(FOLDER / "images.npy"), plan, np.full((2, 1), unit, np.int32))
    with np.load(path.with_suffix(".npz")) as reference:
        y, g = reference["y"], reference["g"] if rescales else reference["g"][..., ::-1]
    np.testing.assert_allclose(outputs.scores[:, 0], y[:, 0], rtol=0, atol=1e-5 * np.abs(y).max())
    actual = outputs.maps[SIGNED][:, 0]
    assert np.median(np.abs(actual - g)) <= 1e-7 * np.abs(g).max()
    assert 1 - (actual * g).sum(dtype=float) / np.linalg.norm(actual) / np.linalg.norm(g) <= 1e-5
    assert not served.card.unavailable_methods


@pytest.fixture(scope="module", params=["wrap", "inner_augment", "recalled_layers"])
def saved_model(request, tmp_path_factory):
    """One of the files saved as a SavedModel folder, and the path of the file."""
    path = FOLDER / "tf2.15" / f"{request.param}.h5"
    model = tf_keras.models.load_model(path, compile=False)
    folder = tmp_path_factory.mktemp("saved") / path.stem
    model.save(folder, save_format="tf")
    return folder, path


def test_a_saved_model_folder_gives_the_same_logits(saved_model):
    folder, path = saved_model
    loaded = read_model(folder)
    expected = np.load(path.with_suffix(".npz"))["y"]
    np.testing.assert_allclose(logits(loaded.model, path), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert loaded.format == f"Keras {tf_keras.__version__} SavedModel"


def test_a_saved_model_of_tensorflow_before_2_5_has_its_metadata_in_the_graph(saved_model):
    folder, path = saved_model
    metadata = saved_metadata_pb2.SavedMetadata.FromString((folder / "keras_metadata.pb").read_bytes())
    graph = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for node in metadata.nodes:
        graph.meta_graphs[0].object_graph_def.nodes[node.node_id].user_object.metadata = node.metadata
    (folder / "saved_model.pb").write_bytes(graph.SerializeToString())
    (folder / "keras_metadata.pb").unlink()
    expected = np.load(path.with_suffix(".npz"))["y"]
    actual = logits(read_model(folder).model, path)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_models_of_both_generations_work_in_one_process(tmp_path):
    three = model_files.small(keras)
    images = model_files.images()
    expected = three.predict(images, verbose=0)
    model_files.save(three, tmp_path / "three.keras")
    two = FOLDER / "tf2.6" / "wrap.h5"
    models = [read_model(path).model for path in (two, tmp_path / "three.keras", two, tmp_path / "three.keras")]
    assert [isinstance(loaded, tf_keras.Model) for loaded in models] == [True, False, True, False]
    for model in models[1::2]:
        np.testing.assert_allclose(model.predict(images, verbose=0), expected, rtol=1e-6)
    for model in models[::2]:
        np.testing.assert_allclose(logits(model, two), np.load(two.with_suffix(".npz"))["y"], rtol=0, atol=1e-5)
