"""Rows that were forgotten are nowhere, whatever way they came; all others are as they were, and none comes back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.connections import Connections, Database, EnvironmentConnections
from connectors.deletions import find_deleted
from connectors.errors import ConfigurationError, DataError
from connectors.file_formats import CsvStream, FileStream, JsonLinesStream, JsonStream, OnBadFile, ParquetStream
from connectors.forget import let_come_again
from connectors.forget_keys import children_of, subject_of
from connectors.ingest import Destination, ingest
from connectors.model import Deletes, LandingFormat, Source, WriteDisposition
from connectors.reconcile import reconcile
from connectors.replay import replay
from connectors.rest import BodyFormat, Parent, RestSource, RestStream
from connectors.sql import SqlSource, SqlStream
from tests.conftest import Answer, Api, Request, Warehouse
from tests.connectors.examples import Prepare, connections, database, erp, met, order, raw, shop_source
from tests.connectors.forgetting import all_rows, check_gone, check_whole, forgotten, looked, resumed
from tests.connectors.test_canaries import HASHED, KEY, hash_of, with_key

CANARY, OTHER = "canary.one@birds.test", "somebody@else.test"


@dataclass(frozen=True, slots=True)
class Case:
    """A source with the rows 1 (the canary's), 2 and 3, and a way to have it send them all again."""

    source: Source
    connections: Connections
    again: Callable[[], object]


Make = Callable[[], Case]


@pytest.fixture(
    params=[
        "documents",
        "an API's CSV",
        "a PostgreSQL table",
        "a PostgreSQL table as Parquet",
        "a database",
        "a database as Parquet",
        "CSV files",
        "UTF-16 files",
        "JSON files",
        "JSON lines",
        "Parquet files",
    ]
)
def case(
    request: pytest.FixtureRequest, api: Api, source_database: Prepare, warehouse: Warehouse, tmp_path: Path
) -> Case:
    makers: dict[str, Make] = {
        "documents": lambda: documents(api),
        "an API's CSV": lambda: csv_of_an_api(api),
        "a PostgreSQL table": lambda: table(source_database, warehouse, None),
        "a PostgreSQL table as Parquet": lambda: table(source_database, warehouse, LandingFormat.PARQUET),
        "a database": lambda: sqlite(tmp_path, None),
        "a database as Parquet": lambda: sqlite(tmp_path, LandingFormat.PARQUET),
        "CSV files": lambda: csv_files(tmp_path, "utf-8"),
        "UTF-16 files": lambda: csv_files(tmp_path, "utf-16"),
        "JSON files": lambda: json_files(tmp_path),
        "JSON lines": lambda: json_lines(tmp_path),
        "Parquet files": lambda: parquet_files(tmp_path),
    }
    return makers[request.param]()


def person(number: int, **changes: Any) -> dict[str, Any]:
    return order(
        number, email=CANARY if number == 1 else f"{number}-{OTHER}", n=12345678901234567890 + number, **changes
    )


def documents(api: Api) -> Case:
    api.answer = lambda _: Answer({"result": {"orders": [person(1), person(2), person(3)]}})
    return Case(shop_source(pages=None, cursor=None, since_parameter=None), connections(api), lambda: None)


def csv_of_an_api(api: Api) -> Case:
    lines = [f'{n},"{person(n)["email"]}, or ""so""",2024-01-01Z,2024-01-01Z' for n in (1, 2, 3)]
    api.answer = lambda _: Answer("\n".join(["id,email,changed,at", *lines, ""]).encode())
    source = shop_source(
        pages=None, format=BodyFormat.CSV, records="", cursor=None, since_parameter=None, columns={"id": "bigint"}
    )
    return Case(source, connections(api), lambda: None)


def table(prepare: Prepare, warehouse: Warehouse, landing: LandingFormat | None) -> Case:
    connection = prepare(
        "create table people (id numeric(9,2) primary key, email text, n numeric, at timestamptz);"
        f"insert into people select n, case n when 1 then '{CANARY}' else n || '-{OTHER}' end, 'NaN', null"
        " from generate_series(1, 3) n"
    )
    source = erp(name="people", primary_key=("id",), landing=landing, write=WriteDisposition.MERGE, deletes=Deletes())
    return Case(source, database(connection, warehouse), lambda: None)


def sqlite(folder: Path, landing: LandingFormat | None) -> Case:
    with sqlite3.connect(folder / "people.db") as connection:
        connection.execute("create table people (id integer primary key, email text, n real)")
        rows = [(n, person(n)["email"], n / 7) for n in (1, 2, 3)]
        connection.executemany("insert into people values (?, ?, ?)", rows)
    source = SqlSource(
        name="erp",
        database=Database("erp"),
        streams=(SqlStream(name="people", primary_key=("id",), landing=landing),),
    )
    return Case(source, EnvironmentConnections({"HEADWATER_ERP_URL": f"sqlite:///{folder}/people.db"}), lambda: None)


def files(folder: Path, stream: FileStream, contents: dict[str, bytes]) -> Case:
    (folder / "in").mkdir()

    def write() -> None:
        for name, content in contents.items():
            path = folder / "in" / name
            before = path.stat().st_mtime_ns if path.exists() else 0
            path.write_bytes(content)
            while path.stat().st_mtime_ns == before:
                path.write_bytes(content)

    write()
    source, where = met(stream, (folder / "in").as_uri())
    return Case(source, where, write)


def csv_files(folder: Path, encoding: str) -> Case:
    stream = CsvStream(
        name="people",
        pattern="*.csv",
        primary_key=("id",),
        delimiter=";",
        encoding=encoding,
        skip_lines=1,
        columns={"id": "bigint"},
    )
    first = f'made by hand\r\nid;email;said\r\n2;2-{OTHER};"a ""b"";\n c"\r\n\r\n1;{CANARY};x\r\n'
    second = f"made by hand\nid;email;said\n3;3-{OTHER};\n"
    return files(folder, stream, {"a.csv": first.encode(encoding), "b.csv": second.encode(encoding)})


def json_files(folder: Path) -> Case:
    content = json.dumps({"by": "hand", "r": {"items": [person(2), person(1), person(3)]}}, indent=1)
    stream = JsonStream(name="people", pattern="*.json", records="r.items", primary_key=("id",))
    return files(folder, stream, {"a.json": content.encode()})


def json_lines(folder: Path) -> Case:
    content = "\n".join(["\ufeff" + json.dumps(person(2)), json.dumps(person(1)), "", json.dumps(person(3))])
    return files(
        folder, JsonLinesStream(name="people", pattern="*", primary_key=("id",)), {"a.ndjson": content.encode()}
    )


def parquet_files(folder: Path) -> Case:
    found = pa.table(
        {
            "id": [1, 2, 3],
            "email": pa.array([person(n)["email"] for n in (1, 2, 3)]).dictionary_encode(),
            "n": pa.array([1.5, None, float("nan")], pa.float32()),
            "said": [[{"to": CANARY}], None, []],
        }
    )
    pq.write_table(found, folder / "a.parquet")
    stream = ParquetStream(name="people", pattern="*", primary_key=("id",))
    return files(folder, stream, {"a.parquet": (folder / "a.parquet").read_bytes()})


def loaded(case: Case, destination: Destination, **options: Any) -> Any:
    return ingest(case.source, case.source.streams[0], case.connections, destination, **options)[-1]


def test_a_forgotten_row_is_nowhere_and_does_not_come_back(
    case: Case, warehouse: Warehouse, destination: Destination, landing_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = f"raw_{case.source.name}.{case.source.streams[0].name}"
    loaded(case, destination)
    others = all_rows(warehouse, table, "id::text::numeric <> 1")
    assert len(others) == 2
    before = looked(case.source, warehouse, destination, "id=1")
    assert (before.places["landing"], before.places[table]) == (1, 1)
    assert len(all_rows(warehouse, table)) == 3, "looking changes nothing"
    report = forgotten(case.source, warehouse, destination, "id=01")
    assert (report.status, report.places["landing"], report.places[table]) == ("done", 1, 1)
    assert all_rows(warehouse, table) == others
    check_gone(warehouse, landing_folder, CANARY)
    check_whole(warehouse, destination, landing_folder, case.source)

    case.again()
    again = loaded(case, destination)
    assert (again.forgotten, again.extracted, again.inserted) == (1, 3, 0)
    assert "1 rows of forgotten keys came again" in caplog.text
    assert len(all_rows(warehouse, table)) == 2
    check_gone(warehouse, landing_folder, CANARY)
    check_whole(warehouse, destination, landing_folder, case.source)
    for (load_id,) in warehouse.query("select load_id from ops.loads where kind = 'rows' order by started_at"):
        [replayed] = replay(case.source, case.source.streams[0], destination, load_id=load_id)
        assert (replayed.forgotten, replayed.extracted) == (1, 3)
    check_gone(warehouse, landing_folder, CANARY)
    check_whole(warehouse, destination, landing_folder, case.source)
