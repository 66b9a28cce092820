"""Sends the PUT requests of the archive: signed, with a checksum, repeated when the store is in trouble."""

import hashlib
import logging
import random
import re
import ssl
import time
from binascii import b2a_base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import BytesIO
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

import tenacity
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.exceptions import ClientError, NoCredentialsError
from isal import isal_zlib
from urllib3 import HTTPResponse

from include.http.connection_pool import (
    BadAnswer,
    ConnectionPool,
    Endpoint,
    default_tls,
    new_tls,
)
from include.storage.signature_v4 import (
    UNSIGNED_PAYLOAD,
    KeyPair,
    encoded_path,
    encoded_query,
    signed_headers,
)

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
else:
    S3Client = Any

log = logging.getLogger(__name__)

_MAX_ERROR_BYTES = 8 << 10
_ERROR_CODE = re.compile(rb"<Code>\s*([A-Za-z0-9.]{1,60})\s*</Code>")
_MD5_ETAG = re.compile(r'"?([0-9a-f]{32})"?')
# Trouble of the moment; the last three are bytes that changed on the way.
PASSING_CODES = frozenset(
    {
        "SlowDown",
        "RequestTimeout",
        "Throttling",
        "BadDigest",
        "IncompleteBody",
        "XAmzContentSHA256Mismatch",
    }
)
_KNOWN_TO_CHECK = (".amazonaws.com", ".amazonaws.com.cn")  # documented by S3
_PROBE = b"Whoever keeps this under a checksum of other bytes checks none."
_DEFAULT_ATTEMPTS = 5
_FIRST_WAIT_SECONDS = 0.5
_backoff = tenacity.wait_random_exponential(multiplier=2 * _FIRST_WAIT_SECONDS, max=20)
_one_asks = Lock()


class OtherBytesStored(Exception):
    """The store confirms other bytes than were sent.

    Attributes:
        etag: Of what it stored.
    """

    def __init__(self, etag: str) -> None:
        super().__init__(etag)
        self.etag = etag


@dataclass(frozen=True)
class Checksum:
    """What the store is to find in the bytes, and refuses them otherwise, where it knows the header.

    Attributes:
        header: Its name.
        value: In base64, as S3 writes it.
        payload_sha256: What the signature says of the body.
    """

    header: str
    value: str
    payload_sha256: str

    @classmethod
    def of_sha256(cls, digest: bytes) -> "Checksum":
        """The SHA-256 of the whole body, which the signature then holds too."""
        return cls("x-amz-checksum-sha256", _base64(digest), digest.hex())

    @classmethod
    def of_part(cls, body: memoryview) -> "Checksum":
        """The CRC-32 of a part of a body: a fifteenth of the cost of a second SHA-256, and known to most stores."""
        number: int = isal_zlib.crc32(body)  # pyright: ignore[reportUnknownMemberType]
        return cls("x-amz-checksum-crc32", _base64(number.to_bytes(4, "big")), UNSIGNED_PAYLOAD)


