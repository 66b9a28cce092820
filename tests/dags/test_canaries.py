"""Plants recognisable secrets and personal data, runs every DAG and its failures, visits every page, and searches.

Where they may be: the connections (whose secrets Airflow encrypts), the encrypted variable, and for personal
data the columns made for it. The door plants them in answers (planting_door.py); the connections have others.
"""

import io
import json
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.domain.interval import from_epoch_ms
from tests.archived import truth_with_all
from tests.dags.planting_door import EMAIL, NAME, PERSONAL, PHONE, SECRET, SIGNED_URL, planting_door
from tests.dags.visited_pages import REDIRECT_URI, visit_connect, visit_events

DAGS = Path(__file__).parents[2] / "dags"
CLIENT_SECRET = "canary-client-secret-5f1d"
ACCESS_KEY_SECRET = "canary-s3-secret-77aa"
HASH_SECRET = "canary-personal-data-secret-of-the-hashes"
EVENTS_SECRET = "canary-events-secret-of-thirty-two-characters"
HELPER_SECRET = "canary-helper-secret-31c8"
HELPER_TOKEN = "canary-helper-refresh-token-88e2"
# What is in the URL of every download, and in every token of the sandbox.
MARKS = {
    "a signed URL": re.compile(rb"X-Amz-Signature=[0-9a-z]"),
    "a token of the sandbox": re.compile(rb"[0-9a-f]{24,}_PF84_"),
}
# Where personal data belongs; `queue_name` is hashed in these runs.
COLUMNS_FOR_PERSONAL_DATA = {
    "origin",
    "destination",
    "owner_name",
    "participants",
    "file_name",
    "extra_json",
}
Places = dict[str, bytes]
Search = dict[str, re.Pattern[bytes]]


def search_for(secrets: Mapping[str, str]) -> Search:
    """Each as it is, and as a URL or JSON may write it."""
    found: Search = {}
    for name, secret in secrets.items():
        forms = {secret, secret.replace("+", "%2B").replace("@", "%40"), json.dumps(secret)[1:-1]}
        found[name] = re.compile("|".join(map(re.escape, sorted(forms))).encode())
    return found


OWN_SECRETS = {
    name: name
    for name in (
        CLIENT_SECRET,
        ACCESS_KEY_SECRET,
        HASH_SECRET,
        EVENTS_SECRET,
        HELPER_SECRET,
        HELPER_TOKEN,
    )
}
SECRETS: Search = {**search_for({**SECRET, **OWN_SECRETS}), **MARKS}
ALL: Search = {**SECRETS, **search_for(PERSONAL)}


def leaks(places: Places, searched: Search) -> list[str]:
    return [
        f"{name} in {place}: …{text[max(found.start() - 80, 0) : found.end()]!r}"
        for place, text in places.items()
        for name, mark in searched.items()
        if (found := mark.search(text))
    ]


def files_of(home: Path) -> Places:
    """Logs, and the metadata database with its write-ahead log, as they are on the disk.

    Another process reads the database: a process that closes a file gives up all its locks on it, and a command
    that a later test starts would then take itself for the only one, and delete the log under the others.
    """
    return {
        str(path): subprocess.run(["cat", path], check=True, capture_output=True).stdout
        if path.name.startswith("airflow.db")
        else path.read_bytes()
        for path in home.rglob("*")
        if path.is_file()
    }


def metadata_of(home: Path) -> Places:
    """Every cell of every table: a long text lies in pieces in the file, and a short one may be compressed."""
    with sqlite3.connect(f"file:{home}/airflow.db?mode=ro", uri=True) as database:
        tables = [
            name
            for (name,) in database.execute("select name from sqlite_master where type = 'table'")
        ]
        return {
            f"the table {table} of the metadata": b"\n".join(
                cell if isinstance(cell, bytes) else str(cell).encode()
                for row in database.execute(f'select * from "{table}"')
                for cell in row
            )
            for table in tables
        }


def bucket_of(runner: Any) -> tuple[Places, Places]:
    """All but the captures themselves; what may hold personal data is apart."""
    archived = runner.archived
    strict: Places = {"the keys of the bucket": "\n".join(archived.keys).encode()}
    personal: Places = {}
    for key in set(archived.keys) - set(archived.objects):
        if not key.endswith(".parquet"):
            strict[key] = archived.bytes_of(key)
            continue
        columns = pq.read_table(io.BytesIO(archived.bytes_of(key))).to_pydict()
        for column, values in columns.items():
            kind = personal if column in COLUMNS_FOR_PERSONAL_DATA else strict
            kind[f"column {column} of {key}"] = "\n".join(map(str, values)).encode()
    return strict, personal


