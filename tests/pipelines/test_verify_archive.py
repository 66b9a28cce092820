"""What a verification promises: an undamaged archive gives no finding, and every damage at least one."""

import io
import json
import random
from dataclasses import replace
from datetime import timedelta

import pyarrow.parquet as pq
import pytest

from include.domain.capture_state import CapturePolicy
from include.domain.errors import VerificationFailed
from include.domain.interval import HOUR, Interval
from include.domain.rows import ContactTaskRow
from include.pipelines.verify_archive import (
    find_foreign_objects,
    orgs_of,
    verify_archive,
    verify_bucket,
)
from include.storage.hints import Hint, write_hints
from include.storage.tables import from_parquet, to_parquet

HOURS_AGO = (28, 27, 26)


@pytest.fixture
def centre(open_centre):
    """Three hours, checked again a day later; calls were stitched anew in between."""
    centre = open_centre(
        tasks_per_hour=6,
        restitched_share=0.5,
        restitched_after_hours=40.0,
        recording_bytes_max=60_000,
        segments_max=1,
    )
    for back in HOURS_AGO:
        centre.run(centre.hour(back))
    for hours in (20, 10):
        centre.sandbox.advance(hours * 3600)
        centre.recheck()
    centre.sandbox.advance(60)
    return centre


def kinds_of(centre, **options) -> set[str]:
    archive = centre.archive("verify")
    found = verify_bucket(archive, options.pop("interval", None), **options)
    orgs = orgs_of(archive.store, "")
    findings = [*found.findings, *find_foreign_objects(archive.store, "", orgs)]
    for finding in findings:  # each can be told
        assert finding.sentence
        assert "{" not in finding.remedy.replace('{"recopy": true}', ""), finding.remedy
    return {finding.kind for finding in findings}


def put(centre, key: str, body: bytes) -> None:
    centre.s3.put_object(Bucket=centre.bucket, Key=key, Body=body)


def remove(centre, key: str) -> None:
    centre.s3.delete_object(Bucket=centre.bucket, Key=key)


def keys(centre, text: str) -> list[str]:
    return [key for key in centre.archived.keys if text in key]


def an_object(centre, chance):
    return chance.choice(centre.archived.objects)


def test_an_undamaged_archive_gives_no_finding(centre):
    found = verify_bucket(centre.archive(), None)

    assert [finding.sentence for finding in found.findings] == []
    assert kinds_of(centre) == set()
    assert found.hashed_objects == found.objects == len(centre.archived.objects)
    rows = centre.archived.rows("captures")
    assert found.objects > len(rows), "a later version of a recording has an object of its own"
    assert found.latest_sha256
    assert kinds_of(centre, held_sha256=found.latest_sha256) == set()
    archive = centre.archive()
    write_hints(archive.store, archive.keys, [Hint("any", centre.now)], centre.now)
    assert kinds_of(centre) == set(), "hints wait for a recheck in each bucket that receives events"


def delete_an_object(centre, chance):
    remove(centre, an_object(centre, chance))


def flip_a_byte_of_an_object(centre, chance):
    key = an_object(centre, chance)
    body = bytearray(centre.archived.bytes_of(key))
    body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
    put(centre, key, bytes(body))


def truncate_an_object(centre, chance):
    key = an_object(centre, chance)
    body = centre.archived.bytes_of(key)
    put(centre, key, body[: chance.randrange(len(body))])


def swap_two_objects(centre, chance):
    archived = centre.archived
    one, other = chance.sample(archived.objects, 2)
    bodies = archived.bytes_of(one), archived.bytes_of(other)
    assert bodies[0] != bodies[1]
    put(centre, one, bodies[1])
    put(centre, other, bodies[0])


def delete_an_earlier_version(centre, chance):
    named = {row["object_key"] for row in centre.archived.rows("captures")}
    remove(centre, chance.choice(sorted(set(centre.archived.objects) - named)))


def remove_a_row(centre, chance, table="captures"):
    key = chance.choice(keys(centre, f"tables/{table}/"))
    rows = pq.read_table(io.BytesIO(centre.archived.bytes_of(key)))
    gone = chance.randrange(len(rows))
    kept = rows.take([place for place in range(len(rows)) if place != gone])
    body = io.BytesIO()
    pq.write_table(kept, body, compression="zstd")
    put(centre, key, body.getvalue())


def remove_a_contact_task(centre, chance):
    remove_a_row(centre, chance, "contact_tasks")


def alter_a_row(centre, chance):
    key = chance.choice(keys(centre, "tables/contact_tasks/"))
    rows = from_parquet(centre.archived.bytes_of(key), ContactTaskRow)
    changed = chance.randrange(len(rows))
    rows[changed] = replace(rows[changed], owner_name="Somebody Else")
    put(centre, key, to_parquet(rows, ContactTaskRow))


