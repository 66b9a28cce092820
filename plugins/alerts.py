"""Tells a person what needs one: by e-mail, by a webhook, or by both, through Airflow's own notifiers."""

import asyncio
import html
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseNotifier, Connection, Context
from airflow.sdk.configuration import conf

from include.domain.errors import PermanentError
from include.domain.redaction import redact
from plugins.connections import find_connection

EMAIL_CONNECTION = "wxcc_alert_email"
WEBHOOK_CONNECTION = "wxcc_alert_webhook"

# Together with the 30 s of the mail server less than the 50 s after which Airflow's DAG processor,
# where failure callbacks run, ends them.
_WEBHOOK_TIMEOUT_SECONDS = 10
_AIRFLOW_TASKS_NAMED = 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alert:
    """What a person is told: ids, times and a link; never a token, an address or a value of a row."""

    dag_id: str
    run_id: str
    headline: str
    interval: str | None = None
    failed_airflow_tasks: Sequence[str] = field(default_factory=tuple)

    @property
    def text(self) -> str:
        """The whole message, a fact on each line."""
        lines = [self.headline, f"DAG: {self.dag_id}", f"Run: {self.run_id}"]
        if self.interval:
            lines.append(f"Data interval: {self.interval}")
        if self.failed_airflow_tasks:
            lines.append(f"Failed Airflow tasks: {_few(self.failed_airflow_tasks)}")
        base_url = conf.get("api", "base_url", fallback="").rstrip("/")
        lines.append(f"Logs: {base_url}/dags/{self.dag_id}/runs/{quote(self.run_id, safe='')}")
        return "\n".join(lines)


class AlertNotifier(BaseNotifier):
    """Sends one alert through each of the two optional connections that exists.

    A run is neither failed nor hidden by an alert that cannot be sent: the log says why. Without
    either connection the log says how to make one. Nothing is read before a run needs an alert.
    """

    def notify(self, context: Context) -> None:
        """Send what the context of a failed run, or of a missed deadline, tells."""
        alert = alert_of(context)
        sent = [_send(connection_id, build, alert) for connection_id, build in _CHANNELS.items()]
        if not any(sent):
            _log.warning(
                "%s. Nobody was told: make the connection %s or %s (docs/configuration.md, Alerts).",
                alert.headline,
                EMAIL_CONNECTION,
                WEBHOOK_CONNECTION,
            )

    def render_template_fields(self, context: Context, jinja_env: object = None) -> None:
        """Render nothing: there are no templates, and `airflow dags test` has nothing to render with."""

    async def async_notify(self, context: Context) -> None:
        """Do the same in Airflow's triggerer, beside its event loop."""
        await asyncio.to_thread(self.notify, context)


def alert_a_person() -> AlertNotifier:
    """What every DAG passes as `on_failure_callback`."""
    return AlertNotifier()


def alert_of(context: Mapping[str, Any]) -> Alert:
    """What the context of a failed run, or of a missed deadline, tells a person."""
    deadline = context.get("deadline")
    if deadline:
        # Airflow hands the run of a missed deadline over as its REST API shows it.
        run = context["dag_run"]
        due = _minute(deadline["deadline_time"])
        return Alert(
            run["dag_id"],
            run["dag_run_id"],
            f"{run['dag_id']} has not finished by its deadline, {due} UTC; it is {run['state']}",
            _interval(run["data_interval_start"], run["data_interval_end"]),
        )
    run = context.get("dag_run")
    dag_id, run_id = str(context["dag"].dag_id), str(context["run_id"])
    return Alert(
        dag_id,
        run_id,
        f"{dag_id} failed",
        _interval(run.data_interval_start, run.data_interval_end) if run else None,
        _failed_airflow_tasks(context.get("ti"), dag_id, run_id),
    )


def _failed_airflow_tasks(ti: Any, dag_id: str, run_id: str) -> list[str]:  # noqa: ANN401 - Airflow's
    """The failed ones of the run, or the last of them where Airflow cannot be asked."""
    if ti is None:
        return []
    try:
        states = ti.get_task_states(dag_id=dag_id, run_ids=[run_id])[run_id]
    except Exception:  # noqa: BLE001 - `airflow dags test` has nobody to ask; an alert comes first
        return [str(ti.task_id)]
    return sorted(name for name, state in states.items() if state == "failed") or [str(ti.task_id)]


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_AIRFLOW_TASKS_NAMED])
    left_out = len(names) - _AIRFLOW_TASKS_NAMED
    return f"{shown} and {left_out} more" if left_out > 0 else shown


def _interval(start: object, end: object) -> str | None:
    return f"{_minute(start)} to {_minute(end)} UTC" if start and end else None


def _minute(instant: object) -> str:
    if not isinstance(instant, datetime):
        instant = datetime.fromisoformat(str(instant))
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M}"


def _send(
    connection_id: str, build: Callable[[Connection, Alert], BaseNotifier], alert: Alert
) -> bool:
    """Send through one connection; False if there is none of that name."""
    try:
        connection = find_connection(connection_id)
        if connection is None:
            return False
        # Not by calling the notifier, which would take what it sends for templates.
        build(connection, alert).notify({})
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not hide the failed run
        # No traceback: it would show what redact takes out.
        _log.error(
            "The alert '%s' could not be sent through the connection %s: %s: %s",
            alert.headline,
            connection_id,
            type(error).__name__,
            redact(str(error)),
        )
    else:
        _log.info(
            "The alert '%s' was sent through the connection %s.", alert.headline, connection_id
        )
    return True


# The providers take 0.3 s to import, and every DAG file imports this module twice a minute.


def _email(connection: Connection, alert: Alert) -> BaseNotifier:
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier  # noqa: PLC0415 - see above

    recipients = connection.extra_dejson.get("to")
    if not recipients or not connection.extra_dejson.get("from_email"):
        raise PermanentError(
            f"The connection {EMAIL_CONNECTION} does not say from whom and to whom: set its extra fields "
            "from_email and to."
        )
    return SmtpNotifier(
        to=recipients,
        subject=alert.headline,
        html_content=f"<pre>{html.escape(alert.text)}</pre>",
        smtp_conn_id=EMAIL_CONNECTION,
    )


def _webhook(connection: Connection, alert: Alert) -> BaseNotifier:
    from airflow.providers.http.notifications.http import HttpNotifier  # noqa: PLC0415 - see above

    # Whoever knows the whole URL of a chat's webhook can write there, and the provider logs it: its end
    # is in the one field that Airflow encrypts and masks. With a login, the password is one.
    secret_end = None if connection.login else connection.password
    timeout_seconds = connection.extra_dejson.get("timeout", _WEBHOOK_TIMEOUT_SECONDS)
    return HttpNotifier(
        http_conn_id=WEBHOOK_CONNECTION,
        endpoint=secret_end,
        json={"text": alert.text},
        extra_options={"timeout": timeout_seconds},
    )


_CHANNELS: Mapping[str, Callable[[Connection, Alert], BaseNotifier]] = {
    WEBHOOK_CONNECTION: _webhook,
    EMAIL_CONNECTION: _email,
}
