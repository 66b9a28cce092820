"""Each trouble with the store is an error named by what to do, with the setting in its sentence."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.config import Config

from include.domain.errors import ArchiveError, PermanentError, TransientError
from include.domain.object_keys import ObjectKey
from include.storage.object_store import Condition, ConditionFailed, ObjectStore
from tests import s3_servers
from tests.sources import Pieces
from tests.storage.answering import a_server_that_answers
from tests.storage.buckets import UNCONDITIONAL, client_config, s3_client

KEY = ObjectKey("captures/key")
SECRET = "a-very-secret-secret-key"
AT_ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1})
NO_KEYS = {"aws_access_key_id": None, "aws_secret_access_key": None}
EVERY_METHOD: dict[str, Callable[[ObjectStore], object]] = {
    "check": lambda store: store.check(),
    "list": lambda store: list(store.list("")),
    "head": lambda store: store.head(KEY),
    "read": lambda store: store.read(KEY),
    "iter_bytes": lambda store: list(store.iter_bytes(KEY)),
    "write": lambda store: store.write(KEY, b"body"),
    "write_on_condition": lambda store: store.write(KEY, b"body", Condition(etag='"0"')),
    "write_stream": lambda store: store.write_stream(KEY, Pieces([b"body"])),
    "delete": lambda store: store.delete([KEY]),
}
every_method = pytest.mark.parametrize("use", EVERY_METHOD.values(), ids=EVERY_METHOD.keys())


def failure(error_type: type[ArchiveError], use: Callable[[], object]) -> str:
    """The sentence of the error; nothing of the S3 client's own error is shown with it."""
    with pytest.raises(error_type) as caught:
        use()
    assert type(caught.value) is error_type
    assert caught.value.__suppress_context__
    assert SECRET not in f"{caught.value!r}"
    assert "\n" not in str(caught.value)
    return str(caught.value)


@every_method
def test_a_wrong_secret_names_login_and_password(bucket_on, use):
    for server_name in UNCONDITIONAL:
        bucket = bucket_on(server_name)
        client = s3_client(
            bucket.server.endpoint_url,
            aws_access_key_id=bucket.server.access_key,
            aws_secret_access_key=SECRET,
        )
        sentence = failure(PermanentError, lambda c=client, b=bucket: use(ObjectStore(c, b.name)))
        assert "login" in sentence
        assert "password" in sentence
        assert "wxcc_store" in sentence


def test_an_unknown_access_key_names_login_and_password(bucket_on):
    for server_name in UNCONDITIONAL:
        bucket = bucket_on(server_name)
        client = s3_client(
            bucket.server.endpoint_url,
            aws_access_key_id="nobody:here",
            aws_secret_access_key=SECRET,
        )
        sentence = failure(PermanentError, ObjectStore(client, bucket.name).check)
        assert "refuses the key pair" in sentence
        assert "login" in sentence


def test_a_missing_bucket_names_the_bucket_and_its_field(bucket):
    store = ObjectStore(bucket.client, "there-is-none")

    for use in (store.check, lambda: list(store.list("")), lambda: store.write(KEY, b"")):
        sentence = failure(PermanentError, use)
        assert "The bucket there-is-none does not exist" in sentence
        assert "service_config.s3.bucket_name" in sentence
    assert store.head(KEY) is None  # as its docstring says


@every_method
def test_a_name_that_no_bucket_can_have_names_its_field(use):
    """The client itself refuses it: no trouble of the network, and no second try helps."""
    store = ObjectStore(s3_client("http://127.0.0.1:1"), "my bucket")

    assert "service_config.s3.bucket_name" in failure(PermanentError, lambda: use(store))


@every_method
def test_no_key_pair_says_what_to_set(use):
    store = ObjectStore(s3_client("http://127.0.0.1:1", **NO_KEYS), "archive")

    sentence = failure(PermanentError, lambda: use(store))

    assert "has no key pair" in sentence
    assert "login" in sentence


