"""What an analyst types: one line for each reader, without a catalogue and without the program.

The lines are those of the documentation. Two orgs, two dates and three hours: the first is empty,
in the second all that may be null is null, in the third nothing is.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import S3FileSystem

from include.domain.object_keys import KeyLayout
from include.domain.rows import CaptureRow, ContactTaskRow
from include.storage.tables import to_parquet
from tests.storage.buckets import Bucket
from tests.storage.rows import a_capture_row, a_contact_task_row

FIRST_HOUR = datetime(2026, 3, 1, 22, tzinfo=UTC)
ORGS = ("0c8e1c1d-aaaa-4bbb-8ccc-000000000001", "99999999-aaaa-4bbb-8ccc-000000000002")
ROW_COUNT = 2 * (1 + 2)
ROWS_OF_THE_SECOND_DATE = 2 * 2
FULL: dict[str, Any] = {
    "segment": True, "sensitive": False, "participants": ["a", "ü"], "size_bytes": 2**40,
    "capture_requested": True,
}  # fmt: skip


def _full(row: Any, hour: datetime) -> Any:
    values: dict[str, Any] = {}
    for field in fields(row):
        if getattr(row, field.name) is None or field.name in FULL:
            is_time = field.name.endswith("_time")
            values[field.name] = FULL.get(field.name, hour if is_time else f"of {field.name}")
    return replace(row, **values)


def publish_three_hours(bucket: Bucket) -> None:
    for org_id in ORGS:
        layout = KeyLayout(org_id, "wxcc/prod")
        for number in range(3):
            hour = FIRST_HOUR + timedelta(hours=number)
            null = {"org_id": org_id, "first_seen_time": hour}
            tasks = [a_contact_task_row(**null, task_id=f"{n}") for n in range(number)]
            captures = [a_capture_row(**null, task_id=f"{n}") for n in range(number)]
            if number == 2:
                tasks = [_full(row, hour) for row in tasks]
                captures = [_full(row, hour) for row in captures]
            key = layout.table_partition("contact_tasks", hour)
            bucket.store.write(key, to_parquet(tasks, ContactTaskRow))
            key = layout.table_partition("captures", hour)
            bucket.store.write(key, to_parquet(captures, CaptureRow))


@pytest.fixture
def directory(bucket_on, tmp_path: Path) -> Path:
    """The tables as `aws s3 sync` or `rclone copy` bring them to a disk."""
    bucket = bucket_on("ministack")
    publish_three_hours(bucket)
    for found in bucket.store.list(""):
        path = tmp_path / found.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bucket.client.get_object(Bucket=bucket.name, Key=found.key)["Body"].read())
    return tmp_path / "wxcc/prod/tables"


@pytest.fixture(
    params=[("contact_tasks", ContactTaskRow), ("captures", CaptureRow)],
    ids=["contact_tasks", "captures"],
)
def table(request: pytest.FixtureRequest, directory: Path) -> tuple[str, list[str]]:
    """The directory of each table, and its columns with the one that only the keys hold."""
    name, row_type = request.param
    return str(directory / name), [field.name for field in fields(row_type)] + ["created_date"]


def kind_of(column: str) -> str:
    special = {
        **dict.fromkeys(("segment", "sensitive", "capture_requested"), "boolean"),
        **dict.fromkeys(("size_bytes", "attempts", "capture_count"), "integer"),
        "participants": "texts",
        "created_date": "date",
    }
    return special.get(column, "time" if column.endswith("_time") else "text")


def test_duckdb_reads_a_table_in_one_line(table):
    path, columns = table

    found = duckdb.sql(f"FROM read_parquet('{path}/**/*.parquet', hive_partitioning=true)")

    types = {
        "boolean": "BOOLEAN",
        "integer": "BIGINT",
        "texts": "VARCHAR[]",
        "time": "TIMESTAMP WITH TIME ZONE",
        "text": "VARCHAR",
        "date": "DATE",
    }
    assert dict(zip(found.columns, map(str, found.types), strict=True)) == {
        column: types[kind_of(column)] for column in columns
    }
    assert len(found) == ROW_COUNT
    assert len(found.filter("created_date = DATE '2026-03-02'")) == ROWS_OF_THE_SECOND_DATE
    assert {row[0] for row in found.select("org_id").fetchall()} == set(ORGS)


def test_polars_reads_a_table_in_one_line(table):
    path, columns = table
    types = {
        "boolean": pl.Boolean,
        "integer": pl.Int64,
        "texts": pl.List(pl.String),
        "time": pl.Datetime("us", "UTC"),
        "text": pl.String,
        "date": pl.Date,
    }
    expected = {column: types[kind_of(column)] for column in columns}

    for found in (
        pl.read_parquet(path),
        pl.read_parquet(f"{path}/**/*.parquet", hive_partitioning=True),
        pl.scan_parquet(path).collect(),
        pl.scan_parquet(f"{path}/**/*.parquet", hive_partitioning=True).collect(),
    ):
        assert found.height == ROW_COUNT
        assert dict(found.schema) == expected | {"org_id": pl.Categorical}
        assert set(found["org_id"]) == set(ORGS)
    second_date = pl.scan_parquet(path).filter(pl.col("created_date") == date(2026, 3, 2))
    assert second_date.collect().height == ROWS_OF_THE_SECOND_DATE


def check_arrow(found: pa.Table, columns: list[str]) -> None:
    texts_of_the_key = pa.dictionary(pa.int32(), pa.string())
    types = {
        "boolean": pa.bool_(),
        "integer": pa.int64(),
        "texts": pa.list_(pa.string()),
        "time": pa.timestamp("us", tz="UTC"),
        "text": pa.string(),
        "date": texts_of_the_key,
    }
    expected = {column: types[kind_of(column)] for column in columns}
    assert found.num_rows == ROW_COUNT
    assert {field.name: field.type for field in found.schema} == expected | {
        "org_id": texts_of_the_key
    }
    assert set(found["org_id"].to_pylist()) == set(ORGS)
    assert set(found["created_date"].to_pylist()) == {"2026-03-01", "2026-03-02"}


def check_pandas(found: pd.DataFrame, columns: list[str]) -> None:
    assert found.shape == (ROW_COUNT, len(columns))
    assert set(found.columns) == set(columns)
    for column in columns:
        if kind_of(column) == "time":
            assert str(found[column].dtype) == "datetime64[us, UTC]"
    assert set(found["org_id"]) == set(ORGS)
    assert (found["created_date"] == "2026-03-02").sum() == ROWS_OF_THE_SECOND_DATE


def test_pyarrow_reads_a_table_in_one_line(table):
    path, columns = table

    check_arrow(pq.read_table(path), columns)
    filtered = pq.read_table(path, filters=[("created_date", "=", "2026-03-02")])
    assert filtered.num_rows == ROWS_OF_THE_SECOND_DATE


def test_pyarrow_datasets_need_to_be_told_how_keys_are_read(table):
    """`partitioning="hive"` reads org_id as text and refuses to merge it with the column."""
    path, columns = table

    hive = ds.HivePartitioning.discover(infer_dictionary=True)
    check_arrow(ds.dataset(path, partitioning=hive).to_table(), columns)
    with pytest.raises(pa.ArrowTypeError, match="org_id has incompatible types"):
        ds.dataset(path, partitioning="hive")


def test_pandas_reads_a_table_in_one_line(table):
    path, columns = table

    check_pandas(pd.read_parquet(path), columns)


def test_what_was_written_is_what_is_read(directory):
    """Values, not only types: of the full hour, in each reader."""
    path = f"{directory}/captures"
    wanted = ["segment", "sensitive", "participants", "size_bytes", "file_name", "copied_time"]
    instant = FIRST_HOUR + timedelta(hours=2)
    expected = (True, False, ["a", "ü"], 2**40, "of file_name", instant)

    from_duckdb = duckdb.sql(
        f"SELECT {', '.join(wanted[:-1])}, epoch_us(copied_time) "
        f"FROM read_parquet('{path}/**/*.parquet', hive_partitioning=true) WHERE segment"
    ).fetchall()
    from_polars = pl.read_parquet(path).filter(pl.col("segment")).select(wanted).rows()
    from_arrow = pq.read_table(path, filters=[("segment", "=", True)]).select(wanted).to_pylist()

    assert from_duckdb == [(*expected[:-1], int(instant.timestamp() * 1e6))] * 4
    assert from_polars == [expected] * 4
    assert [tuple(row.values()) for row in from_arrow] == [expected] * 4


# Straight from the server. Not rclone: it answers a request for a range with the whole object, or with
# the checksum of the whole, which pyarrow and polars refuse. DuckDB needs its extension httpfs, which
# cannot be downloaded everywhere; it reads what pyarrow fetched.


@pytest.mark.parametrize("server_name", ["ministack", "moto", "swift"])
def test_readers_read_straight_from_the_server(bucket_on: Callable[[str], Bucket], server_name):
    bucket = bucket_on(server_name)
    publish_three_hours(bucket)
    server = bucket.server
    columns = [field.name for field in fields(CaptureRow)] + ["created_date"]
    path = f"{bucket.name}/wxcc/prod/tables/captures"

    s3 = S3FileSystem(
        access_key=server.access_key,
        secret_key=server.secret_key,
        region=server.region,
        endpoint_override=server.endpoint_url,
    )
    check_arrow(pq.read_table(path, filesystem=s3), columns)
    check_pandas(pd.read_parquet(path, filesystem=s3), columns)

    captures = pq.read_table(path, filesystem=s3)
    found = duckdb.sql("SELECT created_date, count(*) FROM captures GROUP BY ALL ORDER BY ALL")
    assert found.fetchall() == [("2026-03-01", 2), ("2026-03-02", 4)]
    assert captures.num_rows == ROW_COUNT

    options = {
        "aws_access_key_id": server.access_key,
        "aws_secret_access_key": server.secret_key,
        "aws_region": server.region,
        "aws_endpoint_url": server.endpoint_url,
        "aws_allow_http": "true",
    }
    for query in (f"s3://{path}/", f"s3://{path}/**/*.parquet"):
        lazy = pl.scan_parquet(query, hive_partitioning=True, storage_options=options)
        assert lazy.filter(pl.col("created_date") == date(2026, 3, 2)).collect().height == 4
    assert pl.read_parquet(f"s3://{path}/", storage_options=options).height == ROW_COUNT
