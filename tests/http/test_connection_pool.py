"""Requests over kept connections: whatever a server does, the body is whole or there is an error in time."""

import gc
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from include.http.connection_pool import (
    Address,
    BadAnswer,
    ConnectionPool,
    ConnectTimeout,
    Endpoint,
)
from tests.http.certificates import an_authority, trusting
from tests.http.raw_server import Caller, RawServer, a_raw_server, answer_of
from tests.sources import read_all

pytestmark = pytest.mark.enable_socket  # to servers of the test

LARGE = bytes(4 << 20)  # more than the system takes from a sender whose receiver reads nothing


@contextmanager
def a_pool(read_seconds: float = 2.0) -> Iterator[ConnectionPool]:
    pool = ConnectionPool(connect_seconds=2.0, read_seconds=read_seconds)
    try:
        yield pool
    finally:
        pool.close()


def at(server: RawServer, host: str = "127.0.0.1", scheme: str = "http") -> Endpoint:
    return Endpoint(scheme, host, server.port)


def ask(pool: ConnectionPool, endpoint: Endpoint, body: bytes = b"", target: str = "/k") -> bytes:
    """The body of the answer; PUT when there is one to send."""
    with pool.request(endpoint, "PUT" if body else "GET", target, {}, body) as answer:
        return read_all(answer)


def answers(*, raw: bytes) -> Callable[[Caller], None]:
    """Every request by these bytes, on as many connections as come."""

    def serve(caller: Caller) -> None:
        while caller.request()[0]:
            caller.send(raw)

    return serve


def answers_once(*, raw: bytes) -> Callable[[Caller], None]:
    """The first request of each connection by these bytes, then the end."""

    def serve(caller: Caller) -> None:
        caller.request()
        caller.send(raw)

    return serve


# Connections that are kept


def test_a_connection_is_used_again_when_its_answer_was_read():
    with a_raw_server(answers(raw=answer_of(b"body"))) as server, a_pool() as pool:
        assert [ask(pool, at(server)) for _ in range(3)] == [b"body"] * 3
        assert ask(pool, at(server), b"sent") == b"body"

    assert server.connections == 1


def test_a_connection_whose_body_was_not_read_is_not_used_again():
    with a_raw_server(answers(raw=answer_of(b"body"))) as server, a_pool() as pool:
        pool.request(at(server), "GET", "/", {}).close()

        assert ask(pool, at(server)) == b"body"

    assert server.connections == 2


def test_closing_an_answer_twice_does_not_give_its_connection_to_two():
    with a_raw_server(answers(raw=answer_of(b""))) as server, a_pool() as pool:
        answer = pool.request(at(server), "GET", "/", {})
        answer.close()
        answer.close()
        first, second = (pool.request(at(server), "GET", "/", {}) for _ in range(2))
        first.close()
        second.close()

    assert server.connections == 2


@pytest.mark.parametrize("body", [b"", b"small", LARGE], ids=["GET", "PUT", "large PUT"])
@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
def test_a_kept_connection_that_ends_with_the_request_is_replaced(body: bytes, is_reset: bool):
    def serve(caller: Caller) -> None:
        if caller.number > 0:
            answers(raw=answer_of(b"ok"))(caller)
            return
        caller.request()
        caller.send(answer_of(b"ok"))
        caller.head()
        if is_reset:
            caller.reset()

    with a_raw_server(serve) as server, a_pool() as pool:
        ask(pool, at(server))
        assert ask(pool, at(server), body) == b"ok"
        assert ask(pool, at(server), body) == b"ok"

    assert server.connections == 2


def test_a_connection_is_replaced_once_only():
    def serve(caller: Caller) -> None:
        caller.request()
        if caller.number == 0:
            caller.send(answer_of(b"ok"))
            caller.head()

    with a_raw_server(serve) as server, a_pool() as pool:
        ask(pool, at(server))
        with pytest.raises(BadAnswer, match="before an answer"):
            ask(pool, at(server))

    assert server.connections == 2


