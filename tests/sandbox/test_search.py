import gzip
import json
from typing import Any

import pytest

from include.sandbox.bookmarks import BOOKMARKS_KEPT, Bookmarks
from include.sandbox.graphql import QueryError, parse_query
from include.sandbox.scenario import Scenario
from tests.sandbox.client import HOUR_MS, NOW_MS, Client

DAY_MS = 24 * HOUR_MS
FROM_MS = NOW_MS - 6 * HOUR_MS
TO_MS = NOW_MS - 4 * HOUR_MS
FIELDS = """
    id status isActive channelType channelSubType createdTime endedTime totalDuration
    connectedDuration direction origin destination captureRequested recordingCount
    recordingErrorCount recordingFileSize isRecordingDeleted isTranscriptionAvailable
    lastWrapupCodeName terminationType lastQueue { id name } lastAgent { id name }
    owner { id name }"""
OTHER_ORG_ID = "11111111-2222-4333-8444-555555555555"


def a_query(
    arguments: str = "",
    *,
    from_: object = FROM_MS,
    to: object = TO_MS,
    root: str = "taskDetails",
    fields: str = "id",
) -> str:
    return (
        f"{{ {root}(from: {from_}, to: {to}, {arguments}) {{ tasks {{ {fields} }} "
        "pageInfo { hasNextPage endCursor } } }"
    )


def pages_of(client: Client, arguments: str = "", **parts: Any) -> list[list[dict[str, Any]]]:
    """All pages, as a careful program follows the cursors."""
    found: list[list[dict[str, Any]]] = []
    cursor = "NA"
    while True:
        asked = a_query(f'{arguments} pagination: {{cursor: "{cursor}"}}', **parts)
        reply = client.search(asked)
        assert reply.status == 200, reply.text
        content = reply.json()["data"][parts.get("root", "taskDetails")]
        found.append(content["tasks"])
        page_info = content["pageInfo"]
        assert page_info["hasNextPage"] is (page_info["endCursor"] is not None)
        if not page_info["hasNextPage"]:
            return found
        assert page_info["endCursor"] == str(len(found))
        cursor = page_info["endCursor"]


def rows_of(client: Client, arguments: str = "", **parts: Any) -> list[dict[str, Any]]:
    return [row for page in pages_of(client, arguments, **parts) for row in page]


def reason_of(reply) -> str:
    assert reply.status == 400, reply.text
    return reply.json()["error"]["message"][0]["description"]


@pytest.mark.parametrize("root", ["task", "taskDetails"])
@pytest.mark.parametrize("cursors", ["stable", "shifting"])
def test_search_finds_what_the_list_shows_latest_first(open_sandbox, root, cursors):
    client = open_sandbox(tasks_per_hour=300, search_cursor=cursors)

    pages = pages_of(client, root=root)

    assert [len(page) for page in pages] == [250, 250, 100]
    found = [row["id"] for page in pages for row in page]
    assert found == [row["id"] for row in reversed(client.walk(FROM_MS, TO_MS))]


@pytest.mark.parametrize("inclusive", [False, True])
def test_the_bounds_are_those_of_the_list(open_sandbox, inclusive):
    client = open_sandbox(from_inclusive=inclusive, to_inclusive=inclusive)
    truth = client.sandbox.truth(FROM_MS, TO_MS, with_sha256=False)
    from_ms, to_ms = truth[5]["created_ms"], truth[30]["created_ms"]

    found = rows_of(client, from_=from_ms, to=to_ms)

    listed = client.contact_tasks(from_=from_ms, to=to_ms).json()["data"]
    assert found == [{"id": row["id"]} for row in reversed(listed)]


