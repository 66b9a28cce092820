"""What is put is what arrives: to the right address, again when it may help, and never with another byte."""

import hashlib
import itertools
import logging
import os
import subprocess
import sys
import traceback
from base64 import b64decode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Barrier
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import ClientError
from urllib3 import HTTPResponse

from include.domain.errors import TransientError
from include.domain.object_keys import ObjectKey
from include.http.connection_pool import Answer, ConnectionPool, Endpoint
from include.storage.object_store import (
    Condition,
    ConditionFailed,
    ObjectStore,
    OtherBytesKept,
)
from include.storage.put_requests import Checksum, OtherBytesStored, Put, PutRequests
from tests.http.certificates import an_authority
from tests.http.raw_server import Caller, a_raw_server, answer_of
from tests.sources import Pieces
from tests.storage.buckets import s3_client
from tests.storage.odd_store import MANY, OddStore, an_odd_store
from tests.storage.threads import run_at_once

ROOT = Path(__file__).parents[2]
KEY = ObjectKey("captures/key")
BODY = b"the bytes"
MD5 = hashlib.md5(BODY).hexdigest()
SHA256 = Checksum.of_sha256(hashlib.sha256(BODY).digest())
PUT = Put("PutObject", KEY, BODY, SHA256)
PART = Put("UploadPart", KEY, BODY, Checksum.of_part(memoryview(BODY)), {"partNumber": "1"})
_numbers = itertools.count(1)


def client_of(url: str, attempts: int = 5, read_timeout: float = 5, **options: Any) -> Any:
    retries: Any = {"mode": "standard", "total_max_attempts": attempts}
    config = Config(retries=retries, connect_timeout=2, read_timeout=read_timeout)
    return s3_client(url, config=config, **options)


def put_with(*raw: bytes, put: Put = PUT, attempts: int = 5) -> tuple[str, int, list[float]]:
    """The ETag, the number of requests and the waits; the last answer is given again and again."""
    sent: list[str] = []
    waits: list[float] = []

    def serve(caller: Caller) -> None:
        while (request := caller.request())[0]:
            assert request[2] == put.body
            answer = raw[min(len(sent), len(raw) - 1)]
            sent.append(request[0])
            if answer == STALL:
                caller.wait_for_end()
            if not answer:
                caller.reset()
                return
            caller.send(answer)
            if answer == CUT:
                return

    with a_raw_server(serve) as server:
        patience = 1 if STALL in raw else 5
        puts = PutRequests(client_of(server.url(), attempts, patience), "b", sleep=waits.append)
        try:
            etag = puts.send(put)
        except Exception as error:
            error.requests = len(sent)  # type: ignore[attr-defined]
            raise
        finally:
            puts._connections.close()
    return etag, len(sent), waits


STALL = b"stall"
OK = answer_of(b"", ETag='"e"')


def error_answer(status: int, code: str = "") -> bytes:
    return answer_of(f"<Error><Code>{code}</Code></Error>".encode(), f"{status} Some")


CUT = error_answer(503)[:-5]


# Where to


@pytest.mark.parametrize("bucket", ["archive", "archive.with.dots"])
@pytest.mark.parametrize(
    "settings",
    [
        {"endpoint_url": "http://127.0.0.1:9000"},
        {"endpoint_url": "http://[::1]:9000/"},
        {"endpoint_url": "https://store.example.com/a/path"},
        {"endpoint_url": "https://store.example.com/a/path/", "style": "path"},
        {"endpoint_url": "https://store.example.com:8443", "style": "virtual"},
        {"endpoint_url": "https://s3.eu-west-1.amazonaws.com"},
        {},
        {"style": "path"},
        {"style": "virtual"},
        {"region_name": "eu-central-1"},
        {"region_name": "eu-central-1", "style": "path"},
        {"region_name": "cn-north-1"},
        {"region_name": "us-gov-west-1", "use_fips_endpoint": True},
        {"region_name": "eu-west-3", "use_dualstack_endpoint": True},
    ],
    ids=repr,
)
def test_the_address_is_the_one_of_boto3(settings: dict[str, Any], bucket: str):
    """boto3 puts an object, and what is put is caught before it is sent."""
    rest = dict(settings)
    s3: Any = {"addressing_style": rest.pop("style", "auto")}
    region, url = rest.pop("region_name", "us-east-1"), rest.pop("endpoint_url", None)
    client = s3_client(url, region_name=region, config=Config(s3=s3, **rest))
    puts = PutRequests(client, bucket)

    endpoint, base = puts._bucket_address()

    urls: list[str] = []

    def catch(request: Any, **_: object) -> Any:
        urls.append(request.url)
        nothing: Any = {}
        return AWSResponse(
            request.url, 200, nothing, HTTPResponse(BytesIO(), preload_content=False)
        )

    client.meta.events.register("before-send.s3.PutObject", catch)
    client.put_object(Bucket=bucket, Key="k", Body=b"")
    theirs = urlsplit(urls[0])
    assert (endpoint.scheme, endpoint.authority) == (theirs.scheme, theirs.netloc)
    assert f"{base}k" == theirs.path


