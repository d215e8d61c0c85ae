"""What the command line prints of a server's replies: classes without probabilities, assumptions, refused models."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from convlens.client import JobStatus, ModelCard, Prediction, cli
from convlens.client.cli import explain
from convlens.v1 import (
    job_pb2,
    job_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    result_pb2,
    tensors,
    visualization_pb2,
    visualization_pb2_grpc,
)

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
        if self.activations:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "nothing is computed here")
        yield visualization_pb2.VisualizeResponse(job=Jobs.jobs[1])
        header = result_pb2.ResultHeader()
        header.CopyFrom(self.header)
        array = np.zeros((1, 4, 4), np.float32)
        header.tensors.append(tensors.describe(array, "saliency"))
        header.data = bytes(tensors.buffer_of(array))
        yield visualization_pb2.VisualizeResponse(header=header)


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def run(service, monkeypatch, tmp_path):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    grpc_server = grpc.server(ThreadPoolExecutor(4))
    model_pb2_grpc.add_ModelServiceServicer_to_server(service, grpc_server)
    job_pb2_grpc.add_JobServiceServicer_to_server(Jobs(), grpc_server)
    visualization_pb2_grpc.add_VisualizationServiceServicer_to_server(service, grpc_server)
    target = f"127.0.0.1:{grpc_server.add_insecure_port('127.0.0.1:0')}"
    grpc_server.start()
    yield lambda *arguments: CliRunner().invoke(cli.app, ["--server", target, *map(str, arguments)])
    grpc_server.stop(None).wait()


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
    assert rows["scan"] == ["224×224×3", "caffe (assumed)", "2", "none", "1"]
    assert rows["stated"][1:3] == ["caffe", "1"]
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


class Jobs(job_pb2_grpc.JobServiceServicer):
    """Has one job of each state, newest first."""

    jobs = tuple(
        job_pb2.Job(
            id=f"{number:032x}", state=number, model="scan", images=1, priority=2, progress=0.25 if number == 2 else 0
        )
        for number in range(1, 7)
    )

    def _job(self, request):
        return next(job for job in self.jobs if job.id == request.id)

    def ListJobs(self, request, context):
        return job_pb2.ListJobsResponse(jobs=self.jobs)

    def GetJob(self, request, context):
        return job_pb2.GetJobResponse(job=self._job(request))

    def WatchJob(self, request, context):
        for job in (self.jobs[0], self.jobs[1], self._job(request)):
            yield job_pb2.WatchJobResponse(job=job)

    def CancelJob(self, request, context):
        return job_pb2.CancelJobResponse(job=self._job(request))

    def DeleteJob(self, request, context):
        return job_pb2.DeleteJobResponse()

    def ReadJobResult(self, request, context):
        array = np.zeros((1, 4, 4), np.float32)
        reply = header()
        reply.job_id = request.id
        reply.tensors.append(tensors.describe(array, "saliency"))
        reply.data = bytes(tensors.buffer_of(array))
        yield job_pb2.ReadJobResultResponse(header=reply)


SUCCEEDED, FAILED = f"{3:032x}", f"{4:032x}"


def test_jobs_have_states_in_words_and_local_times(run, monkeypatch):
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    Jobs.jobs[2].create_time.FromJsonString("2026-01-02T22:30:00Z")
    listed = run("jobs", "list", "--limit", "3").stdout
    assert [line.split()[1] for line in listed.splitlines() if line.startswith(" 0000")] == [
        "queued", "running", "succeeded",
    ]  # fmt: skip
    assert "running 25%" in listed
    assert "01-03 00:30:00" in listed
    shown = " ".join(run("jobs", "show", SUCCEEDED).stdout.split())
    assert "state succeeded" in shown
    assert "priority normal" in shown
    assert "create time 2026-01-03 00:30:00 UTC" in shown
    monkeypatch.delenv("TZ")
    time.tzset()


def test_a_job_is_watched_to_its_end_which_is_the_exit_status(run):
    succeeded, failed = run("jobs", "watch", SUCCEEDED), run("jobs", "watch", FAILED)
    assert [line.split(maxsplit=2)[2] for line in succeeded.stdout.splitlines()] == [
        "queued", "running 25%", "succeeded",
    ]  # fmt: skip
    assert (succeeded.exit_code, failed.exit_code) == (0, 1)
    assert failed.stdout.splitlines()[-1].endswith("failed")


def test_a_jobs_result_is_written(run, tmp_path):
    result = run("jobs", "result", SUCCEEDED, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert set(said) == {"job_id", "model", "predictions", "files"}
    assert said["predictions"][0][0] == {"index": 0, "label": "cat", "logit": 9.5, "probability": 0.8125}
    assert said["files"]
    assert all(Path(file).exists() for file in said["files"])


def test_every_command_that_prints_prints_json_with_the_fields_of_the_sdk(run, service, photos, tmp_path):
    layer = model_pb2.Layer(name="p", kind="Dense", shape=[1])
    service.header = header()
    service.models = model_pb2.ListModelsResponse(
        models=[model_pb2.Model(name="scan", layers=[layer], labels=["a"], precision=1)],
        refused=[model_pb2.RefusedModel(name="bad", source="bad.h5", reason="no", worker="w")],
    )

    def said(*arguments):
        result = run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    card = said("model", "show", "scan")
    assert set(card) == {field.name for field in dataclasses.fields(ModelCard)}
    assert (card["precision"], card["layers"][0]["name"]) == ("float32", "p")
    refused = {"name": "bad", "source": "bad.h5", "reason": "no", "worker": "w"}
    assert said("models") == {"models": [card], "refused": [refused]}
    assert said("info")["default_model"] == "scan"
    job = said("jobs", "show", FAILED)
    assert set(job) == {field.name for field in dataclasses.fields(JobStatus)}
    assert (job["state"], job["priority"], job["end_time"]) == ("failed", "normal", None)
    assert said("jobs", "cancel", FAILED) == job
    assert said("jobs", "list")["jobs"][3] == job
    assert said("jobs", "delete", FAILED) == {"deleted": FAILED}
    photo = said("saliency", photos[0], "-o", tmp_path / "out")
    assert set(photo) == {"image", "job_id", "model", "predictions", "files"}


@pytest.mark.parametrize("command", [["models"], ["model", "show", "scan"], ["jobs", "list"]])
def test_tables_fit_80_columns(run, service, command):
    service.models = model_pb2.ListModelsResponse()
    layers = [model_pb2.Layer(name=f"block{i}_conv1", kind="Conv2D", shape=[224, 224, 64]) for i in range(22)]
    service.models.models.add(
        name="shapes", source="shapes", input_shape=[224, 224, 3], layers=layers, preprocess="caffe", labels=["x"] * 9,
        preprocess_assumed=True, precision=1, classes=1000,
    )  # fmt: skip
    service.models.models.add(name="scan", layers=layers, input_shape=[9, 9, 3], preprocess="none", precision=3)
    Jobs.jobs[1].create_time.FromSeconds(1_000_000_000)
    assert max(map(len, map(str.rstrip, run(*command).stdout.splitlines()))) <= 80


def test_the_bar_shows_the_progress_that_the_server_reports(run, service, photos, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(explain, "image_bar", lambda total: contextlib.nullcontext(shown.append))
    service.header = header()
    assert run("saliency", *photos, "-o", tmp_path / "out").exit_code == 0
    assert max(shown) == len(photos)
    assert 0.25 in {done % 1 for done in shown}


def test_a_server_without_models_is_named_with_the_remedy(run, service):
    service.models = model_pb2.ListModelsResponse()
    result = run("models")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == (
        "no worker serves a model: start one by convlens up, or by convlens worker --model NAME=SOURCE\n"
    )
