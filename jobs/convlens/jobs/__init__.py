"""The life of a job: the ledger in Redis, the payload store, the Celery broker. What server and worker share.

The record in Redis is the truth and a Celery message only its delivery. Nothing else in the house knows a Redis key or
a Celery option.
"""
