"""No fault loses a job, makes a result wrong, or ends a job twice: the short form of `make chaos`.

The lanes run in parallel; each test checks one row. With -k only the selected faults are injected.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from chaos.runner import rows
from chaos.table import LANES, TABLE

JOBS = 24
PAUSE = 0.2


@pytest.fixture(scope="module")
def rows_by_fault(request, tmp_path_factory):
    """The rows of all selected faults, by name."""
    parameters = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    selected = {params["name"] for params in parameters if "name" in params}
    folder = tmp_path_factory.mktemp("chaos")

    def run(lane):
        return list(rows(lane, [fault for fault in lane.faults if fault.name in selected], folder, JOBS, PAUSE))

    with ThreadPoolExecutor(len(LANES)) as pool:
        return {row.fault: row for lane_rows in pool.map(run, LANES) for row in lane_rows}


@pytest.mark.parametrize("name", [fault.name for fault in TABLE])
def test_no_job_is_lost_wrong_or_doubled(rows_by_fault, name):
    row = rows_by_fault[name]
    assert not row.problems, "\n".join(row.problems)
    assert (row.lost, row.wrong, row.doubled) == (0, 0, 0)
    assert row.jobs >= JOBS