def shown_by(ui: Any) -> Places:
    """What every GET of the API answers that is about a list, or about one thing of a list before it."""
    paths = [
        path
        for path, operations in ui.app.openapi()["paths"].items()
        if "get" in operations and path.startswith("/api/v2/") and "/auth/" not in path
    ]
    shown: Places = {}

    def get(path: str) -> Any:
        answer = ui.get(path)
        shown[f"GET {path}"] = answer.content
        is_json = "json" in answer.headers.get("content-type", "")
        return answer.json() if answer.status_code == 200 and is_json else {}

    for path in paths:
        if "{" not in path:
            get(f"{path}?limit=1000")
    for kind in ("assets/events", "eventLogs", "connections", "variables"):
        assert f"GET /api/v2/{kind}?limit=1000" in shown
    runs = get("/api/v2/dags/~/dagRuns?limit=1000").get("dag_runs", [])
    tries = [
        one
        for dag_id in sorted({run["dag_id"] for run in runs})
        for one in get(f"/api/v2/dags/{dag_id}/dagRuns/~/taskInstances?limit=1000")[
            "task_instances"
        ]
    ]
    get("/api/v2/dags/~/dagRuns/~/taskInstances/~/xcomEntries?limit=1000")
    for dag_id in {run["dag_id"] for run in runs}:
        for each in [path for path in paths if set(re.findall(r"{(\w+)}", path)) == {"dag_id"}]:
            get(each.replace("{dag_id}", dag_id))
    for one in tries:
        base = (
            f"/api/v2/dags/{one['dag_id']}/dagRuns/{one['dag_run_id']}"
            f"/taskInstances/{one['task_id']}"
        )
        mapped = f"?map_index={one['map_index']}"
        get(f"{base}/logs/{max(one['try_number'], 1)}{mapped}&full_content=true")
        get(f"{base}/state-store{mapped}")
        for entry in get(f"{base}/xcomEntries{mapped}").get("xcom_entries", []):
            get(f"{base}/xcomEntries/{entry['key']}{mapped}")
    return shown


@pytest.fixture
def connections_in_the_metadata(airflow_home) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Connections as the UI stores them, so that the API has some to show."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    def store(connections: dict[str, Any]) -> None:
        with create_session() as session:
            for conn_id, fields in connections.items():
                session.add(Connection(conn_id, **fields | {"extra": json.dumps(fields["extra"])}))

    yield store
    with create_session() as session:
        session.query(Connection).delete()


def dag_ids() -> set[str]:
    return {path.stem for path in DAGS.glob("*.py") if path.stem != "__init__"}


def run_every_dag(runner: Any) -> None:
    """Each file of dags/; what needs a range or an hour gets one, any other runs as it is."""
    start_ms, end_ms = runner.interval_ms()
    given = {
        "from": from_epoch_ms(start_ms).isoformat(),
        "to": from_epoch_ms(end_ms).isoformat(),
    }
    options: dict[str, dict[str, Any]] = {
        "preview_backfill": given,
        "verify_archive": {**given, "sha256_percent": 100},
    }
    from airflow.sdk.exceptions import ParamValidationError

    names = dag_ids()
    first = ["refresh_access_token", "archive_captures"]
    assert {*options, *first} <= names
    for dag_id in [*first, *sorted(names - set(first))]:
        try:
            runner.run(dag_id, from_epoch_ms(end_ms), **options.get(dag_id, {}))
        except ParamValidationError:
            # A failed run whose parameters have no default: Airflow's test run then has no context for the
            # callback. A scheduler has one (test_alerts.py).
            assert dag_id == "preview_backfill"


