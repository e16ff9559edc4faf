"""Files of every format in raw: each row exactly or in quarantine, bad files set aside, and all of it again."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import string
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from connectors.connections import EnvironmentConnections, StoreLocation
from connectors.errors import ContractViolationError, DataError, MalformedResponseError, SourceUnavailableError
from connectors.files import CsvStream, JsonLinesStream, JsonStream, OnBadFile, ParquetStream
from connectors.formats.file_streams import FileStream
from connectors.ingest import Destination, ingest
from connectors.model import SchemaContract, WriteDisposition
from connectors.rebuild import rebuild
from connectors.replay import replay
from tests.conftest import Warehouse
from tests.connectors.examples import counts, met, raw

TABLE = "raw_met.t"


def load(
    stream: FileStream, where: EnvironmentConnections | str, destination: Destination, **changes: Any
) -> tuple[int, ...]:
    """Load a stream's files; the counts of its report."""
    if isinstance(where, str):
        source, where = met(stream, where, **changes)
    else:
        source, _ = met(stream, "file:///", **changes)
    return counts(ingest(source, stream, where, destination)[-1])


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    names = sorted({name for row in rows for name in row})
    writer = csv.DictWriter(text, names, quoting=csv.QUOTE_NOTNULL if hasattr(csv, "QUOTE_NOTNULL") else csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_document(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps({"result": {"items": rows}, "total": len(rows)}, indent=1).encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=37)
    return file.getvalue()


Definition = tuple[Callable[..., FileStream], Callable[[list[dict[str, Any]]], bytes], str]
FORMATS: dict[str, Definition] = {
    "csv": (CsvStream, as_csv, "*.csv.gz"),
    "jsonl": (JsonLinesStream, as_lines, "*.jsonl.zst"),
    "json": (lambda **rest: JsonStream(records="result.items", **rest), as_document, "*.json"),
    "parquet": (ParquetStream, as_parquet, "*.parquet"),
}
COMPRESS = {"gz": gzip.compress, "zst": zstandard.compress}


def write(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(COMPRESS.get(name.rpartition(".")[2], bytes)(content))
    return path


def drawn(choose: random.Random, number: int) -> dict[str, Any]:
    """A record with texts that a careless reader would take apart, and now and then a NUL, which PostgreSQL refuses."""
    alphabet = (
        string.ascii_letters
        + "\"',;|\t\n\r\\{}[]<> \ufeff\u2028äß\N{GRINNING FACE}"
        + ("\0" if number % 9 == 0 else "")
    )
    return {
        "id": str(number),
        "note": "".join(choose.choices(alphabet, k=choose.randrange(12))),
        "more": choose.choice(["", "NULL", "\\N", "\\.", "nan", "1e400", "007", "true", "{}", "[1]", '"']),
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_each_row_is_loaded_as_it_was_written_or_quarantined(
    tmp_path: Path, warehouse: Warehouse, destination: Destination, kind: str
) -> None:
    make, encode, pattern = FORMATS[kind]
    definition: dict[str, Any] = {"nulls": ()} if kind == "csv" else {}
    stream = make(name="t", primary_key=("id",), pattern=pattern, reject_limit=1, file_column="file", **definition)
    choose = random.Random(11)
    rows = [drawn(choose, number) for number in range(400)]
    for number in range(4):
        write(tmp_path / "files", pattern.replace("*", str(number)), encode(rows[number * 100 : number * 100 + 100]))
    extracted, inserted, *_, quarantined = load(stream, (tmp_path / "files").as_uri(), destination)
    assert (extracted, inserted + quarantined) == (400, 400)
    found = raw(warehouse, "id, note, more, file", TABLE)
    sound = [row for row in rows if "\0" not in row["note"]]
    assert found == sorted(
        (row["id"], row["note"], row["more"], pattern.replace("*", str(int(row["id"]) // 100))) for row in sound
    )
    assert 0 < quarantined == len(rows) - len(sound)
    assert load(stream, (tmp_path / "files").as_uri(), destination) == (0,) * 6, "nothing is new"
    before = raw(warehouse, table=TABLE)
    warehouse.execute(f"drop table {TABLE}")
    rebuild(met(stream, "file:///")[0], stream, destination)
    assert raw(warehouse, table=TABLE) == before


BAD = {
    "csv": (b'id,extra\n1,"never closed\n', "is no CSV in record 2: unexpected end of data"),
    "jsonl": (b'{"id": "1", "extra": 1}\n{"id": "2", "ex', "ends in the middle of a record"),
    "json": (b'{"result": {"items": [{"id": "1", "extra": 1}, {"id"', "ends in the middle of a record"),
    "parquet": (as_parquet([{"id": "1", "extra": 1}])[:-9], "is no Parquet file, or a damaged one"),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_bad_file_fails_the_load_or_is_set_aside_for_the_others(
    tmp_path: Path, warehouse: Warehouse, destination: Destination, kind: str
) -> None:
    make, encode, _ = FORMATS[kind]
    content, why = BAD[kind]
    definition: dict[str, Any] = {"name": "t", "primary_key": ("id",), "pattern": "*"}
    folder = tmp_path / "files"
    good = [{"id": str(number), "v": "x"} for number in range(5)]
    write(folder, "1-good", encode(good[:3]))
    write(folder, "2-bad", content)
    write(folder, "3-good", encode(good[3:]))
    with pytest.raises(MalformedResponseError, match=f"2-bad {why}.*on_bad_file=OnBadFile.QUARANTINE"):
        load(make(**definition), folder.as_uri(), destination)
    assert warehouse.query("select count(*) from pg_tables where schemaname like 'raw%'") == [(0,)]
    stream = make(**definition, on_bad_file=OnBadFile.QUARANTINE)
    assert load(stream, folder.as_uri(), destination) == (6, 5, 0, 0, 0, 1), "a limit of 1 % is for rows"
    assert raw(warehouse, "id, v", TABLE) == [(row["id"], "x") for row in good]
    assert warehouse.query("select column_name from information_schema.columns where column_name = 'extra'") == []
    [(row, reason, payload)] = warehouse.query("select row_in_load, reason, payload from ops.quarantine")
    assert (row, payload) == (4, "2-bad")
    assert reason.startswith(f"the whole file: 2-bad {why}")
    assert load(stream, folder.as_uri(), destination) == (0,) * 6, "it is known"
    before = raw(warehouse, table=TABLE)
    warehouse.execute(f"drop table {TABLE}")
    source, _ = met(stream, folder.as_uri())
    rebuild(source, stream, destination)
    assert raw(warehouse, table=TABLE) == before
    [again] = replay(source, stream, destination)
    assert counts(again) == (1, 0, 0, 0, 0, 1), "it is as bad as it was"
    write(folder, "2-bad", encode([{"id": "9", "v": "mended"}]))
    assert load(stream, folder.as_uri(), destination) == (1, 1, 0, 0, 0, 0)
    assert raw(warehouse, "id, v", TABLE)[-1] == ("9", "mended")


@pytest.mark.parametrize("whole", [True, False])
def test_a_file_that_goes_wrong_at_its_end_leaves_no_row(
    tmp_path: Path, warehouse: Warehouse, destination: Destination, landing_folder: Path, whole: bool
) -> None:
    """Its first rows had been copied by then, several chunks of them."""
    folder = tmp_path / "files"
    lines = "".join(f"{number},{os.urandom(40).hex()}\n" for number in range(60_000))
    packed = gzip.compress(f"id,v\n{lines}".encode())
    folder.mkdir()
    (folder / "1.csv.gz").write_bytes(packed if whole else packed[:-9])
    (folder / "2.csv.gz").write_bytes(gzip.compress(b"id,v\na,b\n"))
    stream = CsvStream(name="t", primary_key=("id",), pattern="*.gz", on_bad_file=OnBadFile.QUARANTINE)
    expected = (60_001, 60_001, 0, 0, 0, 0) if whole else (2, 1, 0, 0, 0, 1)
    assert load(stream, folder.as_uri(), destination) == expected
    [manifest] = landing_folder.rglob("manifest.json")
    objects = json.loads(manifest.read_bytes())["objects"]
    assert [landed["rows"] for landed in objects] == [60_000 if whole else 1, 1]
    assert [landed["refused"] and "is cut off" in landed["refused"] for landed in objects] == [
        None if whole else True,
        None,
    ]
    before = raw(warehouse, table=TABLE)
    warehouse.execute(f"drop table {TABLE}")
    rebuild(met(stream, "file:///")[0], stream, destination)
    assert raw(warehouse, table=TABLE) == before


def test_files_that_grew_differently_share_a_table(
    tmp_path: Path, warehouse: Warehouse, destination: Destination
) -> None:
    folder = tmp_path / "files"
    write(folder, "1.parquet", as_parquet([{"id": 1, "n": 1, "t": "x"}]))
    write(folder, "2.parquet", as_parquet([{"n": 2.5, "id": 2, "new": Decimal("1.20")}]))
    stream = ParquetStream(name="t", primary_key=("id",), pattern="*.parquet")
    assert load(stream, folder.as_uri(), destination)[:2] == (2, 2)
    assert raw(warehouse, "id, n, t, new::text", TABLE) == [
        (1, Decimal(1), "x", None),
        (2, Decimal("2.5"), None, "1.20"),
    ]


def test_a_changed_file_of_a_stream_without_a_key_is_refused(tmp_path: Path, destination: Destination) -> None:
    folder = tmp_path / "files"
    stream = CsvStream(name="t", pattern="*.csv", write=WriteDisposition.APPEND)
    write(folder, "1.csv", b"a\n1\n")
    assert load(stream, folder.as_uri(), destination)[:2] == (1, 1)
    write(folder, "2.csv", b"a\n1\n")
    assert load(stream, folder.as_uri(), destination)[:2] == (1, 1)
    write(folder, "1.csv", b"a\n1\n2\n")
    with pytest.raises(ContractViolationError, match="1.csv changed after it was loaded, and without a key"):
        load(stream, folder.as_uri(), destination)


def test_a_file_column_that_the_files_have_is_refused(tmp_path: Path, destination: Destination) -> None:
    write(tmp_path / "files", "1.csv", b"a,file\n1,2\n")
    stream = CsvStream(name="t", primary_key=("a",), pattern="*.csv", file_column="file")
    with pytest.raises(ContractViolationError, match="The files have a column `file`"):
        load(stream, (tmp_path / "files").as_uri(), destination)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_files_without_rows_are_loaded_once(tmp_path: Path, destination: Destination, kind: str) -> None:
    make, _, pattern = FORMATS[kind]
    content = {"csv": b"id,v\n", "jsonl": b"", "parquet": as_parquet([{"id": "1", "v": "x"}])}[kind]
    if kind == "parquet":
        empty = io.BytesIO()
        pq.write_table(pq.read_table(io.BytesIO(content)).slice(0, 0), empty)
        content = empty.getvalue()
    stream = make(name="t", primary_key=("id",), pattern=pattern, contract=SchemaContract.FREEZE)
    (tmp_path / "files").mkdir()
    url = (tmp_path / "files").as_uri()
    assert load(stream, url, destination) == (0,) * 6, "no file at all"
    write(tmp_path / "files", pattern.replace("*", "1"), content)
    assert load(stream, url, destination) == (0,) * 6
    source, where = met(stream, url)
    assert not list(source.extract(stream, request_after(destination), where).chunks), "it is known"


def test_a_file_that_grows_is_left_until_it_does_not(
    tmp_path: Path, warehouse: Warehouse, destination: Destination
) -> None:
    folder = tmp_path / "files"
    write(folder, "1.csv", b"id\n1\n")
    os.utime(folder / "1.csv", (time.time() - 60,) * 2)
    growing = write(folder, "2.csv", b"id\n2\n")
    stream = CsvStream(name="t", primary_key=("id",), pattern="*.csv")
    stop = threading.Event()

    def grow() -> None:
        number = 10
        while not stop.wait(0.05):
            with growing.open("a") as file:
                file.write(f"{number}\n")
            number += 1

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        assert load(stream, folder.as_uri(), destination, settle_seconds=0.5)[:2] == (1, 1), "the other one"
    finally:
        stop.set()
        writer.join()
    started = time.monotonic()
    assert load(stream, folder.as_uri(), destination, settle_seconds=0.5)[0] > 1
    assert time.monotonic() - started < 10
    assert load(stream, folder.as_uri(), destination, settle_seconds=600)[0] == 0
    write(folder, "3.csv", b"id\n3\n")
    started = time.monotonic()
    assert load(stream, folder.as_uri(), destination, settle_seconds=600)[0] == 0, "too long to wait for it"
    assert time.monotonic() - started < 10
    assert raw(warehouse, "count(*)", TABLE)[0][0] > 2


def test_a_file_that_changes_after_it_was_listed_is_left_to_the_next_run(
    tmp_path: Path, destination: Destination
) -> None:
    folder = tmp_path / "files"
    for name in ("1.csv", "2.csv", "3.csv"):
        write(folder, name, b"id\n1\n")
    stream = CsvStream(name="t", primary_key=("id",), pattern="*.csv")
    source, where = met(stream, folder.as_uri())
    chunks = source.extract(stream, request_after(destination), where).chunks
    write(folder, "2.csv", b"id\n1\n2\n")
    (folder / "3.csv").unlink()
    assert [chunk.file.path for chunk in chunks if chunk.file] == ["1.csv"]


def test_a_file_that_changes_while_it_is_read_is_not_taken(tmp_path: Path, destination: Destination) -> None:
    folder = tmp_path / "files"
    path = write(folder, "1.csv", b"id\n" + b"1234567\n" * 1_000_000)
    stream = CsvStream(name="t", primary_key=("id",), pattern="*.csv")
    source, where = met(stream, folder.as_uri())
    chunks = source.extract(stream, request_after(destination), where).chunks
    next(chunks)
    with path.open("r+b") as file:
        file.write(b"ID\n")
    with pytest.raises(SourceUnavailableError, match="1.csv changed while it was read"):
        list(chunks)


def request_after(destination: Destination) -> Any:
    """What a load would ask for now."""
    import psycopg

    from connectors.database import psycopg_arguments
    from connectors.destinations.warehouse.ledger import files_loaded
    from connectors.model import ExtractRequest

    with psycopg.connect(**psycopg_arguments(destination.warehouse, {})) as connection:
        return ExtractRequest(files_loaded=files_loaded(connection, "met", "t"))


def test_files_in_a_bucket_are_told_apart_by_their_etags(
    warehouse: Warehouse, destination: Destination, s3: StoreLocation
) -> None:
    import obstore

    from connectors.object_store import open_store

    store = open_store(s3)
    stream = CsvStream(name="t", primary_key=("id",), pattern="day={date}/*.csv.gz", event_time="at")
    where = EnvironmentConnections(
        {
            "HEADWATER_MET_URL": s3.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": s3.options["endpoint"],
        }
    )
    for day in (1, 2):
        content = f"id,at\n{day},2024-01-0{day}\n".encode()
        obstore.put(store, f"day=2024-01-0{day}/part.csv.gz", gzip.compress(content, mtime=0))
    assert load(stream, where, destination)[:2] == (2, 2)
    obstore.put(store, "day=2024-01-01/part.csv.gz", gzip.compress(b"id,at\n1,2024-01-01\n", mtime=0))
    assert load(stream, where, destination)[0] == 0, "the same content has the same etag"
    obstore.put(store, "day=2024-01-01/part.csv.gz", gzip.compress(b"id,at\n1,2024-01-31\n", mtime=0))
    assert load(stream, where, destination) == (1, 0, 1, 0, 0, 0)
    assert raw(warehouse, "id, at", TABLE) == [("1", "2024-01-31"), ("2", "2024-01-02")]
    obstore.put(store, "day=2024-01-03/part.csv.gz", gzip.compress(b"id,at\n3,2024-01-03\n")[:-3])
    with pytest.raises(DataError, match="day=2024-01-03/part.csv.gz is cut off"):
        load(stream, where, destination)
