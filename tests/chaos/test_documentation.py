"""The table of faults in docs/reliability.md lists exactly the faults that are injected."""

from __future__ import annotations

from pathlib import Path

from chaos.table import TABLE

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def test_the_documented_table_of_faults_equals_the_injected_one():
    section = PAGE.read_text().split("## Faults")[1].split("##")[0]
    documented = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][2:]
    assert documented == [[fault.name, fault.effect] for fault in TABLE]
