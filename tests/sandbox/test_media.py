import io
import json
import struct
import wave
from hashlib import sha256
from urllib.parse import unquote

import pytest

from include.sandbox.bodies import CHUNK_BYTES
from tests.sandbox.client import ALL_FLAGS, ALL_TRUTH_FLAGS, HOUR_MS, NOW_MS, offered

FROM_MS = NOW_MS - 30 * HOUR_MS
TO_MS = NOW_MS - 29 * HOUR_MS


@pytest.fixture
def client(open_sandbox):
    return open_sandbox(captured_share=1.0, abandoned_share=0.0, screen_share=1.0)


def urls_of(client, **members) -> list[str]:
    ids = [row["id"] for row in client.walk(FROM_MS, TO_MS)[:10]]
    entries = client.all_captures(ids, **ALL_FLAGS | members)
    return [each["filePath"] for entry in entries for each in offered(entry)]


def recording_of(client) -> str:
    return next(url for url in urls_of(client) if ".wav" in url)


def test_served_bytes_are_those_of_the_truth(open_sandbox):
    client = open_sandbox(va_share=0.5, consult_share=0.5, screen_share=0.5)
    truth = client.sandbox.truth(FROM_MS, TO_MS, **ALL_TRUTH_FLAGS)
    wanted = {
        (row["task_id"], each["object_id"]): each for row in truth for each in row["captures"]
    }

    served = {}
    for entry in client.all_captures([row["task_id"] for row in truth], **ALL_FLAGS):
        for each in offered(entry):
            path = each["filePath"].partition("?")[0].split("/")
            reply = client.send("GET", each["filePath"])
            assert int(reply.headers["Content-Length"]) == len(reply.body)
            served[path[6], path[7]] = (each["id"], unquote(path[8]), reply.body)

    assert served.keys() == wanted.keys()
    for key, (capture_id, file_name, body) in served.items():
        expected = wanted[key]
        assert (capture_id, file_name) == (expected["id"], expected["file_name"])
        assert len(body) == expected["size_bytes"]
        assert sha256(body).hexdigest() == expected["sha256"]
    assert len({each["sha256"] for each in wanted.values()}) == len(wanted)
    assert {each["kind"] for each in wanted.values()} == {
        "recording",
        "transcript",
        "screen_recording",
    }


def test_each_kind_of_body_is_well_formed(client):
    for url in urls_of(client):
        reply = client.send("GET", url)
        if ".wav" in url:
            assert reply.headers["Content-Type"] == "audio/wav"
            assert struct.unpack("<I", reply.body[4:8])[0] == len(reply.body) - 8
            with wave.open(io.BytesIO(reply.body)) as sound:
                assert sound.getnchannels() == 2
                assert len(sound.readframes(sound.getnframes())) == sound.getnframes() * 4
        elif ".mp4" in url:
            assert reply.headers["Content-Type"] == "video/mp4"
            assert reply.body[4:8] == b"ftyp"
        else:
            assert reply.headers["Content-Type"] == "application/json"
            assert isinstance(json.loads(reply.body), dict)


def test_a_large_body_is_streamed_whole(open_sandbox):
    client = open_sandbox(
        email_weight=0.0,
        chat_weight=0.0,
        social_weight=0.0,
        recording_bytes_min=20_000_000,
        recording_bytes_max=20_000_001,
    )
    row = next(each for each in client.sandbox.truth(FROM_MS, TO_MS) if each["captures"])

    url = offered(client.captures([row["task_id"]]).json()["data"][0])[0]["filePath"]

    body = client.send("GET", url).body
    assert len(body) > 19_000_000 > CHUNK_BYTES
    assert sha256(body).hexdigest() == row["captures"][0]["sha256"]
    assert client.sandbox.requests()["media_bytes"] == len(body)


def test_a_url_expires_when_it_says(client):
    url = urls_of(client, urlExpiration=2)[0]
    assert "X-Amz-Expires=120" in url

    client.sandbox.advance(119)
    assert client.send("GET", url).status == 200
    client.sandbox.advance(1)
    reply = client.send("GET", url)

    assert reply.status == 403
    assert "<Code>AccessDenied</Code><Message>Request has expired</Message>" in reply.text
    assert "<X-Amz-Expires>120</X-Amz-Expires>" in reply.text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("X-Amz-Expires=3600", "X-Amz-Expires=9999"),
        ("X-Amz-Signature=", "X-Amz-Signature=0"),
        ("X-Amz-Signature=", "also=this&X-Amz-Signature="),
        (".wav?", ".wave?"),
        ("127.0.0.1", "localhost"),
    ],
    ids=["longer life", "other signature", "one more parameter", "other name", "other host"],
)
def test_an_altered_url_is_refused(client, old, new):
    url = recording_of(client)
    assert old in url

    reply = client.send("GET", url.replace(old, new))

    assert reply.status == 403
    assert "<Code>SignatureDoesNotMatch</Code>" in reply.text


