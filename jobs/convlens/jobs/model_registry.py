"""Model cards: what workers publish about the models they serve, and refuse to serve, for as long as they say so again.

A *pool* is the workers that serve one model alike: with the same weights, labels and preprocessing, so that any of them
may compute any of its jobs. While a model's weights are being changed it has two pools, and new jobs go to the newest.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import redis
from google.protobuf.message import DecodeError

from convlens.jobs.queue import keys, poison
from convlens.jobs.queue.scripts import Scripts
from convlens.jobs.runtime.background import Loop
from convlens.v1 import model_pb2

log = logging.getLogger(__name__)

REMEMBERED: Final = 24 * 3600.0
"""Seconds after which a pool that nobody serves any more is forgotten, and would be the newest if it came back."""
MOST_REMEMBERED: Final = 1000
"""Pools."""
REASON_CHARACTERS: Final = 2000
"""The most that is published of why a model is refused."""
_ASIDE: Final = (
    "name",
    "source",
    "workers",
    "max_batch_size",
    "preprocess_reason",
    "unavailable_methods",
    "worker_version",
)
"""What a card says that has no bearing on its model's answers, or stands in the pool's name."""


def pool_of(card: model_pb2.Model) -> str:
    """The pool of the workers with such a card: NAME@DIGEST-REST, the name alone where nothing is computed.

    DIGEST is the first 16 digits of the weights' digest, REST 8 of one of all else that answers depend on.
    """
    if not card.digest:
        return card.name
    rest = model_pb2.Model()
    rest.CopyFrom(card)
    for field in _ASIDE:
        rest.ClearField(field)
    return (
        f"{card.name}@{card.digest[:16]}-{hashlib.sha256(rest.SerializeToString(deterministic=True)).hexdigest()[:8]}"
    )


def model_of(pool: str) -> str:
    """The model's name."""
    return pool.partition("@")[0]


@dataclass(frozen=True, slots=True)
class Live:
    """What is served now."""

    models: Mapping[str, model_pb2.Model]
    """By name the card of the newest pool with a live worker; `workers` is filled in."""
    pools: Mapping[str, str]
    """By name that pool."""
    refused: Sequence[model_pb2.RefusedModel]
    """What live workers cannot serve, by name and worker."""


def live(client: redis.Redis) -> Live:
    """What live workers serve, and what they refuse to.

    LedgerUnavailable also while Redis takes no writes: workers cannot say then that they are there.
    """
    client.ping()  # which is refused then, too
    now = _now(client)
    with client.pipeline(transaction=False) as pipe:
        pipe.zrangebyscore(keys.POOLS, now, "+inf")
        pipe.zrangebyscore(keys.REFUSED, now, "+inf")
        names, refused = pipe.execute()
        pools = [name.decode(errors="replace") for name in names]
        for pool in pools:
            pipe.get(keys.card(pool))
            pipe.zcount(keys.serving(pool), now, "+inf")
            pipe.zscore(keys.SINCE, pool)
        rows = pipe.execute()
    served = [
        (since or 0.0, pool, card, workers)
        for pool, data, workers, since in zip(pools, rows[::3], rows[1::3], rows[2::3], strict=True)
        if data and workers and (card := _card(pool, data))
    ]
    newest: dict[str, str] = {}
    models: dict[str, model_pb2.Model] = {}
    for _, pool, card, workers in sorted(served, key=lambda it: it[:2]):
        card.workers = workers
        models[card.name], newest[card.name] = card, pool
    found = [it for it in (_refusal(client, data) for data in refused) if it]
    return Live(models, newest, sorted(found, key=lambda it: (it.name, it.worker)))


def _card(pool: str, data: bytes) -> model_pb2.Model | None:
    """A pool's card; None for one that cannot be read; workers publish theirs again and again."""
    try:
        card = model_pb2.Model.FromString(data)
    except DecodeError as error:
        reason = str(error)
    else:
        if card.name == model_of(pool):
            return card
        reason = f"of another model, {card.name[:64]!r}"
    poison.report("card", pool, reason)
    return None


