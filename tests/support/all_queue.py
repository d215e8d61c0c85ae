"""All parts of the queue in one object: what servers, workers and the reconciler do."""

from __future__ import annotations

from convlens.jobs.queue.client import QueueClient
from convlens.jobs.queue.consumer import JobConsumer
from convlens.jobs.queue.maintenance import Maintenance
from convlens.jobs.queue.producer import Producer


class Queue(Producer, JobConsumer, Maintenance):
    """A producer, a consumer and the maintenance of one Redis, held to the same bounds."""

    def __init__(self, client, settings, bounds):
        QueueClient.__init__(self, client, settings)
        self.bounds = bounds
