"""Small sources of each kind that tests load from: an API of orders, tables of an ERP, files of weather."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg

from connectors.connections import Database, EnvironmentConnections, ObjectStore, Secret, Setting
from connectors.destinations.warehouse.ledger import LoadReport
from connectors.files import CsvStream, FilesSource
from connectors.formats.file_streams import FileStream
from connectors.http.client import RetryPolicy
from connectors.ingest import Destination, ingest
from connectors.model import Cursor
from connectors.postgres import PostgresSource, TableStream
from connectors.rest import ApiKeyHeader, RestSource, RestStream, TokenInBody
from tests.conftest import Answer, Api, Request, Warehouse

IMPATIENT = RetryPolicy(attempts=2, wait_initial=0.01, wait_max=0.05, connect_timeout=1, read_timeout=2)

Documents = list[dict[str, Any]]


class Shop:
    """A small API of orders, by (changed, id), in pages."""

    def __init__(self, api: Api, orders: Documents, page: int = 3) -> None:
        self.api = api
        self.orders = orders
        self.page = page
        api.answer = self._answer

    def _answer(self, request: Request) -> Answer:
        if request.headers.get("X-Key") != "sesame":
            return Answer({"error": f"bad key {request.headers.get('X-Key')}"}, 401)
        since = request.parameters.get("since", "")
        start, end = request.parameters.get("from", ""), request.parameters.get("to", "~")
        found = sorted(
            (order for order in self.orders if order["changed"] >= since and start <= order.get("at", "") < end),
            key=lambda order: (order["changed"], order["id"]),
        )
        offset = int(request.parameters.get("after", 0))
        following = offset + self.page if offset + self.page < len(found) else None
        return Answer({"result": {"orders": found[offset : offset + self.page]}, "next": following})


def order(number: int, *, changed: str = "2024-01-01T00:00:00Z", **fields: Any) -> dict[str, Any]:
    return {"id": number, "changed": changed, "at": "2024-01-01T00:00:00Z", **fields}


def shop_source(**changes: Any) -> RestSource:
    definition = {
        "name": "orders",
        "path": "/orders",
        "records": "result.orders",
        "pages": TokenInBody(token="next", parameter="after"),
        "primary_key": ("id",),
        "cursor": Cursor("changed"),
        "since_parameter": "since",
        "event_time": "at",
        "window_parameters": ("from", "to"),
        "columns": {"changed": "timestamptz", "at": "timestamptz"},
        **changes,
    }
    return RestSource(
        name="shop",
        base_url=Setting("shop_url"),
        auth=ApiKeyHeader("X-Key", Secret("shop_key")),
        retries=IMPATIENT,
        streams=(RestStream(**definition),),
    )


def connections(api: Api, **more: str) -> EnvironmentConnections:
    return EnvironmentConnections({"HEADWATER_SHOP_URL": api.url, "HEADWATER_SHOP_KEY": "sesame", **more})


def load(source: RestSource, api: Api, destination: Destination, **options: Any) -> LoadReport:
    return ingest(source, source.streams[0], connections(api), destination, **options)[-1]


def raw(warehouse: Warehouse, columns: str = "*", table: str = "raw_shop.orders") -> list[tuple[Any, ...]]:
    return warehouse.query(f"select {columns} from {table} order by 1")


def loads(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    return warehouse.query("select status, attempt from ops.loads order by started_at")


def counts(report: LoadReport) -> tuple[int, ...]:
    return (report.extracted, report.inserted, report.updated, report.unchanged, report.duplicate, report.quarantined)


Prepare = Callable[[str], psycopg.Connection]


def database(connection: psycopg.Connection, warehouse: Warehouse) -> EnvironmentConnections:
    url = warehouse.server.url.set(database=connection.info.dbname).render_as_string(hide_password=False)
    return EnvironmentConnections({"HEADWATER_ERP_URL": url})


def erp(**definition: Any) -> PostgresSource:
    return PostgresSource(name="erp", database=Database("erp"), streams=(TableStream(**definition),))


def load_table(
    source: PostgresSource, connection: psycopg.Connection, warehouse: Warehouse, destination: Destination
) -> LoadReport:
    return ingest(source, source.streams[0], database(connection, warehouse), destination)[-1]


def drop(folder: Path, files: Mapping[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, newline="")


def weather(folder: Path, **changes: Any) -> tuple[FilesSource, EnvironmentConnections]:
    definition = {
        "name": "weather",
        "pattern": "weather-{date}.csv",
        "nulls": ("", "NA"),
        "primary_key": ("station", "hour"),
        "event_time": "hour",
        "columns": {"hour": "timestamptz", "temp": "numeric"},
        **changes,
    }
    return met(CsvStream(**definition), folder.as_uri())


def met(stream: FileStream, url: str, **changes: Any) -> tuple[FilesSource, EnvironmentConnections]:
    """A source of files, and where they are. Tests read what they have just written: nothing has to settle."""
    definition = {"settle_seconds": 0, **changes}
    source = FilesSource(name="met", root=ObjectStore("met"), streams=(stream,), **definition)
    return source, EnvironmentConnections({"HEADWATER_MET_URL": url})
