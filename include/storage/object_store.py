"""The only place that talks to S3: one bucket, with errors named by what to do."""

import hashlib
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from mmap import mmap
from typing import TYPE_CHECKING, Any, Protocol, cast

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from urllib3.exceptions import HTTPError

from include.domain.errors import PermanentError, TransientError
from include.domain.object_keys import ObjectKey
from include.http.connection_pool import ConnectionPool
from include.storage.put_requests import (
    PASSING_CODES,
    Checksum,
    OtherBytesStored,
    Put,
    PutRequests,
)

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import ObjectTypeDef
else:
    S3Client = Any

CONNECTION_ID = "wxcc_store"
PART_BYTES = 8 << 20
_MAX_PARTS = 10_000  # of S3
_READ_BYTES = 1 << 20
_HASH_BYTES = (
    4 << 20
)  # fewer would have the threads take turns more often, which costs more than the caches
_MAX_ATTEMPTS_IF_OTHER_BYTES = 3
_LAST_MODIFIED = re.compile(rb"(?<=<LastModified>)[^<]+Z(?=<)")
_REFUSED_CREDENTIALS = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
    }
)
_WRONG_REGION = frozenset(
    {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"}
)


class OtherBytesKept(TransientError):
    """The store, asked again and again, keeps other bytes than the ones that were sent."""


class ConditionFailed(Exception):
    """Another writer was faster: the object is not what the condition says. Read it again and repeat."""


@dataclass(frozen=True)
class StoredObject:
    """One object of the bucket, as a listing or a look at it tells."""

    key: ObjectKey
    size_bytes: int
    etag: str
    last_modified: datetime


@dataclass(frozen=True)
class Condition:
    """When a write may take effect: the object must be absent (None) or still have this ETag."""

    etag: str | None


@dataclass(frozen=True)
class StoredCopy:
    """What was stored: its length, the SHA-256 of its bytes, in hex, and the store's ETag once it is there."""

    size_bytes: int
    sha256: str
    etag: str = ""


class Source(Protocol):
    """Gives bytes once, from the first to the last."""

    def readinto(self, view: memoryview, /) -> int:
        """Put the next bytes into the view; how many, 0 at the end."""
        ...


class ObjectStore:
    """The bucket of the archive.

    Every PUT carries a checksum that the store refuses other bytes by. What the store says of the bytes
    that it has, the same checksum or their MD5, is compared with what was sent, so a store that keeps other
    bytes and does not know it is told at once; one that lies about it, by `verify_archive`.

    What holds depends on the store, and no store says which kind it is; the tests hold one of each to it.

    - AWS S3 and its like (AWS, ministack, moto): a reader of a key sees the old object or the new one, and
      a write with a condition fails when another writer was faster. Nothing is ever lost.
    - Without ``If-Match`` (OpenStack Swift answers 501): the write is repeated without its condition. Of two
      writers of one key at once the later wins, and what only the other one wrote is lost.
    - A store that ignores conditions without a word (``rclone serve s3``): the same, and nothing shows it.
      This one also overwrites in place, so that a reader may find a part of the new object, or an error.

    The last two need one writer at a time, which a pool with a single slot gives.

    Args:
        client: Made by boto3, whose endpoint, key pair, time-outs and number of attempts hold here too.
        bucket: Its name.
        part_bytes: From which size on an object is uploaded in parts, and how large they are (S3: 5 MiB or
            more); what a copy holds in memory.
        connections: Of the PUT requests; made from the client's settings where none are given.
        sleep: Waits between attempts to put something.

    Attributes:
        max_object_bytes: What ten thousand parts hold, which is all that S3 takes.

    Raises (every method):
        PermanentError: Bucket, key pair or rights are wrong; the sentence names the field.
        TransientError: The store is in trouble or out of reach.
    """

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        part_bytes: int = PART_BYTES,
        connections: ConnectionPool | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self.bucket = bucket
        self._part_bytes = part_bytes
        self._puts = PutRequests(client, bucket, connections, sleep)
        self._buffers: deque[mmap] = deque()
        self.max_object_bytes = part_bytes * _MAX_PARTS
        client.meta.events.register(
            "before-parse.s3.ListObjectsV2", _times_as_seconds, unique_id="archive-listing-times"
        )

    def check(self) -> None:
        """Fail now, with the setting's name, rather than after an hour of downloads."""
        with self._named_errors():
            self._client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)

    def learn_whether_it_checks(self, probe: ObjectKey) -> None:
        """Try whether the store refuses bytes that do not have the checksum of their PUT.

        Where it does, its word is enough; elsewhere the MD5 of every copy is compared. Nothing stays under
        the key, or, should this process die, in the place of working files.
        """
        with self._named_errors():
            if self._puts.learn_whether_it_checks(probe):
                self._client.delete_object(Bucket=self.bucket, Key=probe)

    def list(self, prefix: str, start_after: str = "") -> Iterator[StoredObject]:
        """All objects whose key begins with the prefix and comes after another one, in the order of keys."""
        with self._named_errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, StartAfter=start_after
            )
            for page in pages:
                _ = page["Name"]  # which every listing has, and no page of a proxy
                for item in page.get("Contents", []):
                    if item["Key"] <= start_after:  # pyright: ignore[reportTypedDictNotRequiredAccess]
                        continue  # rclone starts at the beginning when no object has this very key
                    yield _stored_object(item)

    def first(self, prefix: str) -> StoredObject | None:
        """The object whose key comes first of those that begin with the prefix."""
        with self._named_errors():
            found = self._client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, MaxKeys=1)
            _ = found["Name"]
            for item in found.get("Contents", []):
                return _stored_object(item)
        return None

    def head(self, key: ObjectKey) -> StoredObject | None:
        """The object under a key, or None: also for a bucket that does not exist, which `check` tells."""
        with self._named_errors():
            try:
                found = self._client.head_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if _status(error) == 404:
                    return None
                raise
            return StoredObject(
                key=key,
                size_bytes=found["ContentLength"],
                etag=found["ETag"],
                last_modified=found["LastModified"],
            )

    def read(self, key: ObjectKey) -> tuple[bytes, str] | None:
        """The bytes and the ETag of a small object (a table partition, a working file), or None."""
        with self._named_errors():
            try:
                found = self._client.get_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if _code(error) == "NoSuchKey":
                    return None
                raise
            # Not `with body`: that would give the raw stream, which does not notice a short body.
            with closing(found["Body"]) as body:
                return body.read(), found["ETag"]

    def iter_bytes(self, key: ObjectKey) -> Iterator[bytes]:
        """The bytes of an object of any size, in small pieces."""
        with (
            self._named_errors(),
            closing(self._client.get_object(Bucket=self.bucket, Key=key)["Body"]) as body,
        ):
            yield from body.iter_chunks(_READ_BYTES)

    def write(self, key: ObjectKey, body: bytes, condition: Condition | None = None) -> None:
        """Put a small object, on condition when one is given.

        Where the store does not know the condition (501) or ignores it, the write takes effect without it:
        see the class for what is left of the promise then.

        Raises:
            ConditionFailed: The condition does not hold.
        """
        self._put(key, body, Checksum.of_sha256(hashlib.sha256(body).digest()), condition)

    def _put(
        self,
        key: ObjectKey,
        body: bytes | memoryview,
        checksum: Checksum,
        condition: Condition | None,
    ) -> str:
        """Put an object and see that the store has it; other bytes are replaced, and named at the end."""

        def put(conditions: Mapping[str, str]) -> str:
            return self._puts.send(Put("PutObject", key, body, checksum, headers=conditions))

        wanted, is_mending, is_other = condition, False, False
        for _ in range(_MAX_ATTEMPTS_IF_OTHER_BYTES):
            is_other = False
            try:
                return self._on_condition(wanted, put)
            except OtherBytesStored:
                is_other = True
            except ConditionFailed:
                if not is_mending:
                    raise
            found = self.read(key)
            if found and found[0] == body:
                if is_other:
                    self._puts.stop_comparing_etags()
                return found[1]
            if not is_other and condition is not None:
                raise ConditionFailed  # another writer put it there since
            # Only what was stored just now may be replaced.
            wanted, is_mending = Condition(found[1] if found else None), True
        if is_other:  # otherwise another writer's object is there now
            with suppress(PermanentError):  # not everybody may delete; the run fails in any case
                self.delete([key])
        raise OtherBytesKept(
            f"The object store keeps other bytes than were sent to it under {key}."
        )

    def _on_condition(
        self, condition: Condition | None, write: Callable[[Mapping[str, str]], str]
    ) -> str:
        conditions: dict[str, str] = {}
        if condition is not None:
            conditions = {"If-Match": condition.etag} if condition.etag else {"If-None-Match": "*"}
        with self._named_errors():
            try:
                return write(conditions)
            except ClientError as error:
                if conditions and (
                    _status(error) == 412 or _code(error) == "ConditionalRequestConflict"
                ):
                    raise ConditionFailed from None
                if "If-Match" in conditions and _code(error) == "NoSuchKey":
                    raise ConditionFailed from None
                if not conditions or _status(error) != 501:
                    raise
                return write({})

    def write_stream(
        self,
        key: ObjectKey,
        source: Source,
        condition: Condition | None = None,
        approve: Callable[[StoredCopy], None] | None = None,
    ) -> StoredCopy:
        """Put an object of any size from a source, in memory for one part.

        The object appears under its key only after the last byte was read and approved: when the source or
        the approval raises, or this process dies, nothing becomes visible and an object already under the
        key stays as it was.

        Args:
            key: Where to.
            source: The bytes; its errors pass through.
            condition: When the object may appear; as for `write`.
            approve: Called with length and SHA-256 of all the bytes, before the object appears; its errors
                pass through.

        Raises:
            ConditionFailed: The condition does not hold; nothing of this stream is left.
            OtherBytesKept: The store keeps other bytes than were sent; nothing of them is left.
        """
        parts = _Parts(source, self._part_bytes, approve)
        try:
            buffer = self._buffers.pop()
        except IndexError:
            # Takes memory as bytes come; a bytearray is filled with zeros first.
            buffer = mmap(-1, self._part_bytes + 1)
        upload_id = ""
        uploaded: list[dict[str, Any]] = []
        try:
            with memoryview(buffer) as view:
                while True:
                    body = parts.fill(view)
                    if parts.is_last and not upload_id:
                        checksum = Checksum.of_sha256(parts.digest.digest())
                        etag = self._put(key, body, checksum, condition)
                        break
                    upload_id = upload_id or self._begin_upload(key)
                    uploaded.append(self._upload_part(key, upload_id, len(uploaded) + 1, body))
                    if parts.is_last:
                        etag = self._complete_upload(key, upload_id, uploaded, condition)
                        break
        except BaseException:
            if upload_id:
                self._abort_upload(key, upload_id)
            raise
        finally:
            self._buffers.append(buffer)
        return parts.copy(etag)

    def _begin_upload(self, key: ObjectKey) -> str:
        with self._named_errors():
            return self._client.create_multipart_upload(
                Bucket=self.bucket, Key=key, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT"
            )["UploadId"]

    def _upload_part(
        self, key: ObjectKey, upload_id: str, number: int, body: memoryview
    ) -> dict[str, Any]:
        """Send one part; what completing the upload is to say of it."""
        checksum = Checksum.of_part(body)
        query = {"partNumber": str(number), "uploadId": upload_id}
        with self._named_errors():
            for _ in range(_MAX_ATTEMPTS_IF_OTHER_BYTES):
                try:
                    etag = self._puts.send(Put("UploadPart", key, body, checksum, query))
                except OtherBytesStored:
                    continue
                return {"PartNumber": number, "ETag": etag, "ChecksumCRC32": checksum.value}
        raise OtherBytesKept(
            f"The object store keeps other bytes than were sent to it of a part of {key}."
        )

    def _complete_upload(
        self,
        key: ObjectKey,
        upload_id: str,
        uploaded: Sequence[Mapping[str, Any]],
        condition: Condition | None,
    ) -> str:
        names = {"If-Match": "IfMatch", "If-None-Match": "IfNoneMatch"}
        return self._on_condition(
            condition,
            lambda conditions: self._client.complete_multipart_upload(
                Bucket=self.bucket,
                Key=key,
                UploadId=upload_id,
                MultipartUpload=cast("Any", {"Parts": uploaded}),
                **cast("Any", {names[name]: value for name, value in conditions.items()}),
            )["ETag"],
        )

    def _abort_upload(self, key: ObjectKey, upload_id: str) -> None:
        """Free what a failed upload left; when even that fails, the sweep of open uploads does it."""
        try:
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id)
        except (ClientError, BotoCoreError, OSError):
            return

    def abort_uploads(self, prefix: str, started_before: datetime) -> int:
        """Free what uploads of killed processes hold under a prefix; how many there were.

        Where they may not be listed (403) or the store cannot (405, 501), a lifecycle rule of the bucket
        must do it.
        """
        with self._named_errors():
            try:
                pages = list(
                    self._client.get_paginator("list_multipart_uploads").paginate(
                        Bucket=self.bucket, Prefix=prefix
                    )
                )
            except ClientError as error:
                # rclone answers NoSuchUpload for a bucket that never had an upload.
                if _status(error) in {403, 405, 501} or _code(error) == "NoSuchUpload":
                    return 0
                raise
            stale = [
                cast("dict[str, Any]", upload)
                for page in pages
                for upload in page.get("Uploads", [])
                if cast("dict[str, Any]", upload)["Initiated"] < started_before
            ]
        for upload in stale:
            self._abort_upload(ObjectKey(upload["Key"]), upload["UploadId"])
        return len(stale)

    def delete(self, keys: Iterable[ObjectKey]) -> None:
        """Remove working files; a key that is not there is no error."""
        with self._named_errors():
            for key in keys:
                self._client.delete_object(Bucket=self.bucket, Key=key)

    @contextmanager
    def _named_errors(self) -> Generator[None]:
        """Turn what the S3 client raises into errors named by what to do; no body is quoted."""
        try:
            yield
        except ClientError as error:
            raise self._meaning(error) from None
        except (NoCredentialsError, PartialCredentialsError):
            raise PermanentError(
                f"The connection {CONNECTION_ID} has no key pair and this machine has no role of its own: set "
                "login (access key id) and password (secret access key)."
            ) from None
        except ParamValidationError:
            raise PermanentError(
                "The S3 client refuses the request before it is sent: correct the extra field "
                f"service_config.s3.bucket_name of the connection {CONNECTION_ID}, such as my-archive."
            ) from None
        except KeyError:
            raise TransientError(
                "The object store gave an answer that is not one of S3: look for a proxy or a sign-in page in front "
                f"of the extra field endpoint_url of the connection {CONNECTION_ID}."
            ) from None
        except (BotoCoreError, HTTPError, OSError) as error:
            raise TransientError(
                f"The object store cannot be reached ({type(error).__name__}): check the network and the extra "
                f"field endpoint_url of the connection {CONNECTION_ID}."
            ) from None

    def _meaning(self, error: ClientError) -> PermanentError | TransientError:
        code, status = _code(error), _status(error)
        if code == "NoSuchBucket":
            return PermanentError(
                f"The bucket {self.bucket} does not exist: create it, or correct the extra field "
                f"service_config.s3.bucket_name of the connection {CONNECTION_ID}."
            )
        if code in _REFUSED_CREDENTIALS or status == 401:
            return PermanentError(
                f"The object store refuses the key pair ({code}): check login (access key id) and password "
                f"(secret access key) of the connection {CONNECTION_ID}."
            )
        if status == 403:
            sentence = (
                f"The object store denies {error.operation_name} on the bucket {self.bucket} ({code}): check login "
                f"and password of the connection {CONNECTION_ID}, and that they may list, read, write and "
                "delete (docs/configuration.md has the policy)."
            )
            if code == "RequestTimeTooSkewed":
                sentence = (
                    "The clocks of this machine and of the object store differ by more than a quarter of an hour: "
                    "set this machine's right."
                )
            return PermanentError(sentence)
        if code in _WRONG_REGION:
            return PermanentError(
                f"The bucket {self.bucket} is in another region: correct the extra field region_name of the "
                f"connection {CONNECTION_ID}."
            )
        if status >= 500 or status in {408, 429} or code in {*PASSING_CODES, "NoSuchUpload"}:
            return TransientError(
                f"The object store answered {status} {code} to {error.operation_name}."
            )
        return PermanentError(f"The object store refuses {error.operation_name}: {status} {code}.")


