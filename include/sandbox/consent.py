"""The page on which an administrator lets an integration in, and the codes that it hands out."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from secrets import token_urlsafe
from urllib.parse import urlencode

from include.sandbox.answers import Answer, RefusalError
from include.sandbox.clock import Clock
from include.sandbox.scenario import Scenario

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Sandbox of Webex</title></head>
<body><h1>Sandbox of Webex</h1>
<p>The integration {client_id} asks for: {scope}.</p>
<form method="post" action="/v1/authorize?{query}">
<button id="approve" name="answer" value="approve">Accept</button>
<button id="deny" name="answer" value="deny">Decline</button>
</form></body></html>
"""


@dataclass(frozen=True)
class _Code:
    client_id: str
    redirect_uri: str
    challenge: str
    until_ms: int


class ConsentDesk:
    """Shows the consent page and redeems its codes (documented: authorization code grant with PKCE)."""

    def __init__(self, scenario: Scenario, clock: Clock) -> None:
        self._scenario = scenario
        self._clock = clock
        self._codes: dict[str, _Code] = {}

    def page(self, query: Mapping[str, str]) -> Answer:
        """``GET /v1/authorize``: the page, for a request that Webex would take.

        Raises:
            RefusalError: 400: shown to the person, since no address can be trusted to be told.
        """
        self._check(query)
        text = _PAGE.format(
            client_id=escape(query["client_id"]),
            scope=escape(query["scope"]),
            query=escape(urlencode(dict(query))),
        )
        return Answer(200, text.encode(), {"Content-Type": "text/html; charset=utf-8"})

    def decide(self, query: Mapping[str, str], *, is_approved: bool) -> Answer:
        """What the person clicked: back to the integration, with a code or with ``access_denied``.

        Raises:
            RefusalError: As for the page.
        """
        self._check(query)
        told = {"state": query["state"]}
        if is_approved:
            code = token_urlsafe(32)
            life_ms = self._scenario.code_seconds * 1_000
            self._codes[code] = _Code(
                query["client_id"],
                query["redirect_uri"],
                query.get("code_challenge", ""),
                self._clock.now_ms() + life_ms,
            )
            told["code"] = code
        else:
            told |= {"error": "access_denied", "error_description": "The user declined."}
        return Answer(303, b"", {"Location": f"{query['redirect_uri']}?{urlencode(told)}"})

    def redeem(self, form: Mapping[str, str]) -> None:
        """Spend a code; each is good once.

        Raises:
            RefusalError: 400: unknown, spent, expired, of another client or address, or the wrong verifier.
        """
        code = self._codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            code is None
            or self._clock.now_ms() >= code.until_ms
            or form["client_id"] != code.client_id
            or form["redirect_uri"] != code.redirect_uri
            or not hmac.compare_digest(challenge.encode(), code.challenge.encode())
        ):
            raise RefusalError(
                400, "The authorization code is expired or invalid.", code="invalid_grant"
            )

    def _check(self, query: Mapping[str, str]) -> None:
        scenario = self._scenario
        for name in ("response_type", "client_id", "redirect_uri", "scope", "state"):
            if not query.get(name):
                raise RefusalError(400, f"{name} is missing")
        if query["response_type"] != "code":
            raise RefusalError(400, "response_type must be code")
        if scenario.client_kind != "integration" or query["client_id"] != scenario.client_id:
            raise RefusalError(400, "There is no integration of this client_id")
        if query["redirect_uri"] != scenario.redirect_uri:
            raise RefusalError(400, "redirect_uri is not one of the integration's")
        if unknown := set(query["scope"].split()) - set(scenario.scope.split()):
            raise RefusalError(400, f"The integration does not have {' '.join(sorted(unknown))}")
        if query.get("code_challenge_method") != "S256" or not query.get("code_challenge"):
            raise RefusalError(400, "code_challenge with code_challenge_method S256 is missing")
