"""What `ObjectStore` promises, asked of four different S3 servers."""

import contextlib
import hashlib
import http.client
import random
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.domain.errors import PermanentError
from include.domain.object_keys import ObjectKey
from include.storage.object_store import PART_BYTES, Condition, ConditionFailed, ObjectStore
from tests.sources import Pieces
from tests.storage.buckets import ATOMIC, CONDITIONAL, SERVERS, UNCONDITIONAL
from tests.storage.threads import run_at_once

KEY = ObjectKey("captures/org_id=o/created_date=2026-01-01/created_hour=00/t/recording/r/call.wav")
CHUNK = 1_000_003  # no divisor of a part
SIZE = 2 * PART_BYTES + 12_345
CONTENT = random.Random(1).randbytes(SIZE)
ROOT = Path(__file__).parents[2]


def chunks_of(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), CHUNK):
        yield content[start : start + CHUNK]


def keys_of(store: ObjectStore, prefix: str = "", start_after: str = "") -> list[str]:
    return [found.key for found in store.list(prefix, start_after)]


def test_both_kinds_of_store_are_always_tested():
    """Only swift may be missing on a machine; one store of each kind remains."""
    assert set(SERVERS) == set(CONDITIONAL) | set(UNCONDITIONAL)
    assert set(CONDITIONAL) - {"swift"}
    assert set(UNCONDITIONAL) - {"swift"}


# Small objects


def test_what_is_written_is_read_headed_and_listed(store):
    before = datetime.now(UTC) - timedelta(seconds=5)

    store.write(KEY, b"content")

    body, etag = store.read(KEY)
    head = store.head(KEY)
    assert body == b"content"
    assert (head.key, head.size_bytes, head.etag) == (KEY, 7, etag)
    assert before < head.last_modified < before + timedelta(minutes=1)
    [listed] = store.list("captures/")
    # rclone lists an ETag without its quotes.
    assert (listed.key, listed.size_bytes, listed.etag.strip('"')) == (KEY, 7, etag.strip('"'))
    # A head tells whole seconds.
    assert abs(listed.last_modified - head.last_modified) < timedelta(seconds=1)
    assert b"".join(store.iter_bytes(KEY)) == b"content"


def test_a_write_replaces_the_whole_object(store):
    store.write(KEY, b"a long first content")
    first = store.head(KEY)

    store.write(KEY, b"second")

    assert store.read(KEY)[0] == b"second"
    assert store.head(KEY).etag != first.etag


def test_an_empty_object_is_an_object(store):
    store.write(KEY, b"")

    assert store.read(KEY)[0] == b""
    assert store.head(KEY).size_bytes == 0
    assert list(store.iter_bytes(KEY)) == []


def test_what_is_absent_reads_and_heads_as_none(store):
    store.write(KEY, b"content")

    assert store.read(ObjectKey("captures/absent")) is None
    assert store.head(ObjectKey("captures/absent")) is None
    with pytest.raises(PermanentError, match="NoSuchKey"):
        list(store.iter_bytes(ObjectKey("captures/absent")))


def test_a_listing_holds_exactly_the_prefix_in_the_order_of_keys(store):
    inside = ["a/1", "a/10", "a/2", "a/b/c", "a/~c3", "a/_x", "a/Z", "a/z"]
    for key in [*reversed(inside), "ab/1", "b/1"]:
        store.write(ObjectKey(key), b"x")

    assert keys_of(store, "a/") == sorted(inside)
    assert keys_of(store, "a/", start_after="a/2") == [key for key in sorted(inside) if key > "a/2"]
    assert keys_of(store, "a/", start_after="a/11") == [
        key for key in sorted(inside) if key > "a/11"
    ]
    assert keys_of(store, "a/1") == ["a/1", "a/10"]
    assert keys_of(store, "nothing/") == []
    assert keys_of(store) == [*sorted(inside), "ab/1", "b/1"]


