"""The benchmarks do what they say, on captures so few that their figures mean nothing."""

import json

import pytest

from benchmarks import __main__ as program
from benchmarks import peers
from benchmarks.capture_sets import CaptureSet
from benchmarks.copy_benchmark import Figures, SetResult, run_copies
from benchmarks.laboratory import Cost, RunFailedError
from benchmarks.report import Report

TINY = CaptureSet("tiny", 2, 9_000_000)  # large enough to be uploaded in parts


@pytest.fixture(autouse=True)
def _sockets(socket_enabled):
    """The servers of a benchmark are processes on this machine."""


def test_every_peer_that_is_installed_delivers_every_byte(tmp_path):
    results = run_copies([TINY], peers.PEERS, rounds=1, protocols=[True])

    measured = results[0].figures
    assert set(measured) == {peer.name for peer in peers.PEERS if peer.is_installed}
    assert {"archive_shard", "requests + boto3"} <= set(measured)
    assert all(each.cpu_per_gb > 0 and each.peak_mib > 1 for each in measured.values())
    Report(results).write(tmp_path / "report.md")
    assert "| archive_shard |" in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["copies"][0]["name"] == "tiny"


def test_a_peer_that_delivers_nothing_fails_the_benchmark():
    idle = peers.Peer("idle", None, lambda _task: ["true"], peers.OURS.check)

    with pytest.raises(RunFailedError, match="idle: capture 0 of set tiny: 0 bytes arrived"):
        run_copies([TINY], [idle], rounds=1, protocols=[False])


@pytest.mark.parametrize(
    ("pieces", "number"),
    [
        ([], 0),
        ([(69_999, None)], 0),
        ([(70_000, 1)], 0),
        ([(70_000, None)], 1),
        ([(40_000, None), (29_999, None)], 0),
    ],
    ids=["nothing", "a byte less", "another byte", "another capture", "a part less a byte"],
)
def test_what_arrived_otherwise_is_told(tmp_path, pieces, number):
    import zlib

    one = CaptureSet("one", 2, 70_000)
    one.write(tmp_path)
    body = one.file(tmp_path, 0).read_bytes()
    arrived, start = [], 0
    for size, crc32 in pieces:
        arrived.append((size, crc32 or zlib.crc32(body[start : start + size])))
        start += size
    whole = {each: [(70_000, zlib.crc32(one.file(tmp_path, each).read_bytes()))] for each in (0, 1)}

    assert one.faults(tmp_path, whole) == []
    assert len(one.faults(tmp_path, whole | {number: arrived})) == 1


def _figures(peer: peers.Peer, *cpu_seconds: float) -> dict[str, Figures]:
    costs = tuple(Cost(each, 1.0, 100 << 20) for each in cpu_seconds)
    return {peer.name: Figures(peer.name, 1.0, costs)}


@pytest.mark.parametrize(
    ("ours", "reached"), [(1.1, True), (1.2, False)], ids=["at the floor", "above the floor"]
)
def test_the_median_of_large_captures_is_held_against_the_three_floors(ours, reached):
    figures = _figures(peers.OURS, ours, 9.0, 0.1)
    for peer, cost in ((peers.CURL_GET, 0.3), (peers.CURL_PUT, 0.3), (peers.OPENSSL, 0.4)):
        figures |= _figures(peer, cost)

    result = SetResult(CaptureSet("B", 200, 5_000_000), is_tls=False, figures=figures)

    assert result.floor == pytest.approx(1.0)
    assert [verdict.is_reached for verdict in result.verdicts] == [reached, True]


def test_small_captures_are_held_against_rclone():
    figures = _figures(peers.OURS, 1.0) | _figures(peers.RCLONE, 1.1)
    figures |= _figures(peers.REQUESTS_BOTO3, 2.9)

    result = SetResult(CaptureSet("A", 2_000, 200_000), is_tls=False, figures=figures)

    assert [verdict.is_reached for verdict in result.verdicts] == [True, False, True]


def test_what_is_unknown_is_not_measured(capsys):
    with pytest.raises(SystemExit):
        program.main(["--what", "everything"])

    assert "nothing called everything" in capsys.readouterr().err