def test_nothing_is_sent_again_where_requests_are_counted():
    sent: list[str] = []

    def serve(caller: Caller) -> None:
        sent.append(caller.request()[0])
        caller.send(answer_of(b"ok"))
        sent.append(caller.head()[0])

    with a_raw_server(serve) as server:
        pool = ConnectionPool(is_resending=False)
        ask(pool, at(server))
        with pytest.raises(BadAnswer, match="before an answer"):
            ask(pool, at(server))
        pool.close()

    assert len(sent) == 2


def test_a_request_that_got_a_part_of_an_answer_is_not_sent_again():
    def serve(caller: Caller) -> None:
        caller.request()
        caller.send(answer_of(b"ok"))
        caller.request()
        caller.send(b"HTTP/1.1 20")

    with a_raw_server(serve) as server, a_pool() as pool:
        ask(pool, at(server))
        with pytest.raises(BadAnswer):
            ask(pool, at(server))

    assert server.connections == 1


def test_a_request_without_an_answer_in_time_is_not_sent_again():
    def serve(caller: Caller) -> None:
        caller.request()
        caller.send(answer_of(b"ok"))
        caller.request()
        caller.wait_for_end()

    with a_raw_server(serve) as server, a_pool(read_seconds=0.5) as pool:
        ask(pool, at(server))
        with pytest.raises(TimeoutError):
            ask(pool, at(server))

    assert server.connections == 1


@pytest.mark.parametrize(
    "raw",
    [answer_of(b"ok") + answer_of(b"evil"), answer_of(b"") + b"x", answer_of(LARGE) + b"HTTP/1.1"],
    ids=["another answer", "garbage", "after a large body"],
)
@pytest.mark.parametrize("is_secured", [False, True], ids=["http", "https"])
def test_bytes_that_nobody_asked_for_are_no_answer(raw: bytes, is_secured: bool, tmp_path: Path):
    """They may still be in TLS's own buffer, where the system does not see them."""
    authority, settings = an_authority(tmp_path, "127.0.0.1")

    def serve(caller: Caller) -> None:
        caller.request()
        caller.send(raw if caller.number == 0 else answer_of(b"good"))
        caller.wait_for_end()

    with a_raw_server(serve, tls=settings if is_secured else None) as server:
        pool = ConnectionPool(read_seconds=2.0, tls=lambda: trusting(authority))
        there = at(server, scheme="https" if is_secured else "http")
        first = ask(pool, there)
        time.sleep(0.05)

        assert first == raw[raw.index(b"\r\n\r\n") + 4 :][: len(first)]
        assert ask(pool, there) == b"good"
        pool.close()

    assert server.connections == 2


@pytest.mark.parametrize("is_last_reference", [False, True])
def test_no_socket_outlives_its_pool(is_last_reference: bool):
    has_ended = threading.Event()

    def serve(caller: Caller) -> None:
        caller.request()
        caller.send(answer_of(b"ok"))
        if caller.head() == ("", {}):
            has_ended.set()

    with a_raw_server(serve) as server:
        pool = ConnectionPool()
        ask(pool, at(server))
        assert not has_ended.wait(0.05)

        if not is_last_reference:
            pool.close()
        gc.disable()  # no cycle may hold it
        try:
            del pool
            assert has_ended.wait(2.0)
        finally:
            gc.enable()


def test_many_threads_get_each_their_own_answer():
    wrong: list[bytes] = []

    def serve(caller: Caller) -> None:
        while line := caller.request()[0]:
            caller.send(answer_of(line.encode() * 100))

    with a_raw_server(serve) as server, a_pool() as pool:

        def work(name: int) -> None:
            for number in range(20):
                target = f"/{name}/{number}"
                found = ask(pool, at(server), target=target)
                if found != f"GET {target} HTTP/1.1".encode() * 100:
                    wrong.append(found)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert wrong == []
    assert server.connections <= 12


# Refusals before the body was read