@every_method
def test_an_unreachable_store_names_the_endpoint(use):
    url = f"http://127.0.0.1:{s3_servers.free_port()}"
    store = ObjectStore(s3_client(url, config=AT_ONCE), "archive")

    sentence = failure(TransientError, lambda: use(store))

    assert "endpoint_url" in sentence


def test_an_unreachable_store_is_told_within_a_minute_and_a_half():
    """With the tries of plugins/store_hook.py: botocore waits at most 1 + 2 + 4 + 8 s between five."""
    config: Any = client_config()

    assert config.retries["total_max_attempts"] <= 5
    assert config.retries["total_max_attempts"] * config.connect_timeout + 15 <= 90


@every_method
def test_a_store_in_trouble_is_tried_again(use):
    with a_server_that_answers(503, "SlowDown") as url:
        store = ObjectStore(s3_client(url, config=AT_ONCE), "archive")
        assert "503" in failure(TransientError, lambda: use(store))


@pytest.mark.parametrize(
    ("status", "code", "error_type", "part"),
    [
        (403, "InvalidAccessKeyId", PermanentError, "password"),
        (403, "SignatureDoesNotMatch", PermanentError, "password"),
        (400, "ExpiredToken", PermanentError, "password"),
        (401, "", PermanentError, "password"),
        (403, "AccessDenied", PermanentError, "denies ListObjectsV2 on the bucket archive"),
        (400, "AuthorizationHeaderMalformed", PermanentError, "region_name"),
        (400, "RequestTimeout", TransientError, "RequestTimeout"),
        (429, "TooManyRequests", TransientError, "429"),
        (408, "", TransientError, "408"),
        (500, "InternalError", TransientError, "500"),
        (404, "NoSuchUpload", TransientError, "NoSuchUpload"),
        (400, "InvalidRequest", PermanentError, "400 InvalidRequest"),
        (400, "<b>a</b>\n" + "x" * 500, PermanentError, "400"),
    ],
    ids=lambda value: str(value)[:24] if isinstance(value, int | str) else value.__name__,
)
def test_each_answer_has_its_meaning(status, code, error_type, part):
    with a_server_that_answers(status, code) as url:
        sentence = failure(error_type, ObjectStore(s3_client(url, config=AT_ONCE), "archive").check)

    assert part in sentence
    assert len(sentence) < 400


def test_an_answer_that_is_no_s3_is_an_error():
    """A proxy's page with status 200 must not look like an empty bucket."""
    with a_server_that_answers(200, body=b"<html>Sign in, then <b>try again") as url:
        failure(TransientError, ObjectStore(s3_client(url, config=AT_ONCE), "archive").check)


@pytest.mark.parametrize("use", ["read", "iter_bytes"])
def test_a_body_cut_short_is_never_taken_for_the_object(use):
    with a_server_that_answers(200, body=b"the first half", missing_bytes=10) as url:
        store = ObjectStore(s3_client(url, config=AT_ONCE), "archive")
        failure(TransientError, lambda: EVERY_METHOD[use](store))


@pytest.mark.parametrize(
    ("status", "code"),
    [(412, "PreconditionFailed"), (409, "ConditionalRequestConflict"), (404, "NoSuchKey")],
)
def test_a_lost_race_is_told_from_other_troubles(status, code):
    with a_server_that_answers(status, code) as url:
        store = ObjectStore(s3_client(url, config=AT_ONCE), "archive")
        with pytest.raises(ConditionFailed):
            store.write(KEY, b"body", Condition(etag='"0"'))


def test_without_condition_nothing_is_a_lost_race():
    for status, code in ((412, "PreconditionFailed"), (404, "NoSuchKey")):
        with a_server_that_answers(status, code) as url:
            store = ObjectStore(s3_client(url, config=AT_ONCE), "archive")
            failure(PermanentError, lambda store=store: store.write(KEY, b"body"))


def test_a_store_without_any_writes_is_no_store_without_conditions():
    with a_server_that_answers(501, "NotImplemented") as url:
        store = ObjectStore(s3_client(url, config=AT_ONCE), "archive")
        for condition in (None, Condition(etag='"0"'), Condition(etag=None)):
            failure(TransientError, lambda c=condition: store.write(KEY, b"body", c))
