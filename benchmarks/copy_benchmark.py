"""Copies sets of captures with every peer, round by round, and judges the medians."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.capture_sets import CaptureSet
from benchmarks.laboratory import Cost, Laboratory, open_laboratory
from benchmarks.peers import (
    CURL_GET,
    CURL_PUT,
    OPENSSL,
    OURS,
    OURS_EMPTY,
    PEERS,
    RCLONE,
    REQUESTS_BOTO3,
    Peer,
)

SETS = (
    CaptureSet("A", 2_000, 200_000),
    CaptureSet("B", 200, 5_000_000),
    CaptureSet("C", 10, 200_000_000),
)
ROUNDS = 5
MAX_TIMES_FLOOR = 1.1
MIN_TIMES_BETTER = 3.0
MAX_PEAK_MIB = 250
SMALL_BYTES = 1_000_000
"""Captures smaller than this are compared with rclone instead of the floor."""


@dataclass(frozen=True)
class Figures:
    """What one peer cost in each round."""

    peer: str
    gigabytes: float
    costs: tuple[Cost, ...]

    @property
    def cpu_per_gb(self) -> float:
        """Median of the whole process's processor seconds for a gigabyte."""
        return statistics.median(self._each_cpu_per_gb)

    @property
    def cpu_per_gb_range(self) -> tuple[float, float]:
        """The least and the most of them."""
        return min(self._each_cpu_per_gb), max(self._each_cpu_per_gb)

    @property
    def _each_cpu_per_gb(self) -> list[float]:
        return [cost.cpu_seconds / self.gigabytes for cost in self.costs]

    @property
    def wall_seconds(self) -> float:
        """Median."""
        return statistics.median(cost.wall_seconds for cost in self.costs)

    @property
    def peak_mib(self) -> float:
        """The most of all rounds."""
        return max(cost.peak_bytes for cost in self.costs) / (1 << 20)


@dataclass(frozen=True)
class Verdict:
    """A goal, what was measured, and whether it is reached."""

    goal: str
    measured: str
    is_reached: bool


@dataclass(frozen=True)
class SetResult:
    """All peers on one set, over plain HTTP or TLS."""

    captures: CaptureSet
    is_tls: bool
    figures: Mapping[str, Figures] = field(default_factory=dict[str, Figures])

    @property
    def floor(self) -> float | None:
        """Processor seconds a gigabyte of the three programs that do one thing each; None when one is missing."""
        names = [peer.name for peer in (CURL_GET, CURL_PUT, OPENSSL)]
        if not all(name in self.figures for name in names):
            return None
        return sum(self.figures[name].cpu_per_gb for name in names)

    @property
    def without_start(self) -> float | None:
        """Processor seconds a gigabyte of the archive, less those of the same process without work."""
        if OURS.name not in self.figures or OURS_EMPTY.name not in self.figures:
            return None
        return self.figures[OURS.name].cpu_per_gb - self.figures[OURS_EMPTY.name].cpu_per_gb

    @property
    def verdicts(self) -> list[Verdict]:
        """The goals that the measured peers allow to judge."""
        if OURS.name not in self.figures:
            return []
        ours = self.figures[OURS.name]
        found: list[Verdict] = []
        if self.captures.size_bytes >= SMALL_BYTES:
            if self.floor is not None:
                times = ours.cpu_per_gb / self.floor
                goal = f"at most {MAX_TIMES_FLOOR} times (curl GET + curl PUT + openssl)"
                found.append(Verdict(goal, f"{times:.2f}", times <= MAX_TIMES_FLOOR))
        elif RCLONE.name in self.figures:
            times = ours.cpu_per_gb / self.figures[RCLONE.name].cpu_per_gb
            found.append(Verdict(f"below {RCLONE.name}", f"{times:.2f}", times < 1))
        if REQUESTS_BOTO3.name in self.figures:
            times = self.figures[REQUESTS_BOTO3.name].cpu_per_gb / ours.cpu_per_gb
            goal = f"at least {MIN_TIMES_BETTER:.0f} times better than {REQUESTS_BOTO3.name}"
            found.append(Verdict(goal, f"{times:.2f}", times >= MIN_TIMES_BETTER))
        is_small = ours.peak_mib <= MAX_PEAK_MIB
        goal = f"at most {MAX_PEAK_MIB} MiB peak"
        return [*found, Verdict(goal, f"{ours.peak_mib:.0f} MiB", is_small)]


def run_copies(
    sets: Iterable[CaptureSet], peers: Sequence[Peer], *, rounds: int, protocols: Iterable[bool]
) -> list[SetResult]:
    """Measure each peer on each set; within a round all peers, each round begins with another one.

    Args:
        sets: What is copied.
        peers: Who copies; those that are not installed are left out.
        rounds: How often.
        protocols: With TLS or not.

    Raises:
        RunFailedError: A peer failed or did not deliver every byte.
    """
    installed = [peer for peer in peers if peer.is_installed]
    results: list[SetResult] = []
    for is_tls in protocols:
        for captures in sets:
            with open_laboratory(is_tls=is_tls, space_bytes=captures.total_bytes) as laboratory:
                captures.write(laboratory.directory)
                costs = _rounds(laboratory, captures, installed, rounds)
            figures = {
                name: Figures(name, captures.gigabytes, tuple(each)) for name, each in costs.items()
            }
            results.append(SetResult(captures, is_tls, figures))
    return results


def _rounds(
    laboratory: Laboratory, captures: CaptureSet, peers: Sequence[Peer], rounds: int
) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {peer.name: [] for peer in peers}
    for number in range(rounds):
        first = number % len(peers)
        for position, peer in enumerate((*peers[first:], *peers[:first])):
            cost = peer.run(laboratory, captures, f"round-{number}-{position}")
            costs[peer.name].append(cost)
            print(
                f"{captures.name} {'TLS' if laboratory.ca_file else 'plain'} round {number + 1}: {peer.name}: "
                f"{cost.cpu_seconds / captures.gigabytes:.2f} CPU s/GB, {cost.wall_seconds:.1f} s, "
                f"{cost.peak_bytes >> 20} MiB",
                file=sys.stderr,
                flush=True,
            )
    return costs


def peers_named(names: Sequence[str]) -> list[Peer]:
    """The peers whose names begin with one of these; all for none."""
    return [
        peer
        for peer in PEERS
        if not names or any(peer.name.startswith(name.strip()) for name in names)
    ]
