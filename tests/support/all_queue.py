"""The whole queue in one object: producer, consumer and maintenance."""

from __future__ import annotations

from convlens.jobs.queue.client import QueueClient
from convlens.jobs.queue.consumer import JobConsumer
from convlens.jobs.queue.maintenance import Maintenance
from convlens.jobs.queue.producer import Producer


class Queue(Producer, JobConsumer, Maintenance):
    """The producer, the consumer and the maintenance of one Redis, with the same bounds."""

    def __init__(self, client, settings, bounds):
        QueueClient.__init__(self, client, settings)
        self.bounds = bounds