def remove_a_partition(centre, chance):
    remove(centre, chance.choice(keys(centre, "tables/")))


def put_an_earlier_partition_back(centre, chance):
    """Which one it was is known to whoever kept a copy: here the one before the last recheck."""
    key = keys(centre, "tables/contact_tasks/")[0]
    before = centre.archived.bytes_of(key)
    centre.run(centre.hour(HOURS_AGO[0]))
    assert centre.archived.bytes_of(key) != before
    put(centre, key, before)


def remove_an_hour(centre, chance, date_and_hour=None):
    """Everything of it: objects, rows, and the manifests stay, since others need them."""
    hour = centre.hour(chance.choice(HOURS_AGO)).start
    for key in keys(centre, f"created_date={hour:%Y-%m-%d}"):
        if f"created_hour={hour:%H}/" in key or key.endswith(f"/{hour:%H}.parquet"):
            remove(centre, key)


def remove_an_hour_and_its_manifests(centre, chance):
    hour = centre.hour(chance.choice(HOURS_AGO)).start
    remove_an_hour(centre, chance)
    for key in keys(centre, "manifests/"):
        if f"{hour:%Y-%m-%d}/{hour:%H}.parquet" in centre.archived.bytes_of(key).decode():
            remove(centre, key)


def add_a_foreign_object(centre, chance):
    key = an_object(centre, chance)
    put(centre, key.rpartition("/")[0] + "/another.wav", b"RIFF")


def add_a_foreign_object_to_no_hour(centre, chance):
    put(centre, chance.choice(["captures/mine.wav", "captures/org_id=1/a", "tables/a.csv"]), b"a")


def add_a_foreign_object_of_an_hour_never_archived(centre, chance):
    key = an_object(centre, chance)
    put(centre, key.replace("created_date=2026", "created_date=2024"), b"a")


def add_a_foreign_partition(centre, chance):
    key = chance.choice(keys(centre, "tables/captures/"))
    put(
        centre, key.replace("created_date=2026", "created_date=2024"), centre.archived.bytes_of(key)
    )


def add_a_partition_of_no_hour(centre, chance):
    key = chance.choice(keys(centre, "tables/captures/"))
    put(centre, key.rpartition("/")[0] + "/copy.parquet", centre.archived.bytes_of(key))


def alter_a_manifest(centre, chance):
    key = chance.choice(keys(centre, "manifests/"))
    manifest = json.loads(centre.archived.bytes_of(key))
    manifest["partitions"][0]["rows"] += 1
    put(centre, key, json.dumps(manifest, indent=1, sort_keys=True).encode())


def reorder_a_manifest(centre, chance):
    key = chance.choice([k for k in keys(centre, "manifests/") if b'"captures' not in k.encode()])
    manifest = json.loads(centre.archived.bytes_of(key))
    manifest["partitions"].reverse()
    put(centre, key, json.dumps(manifest, indent=1, sort_keys=True).encode())


def swap_two_manifests(centre, chance):
    archived = centre.archived
    one, other = chance.sample(keys(centre, "manifests/"), 2)
    bodies = archived.bytes_of(one), archived.bytes_of(other)
    put(centre, one, bodies[1])
    put(centre, other, bodies[0])


def remove_a_manifest(centre, chance):
    remove(centre, chance.choice(keys(centre, "manifests/")[1:]))


def fill_a_manifest_with_noise(centre, chance):
    put(centre, chance.choice(keys(centre, "manifests/")), b"\x00noise")


def remove_a_due_marker(centre, chance):
    for key in keys(centre, "/check/"):
        remove(centre, key)


def add_a_foreign_object_in_the_hour_of_another_folder(centre, chance):
    key = an_object(centre, chance)
    put(centre, key.replace("/created_date=", "/zz/created_date="), b"a")


def add_a_foreign_partition_in_another_folder(centre, chance):
    """A reader of `tables/captures/**` would count its rows twice."""
    key = chance.choice(keys(centre, "tables/captures/"))
    put(centre, key.replace("/created_date=", "/zz/created_date="), centre.archived.bytes_of(key))


def add_a_manifest_far_ahead(centre, chance):
    put(centre, keys(centre, "manifests/")[0][:-15] + "0000000001.json", b"{}")


