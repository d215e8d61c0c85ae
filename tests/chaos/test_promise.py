"""docs/reliability.md tells of the same faults as are done, and of nothing else."""

from __future__ import annotations

from pathlib import Path

from chaos.table import TABLE

PROMISE = Path(__file__).parents[2] / "docs" / "reliability.md"


def test_the_table_of_faults_is_the_one_in_the_docs():
    section = PROMISE.read_text().split("## Faults")[1].split("##")[0]
    told = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][2:]
    assert told == [[it.name, it.seen] for it in TABLE]
