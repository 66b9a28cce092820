"""The only place that talks to S3: one bucket, with errors named by what to do."""

import hashlib
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from include.domain.errors import PermanentError, TransientError
from include.domain.object_keys import ObjectKey

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import ObjectTypeDef
else:
    S3Client = Any

CONNECTION_ID = "wxcc_store"
PART_BYTES = 8 << 20
_MAX_PARTS = 10_000  # of S3
_READ_BYTES = 1 << 20
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
    """What was stored: its length and the SHA-256 of its bytes, in hex."""

    size_bytes: int
    sha256: str


class ObjectStore:
    """The bucket of the archive.

    What holds depends on the store, and no store says which kind it is; the tests hold one of each to it.

    - AWS S3 and its like (AWS, ministack, moto): a reader of a key sees the old object or the new one, and
      a write with a condition fails when another writer was faster. Nothing is ever lost.
    - Without ``If-Match`` (OpenStack Swift answers 501): the write is repeated without its condition. Of two
      writers of one key at once the later wins, and what only the other one wrote is lost.
    - A store that ignores conditions without a word (``rclone serve s3``): the same, and nothing shows it.
      This one also overwrites in place, so that a reader may find a part of the new object, or an error.

    The last two need one writer at a time, which a pool with a single slot gives.

    Raises (every method):
        PermanentError: Bucket, key pair or rights are wrong; the sentence names the field.
        TransientError: The store is in trouble or out of reach.
    """

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self.bucket = bucket
        client.meta.events.register(
            "before-parse.s3.ListObjectsV2", _times_as_seconds, unique_id="archive-listing-times"
        )

    def check(self) -> None:
        """Fail now, with the setting's name, rather than after an hour of downloads."""
        with self._named_errors():
            self._client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)

    def list(self, prefix: str, start_after: str = "") -> Iterator[StoredObject]:
        """All objects whose key begins with the prefix and comes after another one, in the order of keys."""
        with self._named_errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, StartAfter=start_after
            )
            for page in pages:
                for item in page.get("Contents", []):
                    if item["Key"] <= start_after:  # pyright: ignore[reportTypedDictNotRequiredAccess]
                        continue  # rclone starts at the beginning when no object has this very key
                    yield _stored_object(item)

    def first(self, prefix: str) -> StoredObject | None:
        """The object whose key comes first of those that begin with the prefix."""
        with self._named_errors():
            found = self._client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, MaxKeys=1)
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
        self._on_condition(
            condition,
            lambda conditions: self._client.put_object(
                Bucket=self.bucket, Key=key, Body=body, **conditions
            ),
        )

    def _on_condition(
        self, condition: Condition | None, write: Callable[[dict[str, Any]], object]
    ) -> None:
        conditions: dict[str, Any] = {}
        if condition is not None:
            conditions = {"IfMatch": condition.etag} if condition.etag else {"IfNoneMatch": "*"}
        with self._named_errors():
            try:
                write(conditions)
            except ClientError as error:
                if conditions and (
                    _status(error) == 412 or _code(error) == "ConditionalRequestConflict"
                ):
                    raise ConditionFailed from None
                if "IfMatch" in conditions and _code(error) == "NoSuchKey":
                    raise ConditionFailed from None
                if not conditions or _status(error) != 501:
                    raise
                write({})

    def write_stream(
        self,
        key: ObjectKey,
        chunks: Iterable[bytes],
        size_bytes: int | None,
        condition: Condition | None = None,
    ) -> StoredCopy:
        """Put an object of any size from its chunks, in memory for two parts at the most.

        The object appears under its key only after the last chunk: when the iteration raises, or this
        process dies, nothing becomes visible and an object already under the key stays as it was.

        Args:
            key: Where to.
            chunks: The bytes; its errors pass through.
            size_bytes: The announced length, which only chooses the size of the parts.
            condition: When the object may appear; as for `write`.

        Raises:
            ConditionFailed: The condition does not hold; nothing of this stream is left.
        """
        part_bytes = max(PART_BYTES, -(-(size_bytes or 0) // _MAX_PARTS))
        digest = hashlib.sha256()
        size = 0
        upload_id = ""
        etags: list[str] = []
        try:
            for body, is_last in _parts(chunks, part_bytes):
                digest.update(body)
                size += len(body)
                if is_last and not upload_id:
                    self.write(key, body, condition)
                    return StoredCopy(size, digest.hexdigest())
                upload_id = upload_id or self._begin_upload(key)
                etags.append(self._upload_part(key, upload_id, len(etags) + 1, body))
                del body  # before the next part is gathered
            self._complete_upload(key, upload_id, etags, condition)
        except BaseException:
            if upload_id:
                self._abort_upload(key, upload_id)
            raise
        return StoredCopy(size, digest.hexdigest())

    def _begin_upload(self, key: ObjectKey) -> str:
        with self._named_errors():
            return self._client.create_multipart_upload(Bucket=self.bucket, Key=key)["UploadId"]

    def _upload_part(self, key: ObjectKey, upload_id: str, number: int, body: bytes) -> str:
        with self._named_errors():
            return self._client.upload_part(
                Bucket=self.bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=body
            )["ETag"]

    def _complete_upload(
        self, key: ObjectKey, upload_id: str, etags: Sequence[str], condition: Condition | None
    ) -> None:
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, start=1)]
        self._on_condition(
            condition,
            lambda conditions: self._client.complete_multipart_upload(
                Bucket=self.bucket,
                Key=key,
                UploadId=upload_id,
                MultipartUpload=cast("Any", {"Parts": parts}),
                **conditions,
            ),
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
        except (BotoCoreError, OSError) as error:
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
            return PermanentError(
                f"The object store denies {error.operation_name} on the bucket {self.bucket} ({code}): check login "
                f"and password of the connection {CONNECTION_ID}, and that they may list, read, write and "
                "delete (docs/configuration.md has the policy)."
            )
        if code in _WRONG_REGION:
            return PermanentError(
                f"The bucket {self.bucket} is in another region: correct the extra field region_name of the "
                f"connection {CONNECTION_ID}."
            )
        if (
            status >= 500
            or status in {408, 429}
            or code in {"SlowDown", "RequestTimeout", "Throttling", "NoSuchUpload"}
        ):
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


def _parts(chunks: Iterable[bytes], part_bytes: int) -> Iterator[tuple[bytes, bool]]:
    """The chunks joined to parts of one size, each with "is it the last?"; only the last may be smaller.

    There is always a last part, empty when there is nothing; nothing of a part stays here once it is out.
    """
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        while len(buffer) > part_bytes:
            with memoryview(buffer) as view:
                part = bytes(view[:part_bytes])
            del buffer[:part_bytes]
            yield part, False
            del part
    yield bytes(buffer), True


def _code(error: ClientError) -> str:
    """S3's own name of an error; a HEAD has no body, its code is the status."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return "".join(char for char in code if char.isalnum())[:60]


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
