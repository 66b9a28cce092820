"""Where token pairs are kept, what keeps them from there, and who may buy one; each with the real Airflow."""

import contextlib
import json
import os
import pty
import sqlite3
import sys
import threading
from pathlib import Path

import boto3
import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import make_server

from include.domain.errors import AlreadyRefused, PermanentError, TransientError

ROOT = Path(__file__).parents[2]
SECRET = "airflow/variables/wxcc_token"


def variables_of(airflow_home) -> dict[str, tuple[str, int]]:
    with sqlite3.connect(airflow_home / "airflow.db") as database:
        rows = database.execute("select key, val, is_encrypted from variable").fetchall()
    return {key: (value, is_encrypted) for key, value, is_encrypted in rows}


def token_requests(sandbox) -> dict[str, int]:
    return sandbox.requests()["counts"].get("token", {})


@pytest.fixture
def secrets_manager(monkeypatch):
    server = make_server("127.0.0.1", 0, create_backend_app("secretsmanager"), threaded=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    client = boto3.client("secretsmanager")
    yield client
    for secret in client.list_secrets()["SecretList"]:
        client.delete_secret(SecretId=secret["Name"], ForceDeleteWithoutRecovery=True)
    server.shutdown()
    server.server_close()


def test_airflow_encrypts_what_the_variable_holds(runner, airflow_home):
    assert str(runner.run("refresh_access_token").state) == "success"

    text, is_encrypted = variables_of(airflow_home)["wxcc_token"]
    assert is_encrypted
    assert "access_token" not in text


def test_secrets_manager_is_written_through(runner, sandbox, airflow_home, secrets_manager):
    runner.webex["extra"]["token_store"] = "secrets_manager:airflow/variables"

    assert str(runner.run("refresh_access_token").state) == "success"
    assert str(runner.run("refresh_access_token").state) == "success"
    assert str(runner.run("check_access").state) == "success"

    assert token_requests(sandbox) == {"200": 1}
    stored = json.loads(secrets_manager.get_secret_value(SecretId=SECRET)["SecretString"])
    assert stored["refresh_token"]
    assert "wxcc_token" not in variables_of(airflow_home)


def test_airflows_own_backend_sees_the_same(runner, secrets_manager):
    from airflow.providers.amazon.aws.secrets.secrets_manager import SecretsManagerBackend

    runner.webex["extra"]["token_store"] = "secrets_manager:airflow/variables"
    runner.run("refresh_access_token")

    backend = SecretsManagerBackend(variables_prefix="airflow/variables")
    stored = secrets_manager.get_secret_value(SecretId=SECRET)["SecretString"]
    assert backend.get_variable("wxcc_token") == stored


def test_a_store_that_cannot_keep_a_pair_is_told_before_one_is_bought(
    runner, sandbox, monkeypatch, capfd, airflow_home
):
    runner.run("refresh_access_token")
    before = variables_of(airflow_home)
    sandbox.advance(14 * 86400)
    runner.webex["extra"]["refresh_token"] = "another-first-token"
    for name, value, sentence in (
        ("AIRFLOW_VAR_WXCC_TOKEN", "{}", "something shadows it"),
        ("AIRFLOW__CORE__FERNET_KEY", "", "would store the token pair unencrypted"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert str(runner.run("refresh_access_token").state) == "failed", name
        assert sentence in "".join(capfd.readouterr())

    assert token_requests(sandbox) == {"200": 1}
    assert variables_of(airflow_home) == before  # what is hidden is not overwritten either


def test_a_pair_that_cannot_be_read_just_now_is_not_taken_for_none(monkeypatch):
    """Airflow answers a read that fails as if there were no such variable, and the next write would replace it."""
    from airflow.sdk import Variable
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse

    from plugins.token_store import VariableTokenStore

    def names_are(*names: str) -> None:
        monkeypatch.setattr(Variable, "keys", lambda prefix: list(names))

    def out_of_reach(prefix):
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))

    store = VariableTokenStore("wxcc_token", "a-client-id")
    monkeypatch.setattr(Variable, "get", lambda key, default: default)

    names_are("wxcc_token_of_somebody_else")
    assert store.read() is None
    names_are("wxcc_token")
    with pytest.raises(TransientError, match="does not give the variable"):
        store.read()
    monkeypatch.setattr(Variable, "keys", out_of_reach)
    with pytest.raises(TransientError, match="does not give the variable"):
        store.read()


def test_the_helper_integration_buys_the_first_pair(runner, sandbox, monkeypatch, airflow_home):
    runner.webex["extra"]["refresh_token"] = ""
    helper = json.dumps(sandbox.helper_connection())
    monkeypatch.setenv("AIRFLOW_CONN_WEBEX_TOKEN_HELPER", helper)

    assert str(runner.run("refresh_access_token").state) == "success"
    assert str(runner.run("check_access").state) == "success"

    stored = variables_of(airflow_home)
    assert {"wxcc_token", "wxcc_helper_token"} <= set(stored)
    assert all(is_encrypted for _, is_encrypted in stored.values())


@pytest.fixture
def personal_token(runner, sandbox, monkeypatch) -> str:
    """A token with the scope that it takes; the connection has no refresh token."""
    from include.domain.interval import utc_now
    from include.webex.tokens import request_token_pair
    from tests.builders import a_connection_to

    helper = sandbox.helper_connection()
    as_helper = a_connection_to(
        sandbox, login=helper["login"], password=helper["password"], **helper["extra"]
    )
    assert as_helper.refresh_token
    token = request_token_pair(as_helper, as_helper.refresh_token, utc_now).access_token
    runner.webex["extra"]["refresh_token"] = ""
    monkeypatch.setenv("AIRFLOW_CONN_WEBEX_CONTACT_CENTER", json.dumps(runner.webex))
    return token.get_secret_value()


def at_a_terminal(module: str, prompt: bytes, typed: str) -> tuple[int, str]:
    """How a command ended, and all that a person saw of it who typed one line."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", module])
    seen = b""
    with contextlib.suppress(OSError):  # what a terminal reads as when its last program has left
        while prompt not in seen:
            seen += os.read(terminal, 4096) or prompt
        os.write(terminal, f"{typed}\n".encode())
        while shown := os.read(terminal, 4096):
            seen += shown
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode()


def test_a_person_makes_the_first_pair_with_a_token_that_is_not_kept(
    runner, personal_token, airflow_home
):
    exit_code, seen = at_a_terminal(
        "tools.first_token_pair", b"applications_token: ", personal_token
    )

    assert exit_code == 0, seen
    assert seen.splitlines()[1].startswith("The first pair is stored; the access token ends ")
    assert len(seen.splitlines()) == 2
    assert personal_token not in seen
    assert str(runner.run("check_access").state) == "success"
    assert list(variables_of(airflow_home)) == ["wxcc_token"]


IN_VAIN = [
    ("", {}, "no token, and nothing was sent"),
    ("Bearer abc", {}, "no token, and nothing was sent"),
    ("t\xf6ken", {}, "no token, and nothing was sent"),
    (KeyboardInterrupt, {}, "Stopped"),
    (EOFError, {}, "Stopped"),
    ("a-token", {"AIRFLOW_VAR_WXCC_TOKEN": "{}"}, "something shadows it"),
    ("a-token", {"AIRFLOW__CORE__FERNET_KEY": ""}, "unencrypted"),
    ("a-token", {}, "Webex refuses this token"),
]


def test_whoever_asks_in_vain_for_the_first_pair_is_told_why(
    personal_token, sandbox, monkeypatch, capfd
):
    """Only the last one is sent: where the store could not keep the pair, none is made."""
    from tools import first_token_pair

    for typed, changes, sentence in IN_VAIN:

        def type_it(prompt: str, typed=typed) -> str:
            if isinstance(typed, str):
                return typed
            raise typed

        with monkeypatch.context() as patch:
            patch.setattr("getpass.getpass", type_it)
            for name, value in changes.items():
                patch.setenv(name, value)
            assert first_token_pair.main([]) != 0
        assert sentence in capfd.readouterr().err

    assert sandbox.requests()["counts"] == {"token": {"200": 1}, "applications": {"401": 1}}


def test_an_integration_has_a_page_for_its_first_pair(runner, personal_token, monkeypatch, capfd):
    from tools import first_token_pair

    runner.webex["extra"] |= {"kind": "integration", "redirect_uri": "https://a.example/callback"}
    monkeypatch.setenv("AIRFLOW_CONN_WEBEX_CONTACT_CENTER", json.dumps(runner.webex))

    assert first_token_pair.main([]) == 1
    assert "Connect with Webex" in capfd.readouterr().err


def test_what_a_person_was_told_before_is_skipped():
    from plugins.fail_fast import fail_fast

    def raising(error):
        @fail_fast
        def task():
            raise error

        return task

    with pytest.raises(AirflowSkipException, match="told"):
        raising(AlreadyRefused("told"))()
    with pytest.raises(AirflowFailException):
        raising(PermanentError("new"))()


def test_an_app_that_is_authorised_no_more_is_told_in_one_sentence(
    runner, sandbox, capfd, airflow_home
):
    runner.run("refresh_access_token")
    sandbox.deauthorise()

    assert str(runner.run("check_access").state) == "failed"
    assert "Control Hub" in "".join(capfd.readouterr())

    with sqlite3.connect(airflow_home / "airflow.db") as database:
        database.execute("delete from variable")
    assert str(runner.run("refresh_access_token").state) == "failed"
    assert "Webex refuses the refresh token (400)" in "".join(capfd.readouterr())
    assert "wxcc_refusal" in variables_of(airflow_home)
