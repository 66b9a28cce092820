"""Has an administrator consent to what the integration reads: OAuth 2.0 authorization code with PKCE."""

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from pydantic import SecretStr

from include.domain.errors import PermanentError, TokenRejected
from include.webex.connection import CONNECTION_ID, WebexConnection
from include.webex.tokens import TokenPair, exchange, org_of

CONSENT_LIFETIME = timedelta(minutes=10)
READ_SCOPE = "cjp:config_read"
# Only subscriptions to capture events are written (documented).
WRITE_SCOPE = "cjp:config_write"
_ERROR_CODE = re.compile(r"[a-z_]{1,40}")


@dataclass(frozen=True)
class ConsentRequest:
    """What must be remembered, in secret, from the way to Webex until the way back.

    Attributes:
        state: Comes back with the code; who does not know it did not begin here.
        verifier: Proves at the exchange that the code is spent by whoever asked for it.
        expires_time: When the way back is closed.
    """

    state: SecretStr
    verifier: SecretStr
    expires_time: datetime

    @classmethod
    def begin(cls, now: datetime) -> "ConsentRequest":
        """A new one, with 256 random bits in each secret."""
        state, verifier = (SecretStr(secrets.token_urlsafe(32)) for _ in range(2))
        return cls(state, verifier, now + CONSENT_LIFETIME)

    def to_json(self) -> str:
        """The text to remember; it holds both secrets."""
        return json.dumps(
            [
                self.state.get_secret_value(),
                self.verifier.get_secret_value(),
                self.expires_time.isoformat(),
            ]
        )

    @classmethod
    def from_json(cls, text: str) -> "ConsentRequest":
        """Read what `to_json` wrote."""
        state, verifier, expires_time = json.loads(text)
        return cls(SecretStr(state), SecretStr(verifier), datetime.fromisoformat(expires_time))


def consent_url(connection: WebexConnection, request: ConsentRequest, scopes: Sequence[str]) -> str:
    """Where the administrator is asked (documented: GET /v1/authorize)."""
    challenge = hashlib.sha256(request.verifier.get_secret_value().encode()).digest()
    query = {
        "response_type": "code",
        "client_id": connection.client_id,
        "redirect_uri": connection.redirect_uri or "",
        "scope": " ".join(scopes),
        "state": request.state.get_secret_value(),
        "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    return f"{connection.authorize_url}?{urlencode(query)}"


def read_callback(
    callback: Mapping[str, str], request: ConsentRequest | None, now: datetime
) -> SecretStr:
    """The code that Webex sent the administrator back with.

    The state is compared first: what comes from elsewhere is not even read.

    Raises:
        PermanentError: There is no code for the request; the sentence is for the administrator.
    """
    state = callback.get("state", "").encode()
    if request is None or not hmac.compare_digest(request.state.get_secret_value().encode(), state):
        raise PermanentError(
            "This answer does not belong to a request of yours: it was used before, began in another browser, or "
            "was made up by somebody else. Nothing has changed; connect again from this page."
        )
    if now >= request.expires_time:
        raise PermanentError(
            "The answer came more than ten minutes after you pressed Connect. Nothing has changed; connect again."
        )
    error = callback.get("error")
    if error == "access_denied":
        raise PermanentError(
            "Consent was denied in Webex. Nothing has changed; connect again once you may and want to approve."
        )
    if error is not None:
        name = error if _ERROR_CODE.fullmatch(error) else "an unknown error"
        raise PermanentError(
            f"Webex does not ask for consent ({name}): compare login and the extra field redirect_uri of the "
            f"connection {CONNECTION_ID}, and the scopes, with the integration in the Webex Developer Portal."
        )
    code = callback.get("code", "")
    if not code:
        raise PermanentError(
            "Webex sent you back without a code. Nothing has changed; connect again."
        )
    return SecretStr(code)


def exchange_code(
    connection: WebexConnection,
    request: ConsentRequest,
    code: SecretStr,
    now: Callable[[], datetime],
) -> TokenPair:
    """Exchange a code for a pair of the connection's org. A code can be spent once.

    Raises:
        TokenRejected: Webex refuses the code or the client's credentials.
        PermanentError: The pair is of another org, or the answer is not a token answer.
        TransientError: Webex could not be reached.
    """
    form = {
        "grant_type": "authorization_code",
        "code": code.get_secret_value(),
        "redirect_uri": connection.redirect_uri or "",
        "code_verifier": request.verifier.get_secret_value(),
    }
    try:
        pair = exchange(connection, form, None, now)
    except TokenRejected:
        raise TokenRejected(
            "Webex refuses the code: it has expired or was spent before. Nothing has changed; connect again, and if "
            "that does not help, compare login, password and the extra field redirect_uri of the connection "
            f"{CONNECTION_ID} with the integration in the Webex Developer Portal."
        ) from None
    org_id = org_of(pair.access_token)
    if org_id not in (None, connection.org_id):
        raise PermanentError(
            f"You approved for the org {org_id}, and the connection {CONNECTION_ID} is for {connection.org_id}. "
            "Nothing has changed; log in to Webex as an administrator of that org, or correct the extra field "
            "org_id."
        )
    return pair
