"""`convlens model check` reports how a model would be served, or why it would be refused."""

from __future__ import annotations

import json

import keras
import pytest
from model_files import change, replace, save, small

from convlens.worker import model_check
from convlens.worker.models.files import memory_estimate


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save(small(keras), tmp_path_factory.mktemp("models") / "scan.keras")


@pytest.fixture
def check(capsys):
    def run(*arguments):
        status = model_check.main(["check", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_a_model_that_can_be_served_is_described(check, path, tmp_path):
    (tmp_path / "l.json").write_text('{"cat": 0, "dog": 1, "fox": 2}')
    status, out, _ = check(f"{path},preprocess=unit,labels={tmp_path}/l.json")
    assert status == model_check.SERVABLE
    lines = [line.split(maxsplit=1) for line in out.splitlines() if line.strip()]
    rows = {line[0]: line[1] for line in lines if len(line) > 1}
    assert out.startswith(f"{path} can be served\n")
    assert rows["format"] == f"Keras {keras.__version__} .keras"
    assert rows["input"] == "32×32×3"
    assert rows["preprocess"].startswith("unit")
    assert rows["classes"] == "3: cat, dog, fox"
    assert rows["parameters"] == "3,379"
    assert "with 8 images at once" in rows["memory"]
    assert "c2" in rows["CAM"]
    assert [line.split()[0] for line in out.splitlines()[-5:]] == ["c1", "pool", "c2", "flat", "d"]


def test_json_has_the_same_report(check, path):
    status, out, _ = check(path, "--json")
    report = json.loads(out)
    assert status == model_check.SERVABLE
    assert report["servable"] is True
    assert (report["input_shape"], report["parameters"], report["cam_layer"]) == ([32, 32, 3], 3379, "c2")
    assert [layer["name"] for layer in report["layers"]] == ["c1", "pool", "c2", "flat", "d"]
    assert {layer["rule"] for layer in report["layers"]} == {"written"}
    assert report["memory_bytes"] > 4 * 3379
    assert "grad_cam" in report["methods"]
    assert len(report["digest"]) == 64


def test_a_refused_model_is_reported_with_the_reason(check, path, tmp_path):
    copy = tmp_path / "scan.keras"
    copy.write_bytes(path.read_bytes())
    change(copy, lambda config: replace(config, "flat", "Lambda", {}))
    status, out, _ = check(copy)
    assert status == model_check.REFUSED
    assert out.startswith(f"refused: {copy} cannot be loaded: layer 'flat' is a Lambda: a model file must not run code")
    status, out, _ = check("--json", copy)
    assert status == model_check.REFUSED
    assert json.loads(out)["servable"] is False
    assert "layer 'flat' is a Lambda" in json.loads(out)["reason"]


def test_a_model_larger_than_the_machines_memory_is_refused(check, path, monkeypatch):
    monkeypatch.setattr(memory_estimate, "measure_available", lambda: 1000)
    status, out, _ = check(path)
    assert status == model_check.REFUSED
    assert "of memory" in out
    assert "this machine has 1000 B left" in out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["gone.keras"], model_check.REFUSED, "refused: there is no file gone.keras"),
        (["gone.keras,colour=red"], model_check.USAGE, "no option 'colour=red'; allowed: preprocess"),
        (["shapes"], model_check.USAGE, "'shapes' is no file; a .keras, .h5 or .hdf5 file or a SavedModel folder"),
        (["gone.keras,preprocess=x"], model_check.USAGE, "no preprocess 'x'; allowed: caffe"),
    ],
)
def test_a_wrong_command_line_has_its_own_exit_status(check, arguments, status, message):
    report, out, err = check(*arguments)
    assert report == status
    assert (err if status == model_check.USAGE else out).startswith(message)


@pytest.mark.parametrize("argv", [[], ["check"], ["inspect", "x"], ["check", "a", "b"]])
def test_a_command_line_without_a_file_prints_its_usage(argv, capsys):
    assert model_check.main(argv) == model_check.USAGE
    assert "Usage: convlens model" in capsys.readouterr().err