@pytest.mark.parametrize("status", ["503 Slow Down", "403 Forbidden"])
@pytest.mark.parametrize("is_kept", [False, True], ids=["new", "kept"])
def test_an_early_refusal_is_seen(status: str, is_kept: bool):
    """A store that is overloaded refuses before it reads, and ends the connection: no network error."""

    def serve(caller: Caller) -> None:
        if is_kept:
            caller.request()
            caller.send(answer_of(b"ok"))
        caller.head()
        caller.send(answer_of(b"<Code>SlowDown</Code>", status))

    with a_raw_server(serve) as server, a_pool() as pool:
        if is_kept:
            ask(pool, at(server))
        with pool.request(at(server), "PUT", "/", {}, LARGE) as answer:
            assert f"{answer.status}" == status[:3]
            assert answer.read(1000) == b"<Code>SlowDown</Code>"

    assert server.connections == 1


# Bodies


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 300_000, 4 << 20])
def test_a_body_of_an_announced_length_is_whole(size: int):
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)

    with a_raw_server(answers(raw=answer_of(body))) as server, a_pool() as pool:
        with pool.request(at(server), "GET", "/", {}) as answer:
            assert answer.length == size
            assert read_all(answer) == body
        with pool.request(at(server), "GET", "/", {}) as answer:
            assert answer.read(1000) == body[:1000]


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_body_that_ends_early_is_an_error(is_reset: bool):
    def serve(caller: Caller) -> None:
        caller.request()
        caller.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")
        if is_reset:
            time.sleep(0.05)
            caller.reset()

    with a_raw_server(serve) as server, a_pool() as pool, pytest.raises(ConnectionError) as raised:
        ask(pool, at(server))
    assert is_reset or "after 5 of 10 bytes" in str(raised.value)


@pytest.mark.parametrize("announced", ["Content-Length: 10", "Transfer-Encoding: chunked"])
def test_what_came_before_a_failure_is_given_first(announced: str):
    """A download goes on after the last byte that it was given."""
    raw = f"HTTP/1.1 200 OK\r\n{announced}\r\n\r\n5\r\nfive ".encode()
    view = memoryview(bytearray(100))

    with (
        a_raw_server(answers_once(raw=raw)) as server,
        a_pool() as pool,
        pool.request(at(server), "GET", "/", {}) as answer,
    ):
        assert answer.readinto(view) == (8 if answer.length else 5)
        for _ in range(2):
            with pytest.raises(BadAnswer, match="the body ended"):
                answer.readinto(view)


def test_many_bodies_over_tls_are_each_whole(tmp_path: Path):
    authority, settings = an_authority(tmp_path, "127.0.0.1")
    bodies = {f"/{number}": bytes([number]) * (3 << 20) for number in range(6)}
    found: dict[str, bytes] = {}

    def serve(caller: Caller) -> None:
        while line := caller.request()[0]:
            caller.send(answer_of(bodies[line.split()[1]]))

    with a_raw_server(serve, tls=settings) as server:
        pool = ConnectionPool(read_seconds=5.0, tls=lambda: trusting(authority))

        def work(target: str) -> None:
            found[target] = ask(pool, at(server, scheme="https"), target=target)

        threads = [threading.Thread(target=work, args=(target,)) for target in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pool.close()

    assert found == bodies


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_body_that_ends_early_over_tls_is_an_error(is_reset: bool, tmp_path: Path):
    authority, settings = an_authority(tmp_path, "127.0.0.1")

    def serve(caller: Caller) -> None:
        caller.request()
        caller.send(answer_of(LARGE)[: 3 << 14])
        time.sleep(0.05)
        if is_reset:
            caller.reset()

    with a_raw_server(serve, tls=settings) as server:
        pool = ConnectionPool(read_seconds=2.0, tls=lambda: trusting(authority))
        with pytest.raises(ConnectionError):
            ask(pool, at(server, scheme="https"))
        pool.close()


def test_a_body_that_stops_over_tls_is_cut_off_in_time(tmp_path: Path):
    authority, settings = an_authority(tmp_path, "127.0.0.1")

    def serve(caller: Caller) -> None:
        caller.request()
        caller.send(answer_of(LARGE)[: 3 << 14])
        caller.wait_for_end()

    with a_raw_server(serve, tls=settings) as server:
        pool = ConnectionPool(read_seconds=0.5, tls=lambda: trusting(authority))
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            ask(pool, at(server, scheme="https"))
        assert 0.4 < time.monotonic() - begun < 3
        pool.close()


@pytest.mark.parametrize("head", ["HTTP/1.1 200 OK", "HTTP/1.0 200 OK\r\nConnection: keep-alive"])
def test_a_body_without_length_ends_with_its_connection(head: str):
    body = bytes(100_000)
    raw = f"{head}\r\n\r\n".encode() + body

    with a_raw_server(answers_once(raw=raw)) as server, a_pool() as pool:
        with pool.request(at(server), "GET", "/", {}) as answer:
            assert answer.length is None
            assert read_all(answer) == body
        assert ask(pool, at(server)) == body

    assert server.connections == 2


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'5;name="a value"\r\nfirst\r\n0006\r\nsecond\r\nA\r\n0123\r\n\r\n01\r\n0\r\nTrailer: of it\r\n\r\n'
)
OF_CHUNKS = b"firstsecond0123\r\n\r\n01"


