"""progress=True and callbacks, with the fake server: the bar, what is refused, and a server that does not report."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from convlens.client import Client, GradCAM, InvalidArgument, JobState, MissingExtra, Progress
from convlens.client.testing import serve

PHOTO = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture
def server():
    return serve()


@pytest.fixture
def client(server):
    with server as target, Client(target, timeout=30) as client:
        yield client


def test_a_bar_counts_the_images_of_map(client, capsys):
    list(client.map([PHOTO] * 3, [GradCAM()], progress=True))
    assert "100%|██████████| 3/3 [" in capsys.readouterr().err
    list(client.map((PHOTO for _ in range(3)), [GradCAM()], progress=True))
    assert "3img [" in capsys.readouterr().err


def test_a_bar_shows_the_state_of_a_job(server, client, capsys):
    server.delay = 0.5
    client.grad_cam(PHOTO, progress=True)
    assert "succeeded: 100%|██████████| 1/1 [" in capsys.readouterr().err
    client.submit(PHOTO, [GradCAM()]).result(progress=True)
    assert "succeeded: 100%|██████████| 1/1 [" in capsys.readouterr().err


def test_without_progress_nothing_is_printed(client, capsys):
    list(client.map([client.grad_cam(PHOTO).images[0]], [GradCAM()]))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("value", [None, 1, "bar"])
def test_anything_but_a_bool_or_a_function_is_refused_before_the_server_is_called(server, client, value):
    for call in (
        lambda: client.grad_cam(PHOTO, progress=value),
        lambda: client.map([PHOTO], [GradCAM()], progress=value),
        lambda: client.job("ab").wait(progress=value),
    ):
        with pytest.raises(InvalidArgument, match="allowed: True, False, a function"):
            call()
    assert not server.requests


def test_a_bar_without_tqdm_names_the_command_before_the_server_is_called(server, client, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(MissingExtra, match=r'progress=True needs tqdm: pip install "convlens-client\[progress\]"'):
        client.map([PHOTO], [GradCAM()], progress=True)
    assert not server.requests


def test_a_server_that_refuses_to_report_answers_all_the_same(server, client):
    server.delay = 0.3
    server.fail_next("ROLE_MISSING", method="WatchJob")
    steps = []
    assert client.grad_cam(PHOTO, progress=steps.append)["grad_cam"].shape == (1, 14, 14)
    assert steps == [Progress(0, 1), Progress(1, 1, JobState.SUCCEEDED)]


def test_a_call_that_fails_does_not_report_its_end(server, client):
    server.fail_next_job("INTERNAL")
    steps = []
    with pytest.raises(Exception, match="INTERNAL"):
        client.grad_cam(PHOTO, progress=steps.append)
    assert steps[-1].done == 0
