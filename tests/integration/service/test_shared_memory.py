"""Memory shared with callers on the same machine: the same results as through gRPC, and nobody else's memory."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import grpc
import numpy as np
import pytest
from processes import running, until

from convlens.client import Activations, AsyncClient, Client, GradCAM, Output, Saliency
from convlens.client.errors import InvalidArgument
from convlens.client.memory import CAPACITY, Region
from convlens.client.stubs import Stubs
from convlens.v1 import spec_pb2, tensor_pb2
from convlens.v1.visualization_pb2 import VisualizeRequest

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no anonymous files")

PIXELS = np.random.default_rng(1).integers(0, 256, (3, 40, 50, 3), np.uint8)
ASKED = (Saliency(), Saliency("guided", output=Output(dtype="uint8")), GradCAM(), Activations("block1_conv1"))
SPEC = spec_pb2.JobSpec(
    visualizations=[spec_pb2.Visualization(saliency=spec_pb2.Saliency())],
    images=[
        spec_pb2.Image(pixels=tensor_pb2.Tensor(datatype=tensor_pb2.DATA_TYPE_UINT8, shape=image.shape))
        for image in PIXELS
    ],
)
BYTES = [image.tobytes() for image in PIXELS]


@pytest.fixture(scope="module", params=["redis", "directory"])
def service(request, tmp_path_factory, own_valkey):
    folder = tmp_path_factory.mktemp("service")
    settings = {} if request.param == "redis" else {"payload_dir": folder / "payloads"}
    with running(folder, own_valkey, **settings) as service:
        service.worker("shapes=shapes", "null=null")
        service.front, service.target = service.server()
        yield service


@pytest.fixture
def sharing(service):
    """A client that has heard of the server's offer."""
    with Client(service.target, timeout=60) as client:
        client.models()
        yield client


@pytest.fixture(scope="module")
def through_grpc(service):
    """What a server that offers no memory gives."""
    _, line = service.start("convlens.server", "--port", "0", "--no-shared-memory")
    with Client(line.split()[-1], timeout=60) as client:
        client.models()
        assert client._connection.memory.region(BYTES) is None
        yield client


@pytest.fixture
def region():
    region = Region(os.getpid())
    yield region
    region.close()


@pytest.fixture
def stubs(service):
    with grpc.insecure_channel(service.target) as channel:
        yield Stubs(channel)


def shared(client):
    """How many files of a client wait for the next call."""
    return len(waiting(client))


def waiting(client):
    return [region for region in client._connection.memory._slots if region]


def asked(memory, spec=SPEC):
    return VisualizeRequest(spec=spec, shared_memory=memory)


@pytest.mark.parametrize(
    "images",
    [PIXELS, PIXELS[0], PIXELS.astype(np.float32), "examples/photos/chelsea.png", ["examples/photos/coffee.png"] * 2],
    ids=["pixels", "one image", "floats", "a file", "files"],
)
def test_results_are_those_that_come_through_grpc(sharing, through_grpc, images):
    found = sharing.visualize(images, ASKED, model="shapes", fresh=True)
    assert shared(sharing) == 1
    wanted = through_grpc.visualize(images, ASKED, model="shapes", fresh=True)
    assert list(found) == list(wanted)
    for name in found:
        np.testing.assert_array_equal(found[name], wanted[name])
        np.testing.assert_array_equal(found.restored(name), wanted.restored(name))
    assert (found.predictions, found.explained) == (wanted.predictions, wanted.explained)
    assert [it.data for it in found.images] == [it.data for it in wanted.images]


def test_a_result_keeps_its_bytes_when_its_memory_serves_another_call(sharing):
    first = sharing.saliency(PIXELS[0], model="shapes")
    before = first["saliency"].copy(), bytes(first.images[0].data)
    sharing.saliency(PIXELS[1], model="shapes")
    assert shared(sharing) == 1
    np.testing.assert_array_equal(first["saliency"], before[0])
    assert bytes(first.images[0].data) == before[1]