def test_a_listing_of_more_than_one_page_misses_and_repeats_nothing(bucket_on):
    """S3 answers at most 1,000 keys at once; one server, since a thousand writes take seconds."""
    store = bucket_on("ministack").store
    keys = [f"a/{number:05}" for number in range(1_001)]
    for key in keys:
        store.write(ObjectKey(key), b"")

    assert keys_of(store, "a/") == keys
    assert keys_of(store, "a/", start_after="a/00000") == keys[1:]


def test_a_removed_object_is_gone_and_can_be_removed_again(store):
    other = ObjectKey("other")
    store.write(KEY, b"content")
    store.write(other, b"content")

    store.delete([KEY])
    store.delete([KEY, ObjectKey("never/there")])
    store.delete([])

    assert keys_of(store) == [other]


# Conditions


@pytest.mark.parametrize("server_name", CONDITIONAL)
def test_a_condition_holds_or_the_write_does_nothing(bucket_on, server_name):
    store = bucket_on(server_name).store
    assert bucket_on(server_name).server.has_conditional_writes

    store.write(KEY, b"first", Condition(etag=None))
    with pytest.raises(ConditionFailed):
        store.write(KEY, b"another first", Condition(etag=None))
    first_etag = store.read(KEY)[1]
    store.write(KEY, b"second", Condition(first_etag))
    with pytest.raises(ConditionFailed):
        store.write(KEY, b"too late", Condition(first_etag))
    assert store.read(KEY)[0] == b"second"

    second_etag = store.read(KEY)[1]
    store.delete([KEY])
    with pytest.raises(ConditionFailed):
        store.write(KEY, b"of the removed", Condition(second_etag))
    assert store.read(KEY) is None


def test_of_many_first_writers_one_wins_where_conditions_hold(bucket_on):
    for server_name in CONDITIONAL:
        store = bucket_on(server_name).store
        won: list[bytes] = []

        def write(name: bytes, store: ObjectStore = store, won: list[bytes] = won) -> None:
            try:
                store.write(KEY, name, Condition(etag=None))
            except ConditionFailed:
                return
            won.append(name)

        run_at_once([lambda name=name: write(name) for name in (b"1", b"2", b"3", b"4")])

        assert [store.read(KEY)[0]] == won


@pytest.mark.parametrize("server_name", UNCONDITIONAL)
def test_without_conditional_writes_the_later_writer_wins(bucket_on, server_name):
    """What the docstring of ObjectStore warns of: swift answers 501, rclone says nothing."""
    bucket = bucket_on(server_name)
    store = bucket.store
    assert not bucket.server.has_conditional_writes
    store.write(KEY, b"read by both")
    etag = store.read(KEY)[1]

    store.write(KEY, b"of the faster", Condition(etag))
    store.write(KEY, b"of the slower", Condition(etag))

    assert store.read(KEY)[0] == b"of the slower"


def test_what_the_servers_do_with_the_condition_of_a_first_write(bucket_on):
    """swift keeps the object that is there; rclone alone replaces it."""
    kept: dict[str, bool] = {}
    for server_name in ("ministack", "moto", "rclone"):
        store = bucket_on(server_name).store
        store.write(KEY, b"there")
        with contextlib.suppress(ConditionFailed):
            store.write(KEY, b"replaced", Condition(etag=None))
        kept[server_name] = store.read(KEY)[0] == b"there"

    assert kept == {"ministack": True, "moto": True, "rclone": False}


def test_swift_keeps_an_object_that_must_be_absent(bucket_on):
    store = bucket_on("swift").store
    store.write(KEY, b"there")

    with pytest.raises(ConditionFailed):
        store.write(KEY, b"replaced", Condition(etag=None))
    assert store.read(KEY)[0] == b"there"


@pytest.mark.parametrize("server_name", CONDITIONAL)
def test_a_condition_in_a_missing_bucket_is_no_lost_race(bucket_on, server_name):
    """Else the merge is tried again and again, and blames other writers."""
    store = ObjectStore(bucket_on(server_name).client, "there-is-none")

    with pytest.raises(PermanentError, match="bucket_name"):
        store.write(KEY, b"body", Condition(etag='"0"'))


