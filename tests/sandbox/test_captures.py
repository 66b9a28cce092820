import json
from collections import Counter

import pytest

from include.sandbox.bodies import BodyMaker
from tests.sandbox.client import ALL_FLAGS, HOUR_MS, NOW_MS, offered

FROM_MS = NOW_MS - 30 * HOUR_MS
TO_MS = NOW_MS - 28 * HOUR_MS
UNKNOWN_ID = "11111111-2222-4333-8444-555555555555"

ALWAYS = {"captured_share": 1.0, "abandoned_share": 0.0}
CALLS = ALWAYS | {"email_weight": 0.0, "chat_weight": 0.0, "social_weight": 0.0}


def ids_of(client, count: int = 30) -> list[str]:
    return [row["id"] for row in client.walk(FROM_MS, TO_MS)[:count]]


def test_a_stitched_recording_bears_the_contact_tasks_id_and_always_the_same_name(open_sandbox):
    client = open_sandbox(**CALLS)

    for entry in client.all_captures(ids_of(client)):
        main = [e for e in entry["recording"] if e["attributes"]["callType"] == "main"]
        assert [each["id"] for each in main] == [entry["taskId"]]
        assert main[0]["attributes"]["fileName"] == "combinedRecordings.wav"
        assert main[0]["segment"] is False


def test_segments_replace_the_stitched_recording_and_consult_comes_in_both(open_sandbox):
    client = open_sandbox(**CALLS | {"consult_share": 1.0})
    ids = ids_of(client)

    stitched = client.all_captures(ids)
    segments = client.all_captures(ids, includeSegments=True)

    counts = set()
    for whole, parts in zip(stitched, segments, strict=True):
        pieces = [each for each in parts["recording"] if each["segment"]]
        counts.add(len(pieces))
        assert whole["taskId"] not in [each["id"] for each in parts["recording"]]
        assert len({each["id"] for each in pieces}) == len(pieces)
        consult = [e for e in parts["recording"] if e["attributes"]["callType"] == "consult"]
        assert len(consult) == 1
        assert consult[0]["segment"] is False
        assert consult[0]["id"] in [each["id"] for each in whole["recording"]]
    assert counts == {1, 2, 3}


def test_virtual_agent_and_screen_recordings_come_only_when_asked_for(open_sandbox):
    client = open_sandbox(**CALLS | {"va_share": 1.0, "screen_share": 1.0})
    ids = ids_of(client)

    plain = client.all_captures(ids)
    asked = client.all_captures(ids, includeVARecordings=True, includeScreenRecordings=True)

    assert not any("screenRecordings" in entry for entry in plain)
    assert all(len(entry["screenRecordings"]) == 1 for entry in asked)
    types = Counter(
        each["attributes"]["callType"] for entry in asked for each in entry["recording"]
    )
    assert types.keys() == {"main", "va-main", "va-consult", "consult"}
    assert all(
        isinstance(each["attributes"]["sensitive"], bool)
        for entry in asked
        for each in entry["recording"]
        if each["attributes"]["callType"].startswith("va-")
    )
    assert "va-main" not in str(plain)


def test_two_voice_transcripts_can_share_an_id(open_sandbox):
    client = open_sandbox(**CALLS | {"transcript_share": 1.0, "both_transcripts_share": 1.0})

    for entry in client.all_captures(ids_of(client)):
        first, second = entry["transcription"]
        assert first["id"] == second["id"]
        assert first["fileName"] != second["fileName"]
        bodies = [client.send("GET", each["filePath"]).json() for each in (first, second)]
        assert "responseContents" in bodies[0]
        assert "vcon" in bodies[1]


def test_two_transcripts_can_share_even_their_file_name(open_sandbox):
    client = open_sandbox(
        **ALWAYS,
        transcript_share=1.0,
        both_transcripts_share=1.0,
        digital_both_share=1.0,
        same_name_transcripts=True,
    )

    for entry in client.all_captures(ids_of(client, 10), includeAllDigitalVersions=True):
        first, second = entry["transcription"]
        assert (first["id"], first["fileName"]) == (second["id"], second["fileName"])
        bodies = {client.send("GET", each["filePath"]).body for each in (first, second)}
        assert len(bodies) == 2


