"""Who is refused when too much is held: decided by what connections received, which is made up here."""

from __future__ import annotations

import asyncio

import pytest

from convlens.server.status import Refusal
from convlens.server.transport.receive_budget import INTERVAL_SECONDS, PLAIN_BYTES, ReceiveBudget

MIB = 1 << 20


class Received:
    """The kernel's counts."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def received(self, peer):
        return self.counts.get(peer, 0)


class Request:
    """Something that can be held."""


@pytest.fixture
def trimmed() -> list[bool]:
    return []


@pytest.fixture
def budget(trimmed, monkeypatch):
    """Makes a budget of 256 MiB, in the loop of a test, and its counts."""

    def make():
        made, counts = ReceiveBudget(256 * MIB, 0.25, 64 * MIB, lambda: trimmed.append(True)), Received()
        monkeypatch.setattr(made, "_sockets", counts)
        return made, counts.counts

    return make


def began(budget, peer, announced=0, tenant="", most=64 * MIB):
    return budget.begin(peer, tenant, most, announced, one=True)


def refusal(read) -> Refusal | None:
    return read.refused.exception() if read.refused.done() else None


async def looked() -> None:
    await asyncio.sleep(2 * INTERVAL_SECONDS)


def test_the_slowest_of_those_that_hold_much_is_refused(budget):
    async def run():
        made, counts = budget()
        fast, slow, small = (began(made, peer) for peer in ("fast", "slow", "small"))
        for read, rate in ((fast, 9e6), (slow, 1e3), (small, 0)):
            read.connection.rate = rate
        counts |= {"fast": 127 * MIB, "slow": 126 * MIB, "small": 10 * MIB}
        await looked()
        assert refusal(slow).quota == "max_receiving_bytes"
        assert refusal(slow).retry_after
        assert not refusal(fast)
        assert not refusal(small)

    asyncio.run(run())


@pytest.mark.parametrize(("tenant", "bound"), [("", "connection"), ("acme", "acme")])
def test_a_connection_and_a_tenant_have_their_shares(budget, tenant, bound):
    async def run():
        made, counts = budget()
        first, second = began(made, "one", tenant=tenant), began(made, "two", tenant=tenant)
        counts |= {"one": 129 * MIB if not tenant else 40 * MIB, "two": 40 * MIB}
        await looked()
        quotas = [it.quota for it in map(refusal, (first, second)) if it]
        assert quotas == [f"max_receiving_bytes/{bound}"]

    asyncio.run(run())


def test_an_announced_request_is_refused_before_it_is_read_and_a_small_one_is_not(budget):
    async def run():
        made, _ = budget()
        for peer in ("one", "two", "three"):
            began(made, peer, announced=60 * MIB)
        with pytest.raises(Refusal, match="max_receiving_bytes"):
            began(made, "four", announced=60 * MIB)
        small = began(made, "four")
        assert made.refusal(small, MIB) is None

    asyncio.run(run())


def test_bytes_count_until_the_request_is_gone_and_free_memory_is_given_back_later(budget, trimmed):
    async def run():
        made, _ = budget()
        requests = [Request() for _ in range(2)]
        for request in requests:
            read = began(made, "one")
            made.end(read)
            assert made.refusal(read, 60 * MIB) is None
            made.hold(read, 60 * MIB, request)
        read = began(made, "one")
        made.end(read)
        assert made.refusal(read, 60 * MIB).quota == "max_receiving_bytes/connection"
        await looked()
        del request
        requests.clear()
        await looked()
        assert made.refusal(began(made, "one"), 60 * MIB) is None
        assert not trimmed
        async with asyncio.timeout(5):
            while not trimmed:
                await looked()

    asyncio.run(run())


def test_a_request_without_images_is_refused_when_more_comes_than_it_may_have(budget):
    async def run():
        made, counts = budget()
        read = began(made, "one", most=PLAIN_BYTES)
        counts["one"] = 3 * PLAIN_BYTES
        await looked()
        assert not refusal(read)  # as much as may lie in windows and in the kernel
        counts["one"] = MIB
        await looked()
        assert refusal(read).reason == "REQUEST_TOO_LARGE"

    asyncio.run(run())
