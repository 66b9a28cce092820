"""The page Connect with Webex in a real browser, on a real API server of Airflow, against the sandbox."""

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.wait import WebDriverWait

from include.domain.interval import HOUR, epoch_ms, hour_of, utc_now
from include.sandbox.scenario import Scenario
from include.sandbox.server import Sandbox
from tests.archived import ArchivedHours, assert_complete, truth_with_all
from tests.end_to_end.live_airflow import ROOT, LiveAirflow, live_airflow
from tests.s3_servers import moto_server
from tools import local_airflow
from tools.local_connections import sandbox_connection, store_connection

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="needs a browser: apt-get install chromium chromium-driver",
    ),
]

WAIT_SECONDS = 40
VIEWER = "vera"
REFRESH, ARCHIVE, RECHECK = "refresh_access_token", "archive_captures", "recheck_captures"
SUBSCRIBE = "subscribe_capture_events"
DAG_IDS = (REFRESH, ARCHIVE, RECHECK, SUBSCRIBE)
BUCKET = "live"
CAPTURE_EVENTS = {
    "connection_id": "wxcc_capture_events",
    "conn_type": "http",
    "host": "https://hooks.example.com/wxcc/events",
    "password": "a-secret-of-the-tests-of-32-characters-or-more",
}
LATE_CAPTURES: dict[str, Any] = {
    "tasks_per_hour": 20,
    "abandoned_share": 0.0,
    "captured_share": 1.0,
    "late_capture_share": 0.5,
    "late_capture_hours": 2.0,
    # All that is not late is there within the hour after its own, all that is late within the next.
    "call_seconds_max": 300,
    "recording_after_seconds_max": 120,
    "transcript_after_seconds_max": 120,
    "email_weight": 0.0,
    "social_weight": 0.0,
}


@pytest.fixture(scope="module")
def airflow(tmp_path_factory) -> Iterator[LiveAirflow]:
    """Only its API server, until a test needs runs."""
    folder, dags = (tmp_path_factory.mktemp(name) for name in ("live", "dags"))
    for dag_id in DAG_IDS:
        shutil.copy(ROOT / "dags" / f"{dag_id}.py", dags)
    with live_airflow(folder, "api-server", dags=dags, viewer=VIEWER) as airflow:
        yield airflow


@pytest.fixture(scope="module")
def scheduled(airflow) -> LiveAirflow:
    """Airflow with all that its runs need."""
    airflow.start("dag-processor", "scheduler")
    airflow.api.put_pool("wxcc_api", 4, "as docs/configuration.md makes it")
    airflow.wait_for_dags(*DAG_IDS)
    return airflow


@dataclass
class Store:
    """The bucket of the connection `wxcc_store`."""

    s3: Any
    bucket: str

    def hour(self, hour: datetime) -> ArchivedHours:
        archived = ArchivedHours(self.s3, self.bucket)
        archived.keep_hours(hour, 1)
        return archived


@pytest.fixture
def store(airflow) -> Iterator[Store]:
    with moto_server() as server:
        s3 = boto3.client(
            "s3",
            endpoint_url=server.endpoint_url,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            region_name=server.region,
        )
        s3.create_bucket(Bucket=BUCKET)
        airflow.api.put_connection(store_connection(server.endpoint_url, BUCKET))
        yield Store(s3, BUCKET)


def first_late_contact_task(sandbox: Sandbox, hour: datetime, held: datetime) -> dict[str, Any]:
    """The first one of that hour whose captures all became available after the clock stood still."""
    return next(
        task
        for task in truth_with_all(sandbox, epoch_ms(hour), epoch_ms(hour + HOUR))
        if task["captures"]
        and all(
            capture["listed"] and capture["available_ms"] > epoch_ms(held)
            for capture in task["captures"]
        )
    )


def connect(airflow: LiveAirflow, sandbox: Sandbox, **extra: str) -> None:
    """Let the connection be of the sandbox's integration."""
    offered = sandbox.airflow_connection()
    airflow.api.put_connection(sandbox_connection(offered | {"extra": offered["extra"] | extra}))


@pytest.fixture
def integration(airflow) -> Iterator[Any]:
    """Starts a sandbox whose client is an integration of this Airflow, and makes the connection to it."""
    with ExitStack() as stack:

        def start(**knobs: Any) -> Sandbox:
            scenario = Scenario(
                **dict[str, Any](
                    client_kind="integration",
                    redirect_uri=f"{airflow.api.url}/wxcc/callback",
                    requests_per_minute=0,
                )
                | knobs
            )
            sandbox = stack.enter_context(Sandbox(scenario))
            connect(airflow, sandbox)
            return sandbox

        yield start
    airflow.api.delete_variable("wxcc_token")


