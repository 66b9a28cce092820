"""Webex Contact Center as the benchmarks need it: captures queries, long task lists and media, at little cost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.capture_sets import contact_task_id, number_of, org_id
from benchmarks.http_server import Request, Response

_JSON = {"Content-Type": "application/json"}
_CALL_MS = 300_000
_AGENT_ID = "6c1f0d1a-6d9e-4b2b-9d0a-0d3a5ad8c2f1"


@dataclass
class TaskList:
    """So many contact tasks, created at even distances; ``interval_ms`` is from the first one to the end."""

    start_ms: int = 0
    interval_ms: int = 0
    count: int = 0

    def created_ms(self, number: int) -> int:
        """When a contact task was created."""
        return self.start_ms + number * self.interval_ms // self.count

    def first_after(self, time_ms: int) -> int:
        """The first contact task that was created after a time."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self.created_ms(middle) <= time_ms:
                low = middle + 1
            else:
                high = middle
        return low


class WebexStandIn:
    """Answers captures queries, lists contact tasks and serves the files of a folder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._requests = 0
        self._download_url = ""
        self._tasks = TaskList()

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        if request.path.startswith("/media/"):
            return self._media(request)
        routes = {
            "/v1/captures/query": self._captures,
            "/v1/tasks": self._contact_tasks,
            "/benchmark/download-url": self._set_download_url,
            "/benchmark/tasks": self._set_tasks,
            "/benchmark/requests": self._count_anew,
        }
        self._requests += request.path.startswith("/v1/")
        route = routes.get(request.path)
        return route(request) if route else Response(404)

    def _set_download_url(self, request: Request) -> Response:
        """What the captures queries offer, with a place for the capture's number."""
        self._download_url = request.content().decode()
        return Response()

    def _set_tasks(self, request: Request) -> Response:
        self._tasks = TaskList(**json.loads(request.content()))
        return Response()

    def _count_anew(self, _request: Request) -> Response:
        answer, self._requests = self._requests, 0
        return Response(body=str(answer).encode())

    def _media(self, request: Request) -> Response:
        file = self._directory / request.path.removeprefix("/media/")
        if ".." in request.path or not file.is_file():
            return Response(404)
        size = file.stat().st_size
        headers = {
            "Content-Type": "audio/wav",
            "ETag": f'"{file.parent.name}-{file.stem}"',
            "Accept-Ranges": "bytes",
        }
        wanted = request.headers.get("range", "")
        if not wanted.startswith("bytes=") or "," in wanted:
            return Response(200, headers=headers, file=file, stop=size)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start = int(first) if first else size - int(last)
        stop = min(size, int(last) + 1) if first and last else size
        if start >= size:
            return Response(416, headers={"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        return Response(206, headers=headers, file=file, start=start, stop=stop)

    def _captures(self, request: Request) -> Response:
        query = json.loads(request.content())["query"]
        answer = {
            "meta": {"orgId": org_id(), "urlExpiration": 60},
            "data": [
                {
                    "taskId": task_id,
                    "recording": self._recordings(number_of(task_id)),
                    "transcription": [],
                    "screenRecordings": [],
                }
                for task_id in query["taskIds"]
            ],
        }
        return Response(body=json.dumps(answer).encode(), headers=_JSON)

    def _recordings(self, number: int) -> list[object]:
        attributes: dict[str, object] = {
            "fileName": f"{number:07d}.wav",
            "filePath": self._download_url.format(number),
            "startTime": 1_789_380_000_000,
            "stopTime": 1_789_380_000_000 + _CALL_MS,
            "participants": [_AGENT_ID, "+121****1219"],
            "channel1": "Caller",
            "channel2": "Agent",
            "callType": "main",
        }
        return [{"id": contact_task_id(number), "segment": False, "attributes": attributes}]

    def _contact_tasks(self, request: Request) -> Response:
        tasks = self._tasks
        first = tasks.first_after(int(request.query["from"]))
        to = request.query.get("to")
        end = tasks.count if to is None else tasks.first_after(int(to) - 1)
        numbers = range(first, min(end, first + int(request.query["pageSize"])))
        rows = ",".join(_contact_task(number, tasks.created_ms(number)) for number in numbers)
        body = f'{{"meta":{{"orgId":"{org_id()}"}},"data":[{rows}]}}'
        return Response(body=body.encode(), headers=_JSON)


def _contact_task(number: int, created_ms: int) -> str:
    return (
        f'{{"id":"{contact_task_id(number)}","attributes":{{"channelType":"telephony","status":"ended",'
        f'"createdTime":{created_ms},"lastUpdatedTime":{created_ms + _CALL_MS},"captureRequested":true,'
        f'"origin":"+1213555{number % 10_000:04d}","destination":"+18005550100","direction":"INBOUND",'
        f'"reasonCode":"Sale","owner":{{"id":"{_AGENT_ID}","name":"Agent {number % 97}"}},'
        f'"queue":{{"id":"{_AGENT_ID}","name":"Queue {number % 7}"}}}}}}'
    )
