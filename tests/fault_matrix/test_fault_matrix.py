"""Every fault ends in the right bytes, or in the right outcome and a clear message.

docs/fault-matrix.md tells in which.
"""

import pytest

from tests.fault_matrix.cases import Case, all_cases, unmet_kinds
from tests.fault_matrix.matrix import Matrix
from tests.fault_matrix.page import PAGE, render, rows_of

CASES = list(all_cases())
TOLD = {row[:3]: row[3:] for row in rows_of(PAGE.read_text())}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fault_ends_as_the_page_tells(running: Matrix, case: Case):
    """The invariants are checked in `Matrix`; here, that the outcome is the one that is documented."""
    result = running.result(case)

    assert (result.once, result.stays) == TOLD.get((case.stage, case.fault, case.capture)), (
        "run python -m tests.fault_matrix, and look at what it changes in docs/fault-matrix.md"
    )


def test_the_page_is_what_the_generator_writes(running: Matrix):
    assert list(TOLD) == [(case.stage, case.fault, case.capture) for case in CASES]
    assert PAGE.read_text() == render(CASES, running.result)


def test_there_are_enough_cases_and_no_fault_of_the_sandbox_is_forgotten():
    assert 2 * len(CASES) >= 300
    assert len(set(CASES)) == len(CASES)
    assert unmet_kinds() == set()