def run_the_failures(runner: Any, sandbox: Any) -> None:
    """Each failure has a sentence of its own, which must not quote what it failed on."""
    start, end = map(from_epoch_ms, runner.interval_ms())
    html, expired, gone, redirected, cut = sorted(
        {
            row["task_id"]
            for row in runner.archived.rows("captures")
            if start <= row["task_created_time"] < end
        }
    )[:5]
    media: list[dict[str, Any]] = [
        {"kind": "html_in_200", "match": html},
        {"kind": "expired_url", "match": expired},
        {"kind": "http_404", "match": gone},
        {"kind": "redirect", "match": redirected, "times": 2},
        {"kind": "reset_mid_body", "match": cut, "times": 2},
    ]
    sandbox.set_faults([{"endpoint": "media", "location": SIGNED_URL} | fault for fault in media])
    runner.archive(recopy=True)
    failed = {row["task_id"] for row in runner.archived.rows("captures") if row["last_error"]}
    assert failed == {html, expired, gone}
    for endpoint, kind, times in [
        ("tasks", "redirect", 1),
        ("tasks", "json_error_in_200", 1),
        ("captures", "http_401", 8),
        ("captures", "http_404", 8),
    ]:
        fault = {"endpoint": endpoint, "kind": kind, "times": times, "location": SIGNED_URL}
        sandbox.set_faults([fault])
        runner.archive(recopy=True)
    runner.webex["extra"]["refresh_token"] += "x"  # a new value is tried at once, and refused
    sandbox.set_faults([{"endpoint": "tasks", "kind": "http_403"}])
    run_every_dag(runner)
    sandbox.set_faults([])


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "sandbox",
    [
        {
            "client_secret": CLIENT_SECRET,
            "extra_members": True,
            "tasks_per_hour": 10,
            "recording_bytes_max": 30_000,
        }
    ],
    indirect=True,
    ids=["canaries"],
)
def test_no_secret_and_no_personal_data_outside_the_places_made_for_them(
    runner,
    sandbox,
    airflow_home,
    receivers,
    capfd,
    caplog,
    ui,
    connections_in_the_metadata,
    monkeypatch,
):
    runner.store["password"] = ACCESS_KEY_SECRET
    runner.store["extra"] |= {
        "personal_data": {"queue_name": "hash"},
        "personal_data_secret": HASH_SECRET,
        "sensitive_prefix": "captures_sensitive",
    }
    with planting_door(sandbox.base_url) as url:
        told = json.dumps(runner.webex).replace(sandbox.base_url, url)
        runner.webex = json.loads(
            told.replace(urlsplit(sandbox.base_url).netloc, urlsplit(url).netloc)
        )
        connections = {
            "webex_contact_center": runner.webex,
            "wxcc_store": runner.store,
            "wxcc_capture_events": {
                "conn_type": "http",
                "host": "https://hooks.example.com/wxcc/events",
                "password": EVENTS_SECRET,
                "extra": {},
            },
            "webex_token_helper": {
                "conn_type": "http",
                "login": "a-helper-client-id",
                "password": HELPER_SECRET,
                "extra": {"refresh_token": HELPER_TOKEN},
            },
        }
        for conn_id, fields in connections.items():
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
        connections_in_the_metadata(connections)
        first_refresh_token = runner.webex["extra"]["refresh_token"]
        run_every_dag(runner)
        run_the_failures(runner, sandbox)

    truth = truth_with_all(sandbox, *runner.interval_ms(), with_sha256=False)
    numbers = {
        value
        for task in truth
        for value in (task["attributes"].get("origin"), task["attributes"].get("destination"))
        if value
    }
    assert len(numbers) > 10
    secrets = SECRETS | search_for({"the refresh token": first_refresh_token})
    everything = ALL | secrets | search_for({f"the number {each}": each for each in numbers})
    captured = capfd.readouterr()
    places: Places = {
        "standard output": captured.out.encode(),
        "standard error": captured.err.encode(),
        "log records and their tracebacks": caplog.text.encode(),
        "alerts by webhook": "".join(receivers.texts).encode(),
        "alerts by e-mail": "".join(receivers.email_texts).encode(),
    }
    strict, personal = bucket_of(runner)
    shown = shown_by(ui)
    places |= files_of(airflow_home) | metadata_of(airflow_home) | shown | strict

    assert leaks(places, everything) == []
    assert leaks(personal, secrets) == []
    # Nothing is searched in vain: all ran and failed, and what belongs into the archive is there.
    assert len(places["standard output"]) > 10_000
    ran = {place.split("/")[4] for place in shown if "/logs/" in place}
    assert ran == dag_ids()
    for alerts in (places["alerts by webhook"], places["alerts by e-mail"]):
        assert b"archive_captures failed" in alerts
        assert b"refresh_access_token failed" in alerts
    kept = b"\n".join(personal.values())
    assert [each for each in (PHONE, EMAIL, NAME) if each.encode() not in kept] == []
    assert any("/connections" in place and b"wxcc_store" in text for place, text in shown.items())


@pytest.mark.parametrize(
    "sandbox",
    [{"client_kind": "integration", "redirect_uri": REDIRECT_URI, "client_secret": CLIENT_SECRET}],
    indirect=True,
    ids=["an integration"],
)
def test_no_page_tells_or_keeps_what_a_browser_webex_or_a_stranger_sends(
    runner, sandbox, airflow_home, capfd, caplog, ui, monkeypatch
):
    """Answers with their headers, Airflow's access log, every other log, the metadata and the hints."""
    runner.store["password"] = ACCESS_KEY_SECRET
    events = {"conn_type": "http", "password": EVENTS_SECRET, "extra": {}}
    events["host"] = "https://hooks.example.com/wxcc/events"
    with planting_door(sandbox.base_url) as url:
        webex = json.loads(json.dumps(runner.webex).replace(sandbox.base_url, url))
        for conn_id, fields in (
            ("WEBEX_CONTACT_CENTER", webex),
            ("WXCC_STORE", runner.store),
            ("WXCC_CAPTURE_EVENTS", events),
        ):
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id}", json.dumps(fields))
        connect = visit_connect(ui, sandbox)
        delivered = visit_events(ui, EVENTS_SECRET, webex["extra"]["org_id"])

    everything = ALL | search_for(connect.secrets)
    places: Places = {"log records": caplog.text.encode()}
    places["standard output"], places["standard error"] = map(str.encode, capfd.readouterr())
    strict, _ = bucket_of(runner)
    places |= files_of(airflow_home) | metadata_of(airflow_home) | strict

    assert leaks(places | connect.shown | delivered.shown, everything) == []
    # Nothing is searched in vain.
    assert set(connect.notices) == {
        "Consent was denied",
        "Webex does not ask",
        "Webex refuses the ",
        "The token endpoint",
        "This page was open",
        "Webex is connected",
        "This answer does n",
    }
    assert b"path=/wxcc/callback" in places["standard output"]
    assert b"path=/wxcc/events" in places["standard output"]
    assert any(key.startswith("hints/") for key in runner.archived.keys)


