"""A cache of plans, since programs send the same request, but for the images, again and again."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Final

from convlens.jobs.request.plan import JobPlan
from convlens.jobs.request.resolve import resolve
from convlens.v1 import model_pb2, spec_pb2

MAX_PLANS: Final = 256
MAX_SPEC_BYTES: Final = 4096
"""Bytes of a serialized spec whose plan is cached, at most."""


class PlanCache:
    """The MAX_PLANS plans used last, by the digest of their spec and by their card. Thread-safe.

    A card is compared by identity, and must not change afterwards.
    """

    def __init__(self) -> None:
        self._plans: OrderedDict[tuple[bytes, int], tuple[model_pb2.Model, JobPlan]] = OrderedDict()
        self._lock = threading.Lock()

    def resolve(self, spec: bytes, card: model_pb2.Model) -> JobPlan:
        """Return the plan of a serialized JobSpec on the model of `card`. Raises SpecError where there is none."""
        key = hashlib.blake2b(spec, digest_size=32).digest(), id(card)
        with self._lock:
            if key in self._plans:
                self._plans.move_to_end(key)
                return self._plans[key][1]
        plan = resolve(spec_pb2.JobSpec.FromString(spec), card)
        if len(spec) <= MAX_SPEC_BYTES:
            with self._lock:
                self._plans[key] = card, plan  # while a card is referred to here, no other has its id
                if len(self._plans) > MAX_PLANS:
                    self._plans.popitem(last=False)
        return plan
