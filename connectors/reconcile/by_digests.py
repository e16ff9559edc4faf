"""One comparison by counts and checksums: both sides as of one instant each, raw's first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from connectors.comparison.bisection import Suspects, find_suspects
from connectors.comparison.differences import Difference, Findings, Kind, Limits
from connectors.comparison.digests import DigestSource, FoundRow, Key, Span
from connectors.connections import Connections
from connectors.destinations.warehouse.columns import DELETED_AT, column_name
from connectors.destinations.warehouse.compared_columns import ComparedColumns, raw_digests
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.raw_table import raw_columns
from connectors.destinations.warehouse.reconciliations import in_quarantine
from connectors.destinations.warehouse.watermark import read_watermark
from connectors.errors import DataError, WindowError
from connectors.ingest import Logger
from connectors.model import Stream, Window, parse_instant

_IDLE_SECONDS = 60.0


def compare_digests(
    source: DigestSource,
    stream: Stream,
    connections: Connections,
    warehouse: URL,
    span: Span,
    limits: Limits,
    log: Logger,
) -> Findings:
    """What differs in a span.

    The source's instant is later than raw's: a row that it has with a cursor below raw's watermark was in raw. Rows
    from there on are left out on both sides, by their key.

    Raises:
        DataError: more rows have changed since the last load than the limits allow, or the two have no key in common.
        HeadwaterError: one of the two did not answer in time.
    """
    name = f"reconcile {source.name}.{stream.name}"
    with (
        translated_errors(),
        connect(warehouse, name, idle_seconds=limits.seconds + _IDLE_SECONDS) as connection,
    ):
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute(sql.SQL("set local statement_timeout = {}").format(f"{limits.seconds * 1000:.0f}ms"))
        position = read_watermark(connection, source.name, stream.name).value
        types = raw_columns(connection, source.name, stream.name)
        with source.table(stream, connections, limits.seconds) as table:
            compared = ComparedColumns.of(stream, table.columns, types)
            if compared.left_out:
                log.warning("Not compared, because only one side has them so: %s.", ", ".join(compared.left_out))
            changed: list[Key] = []
            if position is not None:
                changed = table.changed_since(compared.at_source, position, limits.changed + 1)
            if len(changed) > limits.changed:
                raise DataError(
                    f"More than {limits.changed:,} rows have changed at the source since the last load.",
                    remedy="Load the stream, then reconcile it.",
                )
            there = table.digests(compared.at_source, position)
            here = raw_digests(connection, source.name, stream, types, compared.in_raw, changed, translated_errors)
            suspects = find_suspects(there, here, span, limits)
        rows = _Classified.of(stream, list(compared.in_raw.values), suspects)
        asked = [(each.key, rows.cursors[each.key]) for each in rows.differences if each.kind is not Kind.DELETED]
        aside = in_quarantine(connection, source.name, stream, types, asked) if asked else set()
    return Findings(
        [each for each in rows.differences if each.key not in aside or each.kind is Kind.DELETED],
        suspects.is_at_least,
        suspects.rows_at_source,
        suspects.rows_in_raw,
        len(aside),
        len(changed),
        suspects.questions + (position is not None),
    )


@dataclass(frozen=True, slots=True)
class _Classified:
    differences: Sequence[Difference]
    cursors: Mapping[Key, str | None]
    """The source's, of rows that it has."""

    @classmethod
    def of(cls, stream: Stream, columns: list[str], suspects: Suspects) -> _Classified:
        key = [column_name(field) for field in stream.primary_key]
        differences: list[Difference] = []
        cursors: dict[Key, str | None] = {}
        for each in suspects.keys:
            there, here = suspects.at_source.get(each), suspects.in_raw.get(each)
            if there is None:
                if here is not None and here.is_settled:
                    row = _named(key, each, columns, here)
                    differences.append(Difference(_window(stream, row), each, Kind.DELETED))
                continue
            if not there.is_settled:
                continue  # it lost its cursor, so each load reads it
            row = _named(key, each, columns, there)
            cursors[each] = row.get(column_name(stream.cursor.field)) if stream.cursor else None
            window = _window(stream, row)
            if here is None:
                differences.append(Difference(window, each, Kind.MISSING))
                continue
            pairs = zip(columns, there.values, here.values, strict=True)
            differing = tuple(name for name, one, other in pairs if one != other)
            if differing:
                differences.append(Difference(window, each, Kind.DIFFERENT, differing))
            elif not here.is_settled:
                differences.append(Difference(window, each, Kind.MISSING, (DELETED_AT,)))
        return cls(differences, cursors)


def _named(key: list[str], values: Key, columns: list[str], row: FoundRow) -> dict[str, str | None]:
    return {**dict(zip(columns, row.values, strict=True)), **dict(zip(key, values, strict=True))}


def _window(stream: Stream, row: Mapping[str, str | None]) -> Window | None:
    """The window of a row by its event time, as PostgreSQL prints it in UTC."""
    text = row.get(column_name(stream.event_time)) if stream.event_time else None
    if text is None:
        return None
    try:
        start = stream.windows.start_of(parse_instant(text, "start"))
        return Window(start, stream.windows.next(start))
    except (WindowError, OverflowError):  # infinite, before Christ, or at the end of the calendar
        return None
