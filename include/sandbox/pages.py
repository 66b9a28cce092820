"""The sandbox's own page: what it holds, how it is set, how to use it."""

from datetime import UTC, datetime
from html import escape
from itertools import islice

from include.sandbox.captures import CaptureFlags
from include.sandbox.contact_centre import HOUR_MS
from include.sandbox.faults import KINDS
from include.sandbox.scenario import knobs
from include.sandbox.state import SandboxState

HOURS_SHOWN = 24
SAMPLED_PER_HOUR = 400

# Method and path, what it does, how to try it. The test compares it with the routes.
ROUTES = (
    ("POST /v1/access_token", "Refresh the token pair (form).", ""),
    ("GET /v1/tasks", "List contact tasks.", ""),
    (
        "GET /v1/authorize",
        "The page on which a person lets an integration in; its answer by POST.",
        "",
    ),
    (
        "POST /v1/applications/…/token",
        "A service app's pair, for a helper integration's token.",
        "",
    ),
    ("GET /v1/authorizations/tokenExpiry", "When the access token ends.", ""),
    ("GET /v2/event-types", "Types of events and versions of resources.", ""),
    ("GET /v2/subscriptions", "Subscriptions; also POST, and GET, PATCH, DELETE with an id.", ""),
    ("POST /v1/captures/query", "List captures of 1 to 10 contact tasks.", ""),
    (
        "POST /search",
        "Search contact tasks up to 36 months old (GraphQL): roots task and taskDetails.",
        "",
    ),
    ("GET /media/…", "A signed download URL, from a captures answer.", ""),
    ("GET /sandbox/", "This page; also GET /.", "curl {base}/sandbox/"),
    (
        "GET /sandbox/connection",
        "The Airflow connection webex_contact_center, with a fresh refresh token.",
        'export AIRFLOW_CONN_WEBEX_CONTACT_CENTER="$(curl -s {base}/sandbox/connection)"',
    ),
    (
        "GET /sandbox/truth",
        "JSON lines: every contact task created in from ≤ t < to (ms) with its captures, sizes and "
        "SHA-256, as of now or at= (ms). Flags: include_segments, include_va, include_screen, "
        "include_all_digital; sha256=false is faster.",
        "curl -s '{base}/sandbox/truth?from={from_ms}&to={to_ms}&include_segments=true'",
    ),
    (
        "GET /sandbox/requests",
        "Counts by endpoint and status, the last refusals, the most requests in 60 seconds.",
        "curl -s {base}/sandbox/requests",
    ),
    ("DELETE /sandbox/requests", "Count anew.", "curl -s -X DELETE {base}/sandbox/requests"),
    ("GET /sandbox/faults", "The faults in force.", "curl -s {base}/sandbox/faults"),
    (
        "POST /sandbox/faults",
        "Put a list of faults in force instead of the present ones.",
        "curl -s -X POST {base}/sandbox/faults -H 'Content-Type: application/json' "
        '-d \'[{{"endpoint": "media", "kind": "reset_mid_body", "times": 3}}]\'',
    ),
    ("DELETE /sandbox/faults", "End all faults.", "curl -s -X DELETE {base}/sandbox/faults"),
    (
        "POST /sandbox/app",
        "An administrator withdraws the app in Control Hub (false), or authorises it again.",
        "curl -s -X POST {base}/sandbox/app -H 'Content-Type: application/json' "
        "-d '{{\"is_authorised\": false}}'",
    ),
    (
        "GET /sandbox/helper",
        "The Airflow connection webex_token_helper, with a fresh refresh token.",
        'export AIRFLOW_CONN_WEBEX_TOKEN_HELPER="$(curl -s {base}/sandbox/helper)"',
    ),
    ("GET /sandbox/events", "The events that were sent.", "curl -s {base}/sandbox/events"),
    (
        "POST /sandbox/events",
        "Send an event for each capture that became available in from ≤ t < to (ms), to deliver_events_to.",
        "curl -s -X POST {base}/sandbox/events -H 'Content-Type: application/json' "
        '-d \'{{"from": {from_ms}, "to": {to_ms}}}\'',
    ),
    ("GET /sandbox/clock", "The sandbox's time.", "curl -s {base}/sandbox/clock"),
    (
        "POST /sandbox/clock",
        "Move the clock forward.",
        "curl -s -X POST {base}/sandbox/clock -H 'Content-Type: application/json' "
        "-d '{{\"advance_seconds\": 3600}}'",
    ),
)

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;"
    "color:#1d2733}table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}"
    "th,td{border-bottom:1px solid #d8dee6;padding:.25rem .5rem;text-align:left;"
    "vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}"
    "code,pre{font:13px ui-monospace,monospace;background:#f2f5f8}pre{padding:.3rem;margin:0;"
    "white-space:pre-wrap;word-break:break-all}.changed{background:#fff6d9}"
)