def _stored_object(item: "ObjectTypeDef") -> StoredObject:
    """An element of a listing; S3 always sends these four, its type description does not say so."""
    found = cast("dict[str, Any]", item)
    return StoredObject(
        ObjectKey(found["Key"]), found["Size"], found["ETag"], found["LastModified"].astimezone(UTC)
    )


def _times_as_seconds(response_dict: dict[str, Any], **_: object) -> None:
    """Halve what a listing costs: botocore has dateutil guess the format of every time that is no number."""
    try:
        response_dict["body"] = _LAST_MODIFIED.sub(_as_seconds, response_dict["body"])
    except ValueError:
        return  # no ISO 8601: dateutil may know what it is


def _as_seconds(time: re.Match[bytes]) -> bytes:
    return str(datetime.fromisoformat(time[0].decode()).timestamp()).encode()


class _Parts:
    """A source cut into parts of one size, hashed as it passes; only the last part may be smaller.

    Attributes:
        is_last: Whether the part that was filled last is the last one; it is approved then.
        digest: Of all the bytes so far.
    """

    def __init__(
        self, source: Source, part_bytes: int, approve: Callable[[StoredCopy], None] | None
    ) -> None:
        self.part_bytes = part_bytes
        self.is_last = False
        self.digest = hashlib.sha256()
        self._source = source
        self._approve = approve
        self._size_bytes = 0
        self._carried = 0

    def fill(self, view: memoryview) -> memoryview:
        """Read the next part into the view, and one byte more, which tells whether another part follows."""
        if self._carried:
            view[0] = view[self.part_bytes]
        have, self._carried = self._carried, 0
        while have <= self.part_bytes:
            count = self._source.readinto(view[have : have + _HASH_BYTES])
            if not count:
                self.is_last = True
                if self._approve:
                    self._approve(self.copy())
                return view[:have]
            self.digest.update(view[have : have + count])
            self._size_bytes += count
            have += count
        self._carried = 1
        return view[: self.part_bytes]

    def copy(self, etag: str = "") -> StoredCopy:
        """Length and SHA-256 of what was read so far, and the ETag that the store gave it."""
        return StoredCopy(self._size_bytes, self.digest.hexdigest(), etag)


def _code(error: ClientError) -> str:
    """S3's own name of an error; a HEAD has no body, its code is the status."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return "".join(char for char in code if char.isalnum())[:60]


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
