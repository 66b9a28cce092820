"""The sandbox as an HTTP server: routes, start and stop."""

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from aiohttp import web

from include.sandbox import api
from include.sandbox.answers import (
    Answer,
    RefusalError,
    api_refusal,
    html_answer,
    json_answer,
    token_refusal,
)
from include.sandbox.captures import CaptureFlags
from include.sandbox.faults import Endpoint
from include.sandbox.media import answer_media
from include.sandbox.pages import render
from include.sandbox.scenario import Scenario
from include.sandbox.search import answer_search
from include.sandbox.state import SandboxState
from include.sandbox.truth import Truth
from include.sandbox.wire import send

T = TypeVar("T")

_SHUTDOWN_SECONDS = 0.2


class SandboxApplication:
    """The routes over one :class:`SandboxState`."""

    def __init__(self, state: SandboxState) -> None:
        self.state = state
        self.truth = Truth(state)

    def build(self) -> web.Application:
        """The aiohttp application."""
        application = web.Application()
        application.on_response_prepare.append(_drop_made_up_headers)
        router = application.router
        router.add_route("*", "/v1/access_token", self._token)
        router.add_route("*", "/v1/authorize", self._authorize)
        router.add_route("*", "/v1/applications/{id}/token", self._application_token)
        router.add_get("/v1/authorizations/tokenExpiry", self._token_expiry)
        router.add_route("*", "/v1/tasks", self._contact_tasks)
        router.add_route("*", "/v1/captures/query", self._captures)
        router.add_route("*", "/search", self._search)
        router.add_get("/v2/event-types", self._event_types)
        router.add_route("*", "/v2/subscriptions", self._subscriptions)
        router.add_route("*", "/v2/subscriptions/{id}", self._subscriptions)
        router.add_route("*", r"/media/{path:[\s\S]*}", self._media)
        router.add_get("/", self._page)
        router.add_get("/sandbox/", self._page)
        router.add_get("/sandbox/connection", self._connection)
        router.add_get("/sandbox/truth", self._truth)
        router.add_get("/sandbox/requests", self._requests)
        router.add_delete("/sandbox/requests", self._reset_requests)
        router.add_get("/sandbox/faults", self._faults)
        router.add_post("/sandbox/faults", self._set_faults)
        router.add_delete("/sandbox/faults", self._end_faults)
        router.add_post("/sandbox/app", self._set_app)
        router.add_get("/sandbox/helper", self._helper_connection)
        router.add_get("/sandbox/events", self._events)
        router.add_post("/sandbox/events", self._send_events)
        router.add_get("/sandbox/clock", self._clock)
        router.add_post("/sandbox/clock", self._advance)
        router.add_route("*", r"/{path:[\s\S]*}", self._unknown)
        return application

    def connection(self, base_url: str) -> dict[str, Any]:
        """The Airflow connection to this sandbox, with a fresh refresh token."""
        scenario = self.state.scenario
        media_host = scenario.media_host or base_url.partition("://")[2]
        media_host = urlsplit(f"//{media_host}").hostname or media_host
        how = {"refresh_token": self.state.tokens.first_refresh_token()}
        if scenario.client_kind == "integration":
            how = {
                "kind": "integration",
                "redirect_uri": scenario.redirect_uri,
                "authorize_url": f"{base_url}/v1/authorize",
            }
        return {
            "conn_type": "webex_contact_center",
            "host": base_url,
            "login": scenario.client_id,
            "password": scenario.client_secret,
            "extra": {
                "org_id": scenario.org_id,
                **how,
                "token_url": f"{base_url}/v1/access_token",
                "requests_per_minute": scenario.requests_per_minute or 60_000,
                "media_hosts": [media_host],
            },
        }

    def helper_connection(self) -> dict[str, Any]:
        """The Airflow connection to the helper integration, with a fresh refresh token."""
        scenario = self.state.scenario
        return {
            "conn_type": "http",
            "login": scenario.helper_client_id,
            "password": scenario.helper_client_secret,
            "extra": {"refresh_token": self.state.tokens.first_helper_refresh_token()},
        }

    async def _serve(
        self,
        endpoint: Endpoint,
        request: web.Request,
        produce: Callable[[bytes], Answer],
    ) -> web.StreamResponse:
        """Meet a fault or produce the answer, note it, send it."""
        state = self.state
        body = await request.read()
        target = request.raw_path
        if endpoint != "media":
            target += body.decode(errors="replace")
        fault = state.faults.choose(endpoint, target)
        if fault is not None and fault.is_answered_instead:
            answer = fault.answer(state.clock.now_ms())
        elif fault is not None and fault.kind == "reset_before_headers":
            answer = Answer(0, reason="fault")
        else:
            answer = produce(body)
        is_reset = fault is not None and fault.kind in (
            "reset_before_headers",
            "reset_after_processing",
        )
        outcome = "reset" if is_reset else str(answer.status)
        state.journal.note(endpoint, outcome, request.path, answer.reason)
        return await send(
            request,
            answer,
            fault,
            state.journal.note_media_bytes if endpoint == "media" else _ignore,
        )

    async def _token(self, request: web.Request) -> web.StreamResponse:
        def produce(body: bytes) -> Answer:
            try:
                _require_method(request, "POST")
                return api.answer_token(self.state, request.content_type, body)
            except RefusalError as refusal:
                return token_refusal(refusal, self.state.scenario.token_error)

        return await self._serve("token", request, produce)

    async def _authorize(self, request: web.Request) -> web.StreamResponse:
        def produce(body: bytes) -> Answer:
            consent = self.state.tokens.consent
            try:
                if request.method == "POST":
                    return consent.decide(request.query, is_approved=b"answer=approve" in body)
                _require_method(request, "GET")
                return consent.page(request.query)
            except RefusalError as refusal:
                return html_answer(refusal.status, refusal.reason)

        return await self._serve("token", request, produce)

    async def _application_token(self, request: web.Request) -> web.StreamResponse:
        def produce(body: bytes) -> Answer:
            try:
                _require_method(request, "POST")
                authorization = request.headers.get("Authorization")
                return api.answer_service_app_token(
                    self.state, request.match_info["id"], authorization, request.content_type, body
                )
            except RefusalError as refusal:
                return api_refusal(refusal, "wrapper", None)

        return await self._serve("applications", request, produce)

    async def _token_expiry(self, request: web.Request) -> web.StreamResponse:
        def produce(_body: bytes) -> Answer:
            try:
                authorization = request.headers.get("Authorization")
                return json_answer(self.state.tokens.expiry_of(authorization))
            except RefusalError as refusal:
                return api_refusal(refusal, "wrapper", None)

        return await self._serve("applications", request, produce)

    async def _event_types(self, request: web.Request) -> web.StreamResponse:
        def produce(_body: bytes) -> Answer:
            org_id = api.authorize(self.state, request.headers.get("Authorization"))
            if request.query.get("orgId", org_id) != org_id:
                raise RefusalError(403, "The token does not open this organisation.")
            return self.state.subscriptions.event_types(org_id)

        return await self._serve("subscriptions", request, self._refusing(request, produce))

    async def _subscriptions(self, request: web.Request) -> web.StreamResponse:
        def produce(body: bytes) -> Answer:
            scope = "cjp:config_read" if request.method == "GET" else "cjp:config_write"
            org_id = api.authorize(self.state, request.headers.get("Authorization"), scope)
            if request.query.get("orgId", org_id) != org_id:
                raise RefusalError(403, "The token does not open this organisation.")
            return self.state.subscriptions.answer(
                org_id, request.method, request.match_info.get("id"), body
            )

        return await self._serve("subscriptions", request, self._refusing(request, produce))

    async def _contact_tasks(self, request: web.Request) -> web.StreamResponse:
        def produce(_body: bytes) -> Answer:
            _require_method(request, "GET")
            org_id = api.authorize(self.state, request.headers.get("Authorization"))
            accept_encoding = request.headers.get("Accept-Encoding", "")
            return api.answer_contact_tasks(self.state, org_id, request.query, accept_encoding)

        return await self._serve("tasks", request, self._refusing(request, produce))

    async def _captures(self, request: web.Request) -> web.StreamResponse:
        def produce(body: bytes) -> Answer:
            _require_method(request, "POST")
            org_id = api.authorize(self.state, request.headers.get("Authorization"))
            return api.answer_captures(
                self.state, org_id, request.content_type, body, _base_url(request)
            )

        return await self._serve("captures", request, self._refusing(request, produce))

    async def _search(self, request: web.Request) -> web.StreamResponse:
        def produce(body: bytes) -> Answer:
            _require_method(request, "POST")
            headers = request.headers
            org_id = api.authorize(self.state, headers.get("Authorization"))
            return answer_search(
                self.state,
                org_id,
                asked_org_id=request.query.get("orgId"),
                content_type=request.content_type,
                body=body,
                accept_encoding=headers.get("Accept-Encoding", ""),
            )

        return await self._serve("search", request, self._refusing(request, produce))

    def _refusing(
        self, request: web.Request, produce: Callable[[bytes], Answer]
    ) -> Callable[[bytes], Answer]:
        def guarded(body: bytes) -> Answer:
            try:
                return produce(body)
            except RefusalError as refusal:
                tracking_id = request.headers.get("TrackingId")
                shape = self.state.scenario.error_body
                if shape == "api" and request.path.startswith("/v2/"):
                    shape = "result"
                return api_refusal(refusal, shape, tracking_id)

        return guarded

    async def _media(self, request: web.Request) -> web.StreamResponse:
        def produce(_body: bytes) -> Answer:
            return answer_media(
                self.state, request.method, request.host, request.raw_path, request.headers
            )

        return await self._serve("media", request, produce)

    async def _unknown(self, request: web.Request) -> web.StreamResponse:
        refusal = RefusalError(404, "There is no such path.")
        answer = api_refusal(refusal, self.state.scenario.error_body, None)
        self.state.journal.note("unknown", "404", request.path, answer.reason)
        return await send(request, answer, None, _ignore)

    async def _page(self, request: web.Request) -> web.StreamResponse:
        text = await asyncio.to_thread(render, self.state, _base_url(request))
        return web.Response(text=text, content_type="text/html")

    async def _connection(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.connection(_base_url(request)))

    async def _truth(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        now_ms = self.state.clock.now_ms()
        try:
            from_ms, to_ms = int(query["from"]), int(query["to"])
            at_ms = int(query.get("at", now_ms))
        except (KeyError, ValueError):
            return web.Response(status=400, text="from, to and at are epoch milliseconds.\n")

        def is_on(name: str, default: str = "false") -> bool:
            return query.get(name, default).lower() in ("1", "true", "yes")

        flags = CaptureFlags(
            include_segments=is_on("include_segments"),
            include_va=is_on("include_va"),
            include_screen=is_on("include_screen"),
            include_all_digital=is_on("include_all_digital"),
        )
        rows = self.truth.rows(from_ms, to_ms, flags, at_ms, with_sha256=is_on("sha256", "true"))
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        # In a thread: hashing large captures must not hold up the other requests.
        while row := await asyncio.to_thread(next, rows, None):
            await response.write(json.dumps(row).encode() + b"\n")
        return response

    async def _requests(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(self.report())

    def report(self) -> dict[str, Any]:
        """What was asked since the last reset, and what the faults did."""
        return self.state.journal.report() | {"faults": self.state.faults.report()}

    async def _reset_requests(self, _request: web.Request) -> web.StreamResponse:
        self.state.journal.reset()
        return web.json_response(self.report())

    async def _faults(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(self.state.faults.report())

    async def _set_faults(self, request: web.Request) -> web.StreamResponse:
        try:
            self.state.set_faults(json.loads(await request.read()))
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        return web.json_response(self.state.faults.report())

    async def _end_faults(self, _request: web.Request) -> web.StreamResponse:
        self.state.set_faults([])
        return web.json_response([])

    async def _set_app(self, request: web.Request) -> web.StreamResponse:
        try:
            is_authorised: object = json.loads(await request.read())["is_authorised"]
        except (ValueError, TypeError, KeyError):
            is_authorised = None
        if not isinstance(is_authorised, bool):
            return web.Response(status=400, text="is_authorised is true or false\n")
        if is_authorised:
            self.state.tokens.authorise()
        else:
            self.state.tokens.deauthorise()
        return web.json_response({"is_authorised": is_authorised})

    async def _helper_connection(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(self.helper_connection())

    async def _events(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(self.state.events.report())

    async def _send_events(self, request: web.Request) -> web.StreamResponse:
        try:
            content = json.loads(await request.read())
            from_ms, to_ms = int(content["from"]), int(content["to"])
        except (ValueError, TypeError, KeyError):
            return web.Response(status=400, text="from and to are epoch milliseconds.\n")
        try:
            sent = await asyncio.to_thread(
                self.state.events.send, from_ms, to_ms, _base_url(request)
            )
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        return web.json_response([asdict(each) for each in sent])

    async def _clock(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({"now_ms": self.state.clock.now_ms()})

    async def _advance(self, request: web.Request) -> web.StreamResponse:
        try:
            self.state.clock.advance(float(json.loads(await request.read())["advance_seconds"]))
        except (ValueError, TypeError, KeyError) as error:
            return web.Response(status=400, text=f"advance_seconds is a number: {error}\n")
        return web.json_response({"now_ms": self.state.clock.now_ms()})


def _require_method(request: web.Request, method: str) -> None:
    if request.method != method:
        raise RefusalError(405, f"Use {method}.", code="invalid_request", headers={"Allow": method})


def _base_url(request: web.Request) -> str:
    return f"{request.scheme}://{request.host}"


def _ignore(_count: int) -> None:
    """Bytes of JSON are not counted."""


async def _drop_made_up_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Leave no Content-Type where the answer named none, and say no server name."""
    if request.path.startswith("/media/") and response.content_type == "application/octet-stream":
        response.headers.popall("Content-Type", None)
    response.headers["Server"] = "sandbox"


async def serve(
    application: SandboxApplication,
    host: str,
    port: int,
    started: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    """Serve until ``stop`` is set; ``started`` gets the base URL once requests are taken.

    Requests still being answered then are cut off after a fraction of a second.
    """
    runner = web.AppRunner(application.build(), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound_port: int = runner.addresses[0][1]
        shown_host = f"[{host}]" if ":" in host else host
        started(f"http://{shown_host}:{bound_port}")
        await stop.wait()
    finally:
        await runner.cleanup()


class Sandbox:
    """A sandbox in a background thread, as a context manager for tests and tools.

    Port 0 takes a free port. Leaving the context stops the server and frees the port.
    """

    def __init__(
        self, scenario: Scenario | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.state = SandboxState(scenario or Scenario())
        self.base_url = ""
        self._application = SandboxApplication(self.state)
        self._address = (host, port)
        self._is_started = threading.Event()
        self._failure: OSError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="webex-sandbox", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._is_started.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def airflow_connection(self) -> dict[str, Any]:
        """The Airflow connection ``webex_contact_center``; each call has a fresh refresh token."""
        return self._application.connection(self.base_url)

    def helper_connection(self) -> dict[str, Any]:
        """The Airflow connection ``webex_token_helper``; each call has a fresh refresh token."""
        return self._application.helper_connection()

    def deauthorise(self) -> None:
        """Have an administrator withdraw the app in Control Hub: all its tokens are dead at once."""
        self._in_server(self.state.tokens.deauthorise)

    def authorise(self) -> None:
        """Have an administrator authorise the app again; tokens from before stay dead."""
        self._in_server(self.state.tokens.authorise)

    def send_events(self, from_ms: int, to_ms: int, to: str | None = None) -> list[dict[str, Any]]:
        """Send an event for each capture that became available then, one by one; see `EventSender.send`."""
        sent = self.state.events.send(from_ms, to_ms, self.base_url, to)
        return [asdict(each) for each in sent]

    def subscriptions(self) -> list[dict[str, Any]]:
        """Every subscription, with its secret."""
        return self._in_server(self.state.subscriptions.all)

    def deactivate_subscriptions(self) -> None:
        """Set all inactive, as Webex does after errors of their receivers."""
        self._in_server(self.state.subscriptions.deactivate)

    def truth(
        self,
        from_ms: int,
        to_ms: int,
        *,
        include_segments: bool = False,
        include_va: bool = False,
        include_screen: bool = False,
        include_all_digital: bool = False,
        at_ms: int | None = None,
        with_sha256: bool = True,
    ) -> list[dict[str, Any]]:
        """What ``GET /sandbox/truth`` streams, as a list."""
        flags = CaptureFlags(include_segments, include_va, include_screen, include_all_digital)
        at_ms = self.state.clock.now_ms() if at_ms is None else at_ms
        rows = self._application.truth.rows(from_ms, to_ms, flags, at_ms, with_sha256=with_sha256)
        return list(rows)

    def set_faults(self, faults: list[dict[str, Any]]) -> None:
        """Put these faults in force instead of the present ones; an empty list ends them.

        Raises:
            ValueError: A fault is not well formed; nothing is changed.
        """
        self._in_server(lambda: self.state.set_faults(faults))

    def requests(self) -> dict[str, Any]:
        """What ``GET /sandbox/requests`` tells."""
        return self._in_server(self._application.report)

    def reset_requests(self) -> None:
        """Count requests anew."""
        self._in_server(self.state.journal.reset)

    def now_ms(self) -> int:
        """The sandbox's time."""
        return self.state.clock.now_ms()

    def advance(self, seconds: float) -> None:
        """Move the sandbox's clock forward."""
        self._in_server(lambda: self.state.clock.advance(seconds))

    def _in_server(self, change: Callable[[], T]) -> T:
        """Run between two requests, never during one; at once where nothing is served."""
        if self._loop is None or self._loop.is_closed():
            return change()

        async def run() -> T:
            return change()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as error:
            self._failure = error
        finally:
            self._is_started.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await serve(self._application, *self._address, self._note_started, self._stop)

    def _note_started(self, base_url: str) -> None:
        self.base_url = base_url
        self._is_started.set()