def test_a_url_without_a_signature_is_refused(client):
    reply = client.send("GET", urls_of(client)[0].partition("?")[0])

    assert reply.status == 403
    assert "<Code>AccessDenied</Code>" in reply.text


def test_an_authorization_header_is_refused(client):
    reply = client.send("GET", urls_of(client)[0], Authorization=client.authorization)

    assert reply.status == 400
    assert "<Code>InvalidArgument</Code>" in reply.text


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE"])
def test_only_the_signed_method_is_served(client, method):
    reply = client.send(method, urls_of(client)[0])

    assert reply.status == 403
    assert (reply.body == b"") == (method == "HEAD")


def test_a_signed_url_of_nothing_is_404(client):
    sandbox = client.sandbox
    host = sandbox.base_url.partition("://")[2]

    def status(path: str) -> int:
        query = sandbox.state.signer.sign(host, path, NOW_MS, 60)
        return client.send("GET", f"{path}?{query}").status

    path = recording_of(client).partition("?")[0].removeprefix(sandbox.base_url)
    parts = path.split("/")
    assert status(path) == 200
    for place, other in ((2, "bucket"), (3, "org"), (4, "task"), (5, "object")):
        assert status("/".join([*parts[:place], other, *parts[place + 1 :]])) == 404
    assert status("/media/short") == 404


def test_bytes_that_are_not_there_yet_are_404(open_sandbox):
    client = open_sandbox(late_segment_share=1.0, email_weight=0, chat_weight=0, social_weight=0)
    truth = client.sandbox.truth(NOW_MS - HOUR_MS, NOW_MS, include_segments=True)
    row = next(each for each in truth if each["captures"])
    later = next(each for each in row["captures"] if not each["listed"])
    path = f"/media/wxcc-sandbox-media-storage-recording/{client.org_id}/{row['task_id']}"
    path += f"/{later['object_id']}/{later['file_name']}"
    host = client.sandbox.base_url.partition("://")[2]
    query = client.sandbox.state.signer.sign(host, path, NOW_MS, 3_600)

    assert client.send("GET", f"{path}?{query}").status == 404


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, None),
        ("bytes=-10", -10, None),
        ("bytes=5-99999999", 5, None),
    ],
)
def test_a_range_is_served(client, wanted, start, stop):
    url = recording_of(client)
    whole = client.send("GET", url).body

    reply = client.send("GET", url, Range=wanted)

    assert reply.status == 206
    assert reply.body == whole[start:stop]
    first = start if start >= 0 else len(whole) + start
    expected = f"bytes {first}-{first + len(reply.body) - 1}/{len(whole)}"
    assert reply.headers["Content-Range"] == expected


@pytest.mark.parametrize("wanted", ["bytes=x-1", "bytes=-", "bytes=9-1", "bytes=0-1,5-6", "lines"])
def test_a_malformed_range_is_ignored(client, wanted):
    assert client.send("GET", recording_of(client), Range=wanted).status == 200


def test_a_range_outside_the_body_is_416(client):
    url = recording_of(client)
    size_bytes = len(client.send("GET", url).body)

    reply = client.send("GET", url, Range=f"bytes={size_bytes}-")

    assert reply.status == 416
    assert reply.headers["Content-Range"] == f"bytes */{size_bytes}"


def test_the_entity_tag_guards_a_resumed_download(client):
    url = recording_of(client)
    tag = client.send("GET", url).headers["ETag"]

    assert client.send("GET", url, If_Match=tag, Range="bytes=9-").status == 206
    assert client.send("GET", url, If_Match='"other"').status == 412


@pytest.mark.parametrize(
    ("how", "content_type"), [("binary", "binary/octet-stream"), ("absent", None)]
)
def test_content_type_is_a_switch(open_sandbox, how, content_type):
    client = open_sandbox(media_content_type=how)

    for url in urls_of(client)[:3]:
        assert client.send("GET", url).headers["Content-Type"] == content_type


def test_urls_can_name_another_host(open_sandbox):
    client = open_sandbox(media_host="media.example.com:8443")

    assert all(url.startswith("http://media.example.com:8443/media/") for url in urls_of(client))
    assert client.connection["extra"]["media_hosts"] == ["media.example.com"]
