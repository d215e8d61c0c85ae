"""The model registry: the cards of the models that live workers serve, and those that they cannot serve.

Workers publish their cards again and again (RegistrationHeartbeat); what is not renewed expires.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import redis
from google.protobuf.message import DecodeError

from convlens.jobs.pools import model_of, pool_of
from convlens.jobs.queue import keys, poison
from convlens.jobs.queue.scripts import Scripts
from convlens.jobs.runtime.background import Loop
from convlens.v1 import model_pb2

log = logging.getLogger(__name__)

POOL_MEMORY: Final = 24 * 3600.0
"""Seconds after which a pool that no worker serves is forgotten; it is the newest if it comes back."""
MAX_POOLS: Final = 1000
"""Pools that are remembered."""
REASON_CHARACTERS: Final = 2000
"""Published of why a model is refused, at most."""


@dataclass(frozen=True, slots=True)
class LiveModels:
    """What live workers serve now."""

    models: Mapping[str, model_pb2.Model]
    """The card of each model's newest pool with a live worker, by name; `workers` is set."""
    pools: Mapping[str, str]
    """That pool, by the model's name."""
    refused: Sequence[model_pb2.RefusedModel]
    """What live workers cannot serve, sorted by name and worker."""
    known_names: Collection[str] = ()
    """Of all models that were served in the last POOL_MEMORY seconds."""


def read_live_models(client: redis.Redis) -> LiveModels:
    """Return what live workers serve, and what they refuse to.

    Raises RedisUnavailable also while Redis refuses writes, since workers cannot renew their cards then.
    """
    client.ping()  # which is refused then, too
    now = _now(client)
    with client.pipeline(transaction=False) as pipe:
        pipe.zrangebyscore(keys.POOLS, now, "+inf")
        pipe.zrangebyscore(keys.REFUSED, now, "+inf")
        pipe.zrange(keys.SINCE, 0, -1)
        names, refusals, known = pipe.execute()
        pools = [name.decode(errors="replace") for name in names]
        for pool in pools:
            pipe.get(keys.card(pool))
            pipe.zcount(keys.serving(pool), now, "+inf")
            pipe.zscore(keys.SINCE, pool)
        replies = pipe.execute()
    served = [
        (since or 0.0, pool, card, workers)
        for pool, data, workers, since in zip(pools, replies[::3], replies[1::3], replies[2::3], strict=True)
        if data and workers and (card := _parse_card(pool, data))
    ]
    newest: dict[str, str] = {}
    models: dict[str, model_pb2.Model] = {}
    for _, pool, card, workers in sorted(served, key=lambda row: row[:2]):
        card.workers = workers
        models[card.name], newest[card.name] = card, pool
    refused = [model for data in refusals if (model := _parse_refusal(client, data))]
    known_names = {model_of(pool.decode(errors="replace")) for pool in known}
    return LiveModels(models, newest, sorted(refused, key=lambda model: (model.name, model.worker)), known_names)


def read_live_workers(client: redis.Redis) -> set[str]:
    """Return the names of all live workers."""
    now = _now(client)
    pools = client.zrangebyscore(keys.POOLS, now, "+inf")
    serving = [client.zrangebyscore(keys.serving(pool.decode(errors="replace")), now, "+inf") for pool in pools]
    return {name.decode(errors="replace") for names in serving for name in names}


def _parse_card(pool: str, data: bytes) -> model_pb2.Model | None:
    """Return a pool's card; None for one that cannot be read, which a worker will overwrite."""
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


def _parse_refusal(client: redis.Redis, data: bytes) -> model_pb2.RefusedModel | None:
    """Return a refused model; None for one that cannot be read, which is removed."""
    try:
        return model_pb2.RefusedModel.FromString(data)
    except DecodeError as error:
        client.zrem(keys.REFUSED, data)
        poison.quarantine(client, "refusal", data, str(error))
        return None


def _now(client: redis.Redis) -> float:
    """Return seconds since the epoch by Redis' clock, since those of the machines may differ."""
    seconds, micros = client.time()
    return float(seconds) + float(micros) / 1e6


class RegistrationHeartbeat:
    """A loop that publishes a worker's cards and refused models, each time for `ttl` seconds, until withdrawn."""

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
        self._refused = [_serialize_refusal(model, worker) for model in refused]
        self._pools_seen: dict[str, Collection[str]] = {}
        """All pools of a pool's model, as they were at the last heartbeat."""
        self._loop = Loop("model-registration", self._publish, ttl / 3, at_end=self._remove)

    def start(self) -> None:
        """Publish now, and from then on three times in `ttl` seconds."""
        try:
            self._publish()
        except redis.RedisError as error:
            log.warning("cards not published yet: %s", error)
        self._loop.start()

    def withdraw(self) -> None:
        """Let the loop remove everything, so that no server submits jobs to this worker; returns at once."""
        self._loop.request_stop()

    def stop(self) -> None:
        """Remove everything and end the thread."""
        self._loop.stop()

    def _remove(self) -> None:
        for pool in self._cards:
            self._redis.zrem(keys.serving(pool), self._worker)
        if self._refused:
            self._redis.zrem(keys.REFUSED, *self._refused)

    def _publish(self) -> None:
        ttl, pool_memory = int(self._ttl * 1000), int(POOL_MEMORY * 1000)
        for pool, card in self._cards.items():
            reply = self._scripts(
                "publish", card, worker=self._worker, pool=pool, ttl=ttl, pool_memory=pool_memory, max_pools=MAX_POOLS
            )
            newest, *others = (name.decode(errors="replace") for name in reply)
            self._warn(pool, newest, others)
        if self._refused:
            self._scripts("publish_refused", *self._refused, ttl=ttl)

    def _warn(self, pool: str, newest: str, others: Sequence[str]) -> None:
        """Log, once for each change, that the model has other pools; `others` are pools, and a worker of each."""
        pools = {newest, *others[::2]}
        if pools != self._pools_seen.get(pool):
            for other, worker in zip(others[::2], others[1::2], strict=True):
                log.warning(
                    "model=%s is also served with other weights, labels or preprocessing by %s, as %s, and here as %s; "
                    "new jobs go to %s", model_of(pool), worker, other, pool, newest,
                )  # fmt: skip
        self._pools_seen[pool] = pools


def _serialize_refusal(refused: model_pb2.RefusedModel, worker: str) -> bytes:
    """Return a refused model as it is stored, its reason cut to REASON_CHARACTERS."""
    reason = refused.reason
    if len(reason) > REASON_CHARACTERS:
        reason = reason[: REASON_CHARACTERS - 1] + "…"
    model = model_pb2.RefusedModel(name=refused.name, source=refused.source, worker=worker, reason=reason)
    return model.SerializeToString()