# Streams


@pytest.mark.parametrize(
    "size",
    [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, SIZE],
    ids=["empty", "one-byte", "a-byte-short-of-a-part", "one-part", "a-byte-more", "three-parts"],
)
def test_a_stream_is_stored_whole_with_its_size_and_digest(bucket, size):
    content = CONTENT[:size]

    copy = bucket.store.write_stream(KEY, Pieces(chunks_of(content)))

    assert (copy.size_bytes, copy.sha256) == (size, hashlib.sha256(content).hexdigest())
    assert bucket.store.head(KEY).size_bytes == size
    assert b"".join(bucket.store.iter_bytes(KEY)) == content
    assert bucket.open_uploads() == []


def test_a_stream_of_unknown_length_and_odd_chunks_is_stored_whole(bucket_on):
    bucket = bucket_on("rclone")
    pieces = [b"", CONTENT[: 3 * CHUNK], b"", CONTENT[3 * CHUNK :], b""]

    copy = bucket.store.write_stream(KEY, Pieces(pieces))

    assert copy.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert bucket.store.read(KEY)[0] == CONTENT


class BrokenOff(Exception):
    pass


@pytest.mark.parametrize(
    "received",
    [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, SIZE - 1],
    ids=["nothing", "one-byte", "almost-a-part", "a-part", "a-byte-more", "all-but-a-byte"],
)
def test_a_stream_that_breaks_off_leaves_nothing(bucket, received):
    """A dropped connection must never look like a finished recording."""

    def breaking_off() -> Iterator[bytes]:
        yield from chunks_of(CONTENT[:received])
        raise BrokenOff

    with pytest.raises(BrokenOff):
        bucket.store.write_stream(KEY, Pieces(breaking_off()))

    assert keys_of(bucket.store) == []
    assert bucket.open_uploads() == []


@pytest.mark.parametrize("received", [1, SIZE - 1], ids=["at-once", "before-the-last-byte"])
def test_a_stream_that_breaks_off_leaves_an_older_object_as_it_was(bucket, received):
    bucket.store.write(KEY, b"older")
    older = bucket.store.head(KEY)

    def breaking_off() -> Iterator[bytes]:
        yield from chunks_of(CONTENT[:received])
        raise BrokenOff

    with pytest.raises(BrokenOff):
        bucket.store.write_stream(KEY, Pieces(breaking_off()))

    assert bucket.store.read(KEY) == (b"older", older.etag)
    assert bucket.open_uploads() == []


def test_an_upload_swept_by_another_process_still_tells_what_broke_the_stream(bucket_on):
    bucket = bucket_on("ministack")

    def swept_and_broken_off() -> Iterator[bytes]:
        yield from chunks_of(CONTENT)
        [upload] = bucket.client.list_multipart_uploads(Bucket=bucket.name)["Uploads"]
        bucket.client.abort_multipart_upload(
            Bucket=bucket.name, Key=KEY, UploadId=upload["UploadId"]
        )
        raise BrokenOff

    with pytest.raises(BrokenOff):
        bucket.store.write_stream(KEY, Pieces(swept_and_broken_off()))


# Streams on condition


BY_PARTS = pytest.mark.parametrize("size", [1_000, SIZE], ids=["at once", "in parts"])


def is_stored(store: ObjectStore, content: bytes, condition: Condition | None) -> bool:
    """Whether the object appeared, where it might not."""
    try:
        store.write_stream(KEY, Pieces(chunks_of(content)), condition)
    except ConditionFailed:
        return False
    return True


@BY_PARTS
def test_a_stream_whose_condition_holds_is_stored_on_every_server(bucket, size):
    content = CONTENT[:size]

    assert is_stored(bucket.store, content, Condition(etag=None))
    etag = bucket.store.head(KEY).etag
    assert is_stored(bucket.store, content[::-1], Condition(etag))

    assert bucket.store.read(KEY)[0] == content[::-1]
    assert bucket.open_uploads() == []