def test_many_threads_and_tasks_get_each_their_own(sharing, through_grpc, service):
    images = [np.full((8, 8, 3), i, np.uint8) for i in range(48)]
    wanted = list(through_grpc.map(images, [Activations("block1_conv1", [0])], model="shapes"))

    def one(client, i):
        return client.activations(images[i], "block1_conv1", [0], model="shapes", fresh=True)

    async def every():
        async with AsyncClient(service.target, timeout=60) as client:
            await client.models()
            return await asyncio.gather(*(one(client, i) for i in range(48)))

    with ThreadPoolExecutor(16) as threads:
        by_threads = list(threads.map(lambda i: one(sharing, i), range(48)))
    assert shared(sharing) > 1
    for found in (
        by_threads,
        asyncio.run(every()),
        sharing.map(images, [Activations("block1_conv1", [0])], model="shapes"),
    ):
        for mine, right in zip(found, wanted, strict=True):
            np.testing.assert_allclose(mine["activations"], right["activations"], rtol=1e-5)


def test_the_result_is_written_where_the_images_were(stubs, region):
    header = next(
        it.header for it in stubs.visualizations.Visualize(asked(region.write(BYTES))) if it.HasField("header")
    )
    assert header.in_shared_memory
    assert not header.data
    array = np.ones((3, 224, 224), np.float32)
    assert region.read([memoryview(array).cast("B")]) == header.total_bytes == array.nbytes
    assert array.any()


def test_what_is_larger_than_the_memory_comes_through_grpc(stubs, region, sharing):
    memory = region.write(BYTES)
    memory.capacity = 3 * 224 * 224 * 4 - 1
    parts = list(stubs.visualizations.Visualize(asked(memory)))
    assert not any(it.header.in_shared_memory for it in parts)
    assert sum(len(it.header.data) + len(it.chunk.data) for it in parts) == memory.capacity + 1
    large = sharing.activations(PIXELS, "block1_conv1", model="null")["activations"]
    assert large.nbytes > CAPACITY
    assert large.shape == (3, 224, 224, 64)


def _of_another_process(memory):
    memory.process = os.getppid()


def _closed(memory):
    memory.descriptor = 1000


def _an_ordinary_file(memory):
    memory.descriptor = os.open(__file__, os.O_RDONLY)


def _that_may_shrink(memory):
    memory.descriptor = os.memfd_create(f"convlens-{memory.name}", os.MFD_ALLOW_SEALING)
    os.truncate(memory.descriptor, CAPACITY)


def _empty(memory):
    memory.descriptor = os.memfd_create(f"convlens-{memory.name}", os.MFD_ALLOW_SEALING)
    fcntl.fcntl(memory.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)


def _of_huge_pages(memory):
    flags = os.MFD_ALLOW_SEALING | os.MFD_HUGETLB
    memory.descriptor = os.memfd_create(f"convlens-{memory.name}", flags)
    os.truncate(memory.descriptor, CAPACITY)
    fcntl.fcntl(memory.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)


def _of_another_name(memory):
    memory.name = "0" * 32


def _no_name(memory):
    memory.name = "../../../etc/passwd"


def _less(memory):
    memory.sizes.pop()


def _negative(memory):
    memory.sizes[0] = -1


def _beyond_the_file(memory):
    memory.sizes[0] = CAPACITY


def _beyond_the_limit(memory):
    memory.sizes[0] = 1 << 40


WRONG = {
    _of_another_process: ("SHARED_MEMORY_UNREADABLE", "shared_memory"),
    _closed: ("SHARED_MEMORY_UNREADABLE", "shared_memory"),
    _an_ordinary_file: ("SHARED_MEMORY_UNREADABLE", "shared_memory"),
    _that_may_shrink: ("SHARED_MEMORY_UNREADABLE", "shared_memory"),
    _empty: ("SHARED_MEMORY_UNREADABLE", "shared_memory"),
    _of_huge_pages: ("SHARED_MEMORY_UNREADABLE", "shared_memory"),
    _of_another_name: ("SHARED_MEMORY_UNREADABLE", "shared_memory"),
    _no_name: ("INVALID_FIELD", "shared_memory.name"),
    _less: ("INVALID_FIELD", "shared_memory.sizes"),
    _negative: ("INVALID_FIELD", "shared_memory.sizes"),
    _beyond_the_file: ("INVALID_FIELD", "shared_memory.sizes"),
    _beyond_the_limit: ("INVALID_FIELD", "shared_memory.sizes"),
}