@dataclass(frozen=True)
class Put:
    """One request: what goes where, under which conditions (headers)."""

    operation: Literal["PutObject", "UploadPart"]
    key: str
    body: bytes | memoryview
    checksum: Checksum
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class PutRequests:
    """PUT requests to one bucket, with the endpoint, key pair and patience of an S3 client.

    boto3 stays for everything that has no body: a PUT of its own costs 1.6 ms and copies the body, this one
    0.1 ms (docs/decisions/0013-data-path.md).
    """

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        connections: ConnectionPool | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        config: Any = client.meta.config
        self._client = client
        self._bucket = bucket
        self._sleep = sleep
        retries = cast("dict[str, Any]", config.retries or {})
        self._attempts = int(retries.get("total_max_attempts") or _DEFAULT_ATTEMPTS)
        self._connections = connections or ConnectionPool(
            connect_seconds=config.connect_timeout,
            read_seconds=config.read_timeout,
            tls=lambda: _tls_of(client),
        )
        self._address: tuple[Endpoint, str] | None = None
        self._are_etags_md5 = True
        self._is_checking = False

    def send(self, put: Put) -> str:
        """Put the body, repeatedly when the store is in trouble; the ETag.

        What was sent twice because an answer was lost may fail its own condition; the caller looks then.

        Raises:
            ClientError: The store refuses it, as boto3 would raise it.
            OSError: The store is out of reach.
            OtherBytesStored: The bytes that were stored are not the ones that were sent.
        """
        try:  # the first time without tenacity, which takes as long as a small request
            return self._send_once(put)
        except (ClientError, OSError) as error:
            if self._attempts == 1 or not _may_pass(error):
                raise
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            stop=tenacity.stop_after_attempt(self._attempts - 1),
            wait=_backoff,
            sleep=self._sleep,
            reraise=True,
        )
        self._sleep(random.uniform(0, _FIRST_WAIT_SECONDS))  # noqa: S311 - jitter, no secret
        return retrying(self._send_once, put)

    def _send_once(self, put: Put) -> str:
        endpoint, base = self._bucket_address()
        path = base + encoded_path(put.key)
        headers = signed_headers(
            "PUT",
            endpoint.authority,
            path,
            put.query,
            {**put.headers, put.checksum.header: put.checksum.value},
            payload_sha256=put.checksum.payload_sha256,
            key_pair=self._key_pair(),
            region=self._client.meta.region_name,
            time=datetime.now(UTC),
        )
        target = f"{path}?{encoded_query(put.query)}" if put.query else path
        with self._connections.request(endpoint, "PUT", target, headers, put.body) as answer:
            told = answer.read(_MAX_ERROR_BYTES)
            if answer.status != 200:
                raise _refusal(put.operation, answer.status, told)
            etag = answer.headers.get("etag", "")
            if not etag:
                raise BadAnswer("200 without an ETag, which is not from an S3 store")
            if not self._is_confirmed(put, etag, answer.headers):
                raise OtherBytesStored(etag)
            return etag

    def _is_confirmed(self, put: Put, etag: str, headers: Mapping[str, str]) -> bool:
        """Whether the answer speaks of the bytes that were sent; a store that says nothing is believed.

        A store that knows the checksum repeats it (documented by S3); some repeat it and do not look at the
        bytes. The ETag is the MD5 of what is stored, unless the store encrypts with a key of its own
        (documented by S3); it is compared unless the store is known to check.
        """
        if headers.get(put.checksum.header, put.checksum.value) != put.checksum.value:
            return False
        if self._is_checking:
            return True
        md5 = _MD5_ETAG.fullmatch(etag)
        is_encrypted = any(
            name.startswith("x-amz-server-side-encryption") and value != "AES256"
            for name, value in headers.items()
        )
        if not md5 or is_encrypted or not self._are_etags_md5:
            return True
        return hashlib.md5(put.body, usedforsecurity=False).hexdigest() == md5[1]

    def learn_whether_it_checks(self, key: str) -> bool:
        """Try a checksum of other bytes; whether the store took it, and so left an object under the key.

        A store that refuses it checks every PUT, which spares comparing MD5 (1.6 s of CPU for each GB).
        """
        if self._is_checking or self._bucket_address()[0].host.endswith(_KNOWN_TO_CHECK):
            self._is_checking = True
            return False
        digest = hashlib.sha256(_PROBE).digest()
        checksum = replace(Checksum.of_sha256(digest), value=_base64(bytes(len(digest))))
        try:
            self._send_once(Put("PutObject", key, _PROBE, checksum))
        except ClientError as error:
            self._is_checking = _status(error) == 400
            return False
        except OSError:  # nothing is learned; what it may have left is swept with the working files
            return False
        except OtherBytesStored:
            return True
        return True

    def stop_comparing_etags(self) -> None:
        """Note that this store's ETags are not MD5, although they look it."""
        log.info("The ETags of the object store are not the MD5 of what it stores.")
        self._are_etags_md5 = False

    def _bucket_address(self) -> tuple[Endpoint, str]:
        """Where the bucket is, and the path before a key, as botocore finds it from all its settings.

        A request is made and answered before it is sent (botocore's event ``before-send`` allows that).
        """
        if self._address is None:
            urls: list[str] = []

            def answer(request: AWSRequest, **_: object) -> AWSResponse:
                urls.append(str(request.url))
                body = HTTPResponse(BytesIO(), preload_content=False)
                return AWSResponse(urls[0], 200, cast("Any", {}), body)

            events: Any = self._client.meta.events
            with _one_asks:  # else another thread's question would be answered here
                events.register_first("before-send.s3.HeadBucket", answer)
                try:
                    self._client.head_bucket(Bucket=self._bucket)
                finally:
                    events.unregister("before-send.s3.HeadBucket", answer)
            parts = urlsplit(urls[0])
            host, scheme = parts.hostname or "", parts.scheme
            port = parts.port or (443 if scheme == "https" else 80)
            self._address = Endpoint(scheme, host, port), parts.path.rstrip("/") + "/"
        return self._address

    def _key_pair(self) -> KeyPair:
        # botocore has no public way from a client to its key pair, and Airflow's hook makes the client;
        # tests/storage/test_put_requests.py notices when this changes.
        credentials = cast("Any", self._client)._get_credentials()
        if credentials is None:
            raise NoCredentialsError
        frozen = credentials.get_frozen_credentials()
        return KeyPair(frozen.access_key, frozen.secret_key, frozen.token)


def _tls_of(client: S3Client) -> ssl.SSLContext:
    """The TLS settings with the authorities that the client was told to trust, if it was; the same holds."""
    verify = cast("Any", client)._endpoint.http_session._verify
    if not isinstance(verify, str) and verify is not False:
        return default_tls()
    context = new_tls()
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(verify)
    return context


def _refusal(operation: str, status: int, told: bytes) -> ClientError:
    found = _ERROR_CODE.search(told)
    return ClientError(
        {
            "Error": {"Code": found[1].decode() if found else str(status)},
            "ResponseMetadata": cast("Any", {"HTTPStatusCode": status}),
        },
        operation,
    )


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        status = _status(error)
        is_redirect = (
            300 <= status < 400 and code.isdecimal()
        )  # S3's own has a name: another region
        return is_redirect or status in {204, 408, 429, 500, 502, 503, 504} or code in PASSING_CODES
    return isinstance(error, OSError)


def _base64(digest: bytes) -> str:
    return b2a_base64(digest, newline=False).decode()