@BY_PARTS
def test_a_stream_whose_condition_fails_leaves_nothing(bucket_on, size):
    bucket = bucket_on("ministack")
    store = bucket.store
    store.write(KEY, b"of the faster")

    assert not is_stored(store, CONTENT[:size], Condition(etag=None))
    assert not is_stored(store, CONTENT[:size], Condition('"0123456789abcdef0123456789abcdef"'))
    assert store.read(KEY)[0] == b"of the faster"
    store.delete([KEY])
    assert not is_stored(store, CONTENT[:size], Condition('"0123456789abcdef0123456789abcdef"'))

    assert keys_of(store) == []
    assert bucket.open_uploads() == []


@BY_PARTS
def test_what_the_servers_do_with_a_stream_whose_condition_fails(bucket_on, size):
    """What the docstring of ObjectStore warns of. moto does not heed the ETag when parts are put together."""
    kept: dict[str, tuple[bool, bool]] = {}
    for server_name in SERVERS:
        found: list[bool] = []
        for etag in (None, '"0123456789abcdef0123456789abcdef"'):
            bucket = bucket_on(server_name)
            bucket.store.write(KEY, b"there")
            is_replaced = is_stored(bucket.store, CONTENT[:size], Condition(etag))
            body = CONTENT[:size] if is_replaced else b"there"
            assert bucket.store.read(KEY)[0] == body
            assert bucket.open_uploads() == []
            found.append(not is_replaced)
        kept[server_name] = (found[0], found[1])

    assert kept == {
        "ministack": (True, True),
        "moto": (True, size < PART_BYTES),
        "swift": (True, False),
        "rclone": (False, False),
    }


@pytest.mark.parametrize("server_name", CONDITIONAL)
def test_of_many_first_streams_one_wins_where_conditions_hold(bucket_on, server_name):
    store = bucket_on(server_name).store
    won: list[int] = []

    def write(number: int) -> None:
        if is_stored(store, bytes([number]) * (PART_BYTES + 1), Condition(etag=None)):
            won.append(number)

    run_at_once([lambda number=number: write(number) for number in range(4)])

    assert len(won) == 1
    assert set(store.read(KEY)[0]) == set(won)


# The first key


def test_the_first_object_of_a_prefix_is_found_without_listing_all(store):
    for key in ("a/2", "a/1/x", "a/10", "b/0"):
        store.write(ObjectKey(key), b"xy")

    first = store.first("a/")

    assert (first.key, first.size_bytes) == ("a/1/x", 2)
    assert [first] == list(store.list("a/"))[:1]
    assert store.first("b/").key == "b/0"
    assert store.first("c/") is None


# Open uploads


def an_open_upload(bucket, key: str) -> None:
    upload_id = bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)["UploadId"]
    bucket.client.upload_part(
        Bucket=bucket.name, Key=key, UploadId=upload_id, PartNumber=1, Body=bytes(PART_BYTES)
    )


def test_stale_uploads_are_aborted_under_their_prefix_only(bucket):
    store = bucket.store
    assert store.abort_uploads("captures/", datetime.now(UTC)) == 0
    for key in ("captures/1", "captures/2", "other/1"):
        an_open_upload(bucket, key)
    store.write(ObjectKey("captures/whole"), b"whole")
    now = datetime.now(UTC)

    if bucket.server.name != "moto":  # which tells of each upload that it began in 2010
        assert store.abort_uploads("captures/", now - timedelta(minutes=5)) == 0
    assert sorted(bucket.open_uploads()) == ["captures/1", "captures/2", "other/1"]
    assert store.abort_uploads("captures/", now + timedelta(minutes=5)) == 2

    assert bucket.open_uploads() == ["other/1"]
    assert keys_of(store) == ["captures/whole"]
    assert store.abort_uploads("captures/", now + timedelta(minutes=5)) == 0


# Killed, and read meanwhile