def test_every_field_tells_the_truth(open_sandbox):
    client = open_sandbox(purged_share=0.3, purged_after_hours=1.0)

    found = rows_of(client, fields=FIELDS, to=NOW_MS)

    truth = client.sandbox.truth(FROM_MS + 1, NOW_MS, with_sha256=False)
    for row, wanted in zip(found, reversed(truth), strict=True):
        attributes = wanted["attributes"]
        has_ended = wanted["ended_ms"] <= NOW_MS
        recordings = [each for each in wanted["captures"] if each["kind"] == "recording"]
        assert row["id"] == wanted["task_id"]
        for name in ("channelType", "createdTime", "direction", "origin", "destination"):
            assert row[name] == attributes[name]
        assert row["captureRequested"] is attributes.get("captureRequested")
        assert row["isActive"] is not has_ended
        assert (row["status"] == "ended") is has_ended
        assert row["endedTime"] == (wanted["ended_ms"] if has_ended else None)
        assert row["totalDuration"] == (
            wanted["ended_ms"] - wanted["created_ms"] if has_ended else None
        )
        assert row["recordingCount"] == sum(each["listed"] for each in recordings)
        assert row["recordingFileSize"] == sum(
            each["size_bytes"] for each in recordings if each["listed"]
        )
        assert row["recordingErrorCount"] == 0
        assert row["lastWrapupCodeName"] == attributes.get("reasonCode")
        assert row["terminationType"] == (attributes["status"] if has_ended else None)
        assert row["isRecordingDeleted"] is any(each["purged"] for each in recordings)
        for name, there in (("lastQueue", "queue"), ("lastAgent", "owner"), ("owner", "owner")):
            assert row[name] == (
                {"id": attributes[there]["id"], "name": attributes[there].get("name")}
                if there in attributes
                else None
            )
    assert {row["status"] for row in found} >= {"ended", "connected"}
    for name in ("isActive", "isRecordingDeleted", "isTranscriptionAvailable", "captureRequested"):
        assert {row[name] for row in found} >= {True, False}
    connected = [row for row in found if row["connectedDuration"]]
    assert any(row["connectedDuration"] == 0 for row in found)
    assert all(row["connectedDuration"] < row["totalDuration"] for row in connected)


def test_exactly_the_selected_fields_come(open_sandbox):
    client = open_sandbox(owner_missing_share=0.0)

    few = client.search(a_query(fields="status owner{name}")).json()["data"]["taskDetails"]
    bare = client.search(
        f"query {{task(from:{FROM_MS} to:{TO_MS}){{pageInfo{{endCursor}}}}}}"
    ).json()

    assert few.keys() == {"tasks", "pageInfo"}
    assert {tuple(row) for row in few["tasks"]} == {("status", "owner")}
    assert {tuple(row["owner"]) for row in few["tasks"] if row["owner"]} == {("name",)}
    assert bare == {"data": {"task": {"pageInfo": {"endCursor": None}}}}


def test_field_names_drift_by_switch(open_sandbox):
    newer, older = open_sandbox(), open_sandbox(search_unknown_fields="lastQueue,lastAgent")

    for client, known, unknown in (
        (newer, "lastQueue lastAgent owner", "queue"),
        (older, "queue owner", "lastQueue lastAgent"),
    ):
        for name in known.split():
            assert any(row[name] for row in rows_of(client, fields=f"{name} {{ id }}"))
        for name in unknown.split():
            reason = reason_of(client.search(a_query(fields=f"{name} {{ id }}")))
            assert f"FieldUndefined@[taskDetails/tasks/{name}]" in reason


def test_ended_time_finds_contact_tasks_in_the_hour_they_ended(open_sandbox):
    client = open_sandbox(long_task_share=0.2, long_task_hours=30.0)

    found = rows_of(client, "timeComparator: endedTime", fields="id createdTime endedTime")

    truth = client.sandbox.truth(FROM_MS - 40 * HOUR_MS, TO_MS, with_sha256=False)
    ended = [row for row in truth if FROM_MS < row["ended_ms"] < TO_MS]
    assert [row["id"] for row in found] == [row["task_id"] for row in reversed(ended)]
    assert any(row["createdTime"] < FROM_MS - 24 * HOUR_MS for row in found)
    assert rows_of(client, "timeComparator: createdTime") == rows_of(client)


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("{channelType: {equals: email}}", {"channelType": "email"}),
        ("{captureRequested: {equals: true}}", {"captureRequested": True}),
        ("{captureRequested: {equals: false}}", {"captureRequested": False}),
        (
            "{and: [{channelType: {equals: telephony}} {captureRequested: {equals: true}}]}",
            {"channelType": "telephony", "captureRequested": True},
        ),
        ("{and: []}", {}),
        ("null", {}),
    ],
    ids=str,
)
def test_a_filter_keeps_what_equals(open_sandbox, condition, wanted):
    client = open_sandbox(requested_never_known_share=0.3, tasks_per_hour=150)
    names = "id channelType captureRequested"
    everything = rows_of(client, fields=names)

    found = rows_of(client, f"filter: {condition},", fields=names)

    assert found == [row for row in everything if wanted.items() <= row.items()]
    assert found


