"""`make benchmark`: measures the archive beside its peers and writes a report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.copy_benchmark import ROUNDS, SETS, peers_named, run_copies
from benchmarks.laboratory import RunFailedError
from benchmarks.report import Report

DEFAULT_REPORT = Path(".local/benchmarks/report.md")
_PROTOCOLS = {"plain": (False,), "tls": (True,), "both": (False, True)}


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every peer did all of its work, whatever it cost; 1 when one did not."""
    parser = argparse.ArgumentParser(prog="make benchmark", description=__doc__)
    parser.add_argument("--sets", default="A,B,C", help="which sets, such as B,C")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--protocol", choices=sorted(_PROTOCOLS), default="both")
    parser.add_argument(
        "--peers", default="", help="only those whose names begin so, such as archive,rclone"
    )
    parser.add_argument("--report", type=Path, default=DEFAULT_REPORT, help="a file ending in .md")
    chosen = parser.parse_args(arguments)
    names = [name for name in chosen.peers.split(",") if name]
    sets = [captures for captures in SETS if captures.name in chosen.sets.split(",")]
    try:
        copies = run_copies(
            sets,
            peers_named(names),
            rounds=chosen.rounds,
            protocols=_PROTOCOLS[chosen.protocol],
        )
    except RunFailedError as error:
        print(f"A peer did not do its work: {error}", file=sys.stderr)
        return 1
    report = Report(copies)
    report.write(chosen.report)
    print(report.to_markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
