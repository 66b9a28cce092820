"""Downloads: from which hosts, without which header, and what each answer means."""

import socket
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from include.domain.errors import ArchiveError, TransientError
from include.sandbox.server import Sandbox
from include.webex.connection import DEFAULT_MEDIA_HOSTS
from include.webex.media import (
    DownloadBroken,
    DownloadChanged,
    DownloadExpired,
    DownloadGone,
    DownloadRefused,
    Look,
    MediaClient,
)
from tests.builders import NOW_MS, a_client_of
from tests.http.raw_server import Caller, a_raw_server, answer_of
from tests.sources import read_all
from tests.webex.web_server import a_server, reply, reply_raw

pytestmark = pytest.mark.enable_socket  # to the sandbox and to servers of the test

HOUR_MS = 3_600_000


def media_client(*hosts: str) -> MediaClient:
    return MediaClient(hosts or ("127.0.0.1",), timeout_seconds=(2.0, 0.3))


def fetch(url: str, *hosts: str) -> bytes:
    client = media_client(*hosts)
    try:
        with client.open(SecretStr(url)) as download:
            return read_all(download)
    finally:
        client.close()


@pytest.fixture
def recording(start_sandbox: Callable[..., Sandbox]) -> tuple[Sandbox, str, int]:
    """A sandbox, the URL of one of its recordings and its size."""
    sandbox = start_sandbox(tasks_per_hour=10, captured_share=1.0)
    (row, *_) = [
        row
        for row in sandbox.truth(NOW_MS - 6 * HOUR_MS, NOW_MS - 5 * HOUR_MS, with_sha256=False)
        if any(each["kind"] == "recording" for each in row["captures"])
    ]
    client = a_client_of(sandbox)
    query: dict[str, object] = {"orgId": client.connection.org_id, "taskIds": [row["task_id"]]}
    data: Any = client.post("/v1/captures/query", {"query": query})["data"]
    (size,) = [each["size_bytes"] for each in row["captures"] if each["kind"] == "recording"]
    client.close()
    return sandbox, data[0]["recording"][0]["attributes"]["filePath"], size


def test_a_whole_download_has_the_announced_size(recording: tuple[Sandbox, str, int]):
    _, url, size = recording
    client = media_client()

    with client.open(SecretStr(url)) as download:
        assert download.size_bytes == size
        assert len(read_all(download)) == size
    client.close()


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("expired_url", DownloadExpired), ("http_403", DownloadExpired), ("purged", DownloadGone),
        ("http_404", DownloadGone), ("http_500", DownloadBroken), ("http_503", DownloadBroken),
        ("throttle", DownloadBroken), ("redirect", DownloadBroken), ("http_401", DownloadRefused),
        ("reset_before_headers", DownloadBroken), ("reset_mid_body", DownloadBroken),
        ("short_body", DownloadBroken), ("stall", DownloadBroken),
        ("stall_before_headers", DownloadBroken),
    ],
)  # fmt: skip
def test_each_fault_has_its_meaning(
    recording: tuple[Sandbox, str, int], kind: str, error: type[ArchiveError]
):
    sandbox, url, _ = recording
    sandbox.set_faults([{"endpoint": "media", "kind": kind, "seconds": 1.0}])

    with pytest.raises(error) as raised:
        fetch(url)

    told = "".join(traceback.format_exception(raised.value))
    assert "X-Amz" not in told
    assert url.partition("?")[2] not in told


def test_a_stalled_download_is_cut(recording: tuple[Sandbox, str, int]):
    sandbox, url, _ = recording
    sandbox.set_faults([{"endpoint": "media", "kind": "stall", "seconds": 3.0}])
    start = time.monotonic()

    with pytest.raises(TransientError, match="broke off after"):
        fetch(url)

    assert time.monotonic() - start < 2


def test_the_error_tells_the_code_of_the_store_and_no_more(recording: tuple[Sandbox, str, int]):
    sandbox, url, _ = recording
    sandbox.set_faults([{"endpoint": "media", "kind": "purged"}])

    with pytest.raises(DownloadGone, match="404 NoSuchKey: purged") as raised:
        fetch(url)
    assert "specified key" not in str(raised.value)


