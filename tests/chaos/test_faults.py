"""No fault loses a job, makes an answer wrong, or ends a job twice: the short form of `make chaos`.

The lanes run at the same time; each test is one row. With -k only the faults asked for are done.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from chaos.runner import rows
from chaos.table import LANES, TABLE

JOBS = 24
PAUSE = 0.2


@pytest.fixture(scope="module")
def found(request, tmp_path_factory):
    """The rows of all faults that are to be tested, by name."""
    items = [it.callspec.params for it in request.session.items if hasattr(it, "callspec")]
    wanted = {params["name"] for params in items if "name" in params}
    folder = tmp_path_factory.mktemp("chaos")

    def run(lane):
        return list(rows(lane, [it for it in lane.faults if it.name in wanted], folder, JOBS, PAUSE))

    with ThreadPoolExecutor(len(LANES)) as pool:
        return {row.fault: row for found in pool.map(run, LANES) for row in found}


@pytest.mark.parametrize("name", [fault.name for fault in TABLE])
def test_nothing_is_lost_wrong_or_doubled(found, name):
    row = found[name]
    assert not row.told, "\n".join(row.told)
    assert (row.lost, row.wrong, row.doubled) == (0, 0, 0)
    assert row.jobs >= JOBS
