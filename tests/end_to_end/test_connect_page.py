"""The page Connect with Webex in a real browser, on a real API server of Airflow, against the sandbox."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.wait import WebDriverWait

from include.sandbox.scenario import Scenario
from include.sandbox.server import Sandbox
from tools import local_airflow
from tools.local_airflow import AirflowApi
from tools.local_connections import sandbox_connection
from tools.local_processes import Components, reserve_port

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

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 40
VIEWER = "vera"


@dataclass
class Airflow:
    """An API server of Airflow without scheduler and workers, and what it writes down."""

    api: AirflowApi
    passwords: dict[str, str]
    environment: dict[str, str]
    logs: Path
    home: Path

    def connect(self, sandbox: Sandbox, **extra: str) -> None:
        """Let the connection be of the sandbox's integration."""
        offered = sandbox.airflow_connection()
        self.api.put_connection(sandbox_connection(offered | {"extra": offered["extra"] | extra}))

    def everything_written(self) -> str:
        files = [*self.logs.rglob("*"), *self.home.rglob("*.log")]
        return "\n".join(file.read_text(errors="replace") for file in files if file.is_file())


@pytest.fixture(scope="module")
def airflow(tmp_path_factory) -> Iterator[Airflow]:
    home, dags, logs = (tmp_path_factory.mktemp(name) for name in ("airflow", "dags", "logs"))
    port = reserve_port(18090)
    environment = local_airflow.airflow_environment(
        os.environ,
        home=home,
        database_url=f"sqlite:///{home}/airflow.db",
        project=ROOT,
        dags=dags,
        port=port,
    )
    environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] = (
        f"{local_airflow.USER}:admin,{VIEWER}:viewer"
    )
    password = local_airflow.password(home)
    passwords = {local_airflow.USER: password, VIEWER: f"{password}-of-the-viewer"}
    (home / "passwords.json").write_text(json.dumps(passwords))
    subprocess.run(local_airflow.MIGRATE, env=environment, check=True, capture_output=True)
    components = Components(logs)
    api = AirflowApi(f"http://127.0.0.1:{port}", password)
    try:
        command = [*local_airflow.API_SERVER, "--apps", "core"]
        components.start("api-server", command, environment)
        deadline = time.monotonic() + 90
        while not api.is_ready():
            components.raise_if_one_died()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield Airflow(api, passwords, environment, logs, home)
    finally:
        components.stop()


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
            airflow.connect(sandbox)
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


def test_an_administrator_connects_and_a_run_uses_the_tokens(airflow, integration, administrator):
    sandbox = integration(access_token_seconds=3)
    administrator.open()
    assert administrator.text("#state") == "Not connected"

    administrator.click("#connect")
    administrator.click("#approve")

    assert administrator.text("#notice") == "Webex is connected."
    assert administrator.driver.current_url == f"{airflow.api.url}/wxcc/connect"
    assert administrator.text("#connect") == "Connect again"
    administrator.open()
    assert not administrator.driver.find_elements(By.ID, "notice")
    # The connection has no refresh token: what this run spends is what the page stored.
    run = [*local_airflow.airflow_command("dags", "test"), "refresh_access_token"]
    environment = airflow.environment | {"AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags")}
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert "The access token was refreshed" in done.stdout + done.stderr
    assert done.returncode == 0
    # Each token of the sandbox names its cluster and its org.
    assert f"_{sandbox.state.scenario.org_id}" not in administrator.driver.page_source


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
    airflow.connect(sandbox, redirect_uri="")
    administrator.open()
    assert "redirect_uri is missing" in administrator.text("#notice")

    airflow.connect(sandbox, kind="service_app")
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


def test_no_code_state_or_token_is_in_a_log(airflow):
    """The last test of the module: what all those before it have left."""
    written = airflow.everything_written()

    callbacks = [line for line in written.splitlines() if "/wxcc/callback" in line]
    assert callbacks
    assert not [line for line in callbacks if re.search(r"\b(code|state)=", line)]
    assert not [secret for secret in ("planted-", "code_verifier") if secret in written]
