"""What `make demo` shows at the end: the rows of each layer, what this run moved, and an answer worth having."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table

from connectors.connections import Connections, Database
from connectors.destinations.warehouse.connection import connect, translated_errors

_LAYERS = ("raw", "staging", "intermediate", "marts", "serving")
# Seen as these roles see it: BI as the reader, everything else as dbt does.
_READER, _TRANSFORMER = Database("warehouse_reader"), Database("warehouse_transformer")
_WORST = 5


def print_summary(connections: Connections, console: Console) -> None:
    """Print it.

    Raises:
        DestinationUnavailableError: the warehouse does not answer.
    """
    with (
        translated_errors(),
        connect(connections.database(_TRANSFORMER), "summary") as builder,
        connect(connections.database(_READER), "summary") as reader,
    ):
        console.print(_rows_by_layer(builder, reader))
        console.print(_last_loads(builder))
        console.print(_worst_weather(reader))


def _rows_by_layer(builder: psycopg.Connection, reader: psycopg.Connection) -> Table:
    table = Table("layer", "table", title="Rows by layer", title_justify="left", box=None, pad_edge=False)
    table.add_column("rows", justify="right")
    for layer in _LAYERS:
        connection = reader if layer == "serving" else builder
        for schema, name in _relations(connection, layer):
            count = _row(connection, sql.SQL("select count(*) from {}").format(sql.Identifier(schema, name)))
            table.add_row(layer, f"{schema}.{name}", f"{count[0]:,}")
    return table


def _relations(connection: psycopg.Connection, layer: str) -> list[tuple[str, str]]:
    pattern = "raw\\_%" if layer == "raw" else layer
    return connection.execute(
        "select table_schema, table_name from information_schema.tables where table_schema like %s order by 1, 2",
        [pattern],
    ).fetchall()


def _last_loads(connection: psycopg.Connection) -> Table:
    table = Table("stream", title="Last loads", title_justify="left", box=None, pad_edge=False)
    names = ("extracted", "inserted", "updated", "unchanged", "quarantined")
    for name in (*names, "MB landed"):
        table.add_column(name, justify="right")
    rows = connection.execute(
        "select distinct on (source, stream) source || '.' || stream, rows_extracted, rows_inserted, rows_updated,"
        " rows_unchanged, rows_quarantined, coalesce(bytes_landed, 0) from ops.loads where status = 'loaded'"
        " order by source, stream, loaded_at desc"
    )
    for stream, *counts, size in rows:
        table.add_row(stream, *(f"{count:,}" for count in counts), f"{size / 1e6:.1f}")
    return table


def _worst_weather(connection: psycopg.Connection) -> Table:
    table = Table(
        "airport", "weather", title="Where weather costs most", title_justify="left", box=None, pad_edge=False
    )
    for name in ("flights", "mean delay, minutes", "delayed", "cancelled"):
        table.add_column(name, justify="right")
    rows: Sequence[tuple[str, str, int, float, float, float]] = connection.execute(
        "select origin_airport_code, weather_category, flown_flights, mean_departure_delay_minutes,"
        " delayed_departure_share, cancelled_share from serving.fct_weather_impact"
        " where delay_rank <= %s order by delay_rank",
        [_WORST],
    ).fetchall()
    for airport, weather, flights, delay, delayed, cancelled in rows:
        table.add_row(
            airport, weather.replace("_", " "), f"{flights:,}", f"{delay:.0f}", f"{delayed:.0%}", f"{cancelled:.1%}"
        )
    return table


def _row(connection: psycopg.Connection, statement: sql.Composed) -> tuple[int]:
    row = connection.execute(statement).fetchone()
    assert row is not None  # noqa: S101 - count(*) always has one
    return row
