"""The Airflow connection `webex_contact_center` as values, checked with a sentence for each mistake."""

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Literal, cast, get_args
from urllib.parse import urlsplit

from pydantic import SecretStr

from include.domain.capture_state import CapturePolicy
from include.domain.errors import PermanentError

CONNECTION_ID = "webex_contact_center"
HELPER_CONNECTION_ID = "webex_token_helper"
# Documented data centres (in1: seen in one official SDK file only); any other base URL is accepted.
REGIONS = ("us1", "eu1", "eu2", "ca1", "anz1", "jp1", "sg1", "in1")
DEFAULT_TOKEN_URL = "https://webexapis.com/v1/access_token"  # noqa: S105 - an address, no secret
DEFAULT_AUTHORIZE_URL = "https://webexapis.com/v1/authorize"
# `helper` is no choice of the form: the connection webex_token_helper has it (include/webex/token_helper.py).
Kind = Literal["service_app", "integration", "helper"]
# Inferred: download URLs are pre-signed S3 URLs; their hosts in other regions are unknown, so only
# the S3 naming schemes are allowed, and the operator lists what else their region uses.
DEFAULT_MEDIA_HOSTS = (
    "*.s3.amazonaws.com",
    "*.s3.*.amazonaws.com",
    "*.s3-*.amazonaws.com",
    "s3.amazonaws.com",
    "s3.*.amazonaws.com",
)
# A user or password would end up in messages; browsers and libraries disagree about a backslash.
_NEVER_IN_URL = re.compile(r"[\s\\@\x00-\x1f\x7f]")
DEFAULT_REQUESTS_PER_MINUTE = 50  # documented: 300 a minute for each client id; older text says 50


def _refusal(field: str, remedy: str) -> PermanentError:
    return PermanentError(f"The connection {CONNECTION_ID} is not usable: {field} {remedy}.")


@dataclass(frozen=True)
class WebexConnection:
    """Where Webex is and as whom we speak to it.

    Attributes:
        base_url: The regional API, without a slash at the end.
        token_url: Where token pairs are refreshed.
        refresh_token: The first refresh token; later ones live in the token store.
        requests_per_minute: The rate budget of the client id, over everything that runs at once.
        media_hosts: Host patterns from which download URLs are fetched; plain http and private
            addresses are allowed only for hosts that are listed literally.
        capture_policy: How long captures may take, and how long Webex keeps them.
        kind: The kind of client application; an integration gets its first pair by a person's consent.
        redirect_uri: Where Webex sends that person back to; an integration always has one.
        authorize_url: Where that person is asked.
        secrets_manager_prefix: Where in AWS Secrets Manager the token pairs are kept; None: not there.
    """

    base_url: str
    org_id: str
    client_id: str
    client_secret: SecretStr
    refresh_token: SecretStr | None
    token_url: str = DEFAULT_TOKEN_URL
    requests_per_minute: int = DEFAULT_REQUESTS_PER_MINUTE
    media_hosts: tuple[str, ...] = DEFAULT_MEDIA_HOSTS
    capture_policy: CapturePolicy = field(default_factory=CapturePolicy)
    kind: Kind = "service_app"
    redirect_uri: str | None = None
    authorize_url: str = DEFAULT_AUTHORIZE_URL
    secrets_manager_prefix: str | None = None

    @classmethod
    def from_fields(
        cls,
        *,
        host: str | None,
        login: str | None,
        password: str | None,
        extra: Mapping[str, object],
        schema: str | None = None,
        port: int | None = None,
    ) -> "WebexConnection":
        """Check the fields of the Airflow connection; the extra's values may all be strings.

        Raises:
            PermanentError: A field is missing or unusable; the sentence names it and the remedy.
        """
        if not login:
            raise _refusal("login (the client id of the service app)", "is empty: set it")
        if not password:
            raise _refusal("password (the client secret of the service app)", "is empty: set it")
        refresh_token = str(extra.get("refresh_token") or "").strip()
        kind = _kind(extra.get("kind"))
        return cls(
            base_url=_base_url(host, schema, port),
            org_id=_org_id(extra.get("org_id")),
            client_id=login,
            client_secret=SecretStr(password),
            refresh_token=SecretStr(refresh_token) if refresh_token else None,
            token_url=_http_url(
                "extra field token_url", str(extra.get("token_url") or DEFAULT_TOKEN_URL)
            ),
            requests_per_minute=_whole_number(extra, "requests_per_minute")
            or DEFAULT_REQUESTS_PER_MINUTE,
            media_hosts=_media_hosts(extra.get("media_hosts")),
            capture_policy=_capture_policy(extra),
            kind=kind,
            redirect_uri=_redirect_uri(extra.get("redirect_uri"), kind),
            authorize_url=_http_url(
                "extra field authorize_url",
                str(extra.get("authorize_url") or DEFAULT_AUTHORIZE_URL),
            ),
            secrets_manager_prefix=_secrets_manager_prefix(extra.get("token_store")),
        )


