"""Whole runs of recheck_captures and verify_archive in one Airflow process, on the archive that an hour left."""

from datetime import UTC, datetime

import pytest

from include.domain.interval import from_epoch_ms
from tests.archived import assert_complete, truth_with_all


def states(run) -> dict[str, str]:
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}


def have_listed_again(runner, hour_ms: int) -> None:
    """A due marker more than there is need for is allowed: whoever sets it has the hour looked at."""
    org_id = runner.webex["extra"]["org_id"]
    hour = f"{from_epoch_ms(hour_ms):%Y%m%dT%H}Z"
    key = f"due/org_id={org_id}/20200101T000000Z/list/{hour}"
    runner.s3.put_object(Bucket=runner.bucket, Key=key, Body=b"")


def given_range(runner) -> dict[str, str]:
    start_ms, end_ms = runner.interval_ms()
    return {"from": from_epoch_ms(start_ms).isoformat(), "to": from_epoch_ms(end_ms).isoformat()}


def test_nothing_due_starts_one_airflow_task_and_asks_webex_nothing(runner, sandbox):
    run = runner.run("recheck_captures")

    assert states(run) == {
        "plan_recheck": "success",
        "archive_shard": "skipped",
        "publish_recheck": "skipped",
    }
    assert sandbox.requests()["counts"] == {}


@pytest.mark.parametrize(
    "sandbox",
    [{"late_listed_share": 0.4, "late_listed_minutes": 27 * 60.0, "requests_per_minute": 0}],
    indirect=True,
    ids=["listed a day late"],
)
def test_what_is_listed_late_is_archived_by_the_recheck(runner, sandbox):
    runner.run("refresh_access_token")
    runner.archive()
    before = {row["task_id"] for row in runner.archived.rows("contact_tasks")}
    sandbox.advance(24 * 3600)
    have_listed_again(runner, runner.interval_ms()[0])

    run = runner.run("recheck_captures")

    assert set(states(run).values()) == {"success"}
    rows = runner.archived.rows("contact_tasks")
    late = [row for row in rows if row["task_id"] not in before]
    assert late
    assert min(row["first_seen_time"] for row in late) > max(
        row["first_seen_time"] for row in rows if row["task_id"] in before
    )
    assert_complete(runner.archived, truth_with_all(sandbox, *runner.interval_ms()))
    assert runner.archived.working_files == []
    assert [key for key in runner.archived.keys if "/20200101T" in key] == []


def test_an_archived_hour_is_verified_and_counted(runner):
    runner.run("refresh_access_token")
    runner.archive()

    run = runner.run("verify_archive", **given_range(runner), sha256_percent=100)

    assert states(run) == {"verify": "success"}
    rows = runner.archived.rows("completeness")
    assert sum(row["contact_tasks"] for row in rows) == 20
    assert all(
        row["expected"]
        == sum(row[n] for n in ("archived", "pending", "overdue", "gone", "failed", "missing"))
        for row in rows
    )


def test_by_itself_it_verifies_the_days_since_the_first_archived_hour(runner):
    runner.run("refresh_access_token")
    runner.archive(hours_ago=4)
    runner.archive(hours_ago=3)

    run = runner.run("verify_archive", datetime.now(UTC))

    assert states(run) == {"verify": "success"}, (
        "an hour without a gap before it was called missing"
    )
    assert {row["created_hour"].hour for row in runner.archived.rows("completeness")}


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("an hour that was never archived", "hour_not_archived"),
        ("an object that was deleted", "object_missing"),
    ],
    ids=lambda value: value.replace("_", " "),
)
def test_what_is_missing_fails_the_run_once_with_the_command_that_mends_it(
    runner, capfd, damage, told
):
    runner.run("refresh_access_token")
    if told == "object_missing":
        runner.archive()
        runner.s3.delete_object(Bucket=runner.bucket, Key=runner.archived.objects[0])

    run = runner.run("verify_archive", **given_range(runner))

    assert states(run) == {"verify": "failed"}
    assert {ti.try_number for ti in run.get_task_instances()} == {1}
    out = "".join(capfd.readouterr())
    end = from_epoch_ms(runner.interval_ms()[1])
    assert told in out
    assert f"airflow dags trigger archive_captures --logical-date {end:%Y-%m-%dT%H:%M:%SZ}" in out
