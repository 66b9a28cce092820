"""Opens download URLs: only where the connection allows it, and never with a bearer token."""

import ipaddress
import re
import socket
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import TracebackType

import requests
from pydantic import SecretStr
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from include.domain.errors import ArchiveError, TransientError
from include.webex.connection import CONNECTION_ID
from include.webex.http_client import retry_after_seconds

DEFAULT_TIMEOUT_SECONDS = (10.0, 60.0)
_CHUNK_BYTES = 1 << 18
_MAX_REFUSAL_BYTES = 4096
# The whole authority, strictly: what a lenient parser takes for a part of the host (a backslash, a tab, a
# user) another one takes for the end of it, and the bytes would come from a host that nobody checked.
_URL_WITH_HOST = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?=[/?]|\Z)",
    re.ASCII | re.IGNORECASE,
)
_ERROR_CODE = re.compile(rb"<Code>\s*([A-Za-z]{1,60})\s*</Code>")


class DownloadBroken(TransientError):
    """The media host failed, or the body is not as long as announced; another attempt may succeed.

    Attributes:
        retry_after_seconds: How long the host asks to be left alone; 0 where it does not say.
    """

    def __init__(self, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DownloadExpired(ArchiveError):
    """403: the URL is past its life or its signature is not accepted; ask for a fresh one."""


class DownloadGone(ArchiveError):
    """404: the object was purged before it could be copied."""


class DownloadRefused(ArchiveError):
    """The URL may not be fetched or the store refuses it; asking again does not help."""


@dataclass(frozen=True)
class Look:
    """The length and the ETag of what a URL gives; None for what the server does not say."""

    size_bytes: int | None
    etag: str | None


@dataclass
class Download:
    """One open download. Iterate over it once; it is closed at the end of the ``with`` block.

    Attributes:
        size_bytes: The announced length, or None where the server announces none.
        etag: What the server says to tell one content from another, or None where it says nothing.
    """

    size_bytes: int | None
    etag: str | None
    _response: requests.Response

    def __enter__(self) -> "Download":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._response.close()

    def __iter__(self) -> Iterator[bytes]:
        """The bytes as they arrive.

        Raises:
            DownloadBroken: The connection broke, or the body is not as long as announced.
        """
        received = 0
        try:
            while chunk := self._response.raw.read(_CHUNK_BYTES, decode_content=False):
                received += len(chunk)
                yield chunk
        except (requests.RequestException, HTTPError, OSError, zlib.error) as error:
            raise DownloadBroken(
                f"The download broke off after {received} bytes ({type(error).__name__})."
            ) from None
        if self.size_bytes is not None and received != self.size_bytes:
            raise DownloadBroken(f"The download ended after {received} of {self.size_bytes} bytes.")


class MediaClient:
    """Fetches download URLs from the hosts that the connection lists.

    https only, except to a host listed literally (no wildcard); the same holds for loopback and private
    addresses. Redirects are not followed. No credentials are sent: the URL is one (inferred: S3 refuses a
    second authentication, and the token would leak).

    Attributes:
        timeout_seconds: How long to wait for a connection, and for the next bytes of a body.
    """

    def __init__(
        self,
        media_hosts: tuple[str, ...],
        connections: int,
        timeout_seconds: tuple[float, float] = DEFAULT_TIMEOUT_SECONDS,
    ) -> None:
        self.timeout_seconds = timeout_seconds
        self._media_hosts = media_hosts
        self._session = requests.Session()
        self._session.trust_env = False  # a ~/.netrc would add an Authorization header of its own
        adapter = HTTPAdapter(pool_connections=8, pool_maxsize=connections)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def open(self, download_url: SecretStr) -> Download:
        """Start one download.

        Raises:
            DownloadExpired: 403.
            DownloadGone: 404.
            DownloadRefused: The host is not allowed, a redirect, or another 4xx.
            DownloadBroken: 429, 5xx or a broken connection.
        """
        response = self._get(download_url, {})
        if response.status_code == 200 and "Content-Encoding" not in response.headers:
            length = response.headers.get("Content-Length", "")
            size_bytes = int(length) if length.isdecimal() else None
            return Download(size_bytes, response.headers.get("ETag"), response)
        raise _refused(response)

    def look(self, download_url: SecretStr) -> "Look":
        """What the URL would give, at the cost of one byte (inferred: S3 allows no HEAD on it).

        Raises:
            ArchiveError: As `open`.
        """
        response = self._get(download_url, {"Range": "bytes=0-0"})
        if response.status_code not in {200, 206}:
            raise _refused(response)
        total = response.headers.get("Content-Length", "")
        if response.status_code == 206:
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            _beginning(response)  # read to its end, the connection is used again
        response.close()
        return Look(int(total) if total.isdecimal() else None, response.headers.get("ETag"))

    def _get(self, download_url: SecretStr, headers: dict[str, str]) -> requests.Response:
        url = download_url.get_secret_value()
        self._check_host(url)
        try:
            return self._session.get(
                url,
                headers={"Accept": "*/*", "Accept-Encoding": "identity", **headers},
                timeout=self.timeout_seconds,
                allow_redirects=False,
                stream=True,
            )
        except (requests.RequestException, OSError, ValueError) as error:
            raise DownloadBroken(
                f"The media host cannot be reached ({type(error).__name__})."
            ) from None

    def _check_host(self, url: str) -> None:
        match = _URL_WITH_HOST.match(url)
        if not match:
            raise DownloadRefused("The download URL is not a plain https URL of a host.")
        scheme, port = match["scheme"].lower(), match["port"]
        host = match["host"].strip("[]").lower().rstrip(".")
        names = (host, f"{host}:{port}")
        patterns = [p for p in self._media_hosts if any(fnmatchcase(name, p) for name in names)]
        literal = any(pattern.rpartition(":")[0] == host or pattern == host for pattern in patterns)
        if not patterns:
            raise DownloadRefused(
                f"The download host {host} is not allowed: if it is your region's media store, add it to the "
                f"extra field media_hosts of the connection {CONNECTION_ID}."
            )
        if not literal and (scheme != "https" or _is_private(host)):
            raise DownloadRefused(
                f"The download URL of {host} is not https to a public host: such hosts must be listed by their "
                f"full name in the extra field media_hosts of the connection {CONNECTION_ID}."
            )


def _beginning(response: requests.Response) -> bytes:
    try:
        return response.raw.read(_MAX_REFUSAL_BYTES, decode_content=True)
    except (HTTPError, OSError):
        return b""


def _refused(response: requests.Response) -> ArchiveError:
    with response:
        retry_after = response.headers.get("Retry-After")
        return _refusal(response.status_code, _beginning(response), retry_after)


def _is_private(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:  # 127.1, 2130706433, 0x7f.1: addresses to the system's resolver
            address = ipaddress.ip_address(socket.inet_aton(host))
        except (OSError, ValueError):
            return host == "localhost" or host.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None)
    return not (mapped or address).is_global


def _refusal(status: int, body: bytes, retry_after: str | None) -> ArchiveError:
    """What a media host's refusal means, from the status and S3's error code (inferred: S3 XML)."""
    found = _ERROR_CODE.search(body)
    code = found.group(1).decode() if found else ""
    told = f"{status} {code}".strip()
    if status == 403:
        return DownloadExpired(f"The media host answered {told}.")
    if status == 404:
        return DownloadGone(f"The media host answered {told}: purged before it could be copied.")
    if status in {408, 425, 429} or status >= 500 or status == 200:
        seconds = retry_after_seconds(retry_after) if retry_after else 0.0
        return DownloadBroken(f"The media host answered {told}.", seconds)
    return DownloadRefused(f"The media host answered {told}.")