def test_many_who_share_a_client_find_each_their_own_bucket_at_once():
    """Seen: the plan of one run was put into the bucket of another one that began at the same moment."""
    client = client_of("http://127.0.0.1:9000")
    names = [f"bucket-{number}" for number in range(16)]
    found: dict[str, str] = {}
    at_once = Barrier(len(names))

    def find(name: str) -> None:
        puts = PutRequests(client, name)
        at_once.wait()
        found[name] = puts._bucket_address()[1]

    run_at_once([partial(find, name) for name in names])

    assert found == {name: f"/{name}/" for name in names}


# Again, or not


@pytest.mark.parametrize(
    "trouble",
    [error_answer(503, "SlowDown"), error_answer(500, "InternalError"), error_answer(502),
     error_answer(504), error_answer(429), error_answer(408), error_answer(400, "RequestTimeout"),
     error_answer(400, "BadDigest"), answer_of(b"no ETag"), CUT, b"", b"no HTTP\r\n\r\n", STALL],
    ids=lambda raw: repr(raw[9:20]),
)  # fmt: skip
def test_a_store_in_trouble_is_asked_again(trouble: bytes):
    etag, requests, waits = put_with(trouble, trouble, OK)

    assert (etag, requests, len(waits)) == ('"e"', 3, 2)
    assert put_with(error_answer(503), OK, put=PART)[:2] == ('"e"', 2)


@pytest.mark.parametrize("attempts", [1, 2, 4])
@pytest.mark.parametrize("trouble", [error_answer(503, "SlowDown"), b""], ids=["503", "reset"])
def test_the_attempts_are_those_of_the_client(attempts: int, trouble: bytes):
    with pytest.raises((ClientError, OSError)) as raised:
        put_with(trouble, attempts=attempts)

    assert raised.value.requests == attempts  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("status", "code"),
    [(301, "PermanentRedirect"), (307, "TemporaryRedirect"), (400, "InvalidRequest"), (401, ""),
     (403, "AccessDenied"), (404, "NoSuchBucket"), (409, "ConditionalRequestConflict"),
     (412, "PreconditionFailed"), (501, "NotImplemented")],
)  # fmt: skip
def test_a_refusal_is_not_asked_again(status: int, code: str):
    with pytest.raises(ClientError) as raised:
        put_with(error_answer(status, code))

    assert raised.value.requests == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (403, "AccessDenied"), (412, "PreconditionFailed")]
)
def test_an_error_is_the_one_that_boto3_raises(status: int, code: str):
    def serve(caller: Caller) -> None:
        caller.request()
        caller.send(error_answer(status, code))

    with a_raw_server(serve) as server:
        client = client_of(server.url(), attempts=1)
        with pytest.raises(ClientError) as ours:
            PutRequests(client, "b").send(PUT)
        with pytest.raises(ClientError) as theirs:
            client.put_object(Bucket="b", Key=KEY, Body=b"")
        client.close()

    def told(error: Any) -> tuple[object, ...]:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return error.operation_name, error.response["Error"]["Code"], status

    assert told(ours.value) == told(theirs.value) == ("PutObject", code, status)


def test_waits_grow_and_differ():
    """Many that were refused at once must not come back at once."""
    trouble = error_answer(503, "SlowDown")
    runs = [put_with(trouble, trouble, trouble, trouble, OK)[2] for _ in range(12)]

    columns = list(zip(*runs, strict=True))
    for column, longest in zip(columns, (0.5, 1, 2, 4), strict=True):
        assert 0 <= min(column) < max(column) <= longest
    assert max(columns[3]) > 0.5


# What the store says of the bytes


