"""Access and refresh tokens: opaque, signed with the seed, valid across restarts."""

import hmac
import struct
import time
from hashlib import sha256
from typing import Any, Literal

from include.sandbox.answers import RefusalError
from include.sandbox.clock import Clock
from include.sandbox.scenario import Scenario

_CLUSTER = "PF84"
_CONTENT = struct.Struct(">cQQ")
_SEAL_BYTES = 16

TokenKind = Literal["access", "refresh"]

_DEAD = "The refresh token provided is expired, revoked, malformed, or invalid."


class TokenDesk:
    """Issues and checks tokens.

    A token carries its kind, expiry and serial under a seal made with the seed, so that one
    from before a restart still works. Only three things are kept in memory and forgotten
    by a restart: which refresh tokens were revoked, which access tokens are too old, and
    refresh tokens whose life was renewed without a new value.
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

    def first_refresh_token(self) -> str:
        """A refresh token as a person would copy it from the developer portal."""
        return self._issue("refresh", self._serial(), self._scenario.refresh_token_seconds)

    def refresh(self, form: dict[str, str]) -> dict[str, Any]:
        """The answer to a refresh.

        Documented: client credentials and refresh token only, no user; the refresh token's
        life starts anew. Unknown, therefore switches: rotation and what becomes of the
        older tokens.

        Raises:
            RefusalError: 400 or 401, as other clients report them.
        """
        scenario = self._scenario
        if form.get("grant_type") is None:
            raise RefusalError(400, "grant_type is missing", code="invalid_request")
        if form["grant_type"] != "refresh_token":
            raise RefusalError(400, "grant_type is not served", code="unsupported_grant_type")
        for name in ("client_id", "client_secret", "refresh_token"):
            if not form.get(name):
                raise RefusalError(400, f"{name} is missing", code="invalid_request")
        if not _same(form["client_id"], scenario.client_id) or not _same(
            form["client_secret"], scenario.client_secret
        ):
            raise RefusalError(401, "Client authentication failed", code="invalid_client")
        serial = self._check("refresh", form["refresh_token"])
        if serial is None or serial in self._revoked:
            raise RefusalError(400, _DEAD, code="invalid_grant")

        new_serial = self._serial()
        if scenario.revoke_old_access_token:
            self._oldest_access_serial = new_serial
        answer: dict[str, Any] = {
            "access_token": self._issue("access", new_serial, scenario.access_token_seconds),
            # Reported: the remaining seconds, mostly one less than the documented life.
            "expires_in": scenario.access_token_seconds - 1,
            "refresh_token": form["refresh_token"],
            "refresh_token_expires_in": scenario.refresh_token_seconds - 1,
            "token_type": "Bearer",
            "scope": scenario.scope,
        }
        if scenario.rotate_refresh_token:
            answer["refresh_token"] = self._issue(
                "refresh", new_serial, scenario.refresh_token_seconds
            )
            if scenario.revoke_old_refresh_token:
                self._revoked.add(serial)
        else:
            self._renewed_until_ms[serial] = (
                self._clock.now_ms() + scenario.refresh_token_seconds * 1_000
            )
        if scenario.omit_refresh_token:
            del answer["refresh_token"]
        return answer

    def org_of(self, authorization: str | None) -> str:
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
        if not {"cjp:config_read", "cjp:config"} & set(self._scenario.scope.split()):
            raise RefusalError(403, "The token lacks the scope cjp:config_read.")
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
        return serial

    def _seal(self, content: bytes) -> bytes:
        text = content + self._org_id.encode()
        return hmac.new(self._key, text, sha256).digest()[:_SEAL_BYTES]


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