_UPLOAD = """
import sys, time
from tests.storage.buckets import s3_client
from include.storage.object_store import PART_BYTES, ObjectStore
from tests.sources import Pieces

endpoint, bucket, key, access_key = sys.argv[1:]
client = s3_client(
    endpoint, aws_access_key_id=access_key, aws_secret_access_key=sys.stdin.readline().strip()
)

def chunks():
    for _ in range(3):
        yield bytes(PART_BYTES)
    print("two parts are there", flush=True)
    time.sleep(100)

ObjectStore(client, bucket).write_stream(key, Pieces(chunks()))
"""


def test_a_killed_process_leaves_nothing_visible(bucket):
    """Killed for memory, or by a power cut: the open upload is the only trace, and is swept."""
    older = ObjectKey("older")
    bucket.store.write(older, b"older")
    server = bucket.server
    uploads = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", _UPLOAD),
                *(server.endpoint_url, bucket.name, key, server.access_key),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        for key in (KEY, older)
    ]
    for upload in uploads:
        with upload:
            assert upload.stdin
            assert upload.stdout
            upload.stdin.write(server.secret_key.encode() + b"\n")
            upload.stdin.flush()
            assert upload.stdout.readline() == b"two parts are there\n"
            upload.kill()

    assert keys_of(bucket.store) == [older]
    assert bucket.store.read(older)[0] == b"older"
    assert sorted(bucket.open_uploads()) == sorted([KEY, older])


def test_a_request_cut_short_leaves_the_older_object(bucket):
    bucket.store.write(KEY, b"older")
    url = bucket.client.generate_presigned_url(
        "put_object", Params={"Bucket": bucket.name, "Key": KEY}
    )
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.putrequest("PUT", f"{parts.path}?{parts.query}")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders(bytes(400_000))
    time.sleep(0.1)  # for a server that would store what came so far
    connection.close()
    time.sleep(0.2)

    assert bucket.store.read(KEY)[0] == b"older"


@pytest.mark.parametrize("server_name", ATOMIC)
def test_a_reader_never_sees_a_mixture(bucket_on, server_name):
    """The tables are replaced under their readers. Not of rclone: see the docstring of ObjectStore."""
    store = bucket_on(server_name).store
    body = 300_000
    store.write(KEY, bytes(body))
    deadline = time.monotonic() + 1
    seen: set[tuple[int, bytes]] = set()
    reads: list[bool] = []

    def overwrite() -> None:
        value = 0
        while time.monotonic() < deadline:
            value = value % 255 + 1
            store.write(KEY, bytes([value]) * body)

    def read() -> None:
        while time.monotonic() < deadline:
            found, _ = store.read(KEY)
            seen.add((len(found), bytes(sorted(set(found)))))
            reads.append(True)

    run_at_once([overwrite, read])

    assert len(reads) > 5
    assert {size for size, _ in seen} == {body}
    assert all(len(values) == 1 for _, values in seen)


_MEASURE = """
import sys
from tests.storage.buckets import s3_client
from include.storage.object_store import ObjectStore
from tests.sources import Pieces

def peak_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

store = ObjectStore(s3_client(sys.argv[1], aws_access_key_id=sys.argv[3],
                              aws_secret_access_key=sys.stdin.readline().strip()), sys.argv[2])
store.write_stream("small", Pieces([b"warm"]))
before = peak_mb()
chunk = bytes(range(256)) * 4096
assert store.write_stream("large", Pieces(chunk for _ in range(300))).size_bytes == 300 << 20
print(peak_mb() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_a_large_stream_needs_little_memory(bucket_on):
    """Promise 5: memory does not grow with file size. 300 MB pass, about two parts are held."""
    bucket = bucket_on("rclone")
    server = bucket.server

    measured = subprocess.run(
        [sys.executable, "-c", _MEASURE, server.endpoint_url, bucket.name, server.access_key],
        input=server.secret_key.encode() + b"\n",
        capture_output=True,
        check=True,
        timeout=60,
        cwd=ROOT,
    )

    assert float(measured.stdout) < 40
    bucket.store.delete([ObjectKey("large")])
