"""Every answer has the shape that Cisco publishes, and deviates only where a switch says so."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.sandbox.client import ALL_FLAGS, HOUR_MS, NOW_MS

# As the OpenAPI description says, where live systems or other documents differ.
AS_PUBLISHED = {
    "owner_missing_share": 0.0,
    "queue_missing_share": 0.0,
    "null_requested_as": "absent",
    "transcript_keys": "upper",
}
ALL_KINDS = {
    "tasks_per_hour": 60,
    "va_share": 0.5,
    "screen_share": 0.5,
    "consult_share": 0.5,
    "recording_bytes_max": 20_000,
}


def validator(name: str, schema: str) -> jsonschema.Draft202012Validator:
    document: dict[str, Any] = json.loads(
        (Path(__file__).parent / "openapi" / f"{name}.json").read_text()
    )
    for each in document["components"]["schemas"].values():
        # Published as open; closed here, so that a misspelt member cannot pass.
        each["additionalProperties"] = False
    return jsonschema.Draft202012Validator(
        document | {"$ref": f"#/components/schemas/{schema}"},
        format_checker=jsonschema.FormatChecker(["uuid"]),
    )


def closed_and_old(client) -> list[dict[str, Any]]:
    return client.contact_tasks(
        from_=NOW_MS - 8 * HOUR_MS, to=NOW_MS - 4 * HOUR_MS, pageSize=200
    ).json()["data"]


def test_the_contact_task_list_has_the_published_shape(open_sandbox):
    client = open_sandbox(**AS_PUBLISHED)

    reply = client.contact_tasks(from_=NOW_MS - 8 * HOUR_MS, to=NOW_MS - 4 * HOUR_MS)

    rows = reply.json()["data"]
    completed = [row for row in rows if row["attributes"]["status"] == "completed"]
    validator("tasks", "TaskApiResponse").validate(reply.json() | {"data": completed})
    assert {row["attributes"]["channelType"] for row in completed} == {
        "telephony",
        "email",
        "chat",
        "social",
    }


def test_owner_is_missing_or_partial_by_default_as_live_systems_do(open_sandbox):
    rows = closed_and_old(open_sandbox())

    owners = [row["attributes"].get("owner") for row in rows]
    assert None in owners
    assert any(owner and "name" not in owner for owner in owners)
    assert any(owner and "name" in owner for owner in owners)
    with pytest.raises(jsonschema.ValidationError):
        validator("tasks", "TaskApiResponse").validate({"meta": {}, "data": rows})


@pytest.mark.parametrize("flags", [{}, ALL_FLAGS], ids=["no flags", "all flags"])
def test_captures_have_the_published_shape(open_sandbox, flags):
    client = open_sandbox(**AS_PUBLISHED | ALL_KINDS)
    ids = [row["id"] for row in closed_and_old(client)]
    check = validator("captures", "DownloadMultipleInteractionsResponse")

    kinds: set[str] = set()
    for place in range(0, len(ids), 10):
        answer = client.captures(ids[place : place + 10], **flags).json()
        check.validate(answer)
        for entry in answer["data"]:
            kinds |= {each["attributes"]["callType"] for each in entry["recording"]}
            kinds |= {each["fileName"] for each in entry["transcription"]}
            kinds |= {each["attributes"]["fileName"] for each in entry.get("screenRecordings", [])}

    always = {"main", "consult", "voiceTranscript.json", "realtimeVoiceTranscript.json"}
    always |= {"emailTranscript.json", "chatTranscript.json", "facebookTranscript.json"}
    asked_for = {"va-main", "va-consult", "screenRecording.mp4", "emailTranscriptV2.json"}
    assert always <= kinds
    assert (asked_for <= kinds) if flags else not (asked_for & kinds)


@pytest.mark.parametrize(
    "switch",
    [
        {"transcript_keys": "lower"},
        {"time_types": "swapped"},
        {"extra_members": True},
    ],
    ids=["lower-case source", "swapped types of times", "unknown members"],
)
def test_switches_leave_the_published_shape(open_sandbox, switch):
    client = open_sandbox(**AS_PUBLISHED | ALL_KINDS | switch)
    ids = [row["id"] for row in closed_and_old(client)]
    check = validator("captures", "DownloadMultipleInteractionsResponse")

    answers = [client.captures(ids[at : at + 10]).json() for at in range(0, len(ids), 10)]

    assert not all(check.is_valid(answer) for answer in answers)


def test_an_error_has_the_published_shape(open_sandbox):
    reply = open_sandbox().contact_tasks()

    assert reply.status == 400
    validator("tasks", "ApiErrorResponse").validate(reply.json())


def test_the_published_request_is_accepted(open_sandbox):
    client = open_sandbox()
    query = {"orgId": client.org_id, "urlExpiration": 30, **ALL_FLAGS}
    query["taskIds"] = ["8e18afdf-db79-449b-b4f5-ee4f14d9f45e"]
    validator("captures", "RecordingBodyParams").validate({"query": query})

    assert client.post_captures(json.dumps({"query": query}).encode()).status == 200