def test_a_channel_nobody_uses_is_answered_at_once(open_sandbox):
    client = open_sandbox(social_weight=0.0, tasks_per_hour=20_000)
    asked = "filter: {channelType: {equals: social}}"

    assert rows_of(client, asked, from_=NOW_MS - 365 * DAY_MS, to=NOW_MS) == []


def test_variables_stand_for_values(open_sandbox):
    client = open_sandbox()
    query = """
        # A comment, and commas where one likes.
        query Old($f: Long!, $t: Long! $yes: Boolean, $by: TimeComparator = endedTime,
                  $c: ChannelType) {
          taskDetails(from: $f, to: $t, timeComparator: $by, filter: {and: [
              {captureRequested: {equals: $yes}}, {channelType: {equals: $c}}]}) {
            tasks { id } } }"""
    variables = {"f": FROM_MS, "t": TO_MS, "yes": True, "c": "chat", "unknown": 1}

    found = client.search(query, variables).json()["data"]["taskDetails"]["tasks"]

    written = "{and: [{captureRequested: {equals: true}}, {channelType: {equals: chat}}]}"
    assert found == rows_of(client, f"timeComparator: endedTime, filter: {written}")
    assert found


@pytest.mark.parametrize("cursor", ["", '{cursor: "NA"}', '{cursor: "0"}', "{}", "null"])
def test_the_first_page_is_asked_for_in_several_ways(open_sandbox, cursor):
    client = open_sandbox()

    reply = client.search(a_query(f"pagination: {cursor}" if cursor else ""))

    assert len(reply.json()["data"]["taskDetails"]["tasks"]) == 80


def test_variables_in_pagination_are_refused_or_taken_by_switch(open_sandbox):
    strict, lenient = open_sandbox(), open_sandbox(search_variables_in_pagination=True)
    query = "query($c: String)" + a_query("pagination: {cursor: $c}", to=NOW_MS)

    assert "pagination takes no variables" in reason_of(strict.search(query, {"c": "NA"}))
    for variables, count in (({}, 240), ({"c": None}, 240), ({"c": "0"}, 240), ({"c": "1"}, 0)):
        found = lenient.search(query, variables).json()["data"]["taskDetails"]["tasks"]
        assert len(found) == pytest.approx(count, abs=1)


def test_a_page_beyond_the_end_is_empty(open_sandbox):
    reply = open_sandbox().search(a_query('pagination: {cursor: "999999999"}'))

    assert reply.json() == {
        "data": {
            "taskDetails": {"tasks": [], "pageInfo": {"hasNextPage": False, "endCursor": None}}
        }
    }


def test_a_full_last_page_has_no_next(open_sandbox):
    client = open_sandbox(tasks_per_hour=250)

    assert [len(page) for page in pages_of(client)] == [250, 250]


@pytest.mark.parametrize(("records_max", "sizes"), [(500, [250, 250]), (300, [250, 50])])
def test_a_search_ends_silently_after_its_most_records(open_sandbox, records_max, sizes):
    client = open_sandbox(tasks_per_hour=400, search_records_max=records_max)

    assert [len(page) for page in pages_of(client)] == sizes
    assert Scenario().search_records_max == 100_000


@pytest.mark.parametrize("cursors", ["stable", "shifting"])
def test_pages_shift_by_switch_while_data_change(open_sandbox, cursors):
    client = open_sandbox(tasks_per_hour=400, search_cursor=cursors)
    parts: dict[str, Any] = {"from_": FROM_MS, "to": NOW_MS + HOUR_MS}

    def page(number: int) -> list[str]:
        reply = client.search(a_query(f'pagination: {{cursor: "{number}"}}', **parts))
        return [row["id"] for row in reply.json()["data"]["taskDetails"]["tasks"]]

    first = page(0)
    client.sandbox.advance(600)

    assert bool(set(first) & set(page(1))) is (cursors == "shifting")


