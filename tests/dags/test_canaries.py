"""Plants recognisable secrets and personal data, runs the DAGs and their failures, and searches everything.

Where they may be: the connections (the environment here), the encrypted variable, the tables and objects.
"""

import re

import pytest

from tests.archived import truth_with_all

# What is in the URL of every download, and in every token of the sandbox.
MARKS = {
    "a signed URL": re.compile(rb"X-Amz-Signature=[0-9a-f]"),
    "a token": re.compile(rb"[0-9a-f]{24,}_PF84_"),
}
CLIENT_SECRET = "canary-client-secret-5f1d"
ACCESS_KEY_SECRET = "canary-s3-secret-77aa"


@pytest.mark.parametrize(
    "sandbox",
    [{"client_secret": CLIENT_SECRET, "extra_members": True}],
    indirect=True,
    ids=["canaries"],
)
def test_no_secret_and_no_personal_data_outside_the_places_made_for_them(
    runner, sandbox, airflow_home, receivers, capfd
):
    runner.store["password"] = ACCESS_KEY_SECRET
    runner.run("refresh_access_token")
    runner.archive()
    _run_the_failures(runner, sandbox)

    truth = truth_with_all(sandbox, *runner.interval_ms(), with_sha256=False)
    personal = {
        value
        for task in truth
        for value in (task["attributes"].get("origin"), task["attributes"].get("destination"))
        if value
    }
    assert len(personal) > 10
    canaries = {CLIENT_SECRET, ACCESS_KEY_SECRET, runner.webex["extra"]["refresh_token"]} | personal
    captured = capfd.readouterr()
    places = {"standard output": captured.out.encode(), "standard error": captured.err.encode()}
    places |= {str(path): path.read_bytes() for path in airflow_home.rglob("*") if path.is_file()}
    places["alerts by webhook"] = "".join(receivers.texts).encode()
    places["alerts by e-mail"] = "".join(receivers.email_texts).encode()
    assert len(places["standard output"]) > 10_000
    for alerts in (places["alerts by webhook"], places["alerts by e-mail"]):
        assert b"archive_captures failed" in alerts
        assert b"refresh_access_token failed" in alerts
    assert any(path.endswith("airflow.db") for path in places)

    searched = {
        **{f"the canary {canary}": re.compile(re.escape(canary.encode())) for canary in canaries},
        **MARKS,
    }
    leaks = [
        f"{name} in {place}"
        for place, text in places.items()
        for name, mark in searched.items()
        if mark.search(text)
    ]
    assert leaks == []
    keys = "\n".join(runner.archived.keys)
    assert [canary for canary in canaries if canary in keys] == []


def _run_the_failures(runner, sandbox):
    """Each failure has a sentence of its own, which must not quote what it failed on."""
    for endpoint, kind in [
        ("media", "html_in_200"),
        ("media", "expired_url"),
        ("media", "redirect"),
        ("media", "reset_mid_body"),
        ("tasks", "http_403"),
        ("captures", "http_401"),
    ]:
        sandbox.set_faults([{"endpoint": endpoint, "kind": kind, "times": 8}])
        try:
            runner.archive(recopy=True)
        finally:
            sandbox.set_faults([])
    runner.webex["extra"]["refresh_token"] += "x"
    runner.run("refresh_access_token")
    runner.webex["extra"]["refresh_token"] = runner.webex["extra"]["refresh_token"][:-1]


def test_the_search_itself_finds_a_leak(runner, airflow_home, capfd):
    """A search that finds nothing anywhere would pass for ever."""
    print("POST https://store/x?X-Amz-Signature=0a1b")

    assert MARKS["a signed URL"].search(capfd.readouterr().out.encode())
    assert MARKS["a token"].search(runner.webex["extra"]["refresh_token"].encode())
