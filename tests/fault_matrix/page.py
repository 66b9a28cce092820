"""Writes what came of the matrix as docs/fault-matrix.md."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fault_matrix.cases import LEFT_OUT, WEBEX_STAGES, Case
from tests.fault_matrix.matrix import Result

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fault-matrix.md"
_HEAD = """# Fault matrix

What comes of each fault at each stage of archiving an hour, met once and met always.
This page is generated; do not edit it:

```sh
python -m tests.fault_matrix
```

{count} combinations are run twice, {twice} cases in all.
Each runs the real functions of `include/pipelines` over HTTP, against the sandbox and an S3 server (moto).
The sandbox breaks its own answers, and a door before the S3 server breaks what passes it.
An hour with one contact task is archived.
Its capture is a small recording (one PUT), one of three parts (*multipart*), a transcript or a screen recording.

After each case the bucket is compared with the sandbox's truth, byte for byte.
No upload is open, no working file, no thread and no socket is left, and nothing took long.
*Always* means for as long as the run lasts.
Then the fault is lifted and what failed is cleared in Airflow; that run must end complete.

| what it says | what it means |
| --- | --- |
| whole | The run is green and everything is right; nothing but the log tells. |
| whole: Airflow repeats … | The same, after one of Airflow's own retries of that Airflow task. |
| row … | The row has this outcome and this `last_error`, and all the rest is archived. `failed` turns the run red. |
| … fails | The run is red with this sentence; Airflow has retried what may pass (`TransientError`). |
| green; `verify_archive` finds … | The store keeps another byte and tells nobody: who reads it again finds it. |
"""


def render(cases: Sequence[Case], result: Callable[[Case], Result]) -> str:
    """The page."""
    lines = [_HEAD.format(count=len(cases), twice=2 * len(cases))]
    for stage in dict.fromkeys(case.stage for case in cases):
        server = "Webex" if stage in WEBEX_STAGES else "the store"
        lines += [f"## Stage: {stage}", "", f"A fault of {server}.", ""]
        lines += ["| fault | capture | once | always |", "| --- | --- | --- | --- |"]
        for case in cases:
            if case.stage == stage:
                found = result(case)
                always = "the same" if found.stays == found.once else found.stays
                lines.append(f"| {case.fault} | {case.capture} | {found.once} | {always} |")
        lines.append("")
    lines += ["## Left out", "", "| what | why |", "| --- | --- |"]
    lines += [f"| {what} | {why} |" for what, why in LEFT_OUT.items()]
    return "\n".join(lines) + "\n"


def rows_of(page: str) -> list[tuple[str, str, str, str, str]]:
    """Stage, fault, capture, once and always, as a page has them."""
    found: list[tuple[str, str, str, str, str]] = []
    stage = ""
    for line in page.splitlines():
        if heading := re.match(r"## Stage: (.+)", line):
            stage = heading[1]
        elif line.startswith("## "):
            stage = ""
        elif stage and line.startswith("| ") and not line.startswith(("| fault ", "| --- ")):
            fault, capture, once, always = line.strip("| ").split(" | ")
            found.append((stage, fault, capture, once, once if always == "the same" else always))
    return found