def count_hour(state: SandboxState, hour: int, now_ms: int) -> tuple[int, int, int, bool]:
    """Contact tasks, listed captures and their bytes of one hour, and whether all is exact.

    Beyond ``SAMPLED_PER_HOUR`` contact tasks the captures are extrapolated from a sample.
    """
    flags = CaptureFlags(include_va=True, include_screen=True)
    from_ms = hour * HOUR_MS
    until_ms = min(from_ms + HOUR_MS, now_ms + 1)
    total = state.centre.count(hour) * max(0, until_ms - from_ms) // HOUR_MS
    stride = max(1, total // SAMPLED_PER_HOUR)
    seen = capture_count = size_bytes = 0
    contact_tasks = state.centre.created_between(from_ms, until_ms)
    if stride > 1:
        span_ms = (until_ms - from_ms) // SAMPLED_PER_HOUR
        contact_tasks = (
            contact_task
            for place in range(SAMPLED_PER_HOUR)
            for contact_task in islice(
                state.centre.created_between(from_ms + place * span_ms, until_ms), 1
            )
        )
    for contact_task in contact_tasks:
        seen += 1
        for capture in state.library.captures_of(contact_task):
            if flags.show(capture) and capture.is_listed(now_ms):
                capture_count += 1
                size_bytes += capture.size_bytes
    if stride == 1:
        return seen, capture_count, size_bytes, True
    return total, capture_count * total // seen, size_bytes * total // seen, False


def render(state: SandboxState, base_url: str) -> str:
    """The page, in HTML."""
    now_ms = state.clock.now_ms()
    this_hour = now_ms // HOUR_MS
    hours = "".join(
        _hour_row(state, hour, now_ms) for hour in range(this_hour, this_hour - HOURS_SHOWN, -1)
    )
    routes = "".join(_route_row(route, base_url, now_ms) for route in ROUTES)
    kinds = "".join(
        f"<tr><td><code>{escape(kind)}</code></td><td>{escape(text)}</td></tr>"
        for kind, text in KINDS.items()
    )
    switches = "".join(_knob_row(state, place) for place in range(len(knobs())))
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>Webex sandbox</title>"
        f"<style>{_STYLE}</style></head><body><h1>A stand-in for Webex Contact Center</h1>"
        f"<p>Organisation <code>{escape(state.scenario.org_id)}</code>, seed "
        f"{state.scenario.seed}. Its clock says {_clock(now_ms)}. "
        "Everything here is made up; nothing is stored.</p>"
        "<h2>What it holds: the last 24 hours</h2><table><tr><th>Hour (UTC)</th>"
        "<th class=n>Contact tasks</th><th class=n>Captures offered now</th>"
        f"<th class=n>Bytes</th></tr>{hours}</table>"
        f"<h2>How to use it</h2><table>{routes}</table>"
        "<h2>Faults</h2><p>Members: endpoint (token, tasks, captures, search, media), kind, and if "
        "wanted probability, times, after, match, seconds, share, retry_after_seconds, location.</p>"
        f"<table>{kinds}</table>"
        "<h2>Switches</h2><p>Each is an option of <code>python -m include.sandbox</code>; those "
        f"marked are not at their default.</p><table>{switches}</table></body></html>"
    )


def _hour_row(state: SandboxState, hour: int, now_ms: int) -> str:
    contact_tasks, captures, size_bytes, is_exact = count_hour(state, hour, now_ms)
    about = "" if is_exact else "about "
    return (
        f"<tr><td>{_clock(hour * HOUR_MS)}</td><td class=n>{about}{contact_tasks:,}</td>"
        f"<td class=n>{about}{captures:,}</td><td class=n>{about}{size_bytes:,}</td></tr>"
    )


def _route_row(route: tuple[str, str, str], base_url: str, now_ms: int) -> str:
    path, text, command = route
    hour_ms = now_ms // HOUR_MS * HOUR_MS
    command = command.format(base=base_url, from_ms=hour_ms - HOUR_MS, to_ms=hour_ms)
    example = f"<pre>{escape(command)}</pre>" if command else ""
    return f"<tr><td><code>{escape(path)}</code></td><td>{escape(text)}{example}</td></tr>"


def _knob_row(state: SandboxState, place: int) -> str:
    knob = knobs()[place]
    value = getattr(state.scenario, knob.name)
    changed = "" if value == knob.default else " class=changed"
    shown = "(not shown)" if knob.name == "client_secret" else repr(value)
    return (
        f"<tr{changed}><td><code>--{knob.name.replace('_', '-')}</code></td>"
        f"<td><code>{escape(shown)}</code></td><td>{escape(knob.description)}</td></tr>"
    )


def _clock(instant_ms: int) -> str:
    return datetime.fromtimestamp(instant_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
