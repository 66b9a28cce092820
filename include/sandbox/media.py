"""The media host: objects behind signed URLs, answered as S3 does."""

import re
from collections.abc import Mapping

from include.sandbox.answers import Answer, s3_refusal
from include.sandbox.bodies import Body
from include.sandbox.signing import BUCKET, UrlRefusedError
from include.sandbox.state import SandboxState

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_CONTENT_TYPES = {"wav": "audio/wav", "mp4": "video/mp4"}


def answer_media(
    state: SandboxState, method: str, host: str, raw_target: str, headers: Mapping[str, str]
) -> Answer:
    """``GET /media/...``: the bytes, or S3's refusal.

    Inferred, from S3: a second authentication is 400, a method other than the signed GET
    is 403, a URL altered or out of time is 403, an object gone is 404; ranges work.
    """
    now_ms = state.clock.now_ms()
    path, _, query = raw_target.partition("?")
    if headers.get("Authorization") is not None:
        return s3_refusal(
            400,
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature "
            "query string parameter or the Authorization header should be specified",
            {"ArgumentName": "Authorization"},
        )
    if method != "GET":
        return s3_refusal(403, "SignatureDoesNotMatch", "The URL is signed for GET.", {})
    try:
        state.signer.check(host, path, query, now_ms)
    except UrlRefusedError as refused:
        return s3_refusal(403, refused.code, str(refused), refused.details)
    parts = path.split("/")
    contact_task = capture = None
    if len(parts) == 7 and parts[2] == BUCKET and parts[3] == state.scenario.org_id:
        contact_task = state.centre.find(parts[4])
        capture = contact_task and state.library.find(contact_task, parts[5])
    if (
        contact_task is None
        or capture is None
        or capture.is_purged(now_ms)
        or now_ms < capture.available_ms
    ):
        return s3_refusal(404, "NoSuchKey", "The specified key does not exist.", {})
    body = state.body_of(contact_task, capture, now_ms)
    answer_headers = {"ETag": f'"{body.entity_tag}"', "Accept-Ranges": "bytes"}
    how = state.scenario.media_content_type
    if how == "by_name":
        answer_headers["Content-Type"] = _CONTENT_TYPES.get(capture.form, "application/json")
    elif how == "binary":
        answer_headers["Content-Type"] = "binary/octet-stream"
    wanted_tag = headers.get("If-Match")
    if wanted_tag not in (None, "*", answer_headers["ETag"]):
        return s3_refusal(412, "PreconditionFailed", "If-Match does not hold.", {})
    return _cut(body, answer_headers, headers.get("Range"))


def _cut(body: Body, headers: dict[str, str], wanted: str | None) -> Answer:
    """The whole body, or the one range asked for; a malformed range counts as none."""
    found = _RANGE.fullmatch(wanted or "")
    if found is None or not (found[1] or found[2]):
        return Answer(200, body, headers)
    size_bytes = body.size_bytes
    if found[1]:
        start = int(found[1])
        stop = min(int(found[2]) + 1, size_bytes) if found[2] else size_bytes
        if found[2] and int(found[2]) < start:
            return Answer(200, body, headers)
    else:
        start, stop = max(0, size_bytes - int(found[2])), size_bytes
    if start >= stop:
        answer = s3_refusal(
            416, "InvalidRange", "The requested range is not satisfiable", {"RangeRequested": "1"}
        )
        answer.headers["Content-Range"] = f"bytes */{size_bytes}"
        return answer
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size_bytes}"
    return Answer(206, body, headers, start=start, stop=stop)
