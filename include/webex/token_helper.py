"""The helper integration of the connection `webex_token_helper`: asks Webex for the service app's pair.

A service app cannot ask for its own: that takes a token with the scope `spark:applications_token`, which only
an integration or a person can have.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import quote, urlsplit

from pydantic import SecretStr

from include.domain.errors import PermanentError, TokenRejected, TransientError
from include.webex.connection import CONNECTION_ID, HELPER_CONNECTION_ID, WebexConnection
from include.webex.json_answers import parse_json_object
from include.webex.tokens import TokenPair, request, seed_of, token_pair


class HelperTokenRefused(TokenRejected):
    """401: the access token of the helper integration is not accepted (any more)."""


@dataclass(frozen=True)
class TokenHelper:
    """The helper integration.

    Attributes:
        connection: As whom its own pair is refreshed.
        application_id: The id of the service app.
    """

    connection: WebexConnection
    application_id: str

    @classmethod
    def from_fields(
        cls,
        service_app: WebexConnection,
        *,
        login: str | None,
        password: str | None,
        extra: Mapping[str, object],
    ) -> "TokenHelper":
        """Check the fields of the Airflow connection; everything else is as of the service app.

        Raises:
            PermanentError: A field is missing.
        """
        if not login or not password:
            raise PermanentError(
                f"The connection {HELPER_CONNECTION_ID} is not usable: give the client id and the client secret of "
                "the helper integration as its login and password."
            )
        refresh_token = str(extra.get("refresh_token") or "").strip()
        connection = replace(
            service_app,
            kind="helper",
            client_id=login,
            client_secret=SecretStr(password),
            refresh_token=SecretStr(refresh_token) if refresh_token else None,
        )
        application_id = str(extra.get("application_id") or "").strip()
        return cls(connection, application_id or webex_id("APPLICATION", service_app.client_id))


def webex_id(kind: str, name: str) -> str:
    """The id as Webex's general API writes it (inferred from its published examples)."""
    octets = base64.urlsafe_b64encode(f"ciscospark://us/{kind}/{name}".encode())
    return octets.decode().rstrip("=")


def request_service_app_pair(
    connection: WebexConnection,
    application_id: str,
    helper_token: SecretStr,
    now: Callable[[], datetime],
) -> TokenPair:
    """A new pair of the service app (documented: POST /v1/applications/{applicationId}/token).

    Sends one request and never repeats it.

    Raises:
        HelperTokenRefused: 401.
        TokenRejected: 400 or 403, or the client secret is wrong.
        PermanentError: There is no such application, or the answer is not a token answer.
        TransientError: 429, 5xx or a broken connection.
    """
    origin = urlsplit(connection.token_url)
    status, body = request(
        "POST",
        f"{origin.scheme}://{origin.netloc}/v1/applications/{quote(application_id, safe='')}/token",
        headers={"Authorization": f"Bearer {helper_token.get_secret_value()}"},
        json_body={
            "clientId": connection.client_id,
            "clientSecret": connection.client_secret.get_secret_value(),
            "targetOrgId": webex_id("ORGANIZATION", connection.org_id),
        },
    )
    answer = parse_json_object(body) or {}
    if status == 200:
        return token_pair(answer, None, seed_of(connection), now())
    told = json.dumps(answer).lower()
    if status in {400, 401} and "client" in told and "secret" in told:
        raise TokenRejected(
            f"Webex gives the helper integration no pair ({status}): check login and password of the connection "
            f"{CONNECTION_ID} against the service app in the Webex Developer Portal."
        )
    if status == 401:
        raise HelperTokenRefused(
            f"Webex refuses the access token of the helper integration (401): check that it has the scope "
            f"spark:applications_token, and put a new refresh token of it into the connection {HELPER_CONNECTION_ID}."
        )
    if status == 403:
        raise TokenRejected(
            f"The service app is not authorised for the org {connection.org_id} (403): have a full administrator "
            "authorise it in Control Hub (Management, Apps, Service Apps), and check that the helper integration has "
            "the scope spark:applications_token."
        )
    if status == 404:
        raise PermanentError(
            f"Webex knows no application of that id (404): check the extra field application_id of the connection "
            f"{HELPER_CONNECTION_ID}, or the login of {CONNECTION_ID}."
        )
    if status == 400:
        raise TokenRejected(
            "Webex refuses the request of the helper integration (400): check the login and the extra field org_id "
            f"of the connection {CONNECTION_ID}."
        )
    if status in {408, 425, 429} or status >= 500:
        raise TransientError(
            f"Webex answered {status} to the helper integration; it is tried again later."
        )
    raise PermanentError(
        f"Webex answered {status} to the helper integration: check the extra field token_url of {CONNECTION_ID}."
    )
