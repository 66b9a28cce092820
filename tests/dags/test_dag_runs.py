"""Whole runs of the DAGs in one Airflow process, against the sandbox and an S3 server over HTTP."""

import time

import pendulum
import pytest

from tests.archived import assert_complete, truth_with_all
from tests.s3_servers import rclone_server

SECONDS_TO_FAIL = 20
NO_BUCKET = {"s3": {"bucket_name": "no-such-bucket"}}


def states(run) -> dict[str, str]:
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}


def tries(run) -> set[int]:
    return {ti.try_number for ti in run.get_task_instances() if str(ti.state) == "failed"}


def test_refresh_then_archive_an_hour_completely(runner, sandbox):
    assert str(runner.run("refresh_access_token").state) == "success"
    run = runner.archive()

    # Airflow calls a run without any Airflow task successful too: so each state is looked at.
    assert states(run) == {
        "plan_shards": "success",
        "archive_shard": "success",
        "publish_tables": "success",
    }
    assert_complete(runner.archived, truth_with_all(sandbox, *runner.interval_ms()))
    assert sandbox.requests()["refusals"] == []
    assert runner.archived.working_files == []


def test_a_fresh_token_is_not_refreshed_again(runner, sandbox):
    runner.run("refresh_access_token")
    runner.run("refresh_access_token")

    assert sandbox.requests()["counts"] == {"token": {"200": 1}}


@pytest.mark.parametrize("sandbox", [{"tasks_per_hour": 0}], indirect=True, ids=["no contact task"])
def test_an_empty_hour_is_archived_as_empty(runner):
    runner.run("refresh_access_token")
    run = runner.archive()

    assert set(states(run).values()) == {"success"}
    assert len([key for key in runner.archived.keys if "tables/" in key]) == 2


def test_the_parameters_of_the_form_reach_the_run(runner, sandbox):
    runner.run("refresh_access_token")
    runner.archive(channel_types=["email"], include_segments=True, recopy=True)

    truth = truth_with_all(sandbox, *runner.interval_ms(), include_segments=True)
    emails = [task for task in truth if task["attributes"]["channelType"] == "email"]
    assert_complete(runner.archived, emails)


@pytest.mark.parametrize(
    ("conf", "named"),
    [
        ({"channel_types": ["fax"]}, "fax"),
        ({"channel_types": "email"}, "channel_types"),
        ({"include_segments": "yes"}, "include_segments"),
        ({"recopy": 3}, "recopy"),
    ],
    ids=["unknown channel", "text for a list", "text for a switch", "number for a switch"],
)
def test_a_bad_parameter_is_refused_before_anything_runs(runner, conf, named):
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises((ParamValidationError, ValueError), match=named):
        runner.archive(**conf)


def test_a_failed_capture_fails_the_run_after_everything_else_is_published(runner, sandbox, capfd):
    runner.run("refresh_access_token")
    truth = truth_with_all(sandbox, *runner.interval_ms())
    broken = next(
        c for t in truth for c in t["captures"] if c["listed"] and c["kind"] == "recording"
    )
    path = f"{broken['object_id']}/{broken['file_name']}"
    sandbox.set_faults([{"endpoint": "media", "kind": "html_in_200", "match": path}])

    run = runner.archive()

    assert states(run) == {
        "plan_shards": "success",
        "archive_shard": "failed",
        "publish_tables": "failed",
    }
    assert tries(run) == {1}
    outcomes = [row["outcome"] for row in runner.archived.rows("captures")]
    assert outcomes.count("failed") == 1
    assert outcomes.count("copied") == len(outcomes) - 1
    assert "1 of" in _logs(capfd)