def _refusal(client: redis.Redis, data: bytes) -> model_pb2.RefusedModel | None:
    """What a worker refuses to serve; None for what cannot be read, which is taken away."""
    try:
        return model_pb2.RefusedModel.FromString(data)
    except DecodeError as error:
        client.zrem(keys.REFUSED, data)
        poison.set_aside(client, "refusal", data, str(error))
        return None


def workers(client: redis.Redis) -> set[str]:
    """The names of all live workers."""
    now = _now(client)
    pools = client.zrangebyscore(keys.POOLS, now, "+inf")
    serving = [client.zrangebyscore(keys.serving(pool.decode(errors="replace")), now, "+inf") for pool in pools]
    return {name.decode(errors="replace") for names in serving for name in names}


def _now(client: redis.Redis) -> float:
    """Redis' clock, since those of the machines may differ; seconds since the epoch."""
    seconds, micros = client.time()
    return float(seconds) + float(micros) / 1e6


class Herald:
    """A loop that publishes a worker's cards and what it refuses, for `ttl` seconds each time, until it withdraws."""

    def __init__(
        self,
        client: redis.Redis,
        worker: str,
        cards: Collection[model_pb2.Model],
        ttl: float,
        refused: Collection[model_pb2.RefusedModel] = (),
    ) -> None:
        self._redis = client
        self._scripts = Scripts(client)
        self._worker = worker
        self._cards = {pool_of(card): card.SerializeToString() for card in cards}
        self._ttl = ttl
        self._refused = [_published(it, worker) for it in refused]
        self._seen: dict[str, Collection[str]] = {}
        """By pool all of its model, as they were seen last."""
        self._loop = Loop("herald", self._say, ttl / 3, at_end=self._withdraw)

    def start(self) -> None:
        """Publishes, and from then on three times in `ttl` seconds."""
        try:
            self._say()
        except redis.RedisError as error:
            log.warning("cards not published yet: %s", error)
        self._loop.start()

    def withdraw(self) -> None:
        """Has everything withdrawn, so that no front takes more work for this worker; returns at once."""
        self._loop.request_stop()

    def stop(self) -> None:
        """Withdraws everything and ends the thread."""
        self._loop.stop()

    def _withdraw(self) -> None:
        for pool in self._cards:
            self._redis.zrem(keys.serving(pool), self._worker)
        if self._refused:
            self._redis.zrem(keys.REFUSED, *self._refused)

    def _say(self) -> None:
        ttl, remembered = int(self._ttl * 1000), int(REMEMBERED * 1000)
        for pool, card in self._cards.items():
            told = self._scripts("publish", self._worker, pool, card, ttl, remembered, MOST_REMEMBERED)
            newest, *others = (it.decode(errors="replace") for it in told)
            self._warn(pool, newest, others)
        if self._refused:
            self._scripts("refuse", ttl, *self._refused)

    def _warn(self, pool: str, newest: str, others: Sequence[str]) -> None:
        """Logs, once a change, that the model is also served otherwise; `others` are pools, and a worker of each."""
        seen = {newest, *others[::2]}
        if seen != self._seen.get(pool):
            for other, worker in zip(others[::2], others[1::2], strict=True):
                log.warning(
                    "model=%s is also served with other weights, labels or preprocessing by %s, as %s, and here as %s; "
                    "new jobs go to %s", model_of(pool), worker, other, pool, newest,
                )  # fmt: skip
        self._seen[pool] = seen


def _published(refused: model_pb2.RefusedModel, worker: str) -> bytes:
    """As it stands in Redis."""
    told = model_pb2.RefusedModel(name=refused.name, source=refused.source, worker=worker)
    reason = refused.reason
    told.reason = reason if len(reason) <= REASON_CHARACTERS else reason[: REASON_CHARACTERS - 1] + "…"
    return told.SerializeToString()