class Browser:
    """A person at a browser."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def log_in(self, user: str, password: str) -> None:
        self.driver.get(f"{self.url}/wxcc/connect")
        self.element("input[name=username]").send_keys(user)
        self.element("input[name=password]").send_keys(password)
        self.element("button[type=submit]").click()

    def element(self, css: str) -> Any:
        found = expected_conditions.element_to_be_clickable((By.CSS_SELECTOR, css))
        return WebDriverWait(self.driver, WAIT_SECONDS).until(found)

    def open(self, path: str = "/wxcc/connect") -> None:
        self.driver.get(f"{self.url}{path}")

    def click(self, css: str) -> None:
        self.element(css).click()

    def text(self, css: str) -> str:
        return self.element(css).text


@pytest.fixture(scope="module")
def browser(airflow, tmp_path_factory) -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "--headless=new",
        "--no-sandbox",  # Chromium refuses to run as root with one
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1200,900",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    os.environ["SE_OFFLINE"] = "true"  # Selenium would look for another driver on the internet
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        person = Browser(driver, airflow.api.url)
        yield person
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def administrator(browser, airflow) -> Browser:
    browser.log_in(local_airflow.USER, airflow.passwords[local_airflow.USER])
    browser.element("main h1")
    return browser


def test_the_page_looks_as_it_should_in_light_and_dark(
    airflow, integration, administrator, tmp_path
):
    integration()
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        administrator.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        administrator.open()
        background = administrator.element("body").value_of_css_property("background-color")
        administrator.driver.save_screenshot(str(folder / f"connect-{scheme}.png"))
        is_dark = max(map(int, background.strip("rgba()").split(",")[:3])) < 64

        assert is_dark is (scheme == "dark")


def test_the_menu_of_airflow_opens_the_page_in_a_tab(integration, administrator):
    integration()
    administrator.open("/")

    driver = administrator.driver
    first = driver.current_window_handle
    admin = expected_conditions.element_to_be_clickable(
        (By.XPATH, "//button[.//*[text()='Admin']]")
    )
    WebDriverWait(driver, WAIT_SECONDS).until(admin).click()
    administrator.click("a[href$='/wxcc/connect']")
    WebDriverWait(driver, WAIT_SECONDS).until(expected_conditions.number_of_windows_to_be(2))
    [opened] = set(driver.window_handles) - {first}
    driver.switch_to.window(opened)

    assert administrator.text("#state") == "Not connected"
    driver.close()
    driver.switch_to.window(first)


def test_denied_consent_says_so_and_changes_nothing(integration, administrator):
    integration()
    administrator.open()
    administrator.click("#connect")
    administrator.click("#deny")

    assert administrator.text("#notice").startswith("Consent was denied in Webex.")
    assert administrator.text("#state") == "Not connected"


def test_an_answer_that_does_not_belong_to_a_request_says_so(airflow, integration, administrator):
    """Of another browser, of an attacker, or of a request that was answered before."""
    integration()
    administrator.open()
    administrator.click("#connect")
    administrator.element("#approve")
    administrator.open("/wxcc/callback?code=planted-code&state=planted-state")

    assert administrator.text("#notice").startswith("This answer does not belong to a request of")
    assert administrator.driver.current_url == f"{airflow.api.url}/wxcc/connect"
    assert administrator.text("#state") == "Not connected"


def test_an_expired_code_says_so(integration, administrator):
    integration(code_seconds=0)
    administrator.open()
    administrator.click("#connect")
    administrator.click("#approve")

    assert administrator.text("#notice").startswith("Webex refuses the code")
    assert administrator.text("#state") == "Not connected"


def test_a_token_of_another_org_is_not_stored(integration, administrator):
    integration(token_org_id="00000000-0000-4000-8000-000000000000")
    administrator.open()
    administrator.click("#connect")
    administrator.click("#approve")

    assert administrator.text("#notice").startswith("You approved for the org 00000000")
    assert administrator.text("#state") == "Not connected"


def test_a_connection_that_cannot_be_connected_says_why(airflow, integration, administrator):
    sandbox = integration()
    connect(airflow, sandbox, redirect_uri="")
    administrator.open()
    assert "redirect_uri is missing" in administrator.text("#notice")

    connect(airflow, sandbox, kind="service_app")
    administrator.open()
    assert "is of a service app" in administrator.text("#notice")


def test_who_may_not_edit_connections_may_not_connect(airflow, integration):
    """Neither by the page nor by a request of their own; and no other site's form can start it."""
    integration()
    page = f"{airflow.api.url}/wxcc"
    viewer, admin = (requests.Session() for _ in range(2))
    for session, user in ((viewer, VIEWER), (admin, local_airflow.USER)):
        login = {"username": user, "password": airflow.passwords[user]}
        token = requests.post(f"{airflow.api.url}/auth/token", json=login, timeout=20).json()
        session.cookies.set("_token", token["access_token"])

    refused = [
        viewer.get(f"{page}/connect", timeout=20),
        viewer.post(f"{page}/connect/start", timeout=20),
        viewer.get(f"{page}/callback?code=planted-code&state=planted-state", timeout=20),
    ]
    unknown = requests.get(
        f"{page}/callback?code=planted-code&state=planted-state", timeout=20, allow_redirects=False
    )
    forged = admin.post(f"{page}/connect/start", timeout=20, allow_redirects=False)
    shown = admin.get(f"{page}/connect", timeout=20)

    assert [answer.status_code for answer in refused] == [403] * 3
    assert unknown.status_code == 303
    assert "planted" not in unknown.headers["Location"]
    assert forged.headers["Location"] == "../connect"
    assert shown.headers["Cache-Control"] == "no-store"
    assert shown.headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in shown.headers["Content-Security-Policy"]


