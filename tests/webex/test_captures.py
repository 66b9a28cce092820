"""Reading captures in every documented, reported and merely possible shape."""

import contextlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from include.domain.capture_state import CapturePolicy
from include.domain.contact_centre import Capture
from include.domain.errors import ArchiveError, PermanentError, TransientError
from include.domain.interval import from_epoch_ms
from include.domain.new_rows import new_capture_row, new_contact_task_row
from include.domain.object_keys import Kind
from include.domain.personal_data import PersonalData
from include.sandbox.server import Sandbox
from include.webex.captures import (
    CaptureOptions,
    CapturesQuery,
    NamesGiven,
    batches,
    distinction,
    parse_capture,
    with_unique_ids,
)
from include.webex.http_client import Refused, TooLarge, WebexClient
from tests.builders import NOW, NOW_MS, ORG_ID, a_capture, a_client_of, a_connection, a_contact_task

DOCUMENTED = Path(__file__).parent / "documented"
HOUR_MS = 3_600_000
Ids = Sequence[str]


class FakeCaptures:
    """POST /v1/captures/query, answered by a function of the ids and the query; counts requests."""

    def __init__(self, answer: Callable[[list[str], dict[str, Any]], object]) -> None:
        self.connection = a_connection()
        self.queries: list[dict[str, Any]] = []
        self._answer = answer

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert path == "/v1/captures/query"
        self.queries.append(body["query"])
        return {"data": self._answer(body["query"]["taskIds"], body["query"])}


def a_query(client: object, **options: bool) -> CapturesQuery:
    return CapturesQuery(cast("WebexClient", client), CaptureOptions(**options))


def query_entries(*entries: object, ids: Ids = ("t1",)) -> dict[str, list[Capture] | None]:
    return dict(a_query(FakeCaptures(lambda *_: list(entries)))(list(ids)))


def documented(name: str) -> dict[str, Any]:
    return json.loads((DOCUMENTED / f"{name}.json").read_text())


def captures_of(name: str) -> list[Capture]:
    entry = documented(name)
    found = query_entries(entry, ids=[entry["taskId"]])[entry["taskId"]]
    assert found is not None
    return found


def url_of(capture: Capture) -> str:
    assert capture.download_url is not None
    return capture.download_url.get_secret_value()


def test_a_stitched_recording_and_its_transcript():
    recording, transcript = captures_of("stitched")

    assert recording.kind == "recording"
    assert recording.capture_id == "fb53f6d1-5535-4ac8-b081-53834e17d6f5"
    assert url_of(recording).endswith("combinedRecordings.wav?X-Amz-Signature=made-up")
    assert recording.file_name == "combinedRecordings.wav"
    assert recording.segment is False
    assert recording.start_time == from_epoch_ms(1789380612000)
    assert recording.stop_time == from_epoch_ms(1789380911000)
    assert recording.participants == ("e890a591-63f0-4984-a8f2-00e631368fb4", "+121****0142")
    assert (recording.channel1, recording.channel2) == ("Caller", "Agent")
    assert recording.call_type == "main"
    assert recording.extra == {}
    assert transcript.kind == "transcript"
    assert transcript.capture_id == "cfg-id-101"
    assert (transcript.source, transcript.provider) == ("recording", "CISCO")
    assert transcript.language_code == "en-US"
    assert transcript.start_time == from_epoch_ms(1789380612000)
    assert transcript.extra == {"createTime": "1789381190000"}


def test_segments_a_consult_and_a_virtual_agent_are_four_recordings():
    found = captures_of("segments")

    assert [(each.call_type, each.segment, each.sensitive) for each in found] == [
        ("va-main", False, True),
        ("main", True, None),
        ("main", True, None),
        ("consult", False, None),
    ]
    assert [each.channel2 for each in found] == ["VA", "Agent", "Others", "Agent"]
    assert len({each.capture_id for each in found}) == 4


@pytest.mark.parametrize(
    ("name", "source"), [("digital", "email"), ("vcon", "realtime-voice")], ids=str
)
def test_a_transcript_says_where_it_comes_from(name: str, source: str):
    (transcript,) = captures_of(name)

    assert (transcript.kind, transcript.source) == ("transcript", source)
    assert transcript.download_url is not None


