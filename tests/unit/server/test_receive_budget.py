"""The receive budget rejects reads by the bytes that connections received; the test sets these counts."""

from __future__ import annotations

import asyncio

import pytest

from convlens.server.transport.receive_budget import INTERVAL_SECONDS, PLAIN_BYTES, ReceiveBudget
from convlens.v1.status_error import StatusError

MIB = 1 << 20


class FakeSockets:
    """Returns the counts that a test sets in place of the kernel's."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def received(self, peer):
        return self.counts.get(peer, 0)


class Request:
    """An object with a weak reference."""


@pytest.fixture
def make_budget(monkeypatch):
    """Makes a budget of 256 MiB in the running loop, and returns it with the counts of its sockets."""

    def make():
        budget, counts = ReceiveBudget(256 * MIB, 0.25, 64 * MIB), FakeSockets()
        monkeypatch.setattr(budget, "_sockets", counts)
        return budget, counts.counts

    return make


def start_read(budget, peer, announced=0, tenant="", limit=64 * MIB):
    return budget.start_read(peer, tenant, limit, announced, is_unary=True)


def rejection(read) -> StatusError | None:
    return read.outcome.exception() if read.outcome.done() else None


async def wait_for_enforcement() -> None:
    await asyncio.sleep(2 * INTERVAL_SECONDS)


def test_the_slowest_large_connection_is_rejected(make_budget):
    async def run():
        budget, counts = make_budget()
        fast, slow, small = (start_read(budget, peer) for peer in ("fast", "slow", "small"))
        for read, rate in ((fast, 9e6), (slow, 1e3), (small, 0)):
            read.connection.rate = rate
        counts |= {"fast": 127 * MIB, "slow": 126 * MIB, "small": 10 * MIB}
        await wait_for_enforcement()
        assert rejection(slow).quota == "max_receiving_bytes"
        assert rejection(slow).retry_after
        assert not rejection(fast)
        assert not rejection(small)

    asyncio.run(run())


@pytest.mark.parametrize(("tenant", "bound"), [("", "connection"), ("acme", "acme")])
def test_a_connection_and_a_tenant_are_limited_to_their_shares(make_budget, tenant, bound):
    async def run():
        budget, counts = make_budget()
        first, second = start_read(budget, "one", tenant=tenant), start_read(budget, "two", tenant=tenant)
        counts |= {"one": 129 * MIB if not tenant else 40 * MIB, "two": 40 * MIB}
        await wait_for_enforcement()
        quotas = [error.quota for error in map(rejection, (first, second)) if error]
        assert quotas == [f"max_receiving_bytes/{bound}"]

    asyncio.run(run())


def test_an_announced_request_is_rejected_before_it_is_read_and_a_small_one_is_not(make_budget):
    async def run():
        budget, _ = make_budget()
        for peer in ("one", "two", "three"):
            start_read(budget, peer, announced=60 * MIB)
        with pytest.raises(StatusError, match="max_receiving_bytes"):
            start_read(budget, "four", announced=60 * MIB)
        small = start_read(budget, "four")
        assert budget.check(small, MIB) is None

    asyncio.run(run())


def test_bytes_count_until_the_request_is_garbage(make_budget):
    async def run():
        budget, _ = make_budget()
        requests = [Request() for _ in range(2)]
        for request in requests:
            read = start_read(budget, "one")
            budget.end_read(read)
            assert budget.check(read, 60 * MIB) is None
            budget.hold(read, 60 * MIB, request)
        read = start_read(budget, "one")
        budget.end_read(read)
        assert budget.check(read, 60 * MIB).quota == "max_receiving_bytes/connection"
        await wait_for_enforcement()
        del request
        requests.clear()
        await wait_for_enforcement()
        assert budget.check(start_read(budget, "one"), 60 * MIB) is None

    asyncio.run(run())


def test_a_request_without_images_is_rejected_once_it_exceeds_its_limit(make_budget):
    async def run():
        budget, counts = make_budget()
        read = start_read(budget, "one", limit=PLAIN_BYTES)
        counts["one"] = 3 * PLAIN_BYTES
        await wait_for_enforcement()
        assert not rejection(read)  # as much as may lie in windows and in the kernel
        counts["one"] = MIB
        await wait_for_enforcement()
        assert rejection(read).reason == "REQUEST_TOO_LARGE"

    asyncio.run(run())