def test_both_generations_of_digital_transcripts_come_only_when_asked_for(open_sandbox):
    client = open_sandbox(**ALWAYS, telephony_weight=0.0, digital_both_share=1.0)
    ids = ids_of(client)

    assert {len(e["transcription"]) for e in client.all_captures(ids)} == {1}
    both = client.all_captures(ids, includeAllDigitalVersions=True)
    assert {len(entry["transcription"]) for entry in both} == {2}


def test_ids_that_match_nothing_are_empty_entries(open_sandbox):
    client = open_sandbox(**CALLS)
    known = ids_of(client, 1)[0]

    entries = client.captures([UNKNOWN_ID, known]).json()["data"]

    assert entries[0] == {"taskId": UNKNOWN_ID, "recording": [], "transcription": []}
    assert entries[1]["recording"]


def test_empty_entries_can_be_left_out(open_sandbox):
    client = open_sandbox(**CALLS, omit_unmatched=True)
    known = ids_of(client, 1)[0]

    entries = client.captures([UNKNOWN_ID, known]).json()["data"]

    assert [entry["taskId"] for entry in entries] == [known]


def test_entries_can_come_in_another_order(open_sandbox):
    client = open_sandbox(shuffle_order=True)
    ids = ids_of(client, 10)

    found = [entry["taskId"] for entry in client.captures(ids).json()["data"]]

    assert found != ids
    assert sorted(found) == sorted(ids)
    assert found == [entry["taskId"] for entry in client.captures(ids).json()["data"]]


def test_upper_case_ids_find_the_same_captures(open_sandbox):
    client = open_sandbox(**CALLS)
    known = ids_of(client, 1)[0]

    entry = client.captures([known.upper()]).json()["data"][0]

    assert entry["taskId"] == known.upper()
    assert entry["recording"][0]["id"] == known


@pytest.mark.parametrize(
    ("members", "status", "reason"),
    [
        ({"urlExpiration": 0}, 400, "urlExpiration should be greater than 0."),
        ({"urlExpiration": -5}, 400, "urlExpiration should be greater than 0."),
        ({"urlExpiration": 61}, 400, "60"),
        ({"urlExpiration": "30"}, 400, "urlExpiration should be an integer"),
        ({"urlExpiration": 30.5}, 400, "urlExpiration should be an integer"),
        ({"urlExpiration": True}, 400, "urlExpiration should be an integer"),
        ({"orgId": None}, 400, "orgId is required"),
        ({"orgId": UNKNOWN_ID}, 403, "organisation"),
        ({"includeSegments": "true"}, 400, "includeSegments should be a boolean"),
        ({"includeSegments": 1}, 400, "includeSegments should be a boolean"),
    ],
    ids=str,
)
def test_a_bad_query_is_refused(open_sandbox, members, status, reason):
    reply = open_sandbox().captures([UNKNOWN_ID], **members)

    assert reply.status == status
    assert reason in reply.text


@pytest.mark.parametrize(
    "contact_task_ids",
    [
        None,
        UNKNOWN_ID,
        [],
        [UNKNOWN_ID, UNKNOWN_ID],
        [UNKNOWN_ID.replace("5", "a"), UNKNOWN_ID.replace("5", "A")],
        ["not-a-uuid"],
        [17],
        [f"{number:08d}-2222-4333-8444-555555555555" for number in range(11)],
    ],
    ids=["none", "text", "empty", "twice", "twice but for case", "no UUID", "a number", "eleven"],
)
def test_bad_contact_task_ids_are_refused(open_sandbox, contact_task_ids):
    assert open_sandbox().captures(contact_task_ids).status == 400


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b'{"taskIds": []}', "application/json", 400),
        (b'{"query": []}', "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{", "application/json", 400),
        (b"{}", "text/plain", 415),
    ],
    ids=["no wrapper", "a list for a query", "a list", "no JSON", "no JSON type"],
)
def test_a_bad_body_is_refused(open_sandbox, body, content_type, status):
    assert open_sandbox().post_captures(body, content_type).status == status