OTHER_MD5 = hashlib.md5(b"others").hexdigest()
KMS = {"x_amz_server_side_encryption": "aws:kms"}
CUSTOMER = {
    "x_amz_server_side_encryption_customer_algorithm": "AES256",
    "x_amz_server_side_encryption_customer_key_MD5": "bWQ1",
}


@pytest.mark.parametrize(
    "headers",
    [{"ETag": f'"{MD5}"'}, {"ETag": MD5}, {"ETag": '"anything"'}, {"ETag": f'"{OTHER_MD5}-1"'},
     {"ETag": f'"{MD5}"', "x_amz_checksum_sha256": SHA256.value},
     {"ETag": f'"{OTHER_MD5}"'} | KMS, {"ETag": f'"{OTHER_MD5}"'} | CUSTOMER],
    ids=repr,
)  # fmt: skip
def test_a_store_that_confirms_or_says_nothing_is_believed(headers: dict[str, str]):
    assert put_with(answer_of(b"", **headers))[:2] == (headers["ETag"], 1)


@pytest.mark.parametrize(
    "headers",
    [{"ETag": f'"{OTHER_MD5}"'}, {"ETag": OTHER_MD5},
     {"ETag": f'"{OTHER_MD5}"', "x_amz_checksum_sha256": SHA256.value},
     {"ETag": f'"{OTHER_MD5}"', "x_amz_server_side_encryption": "AES256"},
     {"ETag": f'"{MD5}"', "x_amz_checksum_sha256": "AAAA"},
     {"ETag": f'"{OTHER_MD5}"', "x_amz_checksum_sha256": "AAAA"} | KMS],
    ids=repr,
)  # fmt: skip
def test_other_bytes_are_noticed_in_the_answer(headers: dict[str, str]):
    with pytest.raises(OtherBytesStored) as raised:
        put_with(answer_of(b"", **headers))

    assert raised.value.etag == headers["ETag"]


@pytest.mark.parametrize("is_checking", [False, True])
def test_the_word_of_a_store_is_enough_when_it_checks(is_checking: bool):
    """A store that was given a wrong checksum and took it says nothing by repeating one."""
    seen: list[str] = []

    def serve(caller: Caller) -> None:
        while (request := caller.request())[0]:
            seen.append(request[1]["x-amz-checksum-sha256"])
            right = hashlib.sha256(request[2]).digest()
            if is_checking and b64decode(seen[-1]) != right:
                caller.send(error_answer(400, "BadDigest"))
            else:
                caller.send(answer_of(b"", ETag=OTHER_MD5, x_amz_checksum_sha256=seen[-1]))

    with a_raw_server(serve) as server:
        puts = PutRequests(client_of(server.url(), attempts=1), "b")
        assert puts.learn_whether_it_checks("probe") != is_checking
        if is_checking:
            assert puts.send(PUT) == OTHER_MD5
        else:
            with pytest.raises(OtherBytesStored):
                puts.send(PUT)
        puts._connections.close()


def test_the_checksum_of_a_part_is_compared():
    value = PART.checksum.value
    assert put_with(answer_of(b"", ETag="e", x_amz_checksum_crc32=value), put=PART)[1] == 1
    with pytest.raises(OtherBytesStored):
        put_with(answer_of(b"", ETag="e", x_amz_checksum_crc32="AAAA"), put=PART)


# A store that keeps other bytes


SMALL = b"small"
LARGE = bytes(range(256)) * (6 << 12)  # two parts


@pytest.fixture(scope="module")
def _odd_server() -> Iterator[OddStore]:
    with an_odd_store() as found:
        yield found


@pytest.fixture
def odd(_odd_server: OddStore) -> OddStore:
    _odd_server.damages, _odd_server.etag = 0, None
    _odd_server.before_put = lambda _: None
    _odd_server.seen.clear()
    return _odd_server


def new_store(odd: OddStore) -> ObjectStore:
    return odd.store(f"odd-{next(_numbers)}")


def stored(store: ObjectStore) -> bytes | None:
    found = store.read(KEY)
    return found[0] if found else None


def stream(store: ObjectStore, content: bytes, condition: Condition | None = None) -> None:
    store.write_stream(KEY, Pieces([content]), condition=condition)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["whole", "in parts"])
