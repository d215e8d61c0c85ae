# Generated from _async/__init__.py by scripts/generate_sync.py; do not edit.
"""The client and its jobs. scripts/generate_sync.py makes the synchronous form of the asynchronous one."""
