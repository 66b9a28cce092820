"""The signature is the one that AWS's own library makes, and a server that looks takes no other."""

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.utils import percent_encode
from hypothesis import example, given, settings
from hypothesis import strategies as st

from include.storage.put_requests import Checksum, Put, PutRequests
from include.storage.signature_v4 import KeyPair, encoded_path, signed_headers
from tests.storage.buckets import s3_client

ODD = "a b/+~%25%2F ü\u20ac\U0001f600//./..=&?#*'()!\\\"<>[]{}|^`@:;,$"
ODD_KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(
    key=ODD_KEYS,
    query=st.dictionaries(ODD_KEYS, ODD_KEYS, max_size=3),
    token=st.none() | st.text("ab/+=", min_size=1),
    secret=st.text("aB1/+", min_size=1),
    authority=st.sampled_from(["127.0.0.1:9000", "b.s3.eu-west-1.amazonaws.com", "[::1]:9000"]),
    is_payload_signed=st.booleans(),
)
@example(ODD, {"partNumber": "10", "uploadId": ODD}, None, "s", "s3.amazonaws.com", True)
@example("k", {}, None, "s", "s3.amazonaws.com", False)
@settings(max_examples=150)
def test_the_signature_is_that_of_botocore(
    key: str,
    query: dict[str, str],
    token: str | None,
    secret: str,
    authority: str,
    is_payload_signed: bool,
):
    path = "/bucket/" + percent_encode(key, safe="/~")
    headers = {"If-Match": '"e t"', "X-Amz-Checksum-CRC32": " AAAA== "}
    theirs: Any = AWSRequest(
        "PUT", f"https://{authority}{path}", dict(headers), data=b"body", params=dict(query)
    )
    theirs.context["client_config"] = Config(s3={"payload_signing_enabled": is_payload_signed})
    theirs.context["has_streaming_input"] = True
    S3SigV4Auth(Credentials("an-access-key", secret, token), "s3", "eu-west-1").add_auth(theirs)

    ours = signed_headers(
        "PUT",
        authority,
        "/bucket/" + encoded_path(key),
        query,
        headers,
        payload_sha256=theirs.headers["X-Amz-Content-SHA256"],
        key_pair=KeyPair("an-access-key", secret, token),
        region="eu-west-1",
        time=datetime.strptime(theirs.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
    )

    assert (theirs.headers["X-Amz-Content-SHA256"] == "UNSIGNED-PAYLOAD") != is_payload_signed
    assert ours["Authorization"] == theirs.headers["Authorization"]
    assert ours.get("x-amz-security-token") == theirs.headers.get("X-Amz-Security-Token")


def test_a_day_and_a_region_have_a_key_of_their_own():
    def signature(day: int, region: str) -> str:
        return signed_headers(
            "PUT", "a", "/k", {}, {}, payload_sha256="", key_pair=KeyPair("a", "s", None),
            region=region, time=datetime(2026, 3, day, tzinfo=UTC),
        )["Authorization"].rpartition("=")[2]  # fmt: skip

    assert len({signature(1, "a"), signature(2, "a"), signature(1, "b"), signature(1, "a")}) == 3


def test_a_server_that_checks_takes_the_signature_and_no_other(bucket_on):
    """Swift counts the signature from what came; its keys have all that a key may have."""
    bucket = bucket_on("swift")
    puts = PutRequests(bucket.client, bucket.name)
    upload = bucket.client.create_multipart_upload(Bucket=bucket.name, Key=ODD)["UploadId"]
    query = {"partNumber": "1", "uploadId": upload}
    body = memoryview(b"body")

    puts.send(Put("PutObject", ODD, body, Checksum.of_part(body)))
    etag = puts.send(Put("UploadPart", ODD, body, Checksum.of_part(body), query))
    assert bucket.client.get_object(Bucket=bucket.name, Key=ODD)["Body"].read() == b"body"
    assert etag
    bucket.client.abort_multipart_upload(Bucket=bucket.name, Key=ODD, UploadId=upload)

    wrong = s3_client(
        bucket.server.endpoint_url,
        aws_access_key_id=bucket.server.access_key,
        aws_secret_access_key="a-wrong-secret",
    )
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        PutRequests(wrong, bucket.name).send(Put("PutObject", "k", body, Checksum.of_part(body)))
