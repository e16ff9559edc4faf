"""The lake: what has been loaded, as Parquet, with all that another engine needs to make the same raw of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from connectors.connections import StoreLocation
from connectors.destinations.landing import Landing
from connectors.errors import ConfigurationError
from connectors.ingest import Destination
from connectors.lake import refresh
from connectors.model import Cursor, LandingFormat
from connectors.replay import replay
from deployments import cli
from tests.conftest import Api, Warehouse
from tests.connectors.examples import Prepare, Shop, erp, load, load_table, order, shop_source
from tests.connectors.forget.forgetting import forgotten


def lake_of(folder: Path) -> Landing:
    return Landing(StoreLocation(folder.as_uri()))


def listed(folder: Path, stream: str = "shop/orders") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / stream / "loads.json").read_text())
    return found


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*.parquet"))


def test_loads_are_listed_in_raws_order_with_what_only_the_ledger_knows(
    api: Api, warehouse: Warehouse, destination: Destination, tmp_path: Path
) -> None:
    source = shop_source(reject_limit=0.5)
    shop = Shop(api, [order(1, total=2.5), order(2, note="\0"), order(3, total=1)])
    first = load(source, api, destination)
    shop.orders[0] = order(1, total=3, changed="2024-02-01T00:00:00Z")
    second = load(source, api, destination, full_refresh=True)
    report = refresh(source, source.streams[0], destination, lake_of(tmp_path))
    assert report is not None
    assert (report.loads, report.written) == (2, 2)
    found = listed(tmp_path)
    raw_types = warehouse.query(
        "select attname::text, format_type(atttypid, atttypmod) from pg_attribute"
        " where attrelid = 'raw_shop.orders'::regclass and attnum > 0 and attname not like '\\_%' order by attnum"
    )
    assert [(column["name"], column["type"]) for column in found["columns"]] == raw_types
    assert (found["write"], found["key"], found["cursor"]) == ("merge", ["id"], source.streams[0].cursor.field)
    assert [each["load_id"] for each in found["loads"]] == [str(first.load_id), str(second.load_id)]
    assert [each["full_refresh"] for each in found["loads"]] == [False, True]
    assert [each["left_out_rows"] for each in found["loads"]] == [[2], [1]]
    for each, ids in zip(found["loads"], ([1, None, 3], [None, 3, 1]), strict=True):
        [(loaded_at,)] = warehouse.query(
            "select to_char(raw_loaded_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US') from ops.loads"
            " where load_id = %s",
            [each["load_id"]],
        )
        assert each["loaded_at"].removesuffix("Z") == loaded_at.rstrip("0").rstrip(".")
        [file] = each["files"]
        assert pq.read_table(tmp_path / file["key"], partitioning=None)["id"].to_pylist() == ids


def test_what_is_there_is_not_written_again(api: Api, destination: Destination, tmp_path: Path) -> None:
    shop = Shop(api, [order(1)])
    load(shop_source(), api, destination)
    refresh(shop_source(), shop_source().streams[0], destination, lake_of(tmp_path))
    before = {file: file.stat().st_mtime_ns for file in files(tmp_path)}
    shop.orders.append(order(2, changed="2024-02-01T00:00:00Z"))
    load(shop_source(), api, destination)
    report = refresh(shop_source(), shop_source().streams[0], destination, lake_of(tmp_path))
    assert report is not None
    assert (report.loads, report.written) == (2, 1)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert len(files(tmp_path)) == 2


def test_a_stream_that_was_never_loaded_is_not_in_the_lake(destination: Destination, tmp_path: Path) -> None:
    assert refresh(shop_source(), shop_source().streams[0], destination, lake_of(tmp_path)) is None
    assert not list(tmp_path.rglob("loads.json"))


def test_what_landed_as_parquet_is_listed_where_it_lies(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, tmp_path: Path
) -> None:
    connection = source_database("create table t (id int primary key, v numeric); insert into t values (1, 2.50)")
    source = erp(name="t", primary_key=("id",), landing=LandingFormat.PARQUET)
    load_table(source, connection, warehouse, destination)
    lake = tmp_path / "lake"
    report = refresh(source, source.streams[0], destination, lake_of(lake))
    assert report is not None
    assert (report.loads, report.written, files(lake)) == (1, 0, set())
    [file] = listed(lake, "erp/t")["loads"][0]["files"]
    assert file["in_landing"] is True
    assert (tmp_path / "landing" / file["key"]).is_file()


def test_rows_that_were_forgotten_are_gone_from_the_lake_with_the_next_refresh(
    source_database: Prepare, warehouse: Warehouse, destination: Destination, tmp_path: Path
) -> None:
    connection = source_database(
        "create table t (id int primary key, changed timestamptz default '2024-01-01Z');"
        "insert into t values (1), (2), (3)"
    )
    source = erp(name="t", primary_key=("id",), cursor=Cursor("changed"))
    load_table(source, connection, warehouse, destination)
    lake = tmp_path / "lake"
    refresh(source, source.streams[0], destination, lake_of(lake))
    [old] = files(lake)
    forgotten(source, warehouse, destination, "id=2")
    report = refresh(source, source.streams[0], destination, lake_of(lake))
    assert report is not None
    assert report.written == 1
    [new] = files(lake)
    assert new != old
    assert pq.read_table(new, partitioning=None)["id"].to_pylist() == [1, 3]
    assert listed(lake, "erp/t")["loads"][0]["erased_at"] is not None


def test_a_load_that_files_do_not_tell_in_full_is_refused_by_name(
    api: Api, destination: Destination, tmp_path: Path
) -> None:
    strict = shop_source(reject_limit=0.5, columns={"total": "integer"})
    Shop(api, [order(1, total=1), order(2, total="two")])
    load(strict, api, destination)
    refresh(strict, strict.streams[0], destination, lake_of(tmp_path))
    before = (tmp_path / "shop/orders/loads.json").read_bytes()
    lenient = shop_source(columns={"total": "text"})
    [again] = replay(lenient, lenient.streams[0], destination)
    with pytest.raises(ConfigurationError, match=f"Load {again.load_id} is a replay"):
        refresh(lenient, lenient.streams[0], destination, lake_of(tmp_path))
    assert (tmp_path / "shop/orders/loads.json").read_bytes() == before


def test_the_command_says_what_it_did_and_what_it_needs(
    api: Api, warehouse: Warehouse, destination: Destination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = warehouse.url("loader").render_as_string(hide_password=False)
    monkeypatch.setenv("HEADWATER_WAREHOUSE_LOADER_URL", loader)
    monkeypatch.setenv("HEADWATER_LANDING_URL", (tmp_path / "landing").as_uri())
    monkeypatch.delenv("HEADWATER_LAKE_URL", raising=False)
    done = CliRunner().invoke(cli.app, ["lake"])
    assert isinstance(done.exception, ConfigurationError)
    assert "Set HEADWATER_LAKE_URL" in str(done.exception)
    monkeypatch.setenv("HEADWATER_LAKE_URL", (tmp_path / "lake").as_uri())
    done = CliRunner().invoke(cli.app, ["lake", "flights_api.flights"])
    assert done.exit_code == 0, done.output
