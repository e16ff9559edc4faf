"""A load as a file for others: the same rows, from the landing alone, whole or not at all."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pyarrow.parquet as pq
import pytest
from sqlalchemy.engine import URL
from typer.testing import CliRunner

from connectors.connections import EnvironmentConnections
from connectors.errors import ConfigurationError, DestinationUnavailableError, LandingCorruptError
from connectors.export import ExportFormat, export
from connectors.files import CsvStream, JsonStream, OnBadFile
from connectors.ingest import Destination, ingest
from connectors.model import LandingFormat
from connectors.sources.weather_files import weather_files
from tests.conftest import Api, Warehouse
from tests.connectors.examples import Prepare, Shop, erp, load, load_table, met, order, raw, shop_source
from tests.connectors.test_round_trip import columns, everything

__all__ = ["everything"]  # a fixture

PARQUET, JSONL = ExportFormat.PARQUET, ExportFormat.JSONL


def no_warehouse() -> URL:
    raise AssertionError("no warehouse is needed")


def number(text: str) -> int | Decimal:
    """Python reads no more digits than 4,300 as an integer."""
    return int(text) if len(text) < 40 else Decimal(text)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line, parse_float=Decimal, parse_int=number) for line in path.read_text().splitlines()]


def rows(path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(path, use_threads=False).to_pylist())


def test_documents_come_as_rows_and_what_is_none_with_its_reason(
    api: Api, destination: Destination, tmp_path: Path
) -> None:
    source = shop_source(reject_limit=0.5)
    strange = 'tab\t quote" back\\slash \\N \n ä\N{GRINNING FACE}'
    Shop(
        api, [order(1, total=2.50, note=strange), order(2, total=10**30, tags=["a", {"b": None}]), order(3, note="\0")]
    )
    report = load(source, api, destination)
    expected = [
        {"id": 1, "total": Decimal("2.5"), "note": strange, "tags": None, "_rejected": None},
        {"id": 2, "total": 10**30, "note": None, "tags": ["a", {"b": None}], "_rejected": None},
        {"id": None, "total": None, "_rejected": "column note: a NUL character, which text cannot hold"},
    ]
    for form in ExportFormat:
        done = export(source, source.streams[0], destination.landing, tmp_path, form, warehouse=no_warehouse)
        assert (done.load_id, done.rows, done.rejected) == (report.load_id, 3, 1)
        assert done.path == tmp_path / f"shop.orders.{report.load_id}.{form}"
    found = lines(tmp_path / f"shop.orders.{report.load_id}.jsonl")
    assert [{name: row[name] for name in part} for row, part in zip(found, expected, strict=True)] == expected
    assert json.loads(found[2]["_payload"])["note"] == "\0"
    table = rows(tmp_path / f"shop.orders.{report.load_id}.parquet")
    assert [(row["id"], row["total"], row["note"], row["tags"]) for row in table] == [
        (1, "2.5", strange, None),
        (2, str(10**30), None, '["a", {"b": null}]'),
        (None, None, None, None),
    ]


def test_tables_come_with_every_type_whatever_they_landed_as(
    everything: psycopg.Connection, warehouse: Warehouse, destination: Destination, tmp_path: Path
) -> None:
    """The binary landing is decoded by the warehouse, and what comes is the same as by way of Parquet."""
    for number, landing in enumerate((None, LandingFormat.PARQUET)):
        source = erp(name="t", primary_key=("id",), landing=landing)
        load_table(source, everything, warehouse, destination)
        for form in ExportFormat:
            warehouse_url = no_warehouse if landing else lambda: destination.warehouse
            path = tmp_path / f"{number}.{form}"
            export(source, source.streams[0], destination.landing, path, form, warehouse=warehouse_url)
    assert warehouse.query("select count(*) from pg_tables where schemaname = 'loading'") == [(0,)]
    assert rows(tmp_path / "0.parquet").__repr__() == rows(tmp_path / "1.parquet").__repr__()
    assert lines(tmp_path / "0.jsonl") == lines(tmp_path / "1.jsonl")
    names = [name for name, kind, _ in columns() if kind not in ("json", "jsonb", "boolean")]
    printed = ", ".join(f"case when {name} is not null then format('%s', {name}) end" for name in names)
    there = raw(warehouse, f"id, {printed}", "raw_erp.t")
    for row, texts in zip(lines(tmp_path / "0.jsonl"), there, strict=True):
        for name, text in zip(["id", *names], texts, strict=True):
            assert alike(row[name]) == alike(text), name


def alike(value: Any) -> Any:
    """Numbers by their value: 1e+15 is as good as 1000000000000000."""
    try:
        number = Decimal(value or "none")
    except ArithmeticError:
        return value
    return number if number.is_finite() else str(number)


def test_a_value_without_a_twin_is_met_late(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, tmp_path: Path
) -> None:
    connection = source_database(
        "create table t (id int primary key, n numeric(10,2), filler text);"
        "insert into t select n, n, repeat('x', 500) from generate_series(1, 9000) n;"
        "update t set n = 'NaN' where id = 8999"
    )
    source = erp(name="t", primary_key=("id",))
    load_table(source, connection, warehouse, destination)
    path = tmp_path / "t.parquet"
    done = export(
        source, source.streams[0], destination.landing, path, PARQUET, warehouse=lambda: destination.warehouse
    )
    assert done.rows == 9000
    found = {row["id"]: row["n"] for row in rows(path)}
    assert (len(found), found[1], found[8999]) == (9000, "1.00", "NaN")


def test_files_come_by_the_stream_s_definition(tmp_path: Path, destination: Destination) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "1.csv").write_bytes("größe;b\nä;\n1\n".encode("latin-1"))
    (folder / "2.csv").write_bytes(b"a,b\n")
    stream = CsvStream(
        name="t", primary_key=("größe",), pattern="*.csv", delimiter=";", encoding="latin-1", file_column="file",
        reject_limit=1, on_bad_file=OnBadFile.QUARANTINE,
    )  # fmt: skip
    source, where = met(stream, folder.as_uri())
    ingest(source, stream, where, destination)
    done = export(source, stream, destination.landing, tmp_path / "t.jsonl", JSONL, warehouse=no_warehouse)
    assert (done.rows, done.rejected) == (2, 1)
    first, second = lines(done.path)
    assert (first["größe"], first["file"]) == ("ä", "1.csv")
    assert second["_payload"] == "1"
    other = JsonStream(name="t", primary_key=("a",), pattern="*.csv")
    with pytest.raises(ConfigurationError, match="What landed is CSV, and the stream's files are JSON"):
        export(source, other, destination.landing, tmp_path / "u.jsonl", JSONL, warehouse=no_warehouse)


def test_a_load_is_chosen_by_its_id_or_is_the_latest(api: Api, destination: Destination, tmp_path: Path) -> None:
    source = shop_source()
    shop = Shop(api, [order(1)])
    first = load(source, api, destination)
    shop.orders.append(order(2, changed="2024-02-01T00:00:00Z"))
    second = load(source, api, destination)
    stream, landing = source.streams[0], destination.landing
    done = export(source, stream, landing, tmp_path / "1", JSONL, load_id=first.load_id, warehouse=no_warehouse)
    assert (done.load_id, [row["id"] for row in lines(done.path)]) == (first.load_id, [1])
    done = export(source, stream, landing, tmp_path / "2", JSONL, warehouse=no_warehouse)
    assert (done.load_id, [row["id"] for row in lines(done.path)]) == (second.load_id, [1, 2])
    strange = uuid4()
    with pytest.raises(ConfigurationError, match=f"The landing has no load {strange} of this stream"):
        export(source, stream, landing, tmp_path / "3", JSONL, load_id=strange, warehouse=no_warehouse)


def test_a_file_is_there_whole_or_not_at_all(
    api: Api, destination: Destination, landing_folder: Path, tmp_path: Path
) -> None:
    source = shop_source()
    Shop(api, [order(number) for number in range(200)], page=100)
    load(source, api, destination)
    stream, out = source.streams[0], tmp_path / "out"
    out.mkdir()

    def attempt(path: Path = out / "t.parquet", landing: Any = destination.landing) -> None:
        export(source, stream, landing, path, PARQUET, warehouse=no_warehouse)

    with pytest.raises(ConfigurationError, match="nowhere/t.parquet cannot be written"):
        attempt(tmp_path / "nowhere" / "t.parquet")
    [landed] = landing_folder.rglob("a1-*")
    content = landed.read_bytes()
    landed.write_bytes(content[:-1])
    with pytest.raises(LandingCorruptError, match=landed.name):
        attempt()
    assert list(out.iterdir()) == []
    landed.write_bytes(content)
    attempt()
    assert [path.name for path in out.iterdir()] == ["t.parquet"]
    before = (out / "t.parquet").read_bytes()
    with pytest.raises(ConfigurationError, match="t.parquet is there already.* Name another file"):
        attempt()
    assert (out / "t.parquet").read_bytes() == before


def test_without_a_warehouse_a_binary_landing_is_named(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, tmp_path: Path
) -> None:
    connection = source_database("create table t (id int primary key); insert into t values (1)")
    source = erp(name="t", primary_key=("id",))
    load_table(source, connection, warehouse, destination)
    nowhere = destination.warehouse.set(port=1)
    with pytest.raises(DestinationUnavailableError, match="127.0.0.1:1"):
        export(source, source.streams[0], destination.landing, tmp_path / "t", JSONL, warehouse=lambda: nowhere)
    assert list(tmp_path.glob(".t*")) == []


def test_the_command(
    warehouse: Warehouse, landing_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deployments.cli import app  # Prefect comes with it

    folder = tmp_path / "weather"
    folder.mkdir()
    (folder / "weather-2013-01-01.csv").write_text("origin,time_hour,temp\nEWR,2013-01-01T06:00:00Z,39.02\n")
    os.utime(folder / "weather-2013-01-01.csv", (0, 0))
    monkeypatch.setenv("HEADWATER_WEATHER_FILES_URL", folder.as_uri())
    monkeypatch.setenv("HEADWATER_LANDING_URL", landing_folder.as_uri())
    monkeypatch.setenv("HEADWATER_WAREHOUSE_LOADER_URL", warehouse.url("loader").render_as_string(hide_password=False))
    ingest(weather_files, weather_files.streams[0], EnvironmentConnections(), Destination.of(EnvironmentConnections()))
    monkeypatch.delenv("HEADWATER_WAREHOUSE_LOADER_URL")
    command = ["export", "weather_files.weather", "--to", str(tmp_path / "w.jsonl"), "--format", "jsonl"]
    done = CliRunner().invoke(app, [*command, "--latest"])
    assert done.exit_code == 0, done.output
    assert lines(tmp_path / "w.jsonl")[0]["temp"] == "39.02"
    assert isinstance(CliRunner().invoke(app, [*command, "--latest"]).exception, ConfigurationError)
    assert CliRunner().invoke(app, command).exit_code == 2, "neither --load nor --latest"