@pytest.mark.parametrize("piece", [1, 2, 7, len(CHUNKED)])
def test_a_body_in_chunks_is_whole_however_it_is_cut(piece: int):
    def serve(caller: Caller) -> None:
        while caller.request()[0]:
            for start in range(0, len(CHUNKED), piece):
                caller.send(CHUNKED[start : start + piece])
                time.sleep(0.0005)

    with a_raw_server(serve) as server, a_pool() as pool:
        with pool.request(at(server), "GET", "/", {}) as answer:
            assert answer.length is None
            assert answer.read(7) == OF_CHUNKS[:7]
            assert read_all(answer) == OF_CHUNKS[7:]
        assert ask(pool, at(server)) == OF_CHUNKS

    assert server.connections == 1


@pytest.mark.parametrize(
    "after",
    [b"5\r\nfir", b"5\r\nfirst\r\n", b"5\r\nfirst\r\n0\r\n", b"zz\r\nfirst\r\n0\r\n\r\n",
     b"5\r\nfirstX\r\n0\r\n\r\n", b"-5\r\nfirst\r\n0\r\n\r\n", b"fffffffffffffffff\r\nfirst",
     b"5\r\nfirst\r\n0\r\n\r\nxx", b"5\r\nfirst\r\n0\r\n\r\n" + answer_of(b"evil"),
     b"5\r\nfirst\r\n0\r\n\r\nHTTP/1.1 2"],
    ids=repr,
)  # fmt: skip
def test_chunks_that_are_odd_are_an_error_or_the_body(after: bytes):
    """Never other bytes than those of the chunks, and never a connection that is used again."""
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + after

    def serve(caller: Caller) -> None:
        answers_once(raw=raw if caller.number == 0 else answer_of(b"good"))(caller)

    with a_raw_server(serve) as server, a_pool() as pool:
        with pytest.raises(BadAnswer):
            ask(pool, at(server))
        assert ask(pool, at(server)) == b"good"


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")]
)  # fmt: skip
def test_what_has_no_body_is_not_waited_for(method: str, status: str):
    raw = f"HTTP/1.1 {status}\r\nContent-Length: 100\r\nETag: e\r\n\r\n".encode()

    with a_raw_server(answers(raw=raw)) as server, a_pool() as pool:
        for _ in range(2):
            with pool.request(at(server), method, "/", {}) as answer:
                assert answer.headers["etag"] == "e"
                assert read_all(answer) == b""

    assert server.connections == 1


# Heads of answers


def test_answers_before_the_answer_are_passed_over():
    raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

    with a_raw_server(answers(raw=raw + answer_of(b"body"))) as server, a_pool() as pool:
        assert ask(pool, at(server), b"sent") == b"body"
        assert ask(pool, at(server), b"sent") == b"body"

    assert server.connections == 1


def test_headers_are_read_in_any_case_and_the_last_one_holds():
    raw = b"HTTP/1.1 200 OK\r\nETAG:  a b \r\nEmpty:\r\nTwice: 1\r\ntwice: 2\r\nName: \xe9\r\n"
    raw += b"Upgrade: h2\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n"

    with a_raw_server(answers(raw=raw)) as server, a_pool() as pool:
        answer = pool.request(at(server), "GET", "/", {})
        answer.close()

    found = answer.headers
    assert (found["etag"], found["empty"], found["twice"], found["name"]) == ("a b", "", "2", "é")