@pytest.mark.parametrize("spoil", WRONG, ids=lambda it: it.__name__.strip("_"))
def test_memory_that_is_not_as_it_is_told_is_refused(stubs, region, spoil):
    from convlens.client.errors import from_rpc

    memory = region.write(BYTES)
    spoil(memory)
    with pytest.raises(grpc.RpcError) as caught:
        list(stubs.visualizations.Visualize(asked(memory)))
    error = from_rpc(caught.value, "", "")
    assert (error.reason, error.field) == WRONG[spoil]


def test_images_that_come_twice_are_refused(stubs, region):
    spec = spec_pb2.JobSpec()
    spec.CopyFrom(SPEC)
    spec.images[1].pixels.data = BYTES[1]
    with pytest.raises(grpc.RpcError, match="bytes of their own"):
        list(stubs.visualizations.Visualize(asked(region.write(BYTES), spec)))


def test_who_was_not_offered_it_is_refused(through_grpc, region):
    with pytest.raises(grpc.RpcError, match="shared_memory: is set"):
        list(through_grpc._stubs().visualizations.Visualize(asked(region.write(BYTES))))


def test_a_server_that_cannot_open_it_is_served_through_grpc(sharing, monkeypatch):
    tried = []

    def elsewhere(region, images, write=Region.write):
        tried.append(memory := write(region, images))
        memory.process = os.getppid()
        return memory

    monkeypatch.setattr(Region, "write", elsewhere)
    for _ in range(3):
        assert sharing.saliency(PIXELS[0], model="null")["saliency"].shape == (1, 224, 224)
    assert len(tried) == 1
    assert shared(sharing) == 0


def test_an_image_that_is_none_is_named(sharing):
    with pytest.raises(InvalidArgument) as caught:
        sharing.saliency([b"\1no image", PIXELS[0]], model="null")
    assert caught.value.field == "spec.images[0].encoded"
    assert shared(sharing) == 0  # a call that broke has had its memory to the end
    assert sharing.saliency(PIXELS, model="null")["saliency"].shape == (3, 224, 224)


def test_a_forks_child_has_files_of_its_own(sharing):
    sharing.saliency(PIXELS, model="shapes")
    wanted = sharing.saliency(PIXELS[0], model="shapes", fresh=True)["saliency"]
    (region,) = waiting(sharing)
    child = os.fork()
    if not child:
        own, _ = sharing._connection.memory.region(BYTES)
        os._exit(0 if own.process == os.getpid() and own is not region else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    found = sharing.saliency(PIXELS[0], model="shapes", fresh=True)
    assert waiting(sharing) == [region]
    np.testing.assert_array_equal(found["saliency"], wanted)


def test_a_server_that_is_killed_under_way_costs_no_result(service):
    process, target = service.server()
    with Client(target, timeout=60) as client:
        client.models()
        results = client.map((np.full((8, 8, 3), i % 256, np.uint8) for i in range(512)), [Saliency()], model="shapes")
        found = list(islice(results, 40))
        process.send_signal(signal.SIGKILL)
        process.wait()
        service.server(int(target.rsplit(":", 1)[1]))
        found += results
    assert len(found) == 512
    for i in (0, 39, 40, 100, 511):
        assert found[i].images[0].data[0] == i % 256


def test_the_server_keeps_no_memory_that_is_not_used_any_more(service, stubs, region):
    server = Path(f"/proc/{service.front.pid}")

    def files():
        found = []
        for it in (server / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found.append(os.fspath(it.readlink()))
        return [it for it in found if "memfd:convlens" in it]

    for _ in range(5):
        list(stubs.visualizations.Visualize(asked(region.write(BYTES))))
    assert files()
    until(lambda: not files() and "memfd:convlens" not in (server / "maps").read_text())
