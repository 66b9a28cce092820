"""Where alerts arrive in tests: a mail server and a web server, on loopback."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, cast
from urllib.parse import urlsplit

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope

from tests.s3_servers import free_port
from tests.webex.web_server import a_server, reply

RECIPIENTS = ["on-call@example.com", "archive@example.com"]
# What a chat's webhook has in its path: whoever knows it can write there.
WEBHOOK_PATH = "services/T024BE7LD/canary-webhook-9c41"


@dataclass
class Receivers:
    """What has arrived, and the two Airflow connections that lead here."""

    email_connection: dict[str, Any]
    webhook_connection: dict[str, Any]
    emails: list[EmailMessage] = field(default_factory=list)
    webhooks: list[dict[str, Any]] = field(default_factory=list)
    answer: int = 200

    @property
    def environment(self) -> dict[str, str]:
        """Both connections, as Airflow reads them from the environment."""
        return {
            "AIRFLOW_CONN_WXCC_ALERT_EMAIL": json.dumps(self.email_connection),
            "AIRFLOW_CONN_WXCC_ALERT_WEBHOOK": json.dumps(self.webhook_connection),
        }

    @property
    def texts(self) -> list[str]:
        """The text of each webhook call."""
        return [body["text"] for body in self.webhooks]

    @property
    def email_texts(self) -> list[str]:
        """The body of each e-mail, decoded."""
        return [
            part.get_content()
            for email in self.emails
            for part in email.walk()
            if part.get_content_maintype() == "text"
        ]


@contextmanager
def alert_receivers() -> Iterator[Receivers]:
    """Both servers, until the block ends."""
    receivers = Receivers(
        {
            "conn_type": "smtp",
            "host": "127.0.0.1",
            "extra": {
                "from_email": "airflow@example.com",
                "to": ", ".join(RECIPIENTS),
                "disable_ssl": True,
                "disable_tls": True,
            },
        },
        {"conn_type": "http"},
    )
    with (
        _a_mail_server(receivers.emails.append) as port,
        a_server(lambda handler: _receive(handler, receivers)) as url,
    ):
        receivers.email_connection["port"] = port
        receivers.webhook_connection |= {"host": url, "password": WEBHOOK_PATH}
        yield receivers


def _receive(handler: Any, receivers: Receivers) -> None:
    body = handler.rfile.read(int(handler.headers["Content-Length"]))
    if urlsplit(handler.path).path == f"/{WEBHOOK_PATH}":
        receivers.webhooks.append(json.loads(body))
    reply(handler, receivers.answer, b"ok")


@contextmanager
def _a_mail_server(receive: Callable[[EmailMessage], None]) -> Iterator[int]:
    class Handler:
        async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
            message = message_from_bytes(cast("bytes", envelope.content), policy=policy.default)
            message["X-Recipients"] = ",".join(envelope.rcpt_tos)
            receive(cast("EmailMessage", message))
            return "250 kept"

    controller = Controller(Handler(), hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()