def test_a_screen_recording_keeps_its_agent_and_screen():
    (screen,) = captures_of("screen")

    assert screen.kind == "screen_recording"
    assert screen.capture_id == "5c-0001"
    assert screen.extra == {"agentId": "e890a591", "screenId": 1}


def test_a_contact_task_without_an_entry_or_with_empty_lists_has_none():
    nothing = {"taskId": "t1", "recording": [], "transcription": []}

    assert query_entries(nothing, ids=["t1", "t2"]) == {"t1": [], "t2": []}


def test_entries_are_matched_by_id_whatever_their_order_and_case():
    entries = [
        {"taskId": "OTHER", "recording": [{"id": "x"}]},
        {"taskId": "T2", "recording": [{"id": "b"}]},
        {"taskId": "t1", "recording": [{"id": "a"}]},
        {"taskId": None},
        None,
    ]

    found = query_entries(*entries, ids=["t1", "t2"])

    assert {
        name: [each.capture_id for each in each_list or []] for name, each_list in found.items()
    } == {
        "t1": ["a"],
        "t2": ["b"],
    }


@pytest.mark.parametrize(
    ("of_t2", "expected"),
    [
        ({"recording": [{"id": "b"}]}, ["b"]),
        ({"taskId": ["t2"], "Recording": {"id": "b"}}, ["b"]),
        ("noise", ["unidentified-"]),
    ],
    ids=["without an id", "with a list for one", "no object"],
)
def test_what_does_not_say_whose_it_is_belongs_to_the_one_asked_about_alone(
    of_t2: object, expected: list[str]
):
    entries = {"t1": {"taskId": "t1", "recording": [{"id": "a"}]}, "t2": of_t2, "t3": None}
    answers = FakeCaptures(lambda ids, _: [entries[each] for each in ids])

    found = a_query(answers)(["t1", "t2", "t3"])

    assert [each.capture_id for each in found["t1"] or []] == ["a"]
    assert [each.capture_id[:13] for each in found["t2"] or []] == expected
    assert found["t3"] == []
    assert len(answers.queries) <= 5


def test_ids_that_differ_in_case_only_are_two_contact_tasks():
    entries = [
        {"taskId": "T1", "recording": [{"id": "a"}]},
        {"taskId": "t1", "recording": [{"id": "b"}]},
    ]

    found = query_entries(*entries, ids=["t1", "T1"])

    assert {name: [each.capture_id for each in found[name] or []] for name in found} == {
        "T1": ["a"],
        "t1": ["b"],
    }


def test_names_that_nobody_knows_are_told_once_and_nothing_of_them(
    caplog: pytest.LogCaptureFixture,
):
    entry = {"taskId": "t1", "whiteboards": [{"filePath": "https://h/secret"}], "+15550100": 1}
    query = a_query(FakeCaptures(lambda *_: [entry]))

    assert [query(["t1"]) for _ in range(2)] == [{"t1": []}] * 2

    assert caplog.text.count("whiteboards") == 1
    assert "secret" not in caplog.text
    assert "+1555" not in caplog.text


def test_two_entries_of_one_contact_task_are_put_together():
    found = query_entries(
        {"taskId": "t1", "recording": [{"id": "a"}]},
        {"taskId": "t1", "recording": [{"id": "a"}, {"id": "b"}]},
    )

    assert [each.capture_id for each in found["t1"] or []] == ["a", "b"]


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("as_text", [False, True])
def test_case_of_names_and_type_of_times_do_not_matter(*, upper: bool, as_text: bool):
    start = "1789380612000" if as_text else 1789380612000
    element = {"source": "chat", "provider": "CISCO", "id": "c", "startTime": start}
    if upper:
        element = {name[0].upper() + name[1:]: value for name, value in element.items()}

    capture = parse_capture("transcript", element)

    assert (capture.capture_id, capture.source, capture.provider) == ("c", "chat", "CISCO")
    assert capture.start_time == from_epoch_ms(1789380612000)
    assert capture.extra == {}


def test_a_null_never_hides_a_value_of_the_same_name():
    element = {"id": "a", "Source": "chat", "source": None, "attributes": {"id": None}}

    capture = parse_capture("transcript", element)

    assert (capture.source, capture.capture_id) == ("chat", "a")


def test_a_config_id_stands_in_for_an_id():
    assert parse_capture("transcript", {"id": "", "configId": "cfg"}).capture_id == "cfg"


