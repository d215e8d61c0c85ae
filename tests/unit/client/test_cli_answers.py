"""What the command line prints of a server's replies: classes without probabilities, assumptions, refused models."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from convlens.client import Prediction, cli
from convlens.v1 import model_pb2, model_pb2_grpc, result_pb2, tensors, visualization_pb2, visualization_pb2_grpc

PHOTO = np.zeros((4, 4, 3), np.uint8)


class Service(model_pb2_grpc.ModelServiceServicer, visualization_pb2_grpc.VisualizationServiceServicer):
    """Replies with its `models`, and with its `header` and one map of zeros."""

    models = model_pb2.ListModelsResponse()
    header = result_pb2.ResultHeader()

    def ListModels(self, request, context):
        return self.models

    def GetServerInfo(self, request, context):
        return model_pb2.GetServerInfoResponse(default_model="scan")

    def GetModel(self, request, context):
        return model_pb2.GetModelResponse(model=next(card for card in self.models.models if card.name == request.name))

    def Visualize(self, request, context):
        self.activations = [
            visualization.activations
            for visualization in request.spec.visualizations
            if visualization.HasField("activations")
        ]
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "nothing is computed here")

    def VisualizeUnary(self, request, context):
        header = result_pb2.ResultHeader()
        header.CopyFrom(self.header)
        array = np.zeros((1, 4, 4), np.float32)
        header.tensors.append(tensors.describe(array, "saliency"))
        header.data = bytes(tensors.buffer_of(array))
        return visualization_pb2.VisualizeUnaryResponse(header=header)


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def run(service, monkeypatch, tmp_path):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    server = grpc.server(ThreadPoolExecutor(4))
    model_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    visualization_pb2_grpc.add_VisualizationServiceServicer_to_server(service, server)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield lambda *arguments: CliRunner().invoke(cli.app, ["--server", target, *map(str, arguments)])
    server.stop(None).wait()


@pytest.fixture
def photos(tmp_path):
    from PIL import Image

    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path in paths:
        Image.fromarray(PHOTO).save(path)
    return paths


def header(**fields):
    probabilities = [{"probability": 0.8125}, {"probability": 0.0}, {}]
    report = result_pb2.ImageReport(
        predictions=[
            result_pb2.Prediction(index=i, label=label, logit=logit, **probability)
            for i, (label, logit, probability) in enumerate(
                zip(["cat", "", "dog"], [9.5, -2.25, 1.0], probabilities, strict=True)
            )
        ]
    )
    return result_pb2.ResultHeader(images=[report], model="scan", preprocess="caffe", **fields)


def test_classes_are_printed_with_a_probability_or_else_with_their_logit(run, service, photos, tmp_path):
    service.header = header()
    result = run("saliency", photos[0], "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{photos[0]}: cat 81.2%, 1 <0.1%, dog logit 1.00 → ")
    assert result.stderr.strip() == ""


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (None, "logit 4.25"), (0.0, "<0.1%"), (0.0004, "<0.1%"), (0.0006, "0.1%"), (0.5, "50.0%"), (0.9996, ">99.9%"),
        (1.0, "100.0%"),
    ],
)  # fmt: skip
def test_a_probability_below_1_is_never_printed_as_0_or_100_percent(probability, text):
    assert str(Prediction(3, "cat", 4.25, probability)) == f"cat {text}"
    assert str(Prediction(3, "", 4.25, probability)) == f"3 {text}"


def test_an_assumed_preprocessing_is_noted_once_a_command(run, service, photos, tmp_path):
    service.header = header(preprocess_assumed=True)
    result = run("saliency", *photos, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.strip().splitlines() == [
        "note: model 'scan' does not say what its input means; 'caffe' is assumed (see convlens models)"
    ]


def test_models_are_listed_with_their_preprocessing_and_refused_ones_with_the_reason(run, service):
    layer = model_pb2.Layer(name="p", kind="Dense", shape=[1])
    fields = {"source": "scan.keras", "input_shape": [224, 224, 3], "layers": [layer], "preprocess": "caffe"}
    service.models = model_pb2.ListModelsResponse(
        models=[
            model_pb2.Model(name="scan", preprocess_assumed=True, classes=2, workers=1, **fields),
            model_pb2.Model(name="stated", workers=1, **fields),
        ],
        refused=[
            model_pb2.RefusedModel(name="bad", source="bad.h5", reason="layer 'm' is a Lambda [unsafe]", worker="w"),
        ],
    )
    result = run("models")
    assert result.exit_code == 0, result.stderr
    lines = [line.strip().split("  ") for line in result.stdout.splitlines()]
    rows = {line[0]: [cell.strip() for cell in line[1:] if cell.strip()] for line in lines}
    assert rows["scan"][2:4] == ["caffe (assumed)", "2"]
    assert rows["stated"][2:4] == ["caffe", "1"]
    assert rows["bad"] == ["bad.h5", "layer 'm' is a Lambda [unsafe]"]


@pytest.mark.parametrize(
    ("arguments", "channels"),
    [
        ([], {"grey": [0, 1, 2], "wide": [0, 1, 2, 3, 4], "gone": [0, 1, 2, 3, 4]}),
        (["--channels", "1-2"], {"grey": [1, 2], "wide": [1, 2], "gone": [1, 2]}),
    ],
)
@pytest.mark.parametrize("model", [[], ["--model", "scan"]])
def test_visualize_draws_the_first_channels_that_each_layer_has(run, service, photos, arguments, channels, model):
    layers = [model_pb2.Layer(name="grey", shape=[4, 4, 3]), model_pb2.Layer(name="wide", shape=[2, 2, 64])]
    service.models = model_pb2.ListModelsResponse(models=[model_pb2.Model(name="scan", layers=layers)])
    layer_options = [argument for name in channels for argument in ("--layer", name)]
    run("visualize", photos[0], *layer_options, *arguments, *model)
    assert {activations.layers[0]: list(activations.channels) for activations in service.activations} == channels


def test_markup_and_control_codes_of_a_server_are_printed_as_text(run, service, photos):
    evil = "[/x] [red]r[/red] :smile: \x1b]0;title\x07"
    service.models.models.add(name="scan", source=evil, cam_layer=evil, layers=[model_pb2.Layer(name=evil, shape=[3])])
    service.models.refused.add(name=evil, source=evil, reason=evil)
    result = run("models")
    assert result.exit_code == 0
    assert "[/x] [red]r[/red] :smile: \\x1b]0;title\\x07" in result.stdout
    assert "\x1b" not in result.stdout
    service.header = header(preprocess_assumed=True)
    service.header.model = service.header.preprocess = evil
    service.header.images[0].predictions[0].label = evil
    result = run("saliency", photos[0], "-o", photos[0].parent / "[/out]")
    assert result.exit_code == 0, result.output
    assert "[/x] [red]r[/red] :smile: \\x1b]0;title\\x07" in result.stdout
    assert "[/out]" in result.stdout
    assert "\x1b" not in result.output
