"""A door before the sandbox that plants recognisable secrets and personal data in all that passes.

Whatever a gateway, a proxy or an API of tomorrow may put into an answer: members, headers, error bodies.
"""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from tests.webex.web_server import a_server

PHONE = "+15550199417"
EMAIL = "canary.nightingale@example.net"
NAME = "Canary Nightingale"
TOKEN = "canary-token-5b1d77e0c2a94f"
SIGNED = "canary5ec7e75ec7e75ec7e7"
SIGNED_URL = (
    f"https://media.example.com/a.wav?X-Amz-Signature={SIGNED}&X-Amz-Security-Token={TOKEN}"
)
TEXT = f"Bearer {TOKEN} of {EMAIL} ({PHONE}) at {SIGNED_URL}, access_token={TOKEN}"
PERSONAL = {"a phone number": PHONE, "an e-mail address": EMAIL, "a name": NAME}
SECRET = {"a token": TOKEN, "a signature": SIGNED}
_HEADERS = {
    "X-Forwarded-Authorization": f"Bearer {TOKEN}",
    "Set-Cookie": f"session={TOKEN}",
    "X-Caller": f"{NAME} {PHONE} {EMAIL}",
    "Link": f"<{SIGNED_URL}>",
}
_NOT_PASSED_ON = {"content-length", "transfer-encoding", "connection", "content-encoding"}


@contextmanager
def planting_door(base_url: str) -> Iterator[str]:
    """The URL of the door, which leads to the sandbox."""
    upstream = urlsplit(base_url).netloc

    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        headers = {
            name: value for name, value in handler.headers.items() if name != "Accept-Encoding"
        }
        connection = http.client.HTTPConnection(upstream, timeout=30)
        try:
            connection.request(handler.command, handler.path, body, headers)
            found = connection.getresponse()
            content = found.read()
        except (http.client.HTTPException, OSError):  # a fault of the sandbox: as it is, the end
            handler.close_connection = True
            return
        finally:
            connection.close()
        content = planted(handler.path, found.status, found.getheader("Content-Type", ""), content)
        handler.send_response(
            found.status, f"{found.reason} {TEXT}" if found.status >= 400 else None
        )
        kept = {n: v for n, v in found.getheaders() if n.lower() not in _NOT_PASSED_ON}
        if found.status >= 400:  # shown to whoever asks Webex about it
            kept |= {"TrackingId": f"Bearer {TOKEN} {EMAIL} {PHONE}"}
        for name, value in {**kept, **_HEADERS, "Content-Length": str(len(content))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    with a_server(answer) as url:
        yield url


def planted(path: str, status: int, content_type: str, content: bytes) -> bytes:
    """The body with canaries in it, unless it is a capture's or the token pair's."""
    if status >= 400 or "html" in content_type:
        return _planted_in_error(content_type, content)
    if "json" not in content_type or not content:
        return content
    told = json.loads(content)
    if path.startswith("/v1/tasks"):
        for number, row in enumerate(told.get("data", [])):
            attributes = row["attributes"]
            attributes |= _members(number)
            attributes["owner"] = {"id": (attributes.get("owner") or {}).get("id"), "name": NAME}
            if number % 5 == 0:
                attributes["origin"] = [PHONE]
            else:
                attributes["destination"] = EMAIL
    elif path.startswith("/v1/captures"):
        for entry in told.get("data", []):
            for captures in entry.values():
                for number, capture in enumerate(captures if isinstance(captures, list) else []):
                    members = capture.get("attributes", capture)
                    members |= _members(number)
                    ending = str(members.get("fileName") or "").rpartition(".")[2]
                    members["fileName"] = f"{PHONE} {EMAIL}.{ending}"
    elif isinstance(told, dict) and "access_token" not in told:
        told |= _members(0)
    return json.dumps(told).encode()


def _members(number: int) -> dict[str, Any]:
    return {
        "callback": PHONE,
        f"of {EMAIL}": number,
        "agent": {"name": NAME, "contact": [EMAIL]},
        "preview": {"url": SIGNED_URL},
    }


def _planted_in_error(content_type: str, content: bytes) -> bytes:
    if "json" in content_type and content:
        told = json.loads(content)
        if isinstance(told, dict):
            told |= {"message": TEXT, "error_description": TEXT, "details": [TEXT], "key": TOKEN}
        return json.dumps(told).encode()
    return content + TEXT.encode()
