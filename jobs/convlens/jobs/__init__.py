"""What server and worker share. Nothing else in the house knows a Redis key or a Celery option.

`queue/` is the job queue on Redis and Celery, `payloads/` the bytes of images and results, `runtime/` is settings, logs
and background threads. `model_registry.py` has the models that workers serve, `pools.py` which workers serve one alike,
`deployment.py` the checks of `convlens doctor`.
"""
