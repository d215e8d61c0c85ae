"""The client and its jobs. scripts/generate_sync.py makes the synchronous form of the asynchronous one."""
