"""Whole runs under policies for personal data: what the archive holds then, and after they change."""

import io
import re
from typing import Any

import pyarrow.parquet as pq
import pytest

from include.domain.personal_data import PersonalData
from include.pipelines import archive_captures as pipeline
from include.pipelines.verify_archive import verify_archive

SECRET = "a-secret-of-more-than-thirty-two-characters"
COLUMNS = ("origin", "destination", "owner_name", "participants", "file_name")
HASH = re.compile(r"[0-9a-f]{64}")


def hashing() -> PersonalData:
    return PersonalData.from_fields(dict.fromkeys(COLUMNS, "hash"), SECRET)


def personal_texts(centre) -> set[str]:
    """What the sandbox tells of the hour under the names of such columns."""
    found: set[str] = set()
    for task in centre.truth(centre.hour(26)):
        told = task["attributes"]
        found |= {told.get("origin") or "", told.get("destination") or ""}
        found.add((told.get("owner") or {}).get("name") or "")
        found |= {capture["file_name"] for capture in task["captures"]}
    return {text for text in found if text}


def tables(centre) -> dict[str, bytes]:
    archived = centre.archived
    return {key: archived.bytes_of(key) for key in archived.keys if "tables/" in key}


def rows(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return [row for body in files.values() for row in pq.read_table(io.BytesIO(body)).to_pylist()]


class LateTranscripts:
    """The API's client, for whom transcripts of one source do not exist yet."""

    def __init__(self, client: Any, source: str) -> None:
        self._client = client
        self.source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def post(self, path: str, body: Any) -> Any:
        answer = self._client.post(path, body)
        for entry in answer["data"]:
            told = entry.get("transcription") or []
            told[:] = [each for each in told if self.source not in each.values()]
        return answer


def test_no_table_no_working_file_and_no_key_holds_what_is_hashed(open_centre):
    centre = open_centre(tasks_per_hour=12, extra_members=True)
    centre.personal_data = hashing()
    archive, options = centre.archive(), pipeline.ArchiveOptions()
    shards = pipeline.plan_shards(centre.hour(26), centre.client, archive, options)
    pipeline.archive_shard(shards[0], centre.client, centre.media, archive, options)
    archived = centre.archived
    working_files = {
        key: archived.bytes_of(key) for key in archived.working_files if key.endswith(".parquet")
    }

    pipeline.publish_tables(centre.hour(26), archive, shards)

    texts = personal_texts(centre)
    assert len(texts) > 10
    assert len(working_files) == 4
    told = rows(working_files) + rows(tables(centre))
    assert [text for text in texts for row in told if text in repr(row)] == []
    assert [text for text in texts for key in centre.archived.keys if text in key] == []
    assert all(HASH.fullmatch(row["origin"]) for row in told if row.get("origin"))


def test_a_changed_policy_makes_no_second_capture_and_reaches_every_row_of_the_hour(open_centre):
    """Two transcripts that share one id keep theirs, and what Webex has purged since comes under it too."""
    centre = open_centre(
        tasks_per_hour=12,
        transcript_share=1.0,
        both_transcripts_share=1.0,
        purged_share=0.4,
        purged_after_hours=40.0,
    )
    interval = centre.hour(26)
    centre.run(interval)
    before = {row["capture_id"]: row["object_key"] for row in centre.archived.rows("captures")}
    assert [capture_id for capture_id in before if "~" in capture_id]
    centre.sandbox.advance(24 * 3600)
    centre.sandbox.reset_requests()
    centre.personal_data = hashing()

    centre.run(interval, run_id="under the new policy")

    after = {row["capture_id"]: row["object_key"] for row in centre.archived.rows("captures")}
    assert after == before
    assert "media" not in centre.sandbox.requests()["counts"]
    texts = personal_texts(centre)
    told = [{**row, "object_key": None} for row in rows(tables(centre))]
    assert [text for text in texts for row in told if text in repr(row)] == []
    centre.sandbox.advance(60)
    found = verify_archive(
        interval,
        centre.client,
        centre.archive("verify"),
        sha256_percent=100,
        is_whole_interval=True,
    )
    assert found.findings == []


def everywhere(policy: str) -> PersonalData:
    policies: dict[str, str] = dict.fromkeys((*COLUMNS, "owner_id", "queue_name"), policy)
    policies["extra_json"] = "drop" if policy == "drop" else "keep"
    return PersonalData.from_fields(policies, SECRET)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("keep", "keep"),
        *((first, then) for then in ("mask", "hash", "drop") for first in ("keep", then)),
    ],
    ids=lambda policy: policy,
)
def test_a_recheck_finds_every_capture_again_under_a_policy(open_centre, first: str, then: str):
    """A transcript that shares its id with one that comes later, and sorts first, keeps id, row and object."""
    centre = open_centre(tasks_per_hour=8, transcript_share=1.0, both_transcripts_share=1.0)
    centre.personal_data = everywhere(first)
    client = centre.client = LateTranscripts(centre.client, "realtime-voice")
    centre.run(centre.hour(3))
    before = {identity(row): stored(row) for row in centre.archived.rows("captures")}
    client.source = "none"
    centre.personal_data = everywhere(then)
    centre.sandbox.advance(24 * 3600)

    assert centre.recheck() > 0

    rows = centre.archived.rows("captures")
    after = {identity(row): stored(row) for row in rows}
    late = {identity(row) for row in rows if row["source"] == "realtime-voice"}
    assert len(after) == len(rows)
    assert {each: after[each] for each in before} == before
    assert after.keys() - before.keys() == late
    assert late
    assert all("~" in capture_id for _, _, capture_id in late)
    objects = [row["object_key"] for row in rows]
    assert sorted(objects) == sorted(centre.archived.objects)
    told = {
        capture["sha256"] for task in centre.truth(centre.hour(3)) for capture in task["captures"]
    }
    assert {row["sha256"] for row in rows} == told


def identity(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["task_id"], row["kind"], row["capture_id"]


def stored(row: dict[str, Any]) -> tuple[str, str]:
    return row["object_key"], row["sha256"]