def test_bookmarks_are_forgotten_beyond_a_number():
    bookmarks = Bookmarks()
    for number in range(BOOKMARKS_KEPT + 1):
        bookmarks.put(("question", number), f"id-{number}")

    assert bookmarks.find(("question", 0)) is None
    assert bookmarks.find(("question", 1)) == "id-1"


@pytest.mark.parametrize(
    "span",
    [
        {"from_": FROM_MS // 1_000, "to": TO_MS // 1_000},
        {"from_": FROM_MS // 1_000, "to": TO_MS},
        {"from_": FROM_MS, "to": TO_MS // 1_000},
        {"from_": TO_MS, "to": FROM_MS},
        {"from_": NOW_MS + 1, "to": NOW_MS + 2},
    ],
    ids=["seconds", "from in seconds", "to in seconds", "backwards", "the future"],
)
def test_times_that_mean_nothing_find_nothing_silently(open_sandbox, span):
    assert rows_of(open_sandbox(), **span) == []


def test_36_months_back_are_accepted_but_no_more(open_sandbox):
    client = open_sandbox(tasks_per_hour=1)
    from_ms = NOW_MS - 3 * 365 * DAY_MS

    assert len(rows_of(client, from_=from_ms, to=from_ms + DAY_MS)) in (23, 24)
    refused = client.search(a_query(from_=from_ms - 1, to=from_ms + DAY_MS))
    assert "36 months" in reason_of(refused)


def test_365_days_at_once_are_accepted_but_no_more(open_sandbox):
    client = open_sandbox(first_task_ms=NOW_MS - 400 * DAY_MS, tasks_per_hour=1)
    from_ms = NOW_MS - 500 * DAY_MS

    assert client.search(a_query(from_=from_ms, to=from_ms + 365 * DAY_MS)).status == 200
    refused = client.search(a_query(from_=from_ms, to=from_ms + 365 * DAY_MS + 1))
    assert "365 days" in reason_of(refused)
    oldest = rows_of(client, from_=from_ms, to=NOW_MS - 399 * DAY_MS)
    assert len(oldest) in (23, 24)


def test_a_future_to_counts_as_now(open_sandbox):
    client = open_sandbox()
    from_ms = NOW_MS - 365 * DAY_MS

    assert client.search(a_query(from_=from_ms, to=NOW_MS + DAY_MS)).status == 200
    assert rows_of(client, to=NOW_MS + DAY_MS) == rows_of(client, to=NOW_MS)


def test_search_can_lag_behind_the_list(open_sandbox):
    client = open_sandbox(search_lag_seconds=1_800)

    found = rows_of(client, from_=NOW_MS - HOUR_MS, to=NOW_MS, fields="createdTime isActive")

    assert NOW_MS - 2_000_000 < max(row["createdTime"] for row in found) <= NOW_MS - 1_800_000
    assert any(row["isActive"] for row in found)
    assert len(client.walk(NOW_MS - HOUR_MS, NOW_MS)) > len(found)


def test_contact_tasks_listed_late_are_found_late(open_sandbox):
    client = open_sandbox(late_listed_share=0.5, late_listed_minutes=600.0)

    listed = client.walk(FROM_MS, TO_MS)

    assert [row["id"] for row in rows_of(client)] == [row["id"] for row in reversed(listed)]
    assert len(listed) < 80


WHOLE = f"from: {FROM_MS}, to: {TO_MS}"
BAD_QUERIES = [
    (f"{{task(from: {FROM_MS}) {{tasks {{id}}}}}}", "Missing field argument 'to'"),
    (f"{{task(to: {TO_MS}) {{tasks {{id}}}}}}", "Missing field argument 'from'"),
    ("{task {tasks {id}}}", "Missing field argument 'from'"),
    (a_query(from_="null"), "Missing field argument 'from'"),
    (a_query(fields="id queue {id}"), "FieldUndefined@[taskDetails/tasks/queue]"),
    (a_query(fields="owner {id mail}"), "Field 'mail' in type 'owner' is undefined"),
    (f"{{task({WHOLE}) {{rows {{id}}}}}}", "Field 'rows' in type 'task' is undefined"),
    (f"{{task({WHOLE}) {{pageInfo {{total}}}}}}", "FieldUndefined"),
    (f"{{agentSession({WHOLE}) {{tasks {{id}}}}}}", "FieldUndefined@[agentSession]"),
    ("{__schema {types {name}}}", "Field '__schema' in type 'Query' is undefined"),
    (f"{{task({WHOLE})}}", "SubSelectionRequired"),
    (f"{{task({WHOLE}) {{tasks}}}}", "SubSelectionRequired"),
    (a_query(fields="owner"), "SubSelectionRequired"),
    (a_query(fields="id {id}"), "SubSelectionNotAllowed"),
    (a_query(fields="owner {id {id}}"), "SubSelectionNotAllowed"),
    (a_query(fields="id(form: short)"), "UnknownArgument"),
    (a_query(fields="id id"), "merges no field"),
    (a_query("aggregations: []"), "Unknown field argument 'aggregations'"),
    (a_query(from_='"yesterday"'), "'from' should be a Long"),
    (a_query(to=f"{TO_MS}.5"), "'to' should be a Long"),
    (a_query(to="true"), "'to' should be a Long"),
    (a_query("timeComparator: closedTime"), "'timeComparator' should be"),
    (a_query('timeComparator: "endedTime"'), "'timeComparator' should be"),
    (a_query("filter: telephony"), "'filter' should be an object"),
    (a_query("filter: {and: {channelType: {equals: chat}}}"), "'filter.and' should be a list"),
    (a_query("filter: {and: [chat]}"), "'filter' should be an object"),
    (a_query("filter: {status: {equals: ended}}"), "'filter.status' should be"),
    (a_query("filter: {channelType: chat}"), "'filter.channelType' should be"),
    (a_query("filter: {channelType: {notEquals: chat}}"), "'filter.channelType' should be"),
    (a_query("filter: {channelType: {equals: fax}}"), "'filter.channelType' should be one of"),
    (a_query('filter: {channelType: {equals: "chat"}}'), "'filter.channelType' should be one of"),
    (a_query("filter: {captureRequested: {equals: null}}"), "should be true or false"),
    (a_query("pagination: 1"), "'pagination' should be {cursor}"),
    (a_query("pagination: {page: 1}"), "'pagination' should be {cursor}"),
    (a_query("pagination: {cursor: 1}"), "'pagination.cursor' should be"),
    (a_query("pagination: {cursor: NA}"), "'pagination.cursor' should be"),
    (a_query('pagination: {cursor: "-1"}'), "'pagination.cursor' should be"),
    (a_query(from_="$f"), "Undefined variable 'f'"),
    ("query($f: Long!)" + a_query(), "Unused variable 'f'"),
    ("query($f: Long)" + a_query(from_="$f"), "Variable 'f' should be Long!"),
    ("query($f: String!)" + a_query(from_="$f"), "Variable 'f' should be Long!"),
    ("query($f: Long!)" + a_query(from_="$f"), "Variable 'f' is required"),
    (f"{{task({WHOLE}) {{tasks {{id}}}} taskDetails({WHOLE}) {{tasks {{id}}}}}}", "one root"),
    ("", "unexpected the end"),
    ("mutation {x}", "unexpected mutation"),
    ("{task() {}}", "unexpected }"),
    (a_query() + "}", "unexpected }"),
    (a_query(fields="alias: id"), "unexpected :"),
    (a_query(fields="... on Task {id}"), "unexpected ..."),
    (a_query("filter: @"), "unexpected @"),
    (a_query("filter: ;"), "unexpected character"),
    (a_query(from_="1a"), "unexpected character"),
    (a_query('filter: "open'), "unexpected character"),
    (a_query(r'filter: "\x"'), "unexpected a text"),
    (a_query(fields='"secret"'), "unexpected a text"),
    (a_query("from: 1"), "'from' is given twice"),
    ("query($f: Long!, $f: Long!)" + a_query(), "declared twice"),
    (a_query("filter: " + "[" * 500), "nested too deep"),
    ("{a" * 500, "nested too deep"),
]


def test_a_bad_query_is_refused(open_sandbox):
    """One sandbox for all of them: each is a request, none depends on another."""
    client = open_sandbox()

    answered = [(query, wanted, client.search(query)) for query, wanted in BAD_QUERIES]

    for query, wanted, reply in answered:
        assert wanted in reason_of(reply), query
    assert client.sandbox.requests()["counts"]["search"] == {"400": len(BAD_QUERIES)}


@pytest.mark.parametrize("value", ["1", 1.5, True, [1]], ids=str)
def test_a_variable_of_another_type_is_refused(open_sandbox, value):
    reply = open_sandbox().search("query($f: Long!)" + a_query(from_="$f"), {"f": value})

    assert "Variable 'f' is no Long" in reason_of(reply)


def test_a_bad_query_is_told_in_a_200_by_switch(open_sandbox):
    client = open_sandbox(search_query_error="graphql")

    reply = client.search(a_query(fields="queue {id}"))

    assert reply.status == 200
    assert reply.json() == {
        "errors": [
            {
                "message": "Validation error (FieldUndefined@[taskDetails/tasks/queue]) : "
                "Field 'queue' in type 'tasks' is undefined",
                "extensions": {"classification": "FieldUndefined"},
            }
        ],
        "data": None,
    }


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "The body is not JSON"),
        (b"[" * 100_000, "The body is not JSON"),
        (b"[]", "query is required"),
        (b"{}", "query is required"),
        (b'{"query": {}}', "query is required"),
        (b'{"query": "{}", "variables": []}', "variables should be an object"),
    ],
    ids=["no JSON", "endless JSON", "a list", "no query", "no text", "a list of variables"],
)
def test_a_bad_body_is_refused(open_sandbox, body, reason):
    assert reason in reason_of(open_sandbox().post_search(body))