def test_a_store_that_always_keeps_a_wrong_byte_is_left_without_the_object(
    odd: OddStore, content: bytes
):
    store = new_store(odd)
    odd.damages = MANY

    with pytest.raises(OtherBytesKept):
        stream(store, content)

    assert odd.seen.count("PUT") <= 4
    assert stored(store) is None
    assert store._client.list_multipart_uploads(Bucket=store.bucket).get("Uploads", []) == []


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["whole", "in parts"])
def test_a_wrong_byte_is_mended(odd: OddStore, content: bytes):
    store = new_store(odd)
    odd.damages = 1

    stream(store, content)

    assert stored(store) == content


@pytest.mark.parametrize("is_there", [False, True])
def test_a_wrong_byte_is_mended_on_condition(odd: OddStore, is_there: bool):
    store = new_store(odd)
    if is_there:
        store.write(KEY, b"older")
    there = store.head(KEY)
    odd.damages = 1

    store.write(KEY, SMALL, Condition(there.etag if there else None))

    assert stored(store) == SMALL


def test_what_another_writer_put_there_meanwhile_is_not_mended(odd: OddStore):
    store = new_store(odd)
    odd.damages = 1
    other = s3_client(odd.endpoint_url)

    def write_before_the_second(number: int) -> None:
        if number == 2:
            odd.before_put = lambda _: None
            other.put_object(Bucket=store.bucket, Key=KEY, Body=b"of another writer")

    odd.before_put = write_before_the_second

    with pytest.raises(ConditionFailed):
        store.write(KEY, SMALL, Condition(None))

    assert stored(store) == b"of another writer"
    other.close()


def test_etags_that_only_look_like_md5_are_recognised_once(odd: OddStore):
    store = new_store(odd)
    odd.etag = f'"{OTHER_MD5}"'

    for content in (SMALL, b"other", b"third"):
        store.write(KEY, content)
        assert odd.seen.count("GET") == 1

    assert stored(store) == b"third"


# With which key pair, and to whom


def test_a_role_whose_key_pair_changes_is_asked_each_time():
    given = itertools.count(1)

    def role() -> dict[str, str]:
        number = next(given)
        soon = datetime.now(UTC) + timedelta(minutes=1)
        return {"access_key": f"KEY{number}", "secret_key": "s", "token": f"token-{number}",
                "expiry_time": soon.isoformat()}  # fmt: skip

    class Provider:
        def load_credentials(self) -> RefreshableCredentials:
            return RefreshableCredentials.create_from_metadata(role(), role, "assume-role")

    seen: list[tuple[str, str]] = []

    def serve(caller: Caller) -> None:
        while (request := caller.request())[0]:
            key = request[1]["authorization"].partition("Credential=")[2].partition("/")[0]
            seen.append((key[3:], request[1]["x-amz-security-token"][6:]))
            caller.send(OK)

    with a_raw_server(serve) as server:
        session = botocore.session.get_session()
        session.register_component("credential_provider", Provider())
        client = boto3.Session(botocore_session=session, region_name="us-east-1").client(
            "s3", endpoint_url=server.url()
        )
        puts = PutRequests(client, "b")
        for _ in range(3):
            puts.send(PUT)
        puts._connections.close()

    numbers = [int(number) for number, _ in seen]
    assert seen == [(str(number), str(number)) for number in numbers]
    assert len(set(numbers)) == 3


