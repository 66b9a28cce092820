"""Opens download URLs: only where the connection allows it, and never with a bearer token."""

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from types import TracebackType
from urllib.parse import quote

import tenacity
from pydantic import SecretStr

from include.domain.errors import ArchiveError, TransientError
from include.http.connection_pool import (
    Address,
    Answer,
    ConnectionPool,
    Endpoint,
    default_tls,
    system_addresses,
)
from include.webex.connection import CONNECTION_ID, DEFAULT_MEDIA_HOSTS
from include.webex.http_client import retry_after_seconds

DEFAULT_TIMEOUT_SECONDS = (10.0, 60.0)
_MAX_REFUSAL_BYTES = 4096
_MIN_BYTES_TO_GO_ON = (
    1 << 20
)  # less is sooner fetched anew, and a host that always breaks off is given up
_MAX_ATTEMPTS_TO_GO_ON = 4
# Everything that a signature may cover is sent as it came; what no URL may hold is encoded.
_SENT_AS_THEY_ARE = "%/?:@!$&'()*+,;=-._~[]"
# The whole authority, strictly: what a lenient parser takes for a part of the host (a backslash, a tab, a
# user) another one takes for the end of it, and the bytes would come from a host that nobody checked.
_URL_WITH_HOST = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?=[/?]|\Z)",
    re.ASCII | re.IGNORECASE,
)
# IPv4 in the last 32 bits: compatible addresses, and the two prefixes of NAT64 (RFC 6052, RFC 8215).
_CARRY_IPV4 = tuple(map(ipaddress.IPv6Network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/48")))
_ERROR_CODE = re.compile(rb"<Code>\s*([A-Za-z]{1,60})\s*</Code>")


class DownloadBroken(TransientError):
    """The media host failed, or the body is not as long as announced; another attempt may succeed.

    Attributes:
        retry_after_seconds: How long the host asks to be left alone; 0 where it does not say.
    """

    def __init__(self, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DownloadChanged(DownloadBroken):
    """The rest that the media host has now belongs to other bytes than the beginning that came."""


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


class Download:
    """One open download. Read it once; it is closed at the end of the ``with`` block.

    A connection that drops, or whose bytes stop coming, is replaced by one that goes on where it stopped, as
    long as the host still has the same content (its ETag) and a MiB came since the last time.

    Attributes:
        size_bytes: The announced length, or None where the server announces none.
        etag: What the server says to tell one content from another, or None where it says nothing.
    """

    def __init__(self, answer: Answer, go_on: "Callable[[Download, int], Answer]") -> None:
        self.size_bytes = answer.length
        self.etag = answer.headers.get("etag")
        self._answer = answer
        self._go_on = go_on
        self._received = 0
        self._received_before = 0

    def __enter__(self) -> "Download":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._answer.close()

    def readinto(self, view: memoryview, /) -> int:
        """Put the next bytes into the view; 0 at the end, which is where it was announced.

        Raises:
            DownloadBroken: The connection broke and cannot go on where it stopped.
            ArchiveError: As `MediaClient.open`, of the request that goes on.
        """
        while True:
            try:
                count = self._answer.readinto(view)
            except OSError as error:
                self._answer.close()
                if not self._may_go_on():
                    raise DownloadBroken(
                        f"The download broke off after {self._received} of {self.size_bytes or 'unknown'} bytes "
                        f"({type(error).__name__})."
                    ) from None
                self._received_before = self._received
                self._answer = self._go_on(self, self._received)
            else:
                self._received += count
                return count

    def _may_go_on(self) -> bool:
        return (
            self.size_bytes is not None
            and self.etag is not None
            and not self.etag.startswith("W/")
            and self._received - self._received_before >= _MIN_BYTES_TO_GO_ON
        )


class MediaClient:
    """Fetches download URLs from the hosts that the connection lists.

    https only, except to a host listed literally (no wildcard); the same holds for loopback and private
    addresses, also for those that a host's name turns out to have: it is resolved once, and the connection
    goes to an address that was looked at. Redirects are not followed. No credentials are sent: the URL is one
    (inferred: S3 refuses a second authentication, and the token would leak).

    Attributes:
        timeout_seconds: How long to wait for a connection, and for the next bytes of a body.
    """

    def __init__(
        self,
        media_hosts: tuple[str, ...],
        timeout_seconds: tuple[float, float] = DEFAULT_TIMEOUT_SECONDS,
        tls: Callable[[], ssl.SSLContext] = default_tls,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.timeout_seconds = timeout_seconds
        self._sleep = sleep
        self._media_hosts = media_hosts
        # A shard's URLs are of one host or two, and to judge one takes as long as to ask it.
        self._allowed_endpoint = lru_cache(maxsize=64)(self._endpoint)
        connect_seconds, read_seconds = timeout_seconds
        self._connections = ConnectionPool(
            self._checked_addresses,
            connect_seconds=connect_seconds,
            read_seconds=read_seconds,
            tls=tls,
        )

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def open(self, download_url: SecretStr) -> Download:
        """Start one download.

        Raises:
            DownloadExpired: 403.
            DownloadGone: 404.
            DownloadRefused: The host is not allowed, or another 4xx.
            DownloadBroken: A redirect, 429, 5xx or a broken connection.
        """
        answer = self._get(download_url, {})
        if answer.status == 200 and "content-encoding" not in answer.headers:
            return Download(answer, partial(self._go_on, download_url))
        raise _refused(answer)

    def _go_on(self, download_url: SecretStr, download: Download, start: int) -> Answer:
        """The rest of a download from `start` on; a host in trouble is asked a few times."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(DownloadBroken)
            & tenacity.retry_if_not_exception_type(DownloadChanged),
            stop=tenacity.stop_after_attempt(_MAX_ATTEMPTS_TO_GO_ON),
            wait=tenacity.wait_random_exponential(multiplier=1, max=30),
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(self._rest, download_url, download, start)

    def _rest(self, download_url: SecretStr, download: Download, start: int) -> Answer:
        """Ask for the rest once (inferred: S3 honours Range and If-Match)."""
        headers = {"Range": f"bytes={start}-", "If-Match": download.etag or ""}
        answer = self._get(download_url, headers)
        size = download.size_bytes or 0
        if (
            answer.status == 206
            and answer.headers.get("content-range") == f"bytes {start}-{size - 1}/{size}"
            and answer.headers.get("etag") == download.etag
        ):
            return answer
        if answer.status in {200, 206, 412}:
            answer.close()
            raise DownloadChanged("The media host has other bytes than a moment ago.")
        raise _refused(answer)

    def look(self, download_url: SecretStr) -> Look:
        """What the URL would give, at the cost of one byte (inferred: S3 allows no HEAD on it).

        Raises:
            ArchiveError: As `open`.
        """
        answer = self._get(download_url, {"Range": "bytes=0-0"})
        if answer.status not in {200, 206}:
            raise _refused(answer)
        total = answer.headers.get("content-length", "")
        if answer.status == 206:
            total = answer.headers.get("content-range", "").rpartition("/")[2]
            _beginning(answer)  # read to its end, the connection is used again
        answer.close()
        return Look(int(total) if total.isdecimal() else None, answer.headers.get("etag"))

    def _get(self, download_url: SecretStr, headers: dict[str, str]) -> Answer:
        url = download_url.get_secret_value()
        endpoint, target = self._allowed(url)
        try:
            return self._connections.request(
                endpoint,
                "GET",
                target,
                {"Accept": "*/*", "Accept-Encoding": "identity", **headers},
            )
        except ValueError:
            raise DownloadRefused("The download URL is not a plain https URL of a host.") from None
        except OSError as error:
            raise DownloadBroken(
                f"The media host cannot be reached ({type(error).__name__})."
            ) from None

    def _checked_addresses(self, host: str, port: int) -> list[Address]:
        """The addresses of a host, none of which is private unless the host is listed literally."""
        addresses = system_addresses(host, port)
        if not self._is_listed(host, port) and any(
            _is_private(str(address[0])) for _, address in addresses
        ):
            raise DownloadRefused(
                f"The download host {host} has a private address: such hosts must be listed by their full name in "
                f"the extra field media_hosts of the connection {CONNECTION_ID}."
            )
        return addresses

    def _is_listed(self, host: str, port: int | None) -> bool:
        """Whether the connection names the host itself, with the port or without."""
        names = {host, f"{host}:{port}"}
        return any(
            pattern in names and pattern not in DEFAULT_MEDIA_HOSTS for pattern in self._media_hosts
        )

    def _allowed(self, url: str) -> tuple[Endpoint, str]:
        """Where the URL leads, if the connection allows it, and what to ask for there."""
        match = _URL_WITH_HOST.match(url)
        if not match:
            raise DownloadRefused("The download URL is not a plain https URL of a host.")
        endpoint = self._allowed_endpoint(match["scheme"], match["host"], match["port"])
        target = url[match.end() :].partition("#")[0]
        target = target if target.startswith("/") else f"/{target}"
        return endpoint, quote(target, _SENT_AS_THEY_ARE, errors="surrogatepass")

    def _endpoint(self, scheme: str, host: str, port: str | None) -> Endpoint:
        """What the parts of a URL name, if the connection allows it."""
        scheme, host = scheme.lower(), host.strip("[]").lower().rstrip(".")
        names = (host, f"{host}:{port}")
        if not any(fnmatchcase(name, each) for each in self._media_hosts for name in names):
            raise DownloadRefused(
                f"The download host {host} is not allowed: if it is your region's media store, add it to the "
                f"extra field media_hosts of the connection {CONNECTION_ID}."
            )
        number = int(port) if port else (443 if scheme == "https" else 80)
        if number > 65535:
            raise DownloadRefused("The download URL is not a plain https URL of a host.")
        if not self._is_listed(host, number) and (scheme != "https" or _is_private(host)):
            raise DownloadRefused(
                f"The download URL of {host} is not https to a public host: such hosts must be listed by their "
                f"full name in the extra field media_hosts of the connection {CONNECTION_ID}."
            )
        return Endpoint(scheme, host, number)


def _beginning(answer: Answer) -> bytes:
    try:
        return answer.read(_MAX_REFUSAL_BYTES)
    except OSError:
        return b""


def _refused(answer: Answer) -> ArchiveError:
    with answer:
        return _refusal(answer.status, _beginning(answer), answer.headers.get("retry-after"))


def _is_private(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:  # 127.1, 2130706433, 0x7f.1: addresses to the system's resolver
            address = ipaddress.ip_address(socket.inet_aton(host))
        except (OSError, ValueError):
            return host == "localhost" or host.endswith(".localhost")
    meant = _carried(address) or address
    return not meant.is_global or meant.is_multicast or meant.is_reserved


def _carried(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | None:
    """The IPv4 address inside one of IPv6, where the network leads the one to the other."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if any(address in network for network in _CARRY_IPV4):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]


def _refusal(status: int, body: bytes, retry_after: str | None) -> ArchiveError:
    """What a media host's refusal means, from the status and S3's error code (inferred: S3 XML)."""
    found = _ERROR_CODE.search(body)
    code = found.group(1).decode() if found else ""
    told = f"{status} {code}".strip()
    if status == 403:
        return DownloadExpired(f"The media host answered {told}.")
    if status == 404:
        return DownloadGone(f"The media host answered {told}: purged before it could be copied.")
    # A redirect is never followed; it may be a sorry page's, and pass.
    if status in {200, 408, 425, 429} or 300 <= status < 400 or status >= 500:
        seconds = retry_after_seconds(retry_after) if retry_after else 0.0
        return DownloadBroken(f"The media host answered {told}.", seconds)
    return DownloadRefused(f"The media host answered {told}.")
