"""`python -m tests.fault_matrix`: runs the whole matrix and writes docs/fault-matrix.md."""

import logging
import sys

from tests.fault_matrix.cases import all_cases
from tests.fault_matrix.matrix import Result, matrix
from tests.fault_matrix.page import PAGE, render


def main() -> int:
    logging.disable(logging.CRITICAL)  # of a thousand failures on purpose
    cases = list(all_cases())
    results: dict[str, Result] = {}
    failed = 0
    with matrix() as running:
        for number, case in enumerate(cases, start=1):
            print(f"{number}/{len(cases)} {case}", file=sys.stderr, flush=True)
            try:
                results[str(case)] = running.result(case)
            except Exception as error:  # noqa: BLE001 - the others are told too
                failed += 1
                print(f"FAILED: {type(error).__name__}: {error}", file=sys.stderr)
    if failed:
        print(f"{failed} of {len(cases)} do not end as they must; the page is left as it was.")
        return 1
    PAGE.write_text(render(cases, lambda case: results[str(case)]))
    print(f"{len(cases)} rows in {PAGE.name}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
