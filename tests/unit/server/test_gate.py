"""The gate: every method has its role, and outside a call there is no caller, not even for those who forgot to ask."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from convlens.server.auth.principal import EVERYBODY, Role, called_by, caller
from convlens.server.interceptors.auth import NEEDED
from convlens.v1 import job_pb2, model_pb2, visualization_pb2


def test_every_method_of_every_service_has_a_role_and_there_are_no_others():
    services = [
        it for file in (visualization_pb2, job_pb2, model_pb2) for it in file.DESCRIPTOR.services_by_name.values()
    ]
    assert {f"/{it.full_name}/{method.name}" for it in services for method in it.methods} == set(NEEDED)
    assert len(services) == 3
    assert set(NEEDED.values()) <= set(Role)


async def test_the_caller_is_known_to_the_tasks_of_its_call_and_to_no_thread():
    async def call():
        called_by(EVERYBODY)
        return await asyncio.create_task(child())

    async def child():
        return caller()

    assert await asyncio.create_task(call()) is EVERYBODY
    with pytest.raises(LookupError):
        caller()
    with ThreadPoolExecutor(1) as pool, pytest.raises(LookupError):
        await asyncio.get_running_loop().run_in_executor(pool, caller)