def test_an_administrator_connects_and_a_run_refreshes_the_tokens(
    integration, administrator, scheduled
):
    """The connection has no refresh token: what the run spends is what the page stored."""
    sandbox = integration(access_token_seconds=3)
    administrator.open()
    assert administrator.text("#state") == "Not connected"

    administrator.click("#connect")
    administrator.click("#approve")

    assert administrator.text("#notice") == "Webex is connected."
    assert administrator.driver.current_url == f"{scheduled.api.url}/wxcc/connect"
    assert administrator.text("#connect") == "Connect again"
    administrator.open()
    assert not administrator.driver.find_elements(By.ID, "notice")
    scheduled.api.set_paused(REFRESH, is_paused=False)
    scheduled.wait_for_success(REFRESH)
    scheduled.api.set_paused(REFRESH, is_paused=True)
    assert "The access token was refreshed" in scheduled.everything_written()
    # Each token of the sandbox names its cluster and its org.
    assert f"_{sandbox.state.scenario.org_id}" not in administrator.driver.page_source


def test_a_late_capture_is_in_the_bucket_within_90_seconds_of_its_event(
    integration, administrator, scheduled, store
):
    """With the pair that the page stored and no other: subscribed, an hour archived, then an event through Airflow."""
    api = scheduled.api
    api.put_connection(CAPTURE_EVENTS)
    # The sandbox's clock stands still while the hour is archived, and then jumps to the present.
    held = hour_of(utc_now()) - HOUR
    hour = held - 2 * HOUR
    sandbox = integration(now_ms=epoch_ms(held), **LATE_CAPTURES)
    administrator.open()
    administrator.click("#connect")
    administrator.click("#approve")
    assert administrator.text("#notice") == "Webex is connected."
    consent = sandbox.requests()["counts"]["token"]

    api.ensure_run(ARCHIVE, hour.isoformat(), (hour + HOUR).isoformat())
    for dag_id in (SUBSCRIBE, RECHECK, ARCHIVE):
        api.set_paused(dag_id, is_paused=False)
    for dag_id in (SUBSCRIBE, RECHECK, ARCHIVE):
        scheduled.wait_for_success(dag_id)

    archived = store.hour(hour)
    assert_complete(archived, truth_with_all(sandbox, epoch_ms(hour), epoch_ms(hour + HOUR)))
    assert {row["outcome"] for row in archived.rows("captures")} == {"copied"}
    assert sandbox.requests()["counts"]["token"] == consent
    [subscription] = sandbox.subscriptions()
    assert subscription["destination_url"] == CAPTURE_EVENTS["host"]

    sandbox.state.clock.advance((utc_now() - held).total_seconds())
    late = first_late_contact_task(sandbox, hour, held)
    keys = [key for key in archived.objects if late["task_id"] in key]
    assert keys == []
    first_ms = min(capture["available_ms"] for capture in late["captures"])
    started = time.monotonic()
    sent = sandbox.send_events(first_ms, first_ms + 1, f"{api.url}/wxcc/events")
    assert {event["status"] for event in sent} == {204}
    assert late["task_id"] in {event["task_id"] for event in sent}

    def are_there() -> bool:
        keys = [key for key in store.hour(hour).objects if late["task_id"] in key]
        return len(keys) == len(late["captures"])

    scheduled.wait_for(are_there, "the captures of the event", 90)
    print(f"in the bucket {time.monotonic() - started:.1f} s after the event")
    scheduled.wait_for_success(RECHECK)
    [woken] = [run for run in scheduled.runs(RECHECK) if run["run_type"] == "asset_triggered"]
    assert scheduled.assets_that_woke(RECHECK, woken["dag_run_id"]) == ["wxcc_capture_hints"]
    rows = {
        (row["kind"], row["sha256"], row["outcome"])
        for row in store.hour(hour).rows("captures")
        if row["task_id"] == late["task_id"]
    }
    assert rows == {(capture["kind"], capture["sha256"], "copied") for capture in late["captures"]}
    assert sandbox.requests()["counts"]["token"] == consent


def test_no_code_state_or_token_is_in_a_log(airflow):
    """The last test of the module: what all those before it have left."""
    written = airflow.everything_written()

    callbacks = [line for line in written.splitlines() if "/wxcc/callback" in line]
    assert callbacks
    assert not [line for line in callbacks if re.search(r"\b(code|state)=", line)]
    a_token = f"_{Scenario().org_id}"  # each token of the sandbox ends so
    secrets = ("planted-", "code_verifier", a_token, CAPTURE_EVENTS["password"])
    assert not [secret for secret in secrets if secret in written]