@pytest.mark.parametrize("told_by", ["argument", "environment", "nobody", "not at all"])
def test_the_authority_that_the_client_trusts_is_trusted(
    told_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    authority, settings = an_authority(tmp_path, "127.0.0.1")
    options: dict[str, Any] = {}
    if told_by == "environment":
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
    elif told_by != "nobody":
        options["verify"] = str(authority) if told_by == "argument" else False

    def serve(caller: Caller) -> None:
        caller.request()
        caller.send(OK)

    with a_raw_server(serve, tls=settings) as server:
        client = client_of(server.url(scheme="https"), attempts=1, **options)
        puts = PutRequests(client, "b")
        if told_by == "nobody":
            with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
                puts.send(PUT)
        else:
            assert puts.send(PUT) == '"e"'
        puts._connections.close()


@pytest.mark.parametrize("trouble", ["refused", "echo", "reset", "other bytes"])
def test_no_error_and_no_log_has_a_secret(trouble: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    secrets = {"CANARY-secret", "CANARY-token"}

    def serve(caller: Caller) -> None:
        headers = caller.request()[1]
        signature = headers["authorization"].rpartition("=")[2]
        secrets.add(signature)
        if trouble == "echo":  # as S3 does when a signature is wrong
            told = f"<Code>{signature}.CANARY-token</Code><Said>{headers}</Said>"
            caller.send(answer_of(told.encode(), "403 No", Location="?CANARY-token"))
        elif trouble == "other bytes":
            caller.send(answer_of(b"", ETag=OTHER_MD5, x_amz_id="CANARY-token"))

    with a_raw_server(serve) as server:
        url = server.url() if trouble != "refused" else "http://127.0.0.1:1"
        client = client_of(url, attempts=2, aws_access_key_id="AKIA", aws_session_token="CANARY-token",
                           aws_secret_access_key="CANARY-secret")  # fmt: skip
        store = ObjectStore(client, "b")
        with pytest.raises(Exception) as raised:  # noqa: PT011 - each has its own type
            store.write(KEY, BODY)

    told = "".join(traceback.format_exception(raised.value)) + repr(raised.value) + caplog.text
    assert [secret for secret in secrets if secret in told] == []


def test_a_client_still_tells_its_key_pair_and_what_it_trusts():
    """Both are private to botocore; a newer version must not change them unnoticed."""
    client = s3_client("https://127.0.0.1:1", verify=os.devnull)

    assert PutRequests(client, "b")._key_pair().access_key == "any-access-key"
    assert client._endpoint.http_session._verify == os.devnull


# Memory


_COPY_AT_ONCE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from include.storage.captures import store_capture
from include.storage.object_store import PART_BYTES, ObjectStore
from tests.sources import Pieces
from tests.storage.buckets import s3_client

THREADS, MIB = 8, 1 << 20
SOUND = bytes(MIB)

def peak_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) << 10

def copy(store, number, mib):
    size_bytes = 1000 + mib * MIB
    head = b"RIFF" + (size_bytes - 8).to_bytes(4, "little") + b"WAVE"
    source = Pieces([head, bytes(988), *[SOUND] * mib])
    return store_capture(store, f"k{number}", source, size_bytes=size_bytes, kind="recording",
                         file_name="a.wav").size_bytes

client = s3_client(sys.argv[1])
with ThreadPoolExecutor(THREADS) as pool:
    warm = ObjectStore(client, "b", part_bytes=1 << 16)
    list(pool.map(lambda number: copy(warm, number, 1), range(2 * THREADS)))
    store = ObjectStore(client, "b")
    before = peak_bytes()
    assert sum(pool.map(lambda number: copy(store, number, 38), range(THREADS))) > 300 * MIB
    print((peak_bytes() - before) / THREADS - PART_BYTES)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_eight_copies_at_once_hold_one_part_each():
    def serve(caller: Caller) -> None:
        while (request := caller.request())[0]:
            checksum = request[1].get("x-amz-checksum-crc32", "")
            told = b"<A><UploadId>u</UploadId><ETag>e</ETag></A>"
            caller.send(answer_of(told, ETag='"e"', x_amz_checksum_crc32=checksum))

    with a_raw_server(serve) as server:
        measured = subprocess.run(
            [sys.executable, "-c", _COPY_AT_ONCE, server.url()],
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
            cwd=ROOT,
        )

    assert float(measured.stdout) < 2 << 20


class Overtaken(ConnectionPool):
    """The first PUT is damaged on its way; before each later one, somebody else writes the same key."""

    def __init__(self, write_as_another: Callable[[], object]) -> None:
        super().__init__()
        self._write_as_another = write_as_another
        self._is_first = True

    def request(
        self, endpoint: Endpoint, method: str, target: str, headers: Any, body: Any = b""
    ) -> Answer:
        if self._is_first:
            self._is_first = False
            return super().request(endpoint, method, target, headers, bytes(len(body)))
        self._write_as_another()
        return super().request(endpoint, method, target, headers, body)


def test_what_another_writer_put_meanwhile_is_not_removed(bucket_on):
    """Only wrong bytes are, not what stands in the way of mending them."""
    bucket = bucket_on("moto")
    count = itertools.count()

    def write_as_another() -> None:
        bucket.client.put_object(
            Bucket=bucket.name, Key="captures/a", Body=f"another {next(count)}".encode()
        )

    store = ObjectStore(bucket.client, bucket.name, connections=Overtaken(write_as_another))
    with pytest.raises(TransientError):
        store.write(ObjectKey("captures/a"), b"ours")

    found = bucket.client.get_object(Bucket=bucket.name, Key="captures/a")["Body"].read()
    assert found.startswith(b"another")