@pytest.mark.parametrize(
    "raw",
    [b"", b"garbage\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b"\x15\x03\x01\x00\x02\x02F",
     b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 xx OK\r\n\r\n",
     b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
     b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000 + b"\r\n\r\n"],
    ids=lambda raw: repr(raw[:50]),
)  # fmt: skip
def test_what_is_no_answer_is_an_error(raw: bytes):
    with a_raw_server(answers_once(raw=raw)) as server, a_pool() as pool, pytest.raises(BadAnswer):
        ask(pool, at(server))


# Time


def slowly(beginning: bytes, *, then: bytes = b"") -> Callable[[Caller], None]:
    """The beginning of an answer, and then nothing, or the same bytes again and again."""

    def serve(caller: Caller) -> None:
        caller.request()
        caller.send(beginning)
        if not then:
            caller.wait_for_end()
            return
        for _ in range(100):
            caller.send(then)
            time.sleep(0.05)

    return serve


CHUNKS_FOLLOW = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "serve",
    [slowly(b""), slowly(b"HTTP/1.1 200"), slowly(answer_of(LARGE)[:1000]),
     slowly(CHUNKS_FOLLOW + b"5\r\nfi"), slowly(b"HTTP/1.1 200 OK\r\n\r\n", then=b"a"),
     slowly(answer_of(LARGE)[:100], then=b"a"), slowly(CHUNKS_FOLLOW, then=b"1\r\na\r\n"),
     slowly(CHUNKS_FOLLOW + b"1;", then=b"a"), slowly(b"HTTP/1.1 200 OK\r\nA: ", then=b"a"),
     slowly(b"", then=b"HTTP/1.1 100 Continue\r\n\r\n")],
    ids=["no answer", "half a head", "half a body", "half a chunk", "a body that trickles",
         "a body with a length that trickles", "chunks that trickle", "an extension that trickles",
         "a head that trickles", "no end of promises"],
)  # fmt: skip
def test_what_does_not_come_in_time_is_an_error(serve: Callable[[Caller], None]):
    with a_raw_server(serve) as server, a_pool(read_seconds=0.3) as pool:
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            ask(pool, at(server))
        assert time.monotonic() - start < 3


def test_a_body_may_be_given_less_time():
    with (
        a_raw_server(slowly(answer_of(LARGE)[:100], then=b"a")) as server,
        a_pool() as pool,
        pool.request(at(server), "GET", "/", {}) as answer,
    ):
        answer.body_seconds = 0.1
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            read_all(answer)
        assert time.monotonic() - start < 1


def test_a_host_that_takes_no_connection_is_told_from_one_that_does_not_answer():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        pool = ConnectionPool(connect_seconds=0.1)
        with pytest.raises(ConnectTimeout):
            ask(pool, Endpoint("http", *full.getsockname()))
        for each in waiting:
            each.close()


def test_a_server_that_reads_nothing_is_an_error_in_time():
    with (
        a_raw_server(lambda caller: time.sleep(0.6)) as server,
        a_pool(read_seconds=0.2) as pool,
        pytest.raises(TimeoutError),
    ):
        ask(pool, at(server), LARGE * 4)


def test_a_slow_reader_is_not_held_against_the_server():
    """What this end does with the bytes, an upload, takes its time; only waiting for bytes counts."""
    with (
        a_raw_server(answers(raw=answer_of(LARGE[:100_000]))) as server,
        a_pool(read_seconds=0.5) as pool,
        pool.request(at(server), "GET", "/", {}) as answer,
    ):
        answer.read(1000)
        time.sleep(0.7)
        assert len(read_all(answer)) == 99_000


# Addresses


def test_a_host_is_resolved_once_for_a_connection_and_reached_at_an_address_of_it():
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> list[Address]:
        asked.append((host, port))
        return [(socket.AF_INET, ("127.0.0.1", port))]

    hosts: list[str] = []

    def serve(caller: Caller) -> None:
        while (request := caller.request())[0]:
            hosts.append(request[1]["host"])
            caller.send(answer_of(b""))

    with a_raw_server(serve) as server:
        pool = ConnectionPool(resolve)
        for _ in range(2):
            ask(pool, at(server, "media.invalid"))
        pool.close()

    assert asked == [("media.invalid", server.port)]
    assert hosts == [f"media.invalid:{server.port}"] * 2