def test_an_element_without_an_id_gets_one_that_does_not_depend_on_its_url():
    first = parse_capture("recording", {"attributes": {"fileName": "a", "filePath": "https://h/1"}})
    again = parse_capture("recording", {"attributes": {"fileName": "a", "filePath": "https://h/2"}})
    other = parse_capture("recording", {"attributes": {"fileName": "b", "filePath": "https://h/1"}})

    assert first.capture_id == again.capture_id != other.capture_id


def test_unknown_members_are_kept_and_the_url_is_not_among_them():
    element = {"id": "a", "new": [1], "attributes": {"filePath": "https://h/p?s=1", "codec": "x"}}

    assert parse_capture("recording", element).extra == {"new": [1], "codec": "x"}
    assert parse_capture("recording", {"id": "a", "attributes": "odd"}).extra == {
        "attributes": "odd"
    }


@pytest.mark.parametrize(
    "odd", [["h/p?s=1"], {"url": "h/p?s=1"}, "h/p?s=1"], ids=["list", "object", "twice"]
)
def test_a_url_is_never_kept_whatever_its_form_and_place(odd: object):
    element = {
        "id": "a", "FilePath": odd, "filePath~1": odd, "attributes": {"filePath": "https://h/p?s=1"},
    }  # fmt: skip

    capture = parse_capture("recording", element)

    assert url_of(capture) == "https://h/p?s=1"
    assert capture.extra == {}


@pytest.mark.parametrize("url", [None, "", 5.5e9, [], {}, True])
def test_a_capture_without_a_usable_url_is_still_one(url: object):
    capture = parse_capture("recording", {"id": "a", "attributes": {"filePath": url}})

    assert capture.capture_id == "a"
    assert capture.download_url is None or isinstance(url, float)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(["a", "", 5, None], ("a", "5")), ("a, b,,", ("a", "b")), (None, ()), (7, ()), ({}, ())],
)
def test_participants_come_as_a_list_or_as_one_text(value: object, expected: tuple[str, ...]):
    element = {"id": "a", "attributes": {"participants": value}}

    assert parse_capture("recording", element).participants == expected


def test_a_download_url_is_not_shown():
    assert "5ec7e7" not in repr(a_capture())


def a_transcript(**changes: Any) -> Capture:
    return a_capture(kind="transcript", capture_id="cfg", **changes)


def test_an_id_shared_by_two_transcripts_stays_with_the_earliest_in_any_order():
    early = a_transcript(file_name="voiceTranscript.json", extra={"createTime": "1000"})
    late = a_transcript(file_name="realtime.json", extra={"CreateTime": 2000})
    third = a_transcript(file_name="third.json", extra={"createTime": "3000"})

    orders = [[early, late, third], [third, late, early], [late, third, early]]
    results = [with_unique_ids(order) for order in orders]

    assert results[0] == results[1] == results[2]
    assert results[0][0] == early
    assert len({each.capture_id for each in results[0]}) == 3
    assert all(each.capture_id.startswith("cfg~") for each in results[0][1:])
    assert with_unique_ids([early, late])[1] == results[0][1]


def test_who_was_given_an_id_is_known_by_its_row_whatever_the_order_of_its_members():
    """Found by the hostile answers: of a name in two cases, the row gave the other value."""
    capture = a_transcript(extra={"new": 1, "createTime": "soon", "CreateTime": 2, "CREATETIME": 1})
    contact_task = new_contact_task_row(a_contact_task(), ORG_ID, NOW, CapturePolicy())

    assert distinction(capture) == distinction(new_capture_row(contact_task, capture))


def test_one_id_in_two_kinds_is_no_clash():
    found = with_unique_ids(
        [a_capture(capture_id="x"), a_capture(kind="transcript", capture_id="x")]
    )

    assert [each.capture_id for each in found] == ["x", "x"]


def test_duplicates_that_differ_in_their_url_only_are_one():
    again = a_transcript(download_url=None)
    other = a_transcript(file_name="b")

    assert len(with_unique_ids([a_transcript(), again, other, other, again])) == 2


