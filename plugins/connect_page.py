"""The page Connect with Webex: an administrator lets the integration in, and comes back with its first token pair."""

import hashlib
import logging
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, urlsplit

import jinja2
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute

from include.domain.errors import ArchiveError, PermanentError
from include.domain.interval import utc_now
from include.pipelines.refresh_access_token import keep_new_pair
from include.webex.authorization import (
    CONSENT_LIFETIME,
    READ_SCOPE,
    WRITE_SCOPE,
    ConsentRequest,
    consent_url,
    exchange_code,
    read_callback,
)
from include.webex.connection import CONNECTION_ID, WebexConnection
from include.webex.tokens import TokenPair
from plugins.api_server_access import LOGIN_PATH, Editor, seal, unseal
from plugins.connections import find_connection
from plugins.database_token_store import database_token_store, is_first_use
from plugins.webex_hook import WebexContactCenterHook

log = logging.getLogger(__name__)

_PAGE = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
    Path(__file__).with_suffix(".html").read_text()
)
_CAPTURE_EVENTS_CONNECTION_ID = "wxcc_capture_events"
_REQUEST_COOKIE = "wxcc_consent"
_NOTICE_COOKIE = "wxcc_notice"
_NOTICE_SECONDS = 60
_PROOF_SECONDS = 3600
_MAX_FORM_BYTES = 4096


@dataclass(frozen=True)
class _Notice:
    text: str
    is_good: bool = False


class _PageRoute(APIRoute):
    """Shows a missing login or permission as a page, where FastAPI would answer JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `APIRoute`."""
        handle = super().get_route_handler()

        async def handle_or_explain(request: Request) -> Response:
            try:
                return await handle(request)
            except HTTPException as error:
                if error.status_code == 401 and request.method == "GET":
                    # Without the query: a code would be in the address of the login page.
                    page = quote(f"{request.scope['root_path']}/connect", safe="")
                    return _closed(RedirectResponse(f"../{LOGIN_PATH}?next={page}", 303))
                reason = "you are not logged in to Airflow" if error.status_code == 401 else None
                reason = reason or "your Airflow user may not edit connections and variables"
                if error.status_code not in {401, 403}:
                    raise
                return _page(_Notice(f"Not possible: {reason}."), status=error.status_code)

        return handle_or_explain


router = APIRouter(route_class=_PageRoute)


@router.get("/connect")
def show(request: Request, user_id: Editor) -> Response:
    """The state of the connection and the button; never a token."""
    notice = _read_notice(request, user_id)
    try:
        connection = _integration()
        pair = _stored_pair(connection)
        proof = seal("form", user_id, "")
    except ArchiveError as error:
        response = _page(_Notice(str(error)))
    else:
        response = _page(notice, connection, pair, proof)
    response.delete_cookie(_NOTICE_COOKIE)
    return response


async def _form(request: Request) -> dict[str, str]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise HTTPException(413)
    return dict(parse_qsl(body.decode("ascii", "replace")))


@router.post("/connect/start")
def start(user_id: Editor, form: Annotated[dict[str, str], Depends(_form)]) -> Response:
    """Send the administrator to Webex. What must be remembered goes into a cookie that only Airflow can read."""
    # The form's proof is made for this user by the page: another site's form cannot have it.
    if unseal("form", user_id, form.get("proof"), _PROOF_SECONDS) is None:
        return _back(
            "../connect", user_id, _Notice("This page was open for too long: press Connect again.")
        )
    try:
        connection = _integration()
        consent = ConsentRequest.begin(utc_now())
        sealed = seal("consent", user_id, consent.to_json())
    except ArchiveError as error:
        return _back("../connect", user_id, _Notice(str(error)))
    response = _closed(RedirectResponse(consent_url(connection, consent, _scopes()), 303))
    redirect = urlsplit(connection.redirect_uri or "")
    response.set_cookie(
        _REQUEST_COOKIE,
        sealed,
        max_age=int(CONSENT_LIFETIME.total_seconds()),
        path=redirect.path or "/",
        secure=redirect.scheme == "https",
        httponly=True,
        samesite="lax",  # it must come along when Webex leads back
    )
    return response


