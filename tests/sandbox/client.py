"""A plain client of the sandbox: one real connection for each request, nothing retried."""

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from include.sandbox.server import Sandbox

HOUR_MS = 3_600_000
NOW_MS = 1_789_380_000_000  # 2026-09-14T10:00:00Z


@dataclass(frozen=True)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class Client:
    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.connection = sandbox.airflow_connection()
        self.org_id = self.connection["extra"]["org_id"]
        self._access_token = ""

    def send(self, method: str, url: str, body: bytes | None = None, **headers: str) -> Reply:
        """Names of headers are given with underscores for hyphens."""
        parts = urlsplit(url if "://" in url else self.sandbox.base_url + url)
        assert parts.hostname is not None
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
        try:
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, target, body, given)
            with connection.getresponse() as response:
                return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def refresh(self, **changes: str | None) -> Reply:
        form: dict[str, str | None] = {
            "grant_type": "refresh_token",
            "client_id": self.connection["login"],
            "client_secret": self.connection["password"],
            "refresh_token": self.connection["extra"].get("refresh_token"),
        }
        form |= changes
        body = urlencode({name: value for name, value in form.items() if value is not None})
        content_type = "application/x-www-form-urlencoded"
        return self.send("POST", "/v1/access_token", body.encode(), Content_Type=content_type)

    @property
    def authorization(self) -> str:
        if not self._access_token:
            self._access_token = self.refresh().json()["access_token"]
        return f"Bearer {self._access_token}"

    def contact_tasks(self, headers: dict[str, str] | None = None, **query: Any) -> Reply:
        """A trailing underscore is dropped: ``from_``."""
        parameters = urlencode({name.rstrip("_"): value for name, value in query.items()})
        headers = headers or {}
        if "Authorization" not in headers:
            headers = {"Authorization": self.authorization} | headers
        return self.send("GET", f"/v1/tasks?{parameters}", None, **headers)

    def captures(self, contact_task_ids: Any, **members: Any) -> Reply:
        """A member given as None is left out."""
        query = {"orgId": self.org_id, "taskIds": contact_task_ids} | members
        query = {name: value for name, value in query.items() if value is not None}
        return self.post_captures(json.dumps({"query": query}).encode())

    def post_captures(self, body: bytes, content_type: str = "application/json") -> Reply:
        return self.send(
            "POST",
            "/v1/captures/query",
            body,
            Content_Type=content_type,
            Authorization=self.authorization,
        )

    def search(self, query: Any, variables: Any = None, org_id: str = "", **headers: str) -> Reply:
        body = json.dumps({"query": query, "variables": variables}).encode()
        return self.post_search(body, f"?orgId={org_id}" if org_id else "", **headers)

    def post_search(self, body: bytes, query: str = "", **headers: str) -> Reply:
        given = {"Authorization": self.authorization, "Content_Type": "application/json"}
        return self.send("POST", f"/search{query}", body, **given | headers)

    def walk(self, from_ms: int, to_ms: int, page_size: int = 1_000) -> list[dict[str, Any]]:
        """Every contact task, as a careful program walks a list without a cursor."""
        found: dict[str, dict[str, Any]] = {}
        after_ms = from_ms - 1
        while True:
            page = self.contact_tasks(from_=after_ms, to=to_ms, pageSize=page_size).json()["data"]
            found |= {row["id"]: row for row in page}
            if len(page) < page_size:
                return list(found.values())
            last_ms = page[-1]["attributes"]["createdTime"] - 1
            assert last_ms > after_ms, "a whole page within one millisecond"
            after_ms = last_ms

    def all_captures(self, contact_task_ids: list[str], **members: Any) -> list[dict[str, Any]]:
        """The entries for any number of contact tasks."""
        entries: list[dict[str, Any]] = []
        for place in range(0, len(contact_task_ids), 10):
            reply = self.captures(contact_task_ids[place : place + 10], **members)
            assert reply.status == 200, reply.text
            entries += reply.json()["data"]
        return entries


ALL_FLAGS = {
    "includeSegments": True,
    "includeVARecordings": True,
    "includeScreenRecordings": True,
    "includeAllDigitalVersions": True,
}

ALL_TRUTH_FLAGS = {
    "include_segments": True,
    "include_va": True,
    "include_screen": True,
    "include_all_digital": True,
}


def offered(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Everything an entry of a captures answer offers, with its attributes drawn level."""
    recordings = entry["recording"] + entry.get("screenRecordings", [])
    return [
        *({**each["attributes"], "id": each["id"]} for each in recordings),
        *entry["transcription"],
    ]