@pytest.mark.parametrize("status", [206, 400, 405, 410, 416])
def test_other_answers_are_refusals(status: int):
    with (
        a_server(lambda handler: reply(handler, status, b"")) as url,
        pytest.raises(DownloadRefused, match=str(status)),
    ):
        fetch(url)


@pytest.mark.parametrize("status", [301, 307, 408, 425, 429, 500, 599])
def test_these_answers_may_pass(status: int):
    with (
        a_server(lambda handler: reply(handler, status, b"")) as url,
        pytest.raises(DownloadBroken, match=str(status)),
    ):
        fetch(url)


def test_a_redirect_is_not_followed():
    asked: list[str] = []

    def answer(handler: Any) -> None:
        asked.append(handler.path)
        reply(handler, 302, b"", Location="/elsewhere")

    with a_server(answer) as url, pytest.raises(DownloadBroken, match="302"):
        fetch(f"{url}/here?X-Amz-Signature=a")
    assert asked == ["/here?X-Amz-Signature=a"]


def test_no_credential_is_sent_beside_the_url(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    """S3 refuses a second authentication, and the token would leak."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    seen: list[dict[str, str]] = []

    def answer(handler: Any) -> None:
        seen.append({name.lower(): value for name, value in handler.headers.items()})
        reply(handler, 200, b"abc")

    with a_server(answer) as url:
        assert fetch(url) == b"abc"

    assert {"authorization", "cookie"} & seen[0].keys() == set()
    assert seen[0]["accept-encoding"] == "identity"


def test_a_body_without_an_announced_length_has_no_size():
    raw = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"
    with a_server(lambda handler: reply_raw(handler, raw)) as url:
        client = media_client()
        with client.open(SecretStr(url)) as download:
            assert download.size_bytes is None
            assert read_all(download) == b"abc"
        client.close()


@pytest.mark.parametrize("length", ["²", "abc", "-1", "3, 4"])
def test_an_odd_length_is_no_answer(length: str):
    raw = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: "
    raw += length.encode("latin-1") + b"\r\n\r\nabc"

    with (
        a_server(lambda handler: reply_raw(handler, raw)) as url,
        pytest.raises(DownloadBroken, match="BadAnswer"),
    ):
        fetch(url)


def test_a_compressed_body_is_not_taken_for_the_file():
    raw = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"
    with a_server(lambda handler: reply_raw(handler, raw)) as url, pytest.raises(DownloadBroken):
        fetch(url)


def test_a_refusal_whose_body_breaks_off_keeps_its_meaning():
    raw = b"HTTP/1.1 404 Not Found\r\nContent-Length: 300\r\n\r\n<Code>"
    with a_server(lambda handler: reply_raw(handler, raw)) as url, pytest.raises(DownloadGone):
        fetch(url)


def test_an_unreachable_host_is_broken_not_refused():
    with a_server(lambda handler: reply(handler, 200, b"")) as url:
        pass

    with pytest.raises(DownloadBroken, match="cannot be reached"):
        fetch(url)


def is_allowed(url: str, *hosts: str) -> bool:
    client = MediaClient(hosts or DEFAULT_MEDIA_HOSTS)
    try:
        client._allowed(url)
    except DownloadRefused:
        return False
    finally:
        client.close()
    return True


@pytest.mark.parametrize(
    "url",
    [
        "https://bucket.s3.amazonaws.com/k?s=1",
        "https://bucket.s3.eu-central-1.amazonaws.com/k",
        "https://bucket.s3-us-west-2.amazonaws.com/k",
        "https://s3.eu-central-1.amazonaws.com/bucket/k",
        "https://s3.amazonaws.com/bucket/k",
        "HTTPS://Bucket.S3.AmazonAWS.com/k",
        "https://bucket.s3.amazonaws.com./k",
        "https://bucket.s3.amazonaws.com:443/k",
        "https://bucket.s3.amazonaws.com",
        "https://bucket.s3.amazonaws.com?s=1",
    ],
)
def test_the_hosts_of_s3_are_allowed(url: str):
    assert is_allowed(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/k",
        "https://amazonaws.com/k",
        "https://s3.amazonaws.com.example.com/k",
        "https://example.com/.s3.amazonaws.com",
        "https://example.com#.s3.amazonaws.com/k",
        "https://example.com?.s3.amazonaws.com/k",
        "https://example.com\\.s3.amazonaws.com/k",
        "https://example.com\\@bucket.s3.amazonaws.com/k",
        "https://bucket.s3.amazonaws.com@example.com/k",
        "https://user:pw@bucket.s3.amazonaws.com/k",
        "https://example.com\t.s3.amazonaws.com/k",
        "https://example.com\n.s3.amazonaws.com/k",
        "https://example.com .s3.amazonaws.com/k",
        " https://bucket.s3.amazonaws.com/k",
        "https://bucket。s3.amazonaws.com/k",
        "https://bucket.s3.amazonaws.com:/k",
        "https://bucket.s3.amazonaws.com:443:443/k",
        "https://bucket.s3.amazonaws.com\n",
        "http://bucket.s3.amazonaws.com/k",
        "ftp://bucket.s3.amazonaws.com/k",
        "file:///etc/passwd",
        "//bucket.s3.amazonaws.com/k",
        "bucket.s3.amazonaws.com/k",
        "https://",
        "https:///k",
        "https://[::1/k",
        "",
        "https://127.0.0.1/k",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/k",
        "https://localhost/k",
    ],
    ids=repr,
)
def test_everything_else_is_refused(url: str):
    assert not is_allowed(url)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.8", "192.168.1.1", "169.254.169.254", "0.0.0.0", "127.1", "2130706433",
     "0x7f.1", "localhost", "media.localhost", "localhost.", "[::1]", "[::ffff:127.0.0.1]", "[fd00::1]"],
)  # fmt: skip
def test_a_wildcard_never_opens_a_private_address(host: str):
    assert not is_allowed(f"https://{host}/k", "*")
    assert not is_allowed(f"https://{host}:9000/k", "*:9000")


@pytest.mark.parametrize(
    ("url", "pattern"),
    [
        ("http://127.0.0.1/k", "127.0.0.1"),
        ("http://127.0.0.1:9000/k", "127.0.0.1"),
        ("http://127.0.0.1:9000/k", "127.0.0.1:9000"),
        ("http://[::1]:9000/k", "::1"),
        ("http://localhost:9000/k", "localhost"),
        ("http://media.example.com/k", "media.example.com"),
        ("https://media.example.com/k", "*.example.com"),
        ("https://8.8.8.8/k", "*"),
    ],
)
def test_a_host_listed_literally_may_be_private_and_plain(url: str, pattern: str):
    assert is_allowed(url, pattern)


@pytest.mark.parametrize(
    ("url", "pattern"),
    [
        ("http://127.0.0.1:9001/k", "127.0.0.1:9000"),
        ("http://127.0.0.1/k", "127.0.0.*"),
        ("http://media.example.com/k", "*.example.com"),
        ("ftp://media.example.com/k", "media.example.com"),
        ("https://media.example.com.evil/k", "media.example.com"),
    ],
)
def test_a_pattern_opens_no_more_than_it_says(url: str, pattern: str):
    assert not is_allowed(url, pattern)


def test_a_refused_host_is_never_contacted_and_named_with_the_setting():
    asked: list[str] = []
    with (
        a_server(lambda handler: asked.append(handler.path)) as url,
        pytest.raises(DownloadRefused, match="media_hosts") as raised,
    ):
        fetch(f"{url}/k?X-Amz-Signature=5ec7e7", "*.s3.amazonaws.com")

    assert asked == []
    assert "5ec7e7" not in str(raised.value)


# Looking without downloading


def look(url: str, *hosts: str) -> Look:
    client = media_client(*hosts)
    try:
        return client.look(SecretStr(url))
    finally:
        client.close()


def test_a_look_tells_length_and_etag_of_the_download(recording: tuple[Sandbox, str, int]):
    _, url, size = recording
    client = media_client()

    seen = client.look(SecretStr(url))

    with client.open(SecretStr(url)) as download:
        assert seen == Look(size, download.etag)
    assert seen.etag
    client.close()


def test_a_look_asks_for_one_byte_by_get():
    """A URL that is signed for GET is refused for HEAD."""
    seen: list[tuple[str, str | None]] = []

    def answer(handler: Any) -> None:
        seen.append((handler.command, handler.headers.get("Range")))
        reply(handler, 206, b"R", Content_Range="bytes 0-0/1234", ETag='"e"')

    with a_server(answer) as url:
        assert look(url) == Look(1234, '"e"')
    assert seen == [("GET", "bytes=0-0")]


def test_a_server_without_ranges_tells_the_length_of_the_whole():
    with a_server(lambda handler: reply(handler, 200, bytes(5000), ETag='"e"')) as url:
        assert look(url) == Look(5000, '"e"')


@pytest.mark.parametrize(
    ("status", "header"),
    [
        (206, b""),
        (206, b"Content-Range: bytes 0-0/*\r\n"),
        (206, b"Content-Range: nonsense\r\n"),
        (206, b"Content-Length: 1\r\n"),
        (200, b""),
    ],
    ids=["none", "unknown length", "nonsense", "of the part", "200 without a length"],
)
def test_what_the_server_does_not_tell_is_none(status: int, header: bytes):
    raw = b"HTTP/1.1 %d Some\r\nConnection: close\r\n%s\r\nR" % (status, header)

    with a_server(lambda handler: reply_raw(handler, raw)) as url:
        assert look(url) == Look(None, None)


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, DownloadExpired), (404, DownloadGone), (416, DownloadRefused), (302, DownloadBroken),
     (401, DownloadRefused), (429, DownloadBroken), (503, DownloadBroken)],
)  # fmt: skip
def test_a_refused_look_means_what_a_refused_download_means(status: int, error: type[ArchiveError]):
    with a_server(lambda handler: reply(handler, status, b"")) as url, pytest.raises(error):
        look(url)


def test_a_look_at_a_host_that_is_not_allowed_asks_nobody():
    with (
        a_server(lambda handler: reply(handler, 206, b"R")) as url,
        pytest.raises(DownloadRefused, match="media_hosts"),
    ):
        look(url, "*.s3.amazonaws.com")


def test_looks_and_downloads_share_a_connection():
    """A look at each capture of an hour must not cost a TLS handshake each."""
    connections: set[int] = set()

    def answer(handler: Any) -> None:
        handler.protocol_version = "HTTP/1.1"
        connections.add(handler.client_address[1])
        handler.close_connection = False
        if handler.headers.get("Range"):
            reply(handler, 206, b"R", Content_Range="bytes 0-0/3", ETag='"e"')
        else:
            reply(handler, 200, b"RIF", ETag='"e"')

    with a_server(answer) as url:
        client = media_client()
        for _ in range(3):
            assert client.look(SecretStr(url)) == Look(3, '"e"')
        with client.open(SecretStr(url)) as download:
            assert read_all(download) == b"RIF"
        client.look(SecretStr(url))
        client.close()

    assert len(connections) == 1


# A download that goes on where it broke off


CONTENT = bytes(range(256)) * (10 << 10)  # 2.5 MiB
MIB = 1 << 20
Serve = Callable[[int, dict[str, str]], bytes]


def rest_of(content: bytes, start: int, **headers: str) -> bytes:
    told = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}", "ETag": '"e"'}
    return answer_of(content[start:], "206 Partial Content", **(told | headers))


def broken_download(
    then: Serve, *, after: int = MIB + 1000, etag: str = 'ETag: "e"\r\n'
) -> tuple[bytes | ArchiveError, list[dict[str, str]], list[float]]:
    """What came of a download that breaks off after some bytes; the headers of each request, and the waits."""
    seen: list[dict[str, str]] = []
    waits: list[float] = []
    first = f"HTTP/1.1 200 OK\r\n{etag}Content-Length: {len(CONTENT)}\r\n\r\n".encode()

    def serve(caller: Caller) -> None:
        headers = caller.request()[1]
        seen.append(headers)
        caller.send(first + CONTENT[:after] if len(seen) == 1 else then(len(seen), headers))

    with a_raw_server(serve) as server:
        client = MediaClient(("127.0.0.1",), timeout_seconds=(2.0, 5.0), sleep=waits.append)
        try:
            with client.open(SecretStr(f"{server.url()}/k?X-Amz-Signature=5ec7e7")) as download:
                return read_all(download), seen, waits
        except ArchiveError as error:
            found = error
        finally:
            client.close()
    assert "5ec7e7" not in "".join(traceback.format_exception(found))
    return found, seen, waits


def start_of(headers: dict[str, str]) -> int:
    return int(headers["range"].removeprefix("bytes=").removesuffix("-"))


def test_a_download_that_breaks_off_goes_on_where_it_stopped():
    def then(number: int, headers: dict[str, str]) -> bytes:
        whole = rest_of(CONTENT, start_of(headers))
        return whole[: MIB + 2000] if number == 2 else whole

    found, seen, _ = broken_download(then)

    assert found == CONTENT
    assert "range" not in seen[0]
    starts = [start_of(headers) for headers in seen[1:]]
    assert len(starts) == 2
    assert MIB <= starts[0] <= MIB + 1000
    assert 2 * MIB <= starts[1] <= 2 * MIB + 3000
    assert [headers["if-match"] for headers in seen[1:]] == ['"e"', '"e"']
    assert not any("authorization" in headers for headers in seen)


@pytest.mark.parametrize(
    "then",
    [
        lambda number, headers: answer_of(CONTENT, ETag='"e"'),
        lambda number, headers: answer_of(b"", "412 Precondition Failed"),
        lambda number, headers: rest_of(CONTENT, start_of(headers), ETag='"other"'),
        lambda number, headers: rest_of(CONTENT, start_of(headers) + 1),
        lambda number, headers: rest_of(CONTENT, start_of(headers) - 1),
        lambda number, headers: rest_of(CONTENT + b"more", start_of(headers)),
        lambda number, headers: rest_of(CONTENT, start_of(headers), Content_Range="bytes 0-1/*"),
        lambda number, headers: answer_of(CONTENT[-1000:], "206 Partial Content", ETag='"e"'),
    ],
    ids=["200", "412", "other ETag", "later", "earlier", "longer", "odd range", "no range"],
)
def test_the_rest_of_another_content_is_never_taken(then: Serve):
    found, seen, _ = broken_download(then)

    assert isinstance(found, DownloadChanged)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("status", "error", "requests"),
    [("503 Slow", DownloadBroken, 5), ("403 Forbidden", DownloadExpired, 2),
     ("404 Not Found", DownloadGone, 2), ("302 Found", DownloadBroken, 5)],
)  # fmt: skip
def test_a_refusal_of_the_rest_has_its_own_meaning(
    status: str, error: type[ArchiveError], requests: int
):
    found, seen, waits = broken_download(lambda number, headers: answer_of(b"", status))

    assert type(found) is error
    assert len(seen) == requests
    assert len(waits) == requests - 2


def test_a_host_in_trouble_is_asked_for_the_rest_again():
    found, seen, waits = broken_download(
        lambda number, headers: (
            rest_of(CONTENT, start_of(headers)) if number == 4 else answer_of(b"", "503 Slow")
        )
    )

    assert found == CONTENT
    assert (len(seen), len(waits)) == (4, 2)


@pytest.mark.parametrize(
    ("after", "etag"),
    [(MIB - 1000, 'ETag: "e"\r\n'), (MIB + 1000, ""), (MIB + 1000, 'ETag: W/"e"\r\n')],
    ids=["less than a MiB", "no ETag", "weak ETag"],
)
def test_what_cannot_go_on_safely_is_fetched_anew_by_the_caller(after: int, etag: str):
    found, seen, _ = broken_download(
        lambda number, headers: answer_of(CONTENT), after=after, etag=etag
    )

    assert isinstance(found, DownloadBroken)
    assert not isinstance(found, DownloadChanged)
    assert len(seen) == 1


def test_a_host_that_always_breaks_off_is_given_up():
    found, seen, _ = broken_download(
        lambda number, headers: rest_of(CONTENT, start_of(headers))[:MIB // 2]
    )  # fmt: skip

    assert isinstance(found, DownloadBroken)
    assert len(seen) == 2


# Hosts whose name has a private address


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Lets every name have these addresses, one answer after the other; the names that were asked for."""

    def become(*answers: list[str]) -> list[str]:
        asked: list[str] = []
        left = list(answers)

        def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[Any]:
            asked.append(host)
            addresses = left.pop(0) if len(left) > 1 else left[0]
            return [
                (
                    socket.AF_INET6 if ":" in address else socket.AF_INET,
                    socket.SOCK_STREAM, 6, "", (address, port, 0, 0) if ":" in address else (address, port),
                )
                for address in addresses
            ]  # fmt: skip

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    return become


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["169.254.169.254"], ["::1"], ["10.1.2.3"], ["192.168.0.1"], ["0.0.0.0"],
     ["::ffff:127.0.0.1"], ["fe80::1%lo"], ["fd00:ec2::254"], ["100.64.0.1"],
     ["8.8.8.8", "127.0.0.1"], ["2001:4860:4860::8888", "10.0.0.1"]],
    ids=repr,
)  # fmt: skip
def test_a_name_with_a_private_address_is_refused(
    resolver: Callable[..., list[str]], addresses: list[str]
):
    resolver(addresses)

    with a_raw_server(lambda caller: caller.send(answer_of(b"secret"))) as server:
        for hosts in (DEFAULT_MEDIA_HOSTS, ("*",), ("*.amazonaws.com",)):
            with pytest.raises(DownloadRefused, match=r"private address.*media_hosts"):
                fetch(f"https://bucket.s3.amazonaws.com:{server.port}/k", *hosts)

    assert server.connections == 0