@router.get("/callback")
def receive(request: Request, user_id: Editor) -> Response:
    """Take the code that Webex sends, exchange it and store the pair; then lead to an address without either."""
    try:
        query: bytes = request.scope[
            "wxcc.query"
        ]  # see the plugin: nothing else of the request has it
        callback = dict(parse_qsl(query.decode("ascii", "replace")))
        connection = _integration()
        sealed = request.cookies.get(_REQUEST_COOKIE)
        # A little longer than it lives, so that what is too old can be told from what is not ours.
        text = unseal("consent", user_id, sealed, 6 * int(CONSENT_LIFETIME.total_seconds()))
        consent = ConsentRequest.from_json(text) if text else None
        store = database_token_store(connection)
        with store.lock():  # a refresh that is under way would put the older line back
            consent = _once(consent)
            code = read_callback(callback, consent, utc_now())
            assert consent is not None
            keep_new_pair(store, partial(exchange_code, connection, consent, code, utc_now))
    except ArchiveError as error:
        log.warning("Connecting with Webex failed: %s", error)
        response = _back("connect", user_id, _Notice(str(error)))
    else:
        log.info("The user %s connected the org %s.", user_id, connection.org_id)
        response = _back("connect", user_id, _Notice("Webex is connected.", is_good=True))
    response.delete_cookie(_REQUEST_COOKIE, path=request.url.path)  # an answer is taken once
    return response


def _once(consent: ConsentRequest | None) -> ConsentRequest | None:
    """The request, unless an answer to it was taken before; to be called under the lock of the token store.

    A cookie that the browser has forgotten may still come twice: a second click overtakes the first answer. And
    a server may end the tokens of a code that is sent twice (RFC 6749, 4.1.2).
    """
    if consent is None:
        return None
    mark = hashlib.sha256(consent.state.get_secret_value().encode()).hexdigest()[:16]
    return consent if is_first_use(mark, consent.expires_time, utc_now()) else None


def _integration() -> WebexConnection:
    """The checked connection.

    Raises:
        PermanentError: It is missing, unusable, or of a service app.
    """
    connection = WebexContactCenterHook().get_conn()
    if connection.kind != "integration":
        raise PermanentError(
            f"The connection {CONNECTION_ID} is of a service app, which is authorised in Control Hub and not here. "
            "Where the client id is of an integration, set the extra field kind to integration."
        )
    return connection


def _scopes() -> list[str]:
    events = find_connection(_CAPTURE_EVENTS_CONNECTION_ID)
    return [READ_SCOPE, WRITE_SCOPE] if events else [READ_SCOPE]


def _stored_pair(connection: WebexConnection) -> TokenPair | None:
    text = (database_token_store(connection).read() or "").strip()
    try:
        pair = TokenPair.from_json(text) if text else None
    except PermanentError:
        return None  # connecting replaces it
    return pair if pair and pair.belongs_to(connection) else None


def _back(path: str, user_id: str, notice: _Notice) -> Response:
    response = _closed(RedirectResponse(path, 303))
    text = f"{'good' if notice.is_good else 'bad'}:{notice.text}"
    response.set_cookie(
        _NOTICE_COOKIE,
        seal("notice", user_id, text),
        max_age=_NOTICE_SECONDS,
        httponly=True,
        samesite="lax",
    )
    return response


def _read_notice(request: Request, user_id: str) -> _Notice | None:
    text = unseal("notice", user_id, request.cookies.get(_NOTICE_COOKIE), _NOTICE_SECONDS)
    if text is None:
        return None
    tone, _, sentence = text.partition(":")
    return _Notice(sentence, is_good=tone == "good")


def _page(
    notice: _Notice | None,
    connection: WebexConnection | None = None,
    pair: TokenPair | None = None,
    proof: str = "",
    status: int = 200,
) -> Response:
    nonce = secrets.token_urlsafe(16)
    text = _PAGE.render(
        nonce=nonce,
        notice=notice,
        connection=connection,
        connection_id=CONNECTION_ID,
        pair=pair,
        proof=proof,
        scopes=_scopes() if connection else [],
        now=utc_now(),
    )
    response = _closed(HTMLResponse(text, status))
    # Browsers hold form-action against each redirect that follows: Webex's own login is elsewhere than its API.
    forms = f"'self' https: {_origin(connection.authorize_url)}" if connection else "'none'"
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action {forms}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    return response


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _closed(response: Response) -> Response:
    """The response, kept by no cache and told to no other site."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
