"""Model cards: what workers publish about the models they serve, for as long as they say so again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import redis

from convlens.jobs import keys
from convlens.v1 import model_pb2

log = logging.getLogger(__name__)


class CardConflict(RuntimeError):
    """Live workers serve other weights under the same name."""


def publish(client: redis.Redis, worker: str, cards: Sequence[model_pb2.Model], ttl: float) -> None:
    """Says that `worker` serves these models for `ttl` seconds more.

    Raises CardConflict when another live worker serves a model of the same name and another digest.
    """
    now = _now(client)
    for card in cards:
        others = set(client.zrangebyscore(keys.serving(card.name), now, "+inf")) - {worker.encode()}
        published = client.get(keys.card(card.name))
        if others and published and model_pb2.Model.FromString(published).digest != card.digest:
            raise CardConflict(
                f"model {card.name!r} is served with other weights by {min(others).decode()}; "
                "give this one another name, or stop that worker"
            )
        with client.pipeline() as pipe:
            pipe.set(keys.card(card.name), card.SerializeToString(), px=int(ttl * 1000))
            pipe.zremrangebyscore(keys.serving(card.name), "-inf", now)
            pipe.zadd(keys.serving(card.name), {worker: now + ttl})
            pipe.pexpire(keys.serving(card.name), int(ttl * 1000))
            pipe.zadd(keys.MODELS, {card.name: now + ttl}, gt=True)
            pipe.execute()


def withdraw(client: redis.Redis, worker: str, names: Sequence[str]) -> None:
    """Says that `worker` serves these models no more."""
    for name in names:
        client.zrem(keys.serving(name), worker)


def live(client: redis.Redis) -> dict[str, model_pb2.Model]:
    """The cards of all models with a live worker, by name; `workers` is filled in."""
    now = _now(client)
    names = [name.decode() for name in client.zrangebyscore(keys.MODELS, now, "+inf")]
    with client.pipeline(transaction=False) as pipe:
        for name in sorted(names):
            pipe.get(keys.card(name))
            pipe.zcount(keys.serving(name), now, "+inf")
        rows = pipe.execute()
    found = {}
    for data, workers in zip(rows[::2], rows[1::2], strict=True):
        if data and workers:
            card = model_pb2.Model.FromString(data)
            card.workers = workers
            found[card.name] = card
    return found


def workers(client: redis.Redis) -> set[str]:
    """The names of all live workers."""
    now = _now(client)
    models = client.zrangebyscore(keys.MODELS, now, "+inf")
    serving = [client.zrangebyscore(keys.serving(model.decode()), now, "+inf") for model in models]
    return {name.decode() for names in serving for name in names}


def _now(client: redis.Redis) -> float:
    """Redis' clock, since those of the machines may differ; seconds since the epoch."""
    seconds, micros = client.time()
    return float(seconds) + float(micros) / 1e6


class Herald:
    """A thread that publishes a worker's cards again and again, and withdraws them at the end."""

    def __init__(self, client: redis.Redis, worker: str, cards: Sequence[model_pb2.Model], ttl: float) -> None:
        self._redis = client
        self._worker = worker
        self._cards = cards
        self._ttl = ttl
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="herald", daemon=True)

    def start(self) -> None:
        """Publishes, and from then on three times in `ttl` seconds."""
        self._say()
        self._thread.start()

    def stop(self) -> None:
        """Withdraws the cards, so that no front takes more work for this worker."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
            try:
                withdraw(self._redis, self._worker, [card.name for card in self._cards])
            except redis.RedisError as error:
                log.warning("cards are left to expire: %s", error)

    def _run(self) -> None:
        while not self._stop.wait(self._ttl / 3):
            self._say()

    def _say(self) -> None:
        for card in self._cards:
            try:
                publish(self._redis, self._worker, [card], self._ttl)
            except (redis.RedisError, CardConflict) as error:
                log.warning("model=%s card not published: %s", card.name, error)
