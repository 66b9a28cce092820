"""Access and refresh tokens: opaque, signed with the seed, valid across restarts."""

import base64
import hmac
import struct
import time
from hashlib import sha256
from typing import Any, Literal

from include.sandbox.answers import RefusalError
from include.sandbox.clock import Clock
from include.sandbox.consent import ConsentDesk
from include.sandbox.scenario import Scenario

_CLUSTER = "PF84"
_CONTENT = struct.Struct(">cQQ")
_SEAL_BYTES = 16

TokenKind = Literal["access", "refresh", "helper access", "Helper refresh"]  # by the first letter

_DEAD = "The refresh token provided is expired, revoked, malformed, or invalid."


class TokenDesk:
    """Issues and checks tokens.

    A token carries its kind, expiry and serial under a seal made with the seed, so that one
    from before a restart still works. Kept in memory and forgotten by a restart: which
    refresh tokens were revoked, which access tokens are too old, refresh tokens whose life
    was renewed without a new value, codes not yet redeemed, and that the app was withdrawn.
    """

    def __init__(self, key: bytes, scenario: Scenario, clock: Clock) -> None:
        self._key = hmac.digest(key, b"tokens", "sha256")
        self._scenario = scenario
        self._clock = clock
        self._org_id = scenario.token_org_id or scenario.org_id
        self._last_serial = 0
        self._revoked: set[int] = set()
        self._renewed_until_ms: dict[int, int] = {}
        self._oldest_access_serial = 0
        self._oldest_serial = 0
        self.is_authorised = True
        self.consent = ConsentDesk(scenario, clock)

    def deauthorise(self) -> None:
        """An administrator withdraws the app in Control Hub: all its tokens are dead at once (inferred)."""
        self.is_authorised = False
        self._oldest_serial = self._serial()

    def authorise(self) -> None:
        """An administrator authorises it again; tokens from before stay dead."""
        self.is_authorised = True

    def first_helper_refresh_token(self) -> str:
        """A refresh token of the helper integration, which holds ``spark:applications_token``."""
        return self._issue("Helper refresh", self._serial(), self._scenario.refresh_token_seconds)

    def first_refresh_token(self) -> str:
        """A refresh token as a person would copy it from the developer portal."""
        return self._issue("refresh", self._serial(), self._scenario.refresh_token_seconds)

    def answer(self, form: dict[str, str]) -> dict[str, Any]:
        """The answer to a form of the token endpoint.

        Documented: a refresh needs client credentials and the refresh token only, no user, and the refresh
        token's life starts anew. Unknown, therefore switches: rotation and what becomes of the older tokens.

        Raises:
            RefusalError: 400 or 401, as other clients report them.
        """
        kind = form.get("grant_type")
        if kind is None:
            raise RefusalError(400, "grant_type is missing", code="invalid_request")
        wanted = {
            "refresh_token": ("refresh_token",),
            "authorization_code": ("code", "redirect_uri", "code_verifier"),
        }.get(kind)
        if wanted is None:
            raise RefusalError(400, "grant_type is not served", code="unsupported_grant_type")
        for name in ("client_id", "client_secret", *wanted):
            if not form.get(name):
                raise RefusalError(400, f"{name} is missing", code="invalid_request")
        scenario = self._scenario
        clients = {
            scenario.client_id: scenario.client_secret,
            scenario.helper_client_id: scenario.helper_client_secret,
        }
        secret = clients.get(form["client_id"])
        if secret is None or not _same(form["client_secret"], secret):
            raise RefusalError(401, "Client authentication failed", code="invalid_client")
        if kind == "authorization_code":
            self.consent.redeem(form)
            return self._first_pair()
        return self._refresh(
            form["refresh_token"], is_helper=form["client_id"] == scenario.helper_client_id
        )

    def service_app_pair(
        self, application_id: str, content: dict[str, Any], bearer: str | None
    ) -> dict[str, Any]:
        """``POST /v1/applications/{id}/token`` (documented): a pair for an authorised organisation.

        Raises:
            RefusalError: 400, 401, 403 or 404.
        """
        scenario = self._scenario
        scheme, _, token = (bearer or "").partition(" ")
        if scheme.lower() != "bearer" or self._check("helper access", token) is None:
            raise RefusalError(401, "The request requires a valid access token.")
        if "spark:applications_token" not in scenario.helper_scope.split():
            raise RefusalError(403, "The token lacks the scope spark:applications_token.")
        if application_id != portal_id("APPLICATION", scenario.client_id):
            raise RefusalError(404, "There is no such application.")
        for name in ("clientId", "clientSecret", "targetOrgId"):
            if not isinstance(content.get(name), str) or not content[name]:
                raise RefusalError(400, f"{name} is missing")
        if not _same(content["clientId"], scenario.client_id) or not _same(
            content["clientSecret"], scenario.client_secret
        ):
            raise RefusalError(400, "Invalid client credentials")
        if content["targetOrgId"] != portal_id("ORGANIZATION", self._org_id) or not (
            self.is_authorised
        ):
            raise RefusalError(403, "The application is not authorized for this organization.")
        return self._first_pair()

    def expiry_of(self, bearer: str | None) -> dict[str, Any]:
        """``GET /v1/authorizations/tokenExpiry`` (documented): when a token ends, in epoch milliseconds.

        Raises:
            RefusalError: 401: the token is dead.
        """
        token = (bearer or "").removeprefix("Bearer ")
        serial = self._check("access", token)
        if serial is None or serial < self._oldest_access_serial:
            raise RefusalError(401, "The request requires a valid access token.")
        content = bytes.fromhex(token.partition("_")[0])[: _CONTENT.size]
        return {"exp": _CONTENT.unpack(content)[1]}

    def _first_pair(self) -> dict[str, Any]:
        serial = self._serial()
        refresh_token = self._issue("refresh", serial, self._scenario.refresh_token_seconds)
        return self._pair("access", serial, refresh_token, self._scenario.scope)

    def _pair(self, kind: TokenKind, serial: int, refresh_token: str, scope: str) -> dict[str, Any]:
        scenario = self._scenario
        return {
            "access_token": self._issue(kind, serial, scenario.access_token_seconds),
            # Reported: the remaining seconds, mostly one less than the documented life.
            "expires_in": scenario.access_token_seconds - 1,
            "refresh_token": refresh_token,
            "refresh_token_expires_in": scenario.refresh_token_seconds - 1,
            "token_type": "Bearer",
            "scope": scope,
        }

    def _refresh(self, refresh_token: str, *, is_helper: bool) -> dict[str, Any]:
        scenario = self._scenario
        kind: TokenKind = "Helper refresh" if is_helper else "refresh"
        serial = self._check(kind, refresh_token)
        is_withdrawn = not is_helper and not self.is_authorised
        if serial is None or serial in self._revoked or is_withdrawn:
            raise RefusalError(400, _DEAD, code="invalid_grant")

        new_serial = self._serial()
        if scenario.revoke_old_access_token and not is_helper:
            self._oldest_access_serial = new_serial
        if scenario.rotate_refresh_token:
            if scenario.revoke_old_refresh_token:
                self._revoked.add(serial)
            refresh_token = self._issue(kind, new_serial, scenario.refresh_token_seconds)
        else:
            self._renewed_until_ms[serial] = (
                self._clock.now_ms() + scenario.refresh_token_seconds * 1_000
            )
        answer = self._pair(
            "helper access" if is_helper else "access",
            new_serial,
            refresh_token,
            scenario.helper_scope if is_helper else scenario.scope,
        )
        if scenario.omit_refresh_token:
            del answer["refresh_token"]
        return answer

    def org_of(self, authorization: str | None, needed: str = "cjp:config_read") -> str:
        """The organisation that an ``Authorization`` header opens.

        Raises:
            RefusalError: Documented: 400 for a missing or malformed header, 401 for an
                invalid or expired token, 403 for one without the scope.
        """
        if authorization is None:
            raise RefusalError(400, "The Authorization header is missing.")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token or " " in token:
            raise RefusalError(400, "The Authorization header is malformed.")
        serial = self._check("access", token)
        if serial is None or serial < self._oldest_access_serial:
            raise RefusalError(401, "Incorrect Credentials.")
        if not {needed, "cjp:config"} & set(self._scenario.scope.split()):
            raise RefusalError(403, f"The token lacks the scope {needed}.")
        return self._org_id

    def _serial(self) -> int:
        # Later than any serial of an earlier process, so that "older" survives a restart.
        self._last_serial = max(self._last_serial + 1, time.time_ns() // 1_000)
        return self._last_serial

    def _issue(self, kind: TokenKind, serial: int, life_seconds: int) -> str:
        expiry_ms = self._clock.now_ms() + life_seconds * 1_000
        content = _CONTENT.pack(kind[0].encode(), expiry_ms, serial)
        return f"{(content + self._seal(content)).hex()}_{_CLUSTER}_{self._org_id}"

    def _check(self, kind: TokenKind, token: str) -> int | None:
        """The serial of a living token of this kind, else None."""
        opaque, _, rest = token.partition("_")
        try:
            octets = bytes.fromhex(opaque)
        except ValueError:
            return None
        content, seal = octets[: _CONTENT.size], octets[_CONTENT.size :]
        if rest != f"{_CLUSTER}_{self._org_id}" or not hmac.compare_digest(
            seal, self._seal(content)
        ):
            return None
        letter, expiry_ms, serial = _CONTENT.unpack(content)
        expiry_ms = max(expiry_ms, self._renewed_until_ms.get(serial, 0))
        if letter != kind[0].encode() or self._clock.now_ms() >= expiry_ms:
            return None
        if kind in ("access", "refresh") and serial < self._oldest_serial:
            return None
        return serial

    def _seal(self, content: bytes) -> bytes:
        text = content + self._org_id.encode()
        return hmac.new(self._key, text, sha256).digest()[:_SEAL_BYTES]


def portal_id(kind: str, plain_id: str) -> str:
    """An id as webexapis.com writes it (inferred from its documents' examples)."""
    text = f"ciscospark://us/{kind}/{plain_id}".encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
