"""The common way as a peer: requests streams, boto3's managed upload sends, four threads."""

from __future__ import annotations

import csv
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import boto3  # noqa: TID251 - this is what people write without the archive
import requests  # noqa: TID251 - as above

THREADS = 4


def main() -> None:
    """`requests_boto3_peer ENDPOINT BUCKET LIST`: the list has a URL and a key in each line."""
    endpoint, bucket, listed = sys.argv[1:]
    with Path(listed).open(newline="") as file:
        wanted = [(url, key) for url, key in csv.reader(file)]
    s3 = boto3.client("s3", endpoint_url=endpoint)
    session = requests.Session()

    def copy(item: tuple[str, str]) -> None:
        url, key = item
        with session.get(url, stream=True, timeout=60) as response:
            response.raise_for_status()
            s3.upload_fileobj(cast("Any", response.raw), bucket, f"captures/{key}")

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(copy, wanted))


if __name__ == "__main__":
    main()