def test_unknown_flags_are_ignored_or_refused_by_switch(open_sandbox):
    unknown = {"includeEverything": True}
    strict = open_sandbox(unknown_flags="reject")

    assert open_sandbox().captures([UNKNOWN_ID], **unknown).status == 200
    assert strict.captures([UNKNOWN_ID], **unknown).status == 400
    assert strict.captures([UNKNOWN_ID], **ALL_FLAGS).status == 200


def test_an_older_service_does_not_know_the_newer_flags(open_sandbox):
    ignoring = open_sandbox(**CALLS, va_share=1.0, newer_flags=False)
    refusing = open_sandbox(newer_flags=False, unknown_flags="reject")

    assert "va-" not in str(ignoring.all_captures(ids_of(ignoring, 5), includeVARecordings=True))
    assert refusing.captures([UNKNOWN_ID], includeVARecordings=True).status == 400
    assert refusing.captures([UNKNOWN_ID], includeSegments=True).status == 200


def test_captures_come_some_minutes_after_the_end_and_transcripts_later(open_sandbox):
    client = open_sandbox(**CALLS, transcript_share=1.0)
    row = client.sandbox.truth(FROM_MS, TO_MS, with_sha256=False)[0]
    audio = next(each for each in row["captures"] if each["kind"] == "recording")
    text = next(each for each in row["captures"] if each["kind"] == "transcript")

    assert 60_000 <= audio["available_ms"] - row["ended_ms"] <= 600_000
    assert 60_000 <= text["available_ms"] - audio["available_ms"] <= 900_000


def test_young_contact_tasks_have_no_captures_yet(open_sandbox):
    client = open_sandbox(**CALLS)
    newest = client.walk(NOW_MS - HOUR_MS, NOW_MS)[-1]["id"]

    before = client.captures([newest]).json()["data"][0]
    client.sandbox.advance(3_600)
    after = client.captures([newest]).json()["data"][0]

    assert not offered(before)
    assert offered(after)


def test_a_contact_task_of_the_future_has_no_captures(open_sandbox):
    client = open_sandbox(**CALLS)
    future = client.sandbox.truth(
        NOW_MS + HOUR_MS, NOW_MS + 2 * HOUR_MS, at_ms=NOW_MS + 2 * HOUR_MS, with_sha256=False
    )[0]

    assert not offered(client.captures([future["task_id"]]).json()["data"][0])


@pytest.mark.parametrize(
    ("knobs", "hours"),
    [
        ({"late_capture_share": 1.0, "late_capture_hours": 100.0}, 100),
        ({"late_transcript_share": 1.0, "late_transcript_hours": 100.0}, 100),
        ({"late_segment_share": 1.0, "late_segment_hours": 100.0}, 100),
    ],
    ids=["everything late", "transcripts late", "one more segment"],
)
def test_captures_can_come_late(open_sandbox, knobs, hours):
    client = open_sandbox(**CALLS, transcript_share=1.0, **knobs)
    ids = ids_of(client, 10)

    def seen() -> int:
        return sum(map(len, map(offered, client.all_captures(ids, includeSegments=True))))

    early = seen()
    client.sandbox.advance(hours * 3_600)
    assert seen() >= early + len(ids)


def test_captures_may_never_come_though_requested(open_sandbox):
    client = open_sandbox(**CALLS, never_comes_share=1.0)
    rows = client.walk(FROM_MS, TO_MS)[:10]

    assert {row["attributes"]["captureRequested"] for row in rows} == {True}
    assert not any(map(offered, client.all_captures([row["id"] for row in rows])))


def test_a_recording_can_be_stitched_anew_under_the_same_id(open_sandbox):
    client = open_sandbox(**CALLS, restitched_share=1.0, restitched_after_hours=100.0)
    known = ids_of(client, 1)[0]

    def recording():
        entry = client.captures([known]).json()["data"][0]["recording"][0]
        return entry["id"], client.send("GET", entry["attributes"]["filePath"]).body

    first_id, first = recording()
    client.sandbox.advance(100 * 3_600)
    second_id, second = recording()

    assert first_id == second_id == known
    assert len(second) > len(first)
    assert second[:12].startswith(b"RIFF")