def planted_in_metadata(home: Path, table: str) -> int:
    """A row with a canary in each of its columns that hold text; its number."""
    with sqlite3.connect(home / "airflow.db") as database:
        columns = list(database.execute(f'pragma table_info("{table}")'))
        values = [
            SIGNED_URL if "CHAR" in kind.upper() or "TEXT" in kind.upper() else 0
            for _, _, kind, *_ in columns
        ]
        marks = ", ".join("?" * len(columns))
        planted = database.execute(f'insert into "{table}" values ({marks})', values)
    database.close()
    return planted.lastrowid or 0


def forget(home: Path, table: str, row: int) -> None:
    """Take a row out again, and its bytes out of the files."""
    with sqlite3.connect(home / "airflow.db") as database:
        database.execute("pragma secure_delete = on")
        database.execute(f'delete from "{table}" where rowid = ?', [row])
    database.execute("pragma wal_checkpoint(truncate)")
    database.close()


@pytest.mark.parametrize(
    "table",
    [
        *("xcom", "rendered_task_instance_fields", "log", "task_instance_note", "dag_run"),
        *("task_state_store", "asset_state_store", "asset_event", "variable", "import_error"),
    ],
)
def test_a_leak_into_the_metadata_is_found(airflow_home, table: str):
    """A search that finds nothing anywhere would pass for ever."""
    assert leaks(metadata_of(airflow_home), MARKS) == []
    row = planted_in_metadata(airflow_home, table)

    in_cells, in_files = metadata_of(airflow_home), files_of(airflow_home)

    forget(airflow_home, table, row)
    assert [leak for leak in leaks(in_cells, SECRETS) if f"the table {table} " in leak]
    assert leaks(in_files, MARKS)
    assert leaks(metadata_of(airflow_home), MARKS) == []


@pytest.mark.parametrize(
    ("name", "text"), [*PERSONAL.items(), *SECRET.items()], ids=[*PERSONAL, *SECRET]
)
def test_a_leak_into_a_log_is_found(airflow_home, capfd, name: str, text: str):
    log = airflow_home / "logs" / "dag_id=a" / "attempt=1.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(json.dumps({"event": f"refused: {text}"}))
    print(text)

    found = leaks({**files_of(airflow_home), "out": capfd.readouterr().out.encode()}, ALL)

    log.unlink()
    assert any(f"{name} in {log}" in leak for leak in found)
    assert any(f"{name} in out" in leak for leak in found)


def test_a_leak_into_the_bucket_is_found(runner):
    def put(key: str, body: bytes = b"") -> None:
        runner.s3.put_object(Bucket=runner.bucket, Key=key, Body=body)

    row = {"task_id": PHONE, "origin": SIGNED_URL}
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row]), table)
    put("tables/contact_tasks/a.parquet", table.getvalue())
    put("_work/a-run/b.parquet", table.getvalue())
    put("manifests/1.json", NAME.encode())
    put(f"due/{EMAIL}")

    strict, personal = bucket_of(runner)

    told = "\n".join(leaks(strict, ALL))
    for place in (
        "column task_id of tables/",
        "column task_id of _work/",
        "manifests/1.json",
        "the keys",
    ):
        assert place in told
    assert [leak for leak in leaks(personal, SECRETS) if "column origin of tables/" in leak]


def test_a_leak_into_what_the_ui_shows_is_found(airflow_home, ui, connections_in_the_metadata):
    row = planted_in_metadata(airflow_home, "variable")
    connections_in_the_metadata({"a": {"conn_type": "http", "extra": {"header": NAME}}})

    found = "\n".join(leaks(shown_by(ui), ALL))

    forget(airflow_home, "variable", row)
    assert "a signed URL in GET /api/v2/variables" in found
    assert "a name in GET /api/v2/connections" in found