def test_a_name_that_is_listed_literally_may_have_a_private_address(
    resolver: Callable[..., list[str]],
):
    resolver(["127.0.0.1"])

    with a_raw_server(lambda caller: caller.send(answer_of(b"body"))) as server:
        assert fetch(f"http://media.example.com:{server.port}/k", "media.example.com") == b"body"
        assert fetch(server.url("media.example.com"), f"media.example.com:{server.port}") == b"body"


def test_the_connection_goes_to_the_address_that_was_looked_at(
    resolver: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
):
    """A name that has a public address first and a private one afterwards (DNS rebinding)."""
    asked = resolver(["203.0.114.7"], ["127.0.0.1"])
    reached: list[Any] = []

    class Socket(socket.socket):
        def connect(self, address: Any, /) -> None:
            reached.append(address)
            raise ConnectionRefusedError

    monkeypatch.setattr(socket, "socket", Socket)

    with pytest.raises(DownloadBroken):
        fetch("https://bucket.s3.amazonaws.com/k", *DEFAULT_MEDIA_HOSTS)

    assert asked == ["bucket.s3.amazonaws.com"]
    assert reached == [("203.0.114.7", 443)]


@pytest.mark.parametrize(
    "url",
    ["http://s3.amazonaws.com/b/k", "http://bucket.s3.amazonaws.com/k", "http://s3.amazonaws.com:443/b/k"],
)  # fmt: skip
@pytest.mark.parametrize("more", [(), ("s3.amazonaws.com",)], ids=["default", "and one of them"])
def test_the_default_hosts_are_never_asked_in_plain(url: str, more: tuple[str, ...]):
    assert not is_allowed(url, *DEFAULT_MEDIA_HOSTS, *more)


@pytest.mark.parametrize("port", ["65536", "99999"])
def test_no_port_is_beyond_the_last(port: str):
    assert not is_allowed(f"https://bucket.s3.amazonaws.com:{port}/k")


def test_port_0_reaches_nobody():
    with pytest.raises((DownloadBroken, DownloadRefused)):
        fetch("http://127.0.0.1:0/k", "127.0.0.1")


def test_a_fragment_is_not_sent():
    seen: list[str] = []

    def serve(caller: Caller) -> None:
        seen.append(caller.request()[0])
        caller.send(answer_of(b"body"))

    with a_raw_server(serve) as server:
        fetch(f"{server.url()}/k?a=%2F+ b#frag?meant")

    assert seen == ["GET /k?a=%2F+%20b HTTP/1.1"]