def _kind(value: object) -> Kind:
    text = str(value or "service_app").strip()
    if text == "helper" or text not in get_args(Kind):
        raise _refusal("extra field kind", "is neither service_app nor integration: give one")
    return cast("Kind", text)


def _secrets_manager_prefix(value: object) -> str | None:
    text = str(value or "variable").strip()
    if text == "variable":
        return None
    found = re.fullmatch(r"secrets_manager:([A-Za-z0-9/_+=.@-]{1,256})", text)
    if not found:
        raise _refusal(
            "extra field token_store",
            "is neither variable nor secrets_manager: with a prefix, such as secrets_manager:airflow/variables",
        )
    return found[1].rstrip("/")


def _redirect_uri(value: object, kind: Kind) -> str | None:
    text = str(value or "").strip()
    if not text:
        if kind == "integration":
            raise _refusal(
                "extra field redirect_uri",
                "is missing: an integration needs the URL of this Airflow that Webex sends the administrator "
                "back to, such as https://airflow.example.com/wxcc/callback",
            )
        return None
    host = urlsplit(_http_url("extra field redirect_uri", text)).hostname
    if not text.startswith("https://") and host not in {"localhost", "127.0.0.1", "::1"}:
        raise _refusal("extra field redirect_uri", "is not https: give an https URL")
    return text  # as registered, to the last slash: Webex compares it whole


def _base_url(host: str | None, schema: str | None, port: int | None) -> str:
    text = (host or "").strip().rstrip("/")
    if not text:
        raise _refusal(
            "host",
            "is empty: give the base URL of your org's data centre or its short name, such as us1",
        )
    if text.lower() in REGIONS:
        return f"https://api.wxcc-{text.lower()}.cisco.com"
    if "://" not in text:
        if "." not in text and port is None and text != "localhost":
            raise _refusal(
                "host",
                f"is neither a URL nor one of the data centres {', '.join(REGIONS)}: give one of them",
            )
        text = f"{schema or 'https'}://{text}"
    url = _http_url("host", text)
    parts = urlsplit(url)
    if port is None or parts.port is not None:
        return url
    return _http_url("host", parts._replace(netloc=f"{parts.netloc}:{port}").geturl())


def _http_url(field: str, text: str) -> str:
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        host.encode("idna")  # as the connection will; refuses empty and overlong labels
        usable = parts.scheme in {"http", "https"} and bool(host) and parts.port != 0
    except ValueError:
        usable = False
        parts = urlsplit("")
    if not usable or _NEVER_IN_URL.search(text) or parts.query or parts.fragment:
        raise _refusal(field, "is not a plain http(s) URL: give it as https://host[:port][/path]")
    return text.rstrip("/")


def _org_id(value: object) -> str:
    try:
        return str(uuid.UUID(str(value or "").strip()))
    except ValueError:
        state = "is not a UUID" if value else "is missing"
        raise _refusal(
            "extra field org_id",
            f"{state}: give the organisation id that Control Hub shows under Account",
        ) from None


def _capture_policy(extra: Mapping[str, object]) -> CapturePolicy:
    days = {
        name: timedelta(days=number)
        for name, field_name in (
            ("settling_time", "settling_days"),
            ("horizon", "horizon_days"),
            ("retention", "retention_days"),
        )
        if (number := _whole_number(extra, field_name))
    }
    return replace(CapturePolicy(), **days)


def _whole_number(extra: Mapping[str, object], name: str) -> int | None:
    value = extra.get(name)
    if value is None or value == "":
        return None
    text = str(value).strip()
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text):
        raise _refusal(
            f"extra field {name}", "is not a positive whole number: give one, such as 50"
        )
    return int(text)


def _media_hosts(value: object) -> tuple[str, ...]:
    if value is None or value == "":
        return DEFAULT_MEDIA_HOSTS
    if isinstance(value, str):
        text = value.strip()
        try:
            value = json.loads(text) if text.startswith("[") else re.split(r"[,\s]+", text)
        except ValueError:
            value = None
    hosts: tuple[str, ...] = ()
    if isinstance(value, list):
        names = [str(item or "").strip().lower() for item in cast("list[object]", value)]
        hosts = tuple(filter(None, names))
    if not hosts:
        raise _refusal("extra field media_hosts", "is not a list of host names: give at least one")
    return hosts