def test_the_next_address_is_tried_when_one_refuses():
    with a_raw_server(answers(raw=answer_of(b"ok"))) as server, socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # bound, and nobody listens
        refusing = deaf.getsockname()
        pool = ConnectionPool(
            lambda _, port: [(socket.AF_INET, refusing), (socket.AF_INET, ("127.0.0.1", port))]
        )
        assert ask(pool, at(server)) == b"ok"
        pool.close()

        with pytest.raises(ConnectionRefusedError):
            ask(ConnectionPool(lambda *_: [(socket.AF_INET, refusing)] * 2), at(server))


def test_a_host_without_an_address_is_an_error():
    with pytest.raises(OSError, match="no address"):
        ask(ConnectionPool(lambda *_: []), Endpoint("http", "nowhere.invalid", 80))


def test_what_the_resolver_raises_passes_through():
    def refuse(host: str, port: int) -> list[Address]:
        raise LookupError(host)

    with pytest.raises(LookupError, match="somewhere"):
        ask(ConnectionPool(refuse), Endpoint("http", "somewhere", 80))


def test_an_ipv6_address_is_reached():
    hosts: list[str] = []

    def serve(caller: Caller) -> None:
        hosts.append(caller.request()[1]["host"])
        caller.send(answer_of(b"six"))

    try:
        with a_raw_server(serve, host="::1") as server, a_pool() as pool:
            assert ask(pool, at(server, "::1")) == b"six"
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    assert hosts == [f"[::1]:{server.port}"]


@pytest.mark.parametrize(
    ("endpoint", "authority"),
    [
        (Endpoint("https", "a.example.com", 443), "a.example.com"),
        (Endpoint("http", "a.example.com", 80), "a.example.com"),
        (Endpoint("http", "a.example.com", 443), "a.example.com:443"),
        (Endpoint("https", "fd00::1", 443), "[fd00::1]"),
    ],
)
def test_the_authority_has_the_port_where_it_is_not_the_usual_one(
    endpoint: Endpoint, authority: str
):
    assert endpoint.authority == authority


# TLS


def test_tls_needs_a_certificate_of_the_host_by_a_trusted_authority(tmp_path: Path):
    authority, settings = an_authority(tmp_path, "media.invalid")

    def resolve(host: str, port: int) -> list[Address]:
        return [(socket.AF_INET, ("127.0.0.1", port))]

    with a_raw_server(answers(raw=answer_of(b"secret")), tls=settings) as server:
        trusted = ConnectionPool(resolve, tls=lambda: trusting(authority))
        assert ask(trusted, at(server, "media.invalid", "https"), LARGE) == b"secret"
        with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
            ask(trusted, at(server, "other.invalid", "https"))
        trusted.close()
        with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
            ask(ConnectionPool(resolve), at(server, "media.invalid", "https"))


def test_tls_to_a_server_without_it_is_an_error():
    with (
        a_raw_server(answers_once(raw=b"HTTP/1.1 400 No\r\n\r\n")) as server,
        a_pool() as pool,
        pytest.raises(ssl.SSLError),
    ):
        ask(pool, at(server, scheme="https"))


# What may not be sent


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/a\r\nX-Evil: 1", {}),
        ("/a\nb", {}),
        ("/a b", {}),
        ("/a\x00", {}),
        ("/\u20ac", {}),
        ("/", {"If-Match": "a\r\nX-Evil: 1"}),
        ("/", {"If-Match": "\u20ac"}),
        ("/", {"X\n": "a"}),
    ],
)
def test_a_head_that_would_be_another_one_is_not_sent(target: str, headers: dict[str, str]):
    with (
        a_raw_server(answers_once(raw=answer_of(b""))) as server,
        a_pool() as pool,
        pytest.raises(ValueError, match=r"character|encode"),
    ):
        pool.request(at(server), "GET", target, headers)

    assert server.connections == 0