def test_captures_alike_in_all_but_the_path_of_their_urls_are_several():
    """The path names the object; taken for one, the others would be lost without a word."""
    urls = [f"https://store/org/task/{name}?X-Amz-Signature=1" for name in ("a", "b", "c")]
    offered = [a_transcript(download_url=SecretStr(url)) for url in urls]
    signed_again = a_transcript(download_url=SecretStr(urls[1].replace("=1", "=2")))

    unique = with_unique_ids([*offered, signed_again])

    assert len({capture.capture_id for capture in unique}) == len(unique) == 3
    ids = {capture.capture_id for capture in with_unique_ids([signed_again, *reversed(offered)])}
    assert ids == {capture.capture_id for capture in unique}
    assert not any("Signature" in capture.capture_id for capture in unique)


@pytest.mark.parametrize(
    "changes",
    [
        {"stop_time": from_epoch_ms(5)}, {"channel2": "VA"}, {"segment": True}, {"extra": {"a": 1}},
        {"participants": ("p",)}, {"sensitive": True},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_captures_alike_in_name_and_time_are_not_taken_for_one(changes: dict[str, Any]):
    """Only what is alike in everything but its URL may be left out."""
    captures = [a_capture(), a_capture(**changes), a_capture(**changes), a_capture()]

    found = with_unique_ids(captures)

    assert len(found) == len({each.capture_id for each in found}) == 2


def test_an_element_is_one_capture_even_when_its_extra_urls_are_signed_anew():
    first, again = (
        a_capture(extra={"preview": f"https://h/p?X-Amz-Signature={n}"}) for n in (1, 2)
    )

    assert len(with_unique_ids([first, again])) == 1


CAPTURES = st.builds(
    a_capture,
    kind=st.sampled_from(["recording", "transcript"]),
    capture_id=st.sampled_from(["a", "b"]),
    file_name=st.none() | st.sampled_from(["x", "\ud800"]),
    source=st.none() | st.sampled_from(["y"]),
    segment=st.none() | st.booleans(),
)


@given(st.lists(CAPTURES, max_size=8), st.randoms())
def test_unique_ids_depend_on_content_alone(captures: list[Capture], chance: random.Random):
    found = with_unique_ids(captures)
    chance.shuffle(captures)

    assert with_unique_ids(captures) == found
    assert len({(each.kind, each.capture_id) for each in found}) == len(found)
    contents = {(each.kind, each.file_name, each.source, each.segment) for each in captures}
    assert {(each.kind, each.file_name, each.source, each.segment) for each in found} == contents


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(
            ["id", "attributes", "taskId", "recording", "transcription", "screenRecordings",
             "filePath", "startTime", "participants", "Source", "createTime", "new"]
        ), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@given(st.lists(JSON, max_size=4))
def test_arbitrary_json_never_raises_anything_else(data: list[object]):
    with contextlib.suppress(ArchiveError):
        query_entries(*data)


@given(st.dictionaries(st.sampled_from(["recording", "transcription", "screenRecordings"]),
                       st.lists(JSON, max_size=4)))  # fmt: skip
def test_no_element_that_is_an_object_is_lost(entry: dict[str, list[Any]]):
    kinds = {
        "recording": "recording",
        "transcription": "transcript",
        "screenRecordings": "screen_recording",
    }

    count = 0
    for elements in entry.values():
        for element in elements:
            if isinstance(element, dict):
                element["mark"] = count = count + 1  # no two are alike

    found = query_entries({**entry, "taskId": "t1"})["t1"]

    assert found is not None
    marked = [each for each in found if "mark" in each.extra]
    assert sorted(cast("int", each.extra["mark"]) for each in marked) == list(range(1, count + 1))
    assert len({(each.kind, each.capture_id) for each in found}) == len(found)
    for member, kind in kinds.items():
        objects = [each for each in entry.get(member, []) if isinstance(each, dict)]
        assert sum(each.kind == kind for each in marked) == len(objects)


def test_batches_hold_ten_ids_once_and_in_order():
    ids = [f"t{place}" for place in range(23)]

    found = list(batches([*ids, *ids]))

    assert [len(each) for each in found] == [10, 10, 3]
    assert [each for batch in found for each in batch] == ids
    assert list(batches([])) == []


def test_a_query_says_org_minutes_and_only_the_flags_that_are_on():
    client = FakeCaptures(lambda *_: [])

    a_query(client)(["t1"])
    a_query(
        client, include_segments=True, include_virtual_agent=False, include_screen_recordings=False
    )(["t1"])

    assert client.queries == [
        {"orgId": ORG_ID, "urlExpiration": 60, "taskIds": ["t1"], "includeSegments": False,
         "includeVARecordings": True, "includeScreenRecordings": True},
        {"orgId": ORG_ID, "urlExpiration": 60, "taskIds": ["t1"], "includeSegments": True},
    ]  # fmt: skip


def recordings_for(ids: Ids) -> list[dict[str, Any]]:
    return [{"taskId": each, "recording": [{"id": f"r-{each}"}]} for each in ids]


TEN = [f"t{place}" for place in range(10)]
NEWER = {"includeVARecordings", "includeScreenRecordings"}


def test_an_older_cell_is_asked_without_the_newer_flags_from_then_on():
    def answer(ids: list[str], query: dict[str, Any]) -> object:
        if NEWER & query.keys():
            raise Refused("400")
        return recordings_for(ids)

    client = FakeCaptures(answer)
    query = a_query(client, include_segments=True)

    assert all(query(TEN).values())
    assert all(query(TEN).values())
    assert len(client.queries) == 3
    assert query.options.include_segments


@pytest.mark.parametrize("bad", ["t0", "t4", "t9"])
@pytest.mark.parametrize("older", [False, True], ids=["newer cell", "older cell"])
@pytest.mark.parametrize("refusal", [Refused, TooLarge], ids=["refused", "too large"])
def test_one_bad_id_is_found_and_the_nine_others_are_answered(
    bad: str, refusal: type[PermanentError], *, older: bool
):
    """Also where the first batch meets a cell that refuses the newer flags, for another reason."""

    def answer(ids: list[str], query: dict[str, Any]) -> object:
        if older and NEWER & query.keys():
            raise Refused("400")
        if bad in ids:
            raise refusal("no")
        return recordings_for(ids)

    client = FakeCaptures(answer)

    found = a_query(client)(TEN)

    assert list(found) == TEN
    assert [name for name, captures in found.items() if captures is None] == [bad]
    assert all(captures for name, captures in found.items() if name != bad)
    assert len(client.queries) <= 14


def test_a_batch_refused_without_any_newer_flag_is_halved_at_once():
    def answer(ids: list[str], query: dict[str, Any]) -> object:
        if "t3" in ids:
            raise Refused("400")
        return recordings_for(ids)

    client = FakeCaptures(answer)
    query = a_query(client, include_virtual_agent=False, include_screen_recordings=False)

    assert query(TEN)["t3"] is None
    assert len(client.queries) <= 9


@pytest.mark.parametrize("error", [TransientError, PermanentError])
def test_other_errors_are_the_callers(error: type[ArchiveError]):
    def answer(ids: list[str], query: dict[str, Any]) -> object:
        raise error("no")

    client = FakeCaptures(answer)

    with pytest.raises(error):
        a_query(client)(TEN)
    assert len(client.queries) == 1


@pytest.fixture
def odd_sandbox(start_sandbox: Callable[..., Sandbox], request: Any) -> Sandbox:
    return start_sandbox(
        tasks_per_hour=60,
        transcript_share=1.0,
        both_transcripts_share=1.0,
        va_share=0.5,
        screen_share=0.5,
        consult_share=0.5,
        **request.param,
    )


@pytest.mark.parametrize(
    "odd_sandbox",
    [
        {},
        {"shuffle_order": True, "omit_unmatched": True, "time_types": "mixed"},
        {"transcript_keys": "upper", "time_types": "swapped", "extra_members": True},
        {"drop_optional_share": 0.5, "same_name_transcripts": True},
        {"newer_flags": False, "unknown_flags": "reject"},
    ],
    ids=["documented", "shuffled", "upper case", "members missing", "older cell"],
    indirect=True,
)
def test_the_sandbox_offers_what_it_holds(odd_sandbox: Sandbox):
    sandbox = odd_sandbox
    client = a_client_of(sandbox)
    query = CapturesQuery(client, CaptureOptions(include_segments=True))
    newer = sandbox.state.scenario.newer_flags
    truth = sandbox.truth(
        NOW_MS - 5 * HOUR_MS, NOW_MS - 4 * HOUR_MS, include_segments=True, include_va=newer,
        include_screen=newer, with_sha256=False,
    )  # fmt: skip

    found = {}
    for batch in batches([row["task_id"] for row in truth]):
        found |= query(batch)

    for row in truth:
        captures = found[row["task_id"]]
        assert captures is not None
        kinds = sorted(str(each.kind) for each in captures)
        assert kinds == sorted(
            str({"screen": "screen_recording"}.get(each["kind"], each["kind"]))
            for each in row["captures"]
            if each["listed"]
        )
        assert len({(each.kind, each.capture_id) for each in captures}) == len(captures)
    assert sum(len(row["captures"]) for row in truth) > 50
    client.close()


# What a query asks for


@pytest.mark.parametrize(
    ("kind", "call_type", "is_segment", "flag"),
    [
        ("screen_recording", None, None, "include_screen_recordings"),
        ("recording", "va-main", False, "include_virtual_agent"),
        ("recording", "va-consult", None, "include_virtual_agent"),
        ("recording", "main", True, "include_segments"),
        ("recording", None, True, "include_segments"),
    ],
)
def test_what_a_flag_brings_is_asked_for_with_it_only(
    kind: Kind, call_type: str | None, *, is_segment: bool | None, flag: str
):
    """Else an archive without the flag would take what it did not ask for to be purged."""
    for is_on in (True, False):
        options = CaptureOptions(**{flag: is_on})
        assert options.ask_for(kind, call_type, is_segment=is_segment) is is_on


@pytest.mark.parametrize("include_segments", [True, False])
def test_segments_and_the_stitched_recording_exclude_each_other(*, include_segments: bool):
    options = CaptureOptions(include_segments=include_segments)

    for is_segment in (True, False):
        is_asked_for = options.ask_for("recording", "main", is_segment=is_segment)
        assert is_asked_for is (is_segment == include_segments)


@pytest.mark.parametrize(
    ("kind", "call_type", "is_segment"),
    [
        ("transcript", None, None), ("transcript", "va-main", True), ("recording", "consult", True),
        ("recording", "consult", False), ("recording", "main", None), ("recording", None, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_on", [True, False], ids=["with all flags", "without any"])
def test_what_no_flag_governs_is_always_asked_for(
    kind: Kind, call_type: str | None, *, is_segment: bool | None, is_on: bool
):
    options = CaptureOptions(
        include_segments=is_on, include_virtual_agent=is_on, include_screen_recordings=is_on
    )

    assert options.ask_for(kind, call_type, is_segment=is_segment)


@pytest.mark.parametrize("odd_sandbox", [{}], ids=["documented"], indirect=True)
def test_whatever_the_sandbox_answers_was_asked_for(odd_sandbox: Sandbox):
    client = a_client_of(odd_sandbox)
    truth = odd_sandbox.truth(NOW_MS - 6 * HOUR_MS, NOW_MS - 5 * HOUR_MS, with_sha256=False)
    for segments, agent, screens in product((True, False), repeat=3):
        options = CaptureOptions(segments, agent, screens)
        query = CapturesQuery(client, options)
        for ids in batches([row["task_id"] for row in truth]):
            for capture in (each for found in query(ids).values() for each in found or []):
                is_segment = capture.segment
                assert options.ask_for(capture.kind, capture.call_type, is_segment=is_segment)
    client.close()


@pytest.mark.parametrize("policy", ["keep", "mask"])
def test_who_was_given_an_id_keeps_it_when_an_earlier_one_appears_later(policy: str):
    """Else the second transcript would be taken for the first one, which is copied already."""
    as_kept = PersonalData.from_fields({"file_name": policy}, "").capture
    first_shown = a_capture(
        kind="transcript",
        capture_id="cfg-id-101",
        source="realtime-voice",
        extra={"createTime": "1789381190000"},
    )
    shown_later = replace(first_shown, source="recording", extra={"createTime": "1789381100000"})
    names_given: NamesGiven = {("transcript", "cfg-id-101"): distinction(as_kept(first_shown))}

    found = with_unique_ids([shown_later, first_shown], names_given, as_kept)

    assert {capture.source: capture.capture_id == "cfg-id-101" for capture in found} == {
        "realtime-voice": True,
        "recording": False,
    }
    unknown = with_unique_ids([shown_later, first_shown])
    assert {capture.source for capture in unknown if capture.capture_id == "cfg-id-101"} == {
        "recording"
    }
