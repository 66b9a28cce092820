"""`make benchmark`: measures the archive, beside its peers where there are any, and writes a report.

What there is to measure: `copies` (sets of captures, with every peer), `million` (a month of 1,000,000 contact
tasks: listed, planned, written, read), `hour` (20,000 contact tasks from end to end, with Airflow too) and
`events` (200,000 capture events for the receiver that runs alone).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.capture_events import measure_events
from benchmarks.copy_benchmark import ROUNDS, SETS, peers_named, run_copies
from benchmarks.hour_of_contact_tasks import measure_hour
from benchmarks.laboratory import RunFailedError
from benchmarks.million_contact_tasks import measure_million
from benchmarks.report import Report

DEFAULT_REPORT = Path(".local/benchmarks/report.md")
_PROTOCOLS = {"plain": (False,), "tls": (True,), "both": (False, True)}


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when all did all of their work, whatever it cost; 1 when one did not."""
    parser = argparse.ArgumentParser(
        prog="make benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--what", default="copies", help="such as copies,million,hour,events")
    parser.add_argument("--sets", default="A,B,C", help="of copies, such as B,C")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of copies")
    parser.add_argument("--protocol", choices=sorted(_PROTOCOLS), default="both", help="of copies")
    parser.add_argument(
        "--peers", default="", help="of copies, by how their names begin, such as archive,rclone"
    )
    parser.add_argument("--report", type=Path, default=DEFAULT_REPORT, help="a file ending in .md")
    chosen = parser.parse_args(arguments)
    wanted = set(chosen.what.split(","))
    unknown = wanted - {"copies", "million", "hour", "events"}
    if unknown:
        parser.error(f"there is nothing called {', '.join(sorted(unknown))} to measure")
    report = Report()
    try:
        if "copies" in wanted:
            report.copies = run_copies(
                [captures for captures in SETS if captures.name in chosen.sets.split(",")],
                peers_named([name for name in chosen.peers.split(",") if name]),
                rounds=chosen.rounds,
                protocols=_PROTOCOLS[chosen.protocol],
            )
        if "million" in wanted:
            report.other |= measure_million()
        if "hour" in wanted:
            report.other |= measure_hour()
        if "events" in wanted:
            report.other |= measure_events()
    except RunFailedError as error:
        print(f"The work was not done: {error}", file=sys.stderr)
        return 1
    report.write(chosen.report)
    print(report.to_markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