def test_the_request_is_json_by_post(open_sandbox):
    client = open_sandbox()
    body = json.dumps({"query": a_query()}).encode()

    assert client.post_search(body, Content_Type="application/json; charset=utf-8").status == 200
    assert client.post_search(body, Content_Type="application/graphql").status == 415
    assert client.send("GET", "/search", Authorization=client.authorization).status == 405


def test_the_bearer_rules_are_those_of_the_other_endpoints(open_sandbox):
    client = open_sandbox()
    body = json.dumps({"query": a_query()}).encode()

    refused = client.send("POST", "/search", body, Content_Type="application/json", TrackingId="t1")

    assert (refused.status, refused.json()["trackingId"]) == (400, "t1")
    assert client.post_search(body, Authorization="Basic x").status == 400
    assert client.post_search(body, Authorization="Bearer x").status == 401
    assert open_sandbox(scope="spark:all").post_search(body).status == 403


def test_another_organisation_is_forbidden_or_empty(open_sandbox):
    client, other = open_sandbox(), open_sandbox(token_org_id=OTHER_ORG_ID)

    assert client.search(a_query(), org_id=client.org_id).status == 200
    assert client.search(a_query(), org_id=OTHER_ORG_ID).status == 403
    assert rows_of(other) == []


def test_searches_count_in_the_budget_of_the_client_id(open_sandbox):
    client = open_sandbox(requests_per_minute=3)

    statuses = [client.search(a_query()).status, client.contact_tasks(from_=FROM_MS).status]
    statuses += [client.captures([OTHER_ORG_ID]).status, client.search(a_query()).status]

    assert statuses == [200, 200, 200, 429]
    assert client.sandbox.requests()["max_requests_in_60_seconds"] == 4


def test_a_large_answer_is_compressed_only_when_asked(open_sandbox):
    client = open_sandbox(gzip_above_bytes=1_000)

    plain = client.search(a_query())
    packed = client.search(a_query(), Accept_Encoding="gzip")

    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(packed.body)) == plain.json()


def test_a_parsed_query_is_plain_values():
    query = parse_query('query Q($a: X = {b: [1, "\\u00e9", -2.5]}) { f(a: $a) { g } }')

    assert query.declarations["a"].default == {"b": [1, "\u00e9", -2.5]}
    assert [each.name for each in query.selection[0].selection] == ["g"]
    with pytest.raises(QueryError, match=r"Invalid Syntax : unexpected \$"):
        parse_query("{ $ }")
