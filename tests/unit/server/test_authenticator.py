"""Every method has a required role, and outside of a call's tasks there is no caller."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from convlens.server.auth.authenticator import REQUIRED_ROLES
from convlens.server.auth.principal import ANONYMOUS, Role, current_caller, set_caller
from convlens.v1 import job_pb2, model_pb2, visualization_pb2


def test_required_roles_name_exactly_the_methods_of_the_three_services():
    services = [
        service
        for file in (visualization_pb2, job_pb2, model_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
    ]
    assert {f"/{service.full_name}/{method.name}" for service in services for method in service.methods} == set(
        REQUIRED_ROLES
    )
    assert len(services) == 3
    assert set(REQUIRED_ROLES.values()) <= set(Role)


async def test_the_caller_is_set_in_the_tasks_of_its_call_and_in_no_thread():
    async def call():
        set_caller(ANONYMOUS)
        return await asyncio.create_task(child())

    async def child():
        return current_caller()

    assert await asyncio.create_task(call()) is ANONYMOUS
    with pytest.raises(LookupError):
        current_caller()
    with ThreadPoolExecutor(1) as pool, pytest.raises(LookupError):
        await asyncio.get_running_loop().run_in_executor(pool, current_caller)