DAMAGES = [
    delete_an_object, flip_a_byte_of_an_object, truncate_an_object, swap_two_objects,
    delete_an_earlier_version, remove_a_row, remove_a_contact_task, alter_a_row, remove_a_partition,
    put_an_earlier_partition_back, remove_an_hour, remove_an_hour_and_its_manifests,
    add_a_foreign_object, add_a_foreign_object_to_no_hour,
    add_a_foreign_object_of_an_hour_never_archived, add_a_foreign_partition,
    add_a_partition_of_no_hour, alter_a_manifest, reorder_a_manifest, swap_two_manifests,
    remove_a_manifest, fill_a_manifest_with_noise, remove_a_due_marker,
    add_a_foreign_object_in_the_hour_of_another_folder, add_a_foreign_partition_in_another_folder,
    add_a_manifest_far_ahead,
]  # fmt: skip


def etags(centre) -> dict[str, str]:
    pages = centre.s3.get_paginator("list_objects_v2").paginate(Bucket=centre.bucket)
    return {item["Key"]: item["ETag"] for page in pages for item in page.get("Contents", [])}


@pytest.mark.timeout(300)
def test_every_damage_is_found(centre, subtests):
    """One archive, damaged in every way in turn and put right again in between."""
    whole = {key: centre.archived.bytes_of(key) for key in centre.archived.keys}
    before = etags(centre)
    for seed, damage in enumerate(DAMAGES):
        with subtests.test(damage=damage.__name__):
            damage(centre, random.Random(seed))
            assert etags(centre) != before
            assert kinds_of(centre) != set()
        after = etags(centre)
        for key in after.keys() - before.keys():
            remove(centre, key)
        for key, etag in before.items():
            if after.get(key) != etag:
                put(centre, key, whole[key])
    assert kinds_of(centre) == set()


def verify(centre, **options):
    fields = {
        "interval": Interval(centre.hour(HOURS_AGO[0]).start, centre.hour(HOURS_AGO[-1]).end),
        "sha256_percent": 0,
        "is_whole_interval": True,
        "archive": centre.archive("verify"),
    } | options
    return verify_archive(client=centre.client, **fields)


def test_an_alteration_that_a_later_run_built_upon_is_found_all_the_same(centre):
    """Who runs the hour again makes the altered row look published; the chain remembers."""
    alter_a_row(centre, random.Random(1))
    for back in HOURS_AGO:
        centre.run(centre.hour(back))

    assert kinds_of(centre) == {"partition_was_altered"}


def test_a_chain_that_was_written_anew_is_found_by_who_holds_its_hash(centre):
    held = verify_bucket(centre.archive(), None).latest_sha256
    for key in keys(centre, "manifests/") + keys(centre, "tables/"):
        remove(centre, key)
    for back in HOURS_AGO:
        centre.run(centre.hour(back))

    assert "hash_not_in_chain" not in kinds_of(centre)
    assert "hash_not_in_chain" in kinds_of(centre, held_sha256=held)


def test_an_hour_between_others_that_was_never_archived_is_told_where_a_range_is_given(centre):
    interval = Interval(centre.hour(30).start, centre.hour(26).end)

    assert kinds_of(centre, interval=interval) == {"hour_not_archived"}
    centre.run(centre.hour(30))
    assert verify_bucket(centre.archive(), None).gaps() == 1


def test_a_run_under_way_is_no_finding(centre):
    """Its objects have no rows yet; its working files tell of it."""
    archive = centre.archive("under way")
    archive.store.write(archive.working_file("to_query-0000000.parquet"), b"")
    add_a_foreign_object(centre, random.Random(1))
    assert kinds_of(centre) == set()

    archive.store.delete(list(archive.own_working_files()))
    assert kinds_of(centre) == {"object_unknown"}


def test_a_run_that_was_killed_before_it_wrote_its_partition_is_told_and_mended_by_a_repeat(centre):
    key = keys(centre, "tables/contact_tasks/")[0]
    before = centre.archived.bytes_of(key)
    centre.run(centre.hour(HOURS_AGO[0]))
    put(centre, key, before)  # as if it had died after its manifest

    assert kinds_of(centre) == {"partition_unfinished"}
    centre.sandbox.advance(60)
    centre.run(centre.hour(HOURS_AGO[0]))
    assert kinds_of(centre) == set()


def test_only_a_sample_is_read_and_another_one_each_day(centre):
    first = verify(centre, sha256_percent=30)
    centre.sandbox.advance(24 * 3600)
    second = verify(centre, sha256_percent=30)

    assert 0 < first.hashed_objects < first.objects
    assert (first.hashed_objects, first.hashed_bytes) != (
        second.hashed_objects,
        second.hashed_bytes,
    )
    assert verify(centre, sha256_percent=0).hashed_objects == 0