def _wrong(runner, **fields):
    for place, value in fields.items():
        connection, _, name = place.partition("__")
        target = getattr(runner, connection)
        if name in {"host", "login", "password"}:
            target[name] = value
        else:
            target["extra"][name] = value


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"webex__password": "wrong"},
            "check login and password of the connection webex_contact_center",
        ),
        ({"webex__refresh_token": "spent"}, "Webex refuses the refresh token (400)"),
        (
            {"webex__refresh_token": ""},
            "There is no refresh token: put the first one into the extra field",
        ),
        ({"webex__org_id": ""}, "extra field org_id is missing"),
        ({"webex__org_id": "acme"}, "extra field org_id is not a UUID"),
        ({"webex__login": ""}, "login (the client id of the service app) is empty"),
        ({"webex__password": ""}, "password (the client secret of the service app) is empty"),
        ({"webex__host": "eu9"}, "host is neither a URL nor one of the data centres"),
        (
            {"webex__requests_per_minute": "many"},
            "extra field requests_per_minute is not a positive whole number",
        ),
        ({"webex__token_url": "ftp://x"}, "extra field token_url is not a plain http(s) URL"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_wrong_setting_fails_the_refresh_at_once(runner, capfd, fields, sentence):
    _wrong(runner, **fields)
    _assert_fails_once(runner, "refresh_access_token", sentence, capfd)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"webex__org_id": "11111111-2222-4333-8444-555555555555"},
            "correct its extra field org_id",
        ),
        ({"store__service_config": NO_BUCKET}, "The bucket no-such-bucket does not exist"),
        ({"store__service_config": {}}, "The connection wxcc_store names no bucket"),
        (
            {"store__prefix": "../up"},
            "The extra field 'prefix' of the connection wxcc_store is not usable",
        ),
        ({"webex__media_hosts": ["s3.example.com"]}, "add it to the extra field media_hosts"),
    ],
    ids=[
        "other org than the token",
        "missing bucket",
        "no bucket",
        "bad prefix",
        "media host not listed",
    ],
)
def test_a_wrong_setting_fails_the_archive_at_once(runner, capfd, fields, sentence):
    runner.run("refresh_access_token")
    _wrong(runner, **fields)
    _assert_fails_once(runner, "archive_captures", sentence, capfd)


@pytest.mark.parametrize(
    "sandbox",
    [{"token_org_id": "11111111-2222-4333-8444-555555555555"}],
    indirect=True,
    ids=["token of another org"],
)
def test_a_token_of_another_org_fails_at_once(runner, capfd):
    runner.run("refresh_access_token")
    _assert_fails_once(runner, "archive_captures", "its extra field org_id", capfd)


def test_another_data_centre_fails_at_once(runner, sandbox, capfd):
    """Which status a wrong region gives is unknown; 401, 403 and 404 all end at once."""
    runner.run("refresh_access_token")
    for kind in ("http_401", "http_403", "http_404"):
        sandbox.set_faults([{"endpoint": "tasks", "kind": kind}])
        _assert_fails_once(
            runner, "archive_captures", "the host of the connection webex_contact_center", capfd
        )


def test_a_wrong_key_pair_of_the_bucket_fails_at_once(runner, tmp_path, capfd):
    runner.run("refresh_access_token")
    with rclone_server(tmp_path) as server:
        runner.store |= {"login": server.access_key, "password": "wrong"}
        runner.store["extra"]["endpoint_url"] = server.endpoint_url
        _assert_fails_once(
            runner, "archive_captures", "The object store refuses the key pair", capfd
        )


def test_a_missing_connection_says_how_to_make_it(dagbag, runner, capfd):
    runner.environment.delenv("AIRFLOW_CONN_WEBEX_CONTACT_CENTER", raising=False)
    run = dagbag.dags["refresh_access_token"].test(logical_date=pendulum.now("UTC"))

    assert (str(run.state), tries(run)) == ("failed", {1})
    assert "The connection webex_contact_center does not exist: create it in the UI" in _logs(capfd)


def _assert_fails_once(runner, dag_id, sentence, capfd):
    capfd.readouterr()
    started = time.monotonic()

    run = runner.archive() if dag_id == "archive_captures" else runner.run(dag_id)

    assert time.monotonic() - started < SECONDS_TO_FAIL
    assert (str(run.state), tries(run)) == ("failed", {1})
    text = _logs(capfd)
    assert sentence in text
    for secret in (
        runner.webex["password"],
        runner.webex["extra"].get("refresh_token"),
        runner.store["password"],
    ):
        assert not secret or len(secret) < 8 or secret not in text


def _logs(capfd) -> str:
    captured = capfd.readouterr()
    return captured.out + captured.err
