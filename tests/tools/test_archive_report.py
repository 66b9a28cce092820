"""`make run` must not call an archive whole that is not."""

from datetime import UTC, datetime, timedelta

import pytest

from tools.archive_report import Archived, Hour, compare_with_truth

START = datetime(2026, 11, 22, 5, tzinfo=UTC)
HOUR = Hour(START, START + timedelta(hours=1), archived_from=START + timedelta(hours=2))
KEY = "captures/org_id=o/created_date=2026-11-22/created_hour=05/task-1/recording/capture-1/a.wav"


def milliseconds(moment):
    return int(moment.timestamp() * 1000)


def a_truth(**capture):
    created = milliseconds(START + timedelta(minutes=10))
    offered = {
        "kind": "recording",
        "id": "capture-1",
        "file_name": "a.wav",
        "size_bytes": 3,
        "sha256": "abc",
        "available_ms": created,
        "changed_ms": None,
        "purged": False,
    }
    return {
        "task_id": "task-1",
        "created_ms": created,
        "visible_ms": created,
        "captures": [{**offered, **capture}],
    }


def a_capture_row(**changes):
    row = {
        "task_id": "task-1",
        "kind": "recording",
        "capture_id": "capture-1",
        "file_name": "a.wav",
        "outcome": "copied",
        "object_key": KEY,
        "size_bytes": 3,
        "sha256": "abc",
        "copied_time": HOUR.archived_from,
    }
    return {**row, **changes}


def an_archive(captures=None, contact_tasks=None, sizes=None, sha256s=None):
    return Archived(
        contact_tasks=[{"task_id": "task-1"}] if contact_tasks is None else contact_tasks,
        captures=[a_capture_row()] if captures is None else captures,
        object_sizes={KEY: 3} if sizes is None else sizes,
        object_sha256s={KEY: "abc"} if sha256s is None else sha256s,
    )


def test_a_whole_archive_has_no_difference():
    comparison = compare_with_truth([a_truth()], [HOUR], an_archive())

    assert comparison.differences == []
    assert (comparison.contact_tasks, comparison.captures, comparison.size_bytes) == (1, 1, 3)


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        pytest.param(an_archive(contact_tasks=[]), "has no row", id="a contact task without a row"),
        pytest.param(
            an_archive(captures=[], sizes={}), "not in the table", id="a capture without a row"
        ),
        pytest.param(an_archive(sizes={}), "has no object", id="a row without its object"),
        pytest.param(an_archive(sizes={KEY: 2}), "not what its row says", id="an object cut short"),
        pytest.param(an_archive(sha256s={KEY: "x"}), "not what its row says", id="other bytes"),
        pytest.param(
            an_archive(captures=[a_capture_row(sha256="x")], sha256s={KEY: "x"}),
            "not the sandbox's",
            id="bytes that the sandbox does not hold",
        ),
        pytest.param(
            an_archive(captures=[a_capture_row(), a_capture_row()]), "two rows", id="a row twice"
        ),
        pytest.param(
            an_archive(sizes={KEY: 3, "captures/other": 1}),
            "has no row",
            id="an object without a row",
        ),
        pytest.param(
            an_archive(captures=[a_capture_row(outcome="failed", last_error="HTTP 500")], sizes={}),
            "HTTP 500",
            id="a failed copy",
        ),
        pytest.param(
            an_archive(captures=[a_capture_row(outcome="pending", object_key=None)], sizes={}),
            "is pending",
            id="a capture left for later though it was offered",
        ),
    ],
)
def test_a_difference_is_found(archive, words):
    comparison = compare_with_truth([a_truth()], [HOUR], archive)

    assert len(comparison.differences) == 1
    assert words in comparison.differences[0]


def test_what_was_offered_after_the_archiving_may_be_missing():
    truth = a_truth(available_ms=milliseconds(HOUR.archived_from + timedelta(minutes=1)))

    comparison = compare_with_truth([truth], [HOUR], an_archive(captures=[], sizes={}))

    assert comparison.differences == []
    assert comparison.not_yet_offered == 1


def test_what_was_purged_before_it_could_be_copied_is_no_difference():
    gone = an_archive(captures=[a_capture_row(outcome="gone", object_key=None)], sizes={})

    comparison = compare_with_truth([a_truth(purged=True)], [HOUR], gone)

    assert comparison.differences == []
    assert comparison.purged == 1


def test_bytes_that_changed_after_the_copy_are_not_compared():
    changed = milliseconds(HOUR.archived_from + timedelta(minutes=5))

    comparison = compare_with_truth(
        [a_truth(changed_ms=changed, sha256="newer")], [HOUR], an_archive()
    )

    assert comparison.differences == []


def test_two_transcripts_of_one_id_are_both_wanted():
    """The id of a transcript is that of a configuration: documented."""
    truth = a_truth()
    truth["captures"].append({**truth["captures"][0], "file_name": "b.wav"})
    second = a_capture_row(
        capture_id="capture-1~0123456789ab", file_name="b.wav", object_key=f"{KEY}2"
    )
    both = an_archive(
        captures=[a_capture_row(), second],
        sizes={KEY: 3, f"{KEY}2": 3},
        sha256s={KEY: "abc", f"{KEY}2": "abc"},
    )

    assert compare_with_truth([truth], [HOUR], both).differences == []
    assert compare_with_truth([truth], [HOUR], an_archive()).differences == [
        "recording capture-1 (b.wav) was offered and is not in the table"
    ]