def test_what_is_found_is_written_as_completeness(centre):
    found = verify(centre)
    rows = centre.archived.rows("completeness")

    assert found.findings == []
    assert len(rows) == len(found.completeness)
    contact_tasks = centre.archived.rows("contact_tasks")
    assert sum(row["contact_tasks"] for row in rows) == len(contact_tasks)
    assert sum(row["captures"] for row in rows) == len(centre.archived.rows("captures"))
    for state in ("archived", "pending", "overdue", "gone", "failed"):
        count = sum(row["capture_state"] == state for row in contact_tasks)
        assert sum(row[state] for row in rows) == count
    remove_a_row_of_completeness = keys(centre, "tables/completeness/")[0]
    remove(centre, remove_a_row_of_completeness)
    assert kinds_of(centre) == {"partition_missing"}


def test_a_contact_task_that_webex_lists_and_no_row_knows_is_told(open_centre):
    centre = open_centre(tasks_per_hour=20, late_listed_share=0.3, late_listed_minutes=28 * 60.0)
    centre.run(centre.hour(26))
    centre.sandbox.advance(24 * 3600)

    hour = Interval(centre.hour(26).start, centre.hour(26).end)
    found = verify(centre, interval=hour)

    truth = {task["task_id"] for task in centre.truth(hour)}
    rows = {row["task_id"] for row in centre.archived.rows("contact_tasks")}
    assert truth - rows
    assert sum(row.missing for row in found.completeness) == len(truth - rows)
    assert found.findings == [], "the hour is still to be listed again: no alarm"
    centre.recheck()
    assert truth == {row["task_id"] for row in centre.archived.rows("contact_tasks")}


def test_a_contact_task_that_is_missing_from_a_settled_hour_is_an_alarm(open_centre):
    centre = open_centre(
        tasks_per_hour=20, late_listed_share=0.3, late_listed_minutes=20 * 24 * 60.0
    )
    centre.run(centre.hour(18 * 24))
    centre.sandbox.advance(3 * 24 * 3600)

    hour = Interval(centre.hour(18 * 24).start, centre.hour(18 * 24).end)
    found = verify(centre, interval=hour)

    assert {finding.kind for finding in found.findings} == {"contact_task_missing"}
    with pytest.raises(VerificationFailed, match="airflow dags trigger archive_captures"):
        found.raise_findings()


def test_what_somebody_puts_among_the_manifests_stops_no_publication(centre):
    folder = keys(centre, "manifests/")[0].rpartition("/")[0]
    put(centre, f"{folder}/", b"")
    put(centre, f"{folder}/0000000001.json", b"{}")
    before = len(keys(centre, "manifests/"))

    centre.run(centre.hour(HOURS_AGO[0]))

    assert len(keys(centre, "manifests/")) == before + 1
    assert kinds_of(centre) <= {"object_unknown", "manifest_altered", "manifest_missing"}


def test_a_lost_due_marker_is_written_again(centre):
    markers = keys(centre, "/check/")
    remove_a_due_marker(centre, random.Random(1))
    assert kinds_of(centre) == {"not_due"}

    assert verify(centre).findings == []
    assert kinds_of(centre) == set()
    assert {key.rpartition("/")[2] for key in keys(centre, "/check/")} == {
        key.rpartition("/")[2] for key in markers
    }


def test_what_is_about_to_be_purged_raises_an_alarm_before(open_centre):
    """Hours that nobody archived, and contact tasks that still wait for their capture."""
    centre = open_centre(tasks_per_hour=10, never_comes_share=1.0)
    centre.run(centre.hour(5 * 24))
    policy = CapturePolicy(retention=timedelta(days=6))
    interval = Interval(centre.hour(3).start, centre.hour(2).start)
    centre.run(centre.hour(3))

    archive = replace(centre.archive("verify"), policy=policy)
    found = verify(centre, interval=interval, archive=archive)

    purged_soon = {
        finding.hour for finding in found.findings if finding.kind == "purge_near" and finding.hour
    }
    assert centre.hour(5 * 24).start in purged_soon, "a contact task without its capture"
    assert centre.hour(5 * 24 - 1).start in purged_soon, "an hour that was never archived"
    assert min(purged_soon) >= centre.now - timedelta(days=6) - HOUR
    assert max(purged_soon) <= centre.now - timedelta(days=3)


def test_without_a_range_hours_before_the_first_archived_one_are_not_missed(centre):
    interval = Interval(centre.hour(24 * 3).start, centre.hour(HOURS_AGO[-1]).end)

    assert verify(centre, interval=interval, is_whole_interval=False).findings == []
    found = verify(centre, interval=interval, is_whole_interval=True)
    assert {finding.kind for finding in found.findings} == {"hour_not_archived"}