def test_purged_captures_vanish_and_their_urls_are_404(open_sandbox):
    client = open_sandbox(**CALLS, purged_share=1.0, purged_after_hours=100.0)
    known = ids_of(client, 1)[0]
    url = offered(client.captures([known], urlExpiration=60).json()["data"][0])[0]["filePath"]
    assert client.send("GET", url).status == 200

    client.sandbox.advance(100 * 3_600)

    assert not offered(client.captures([known]).json()["data"][0])


def test_purged_captures_may_stay_listed(open_sandbox):
    client = open_sandbox(
        **CALLS, purged_share=1.0, purged_after_hours=1.0, purged_stay_listed=True
    )
    known = ids_of(client, 1)[0]

    url = offered(client.captures([known]).json()["data"][0])[0]["filePath"]

    reply = client.send("GET", url)
    assert reply.status == 404
    assert "<Code>NoSuchKey</Code>" in reply.text


def test_key_case_and_types_of_times_are_switches(open_sandbox):
    def first(**knobs):
        client = open_sandbox(**CALLS, transcript_share=1.0, **knobs)
        entry = client.captures(ids_of(client, 1)).json()["data"][0]
        return entry["recording"][0]["attributes"], entry["transcription"][0]

    audio, text = first(transcript_keys="lower")
    assert text["source"] in ("recording", "realtime-voice")
    assert isinstance(audio["startTime"], int)
    assert isinstance(text["startTime"], str)
    audio, text = first(transcript_keys="upper", time_types="swapped")
    assert text["Provider"] == "CISCO"
    assert isinstance(audio["startTime"], str)
    assert isinstance(text["createTime"], int)


def test_mixed_switches_show_every_form(open_sandbox):
    client = open_sandbox(**CALLS, transcript_share=1.0, time_types="mixed")
    entries = client.all_captures(ids_of(client))

    texts = [text for entry in entries for text in entry["transcription"]]
    assert {"source", "Source"} <= {key for text in texts for key in text}
    assert {type(text["startTime"]) for text in texts} == {int, str}


def test_optional_members_can_be_missing_but_never_the_url(open_sandbox):
    client = open_sandbox(**CALLS, transcript_share=1.0, drop_optional_share=1.0)

    for entry in client.all_captures(ids_of(client, 10)):
        for each in entry["recording"]:
            assert each.keys() == {"id", "attributes"}
            assert each["attributes"].keys() == {"fileName", "filePath"}
        for each in entry["transcription"]:
            assert each.keys() == {"id", "fileName", "filePath"}


def test_hostile_file_names_can_still_be_downloaded(open_sandbox):
    client = open_sandbox(**CALLS, odd_file_names_share=1.0)

    found = [each for entry in client.all_captures(ids_of(client)) for each in offered(entry)]

    assert any(each["fileName"].startswith("../../") for each in found)
    assert any("\u202e" in each["fileName"] for each in found)
    for each in found[:20]:
        assert client.send("GET", each["filePath"]).status == 200


def test_a_body_can_be_cut_anywhere():
    maker = BodyMaker(seed=1)
    for form in ("wav", "mp4", "legacy", "vcon", "digital", "digital-versioned"):
        body = maker.make(form, "an id", 700_001)
        whole = b"".join(body.chunks())
        assert body.size_bytes == len(whole)
        assert 0 <= 700_001 - len(whole) <= 3
        for start, stop in ((0, 10), (20, 300_000), (262_200, 262_300), (699_950, 800_000)):
            assert b"".join(body.chunks(start, stop)) == whole[start:stop]
        if form not in ("wav", "mp4"):
            assert isinstance(json.loads(whole), dict)
        other = maker.make(form, "another id", 700_001)
        assert other.sha256() != body.sha256() == maker.make(form, "an id", 700_001).sha256()
