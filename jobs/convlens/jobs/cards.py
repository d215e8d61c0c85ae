"""Model cards: what workers publish about the models they serve, for as long as they say so again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import redis

from convlens.jobs import keys
from convlens.jobs.scripts import Scripts
from convlens.v1 import model_pb2

log = logging.getLogger(__name__)


def withdraw(client: redis.Redis, worker: str, names: Sequence[str]) -> None:
    """Says that `worker` serves these models no more."""
    for name in names:
        client.zrem(keys.serving(name), worker)


def live(client: redis.Redis) -> dict[str, model_pb2.Model]:
    """The cards of all models with a live worker, by name; `workers` is filled in.

    LedgerUnavailable also while Redis takes no writes: workers cannot say then that they are there.
    """
    client.ping()  # which is refused then, too
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
    """A thread that publishes a worker's cards, each for `ttl` seconds, until they are withdrawn at the end."""

    def __init__(self, client: redis.Redis, worker: str, cards: Sequence[model_pb2.Model], ttl: float) -> None:
        self._redis = client
        self._scripts = Scripts(client)
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
        ttl = int(self._ttl * 1000)
        for card in self._cards:
            try:
                other = self._scripts("publish", self._worker, card.name, card.digest, card.SerializeToString(), ttl)
            except redis.RedisError as error:
                log.warning("model=%s card not published: %s", card.name, error)
                continue
            if other:
                log.warning(
                    "model=%s card not published: served with other weights by %s; give this one another name, or stop "
                    "that worker", card.name, other.decode()
                )  # fmt: skip
