"""Which rows of a table a load asks for: from the watermark on, or within a window, in the words of its database."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import sqlalchemy as sa

from connectors.errors import ConfigurationError
from connectors.model import ExtractRequest, Stream, check_window
from connectors.sql.types import INTEGERS, TIMESTAMP, TIMESTAMPTZ, SqlColumn, as_single

_TIMES = ("date", TIMESTAMP, TIMESTAMPTZ)
_ORDERED = (*INTEGERS, "numeric", "real", "double precision", *_TIMES)
"""The types that every database orders alike. Texts are not among them: each collation has its own order."""

Position = int | float | Decimal | date | datetime


def wanted(stream: Stream, columns: Mapping[str, SqlColumn], request: ExtractRequest) -> sa.ColumnElement[bool] | None:
    """The condition on the rows of a load; None for all of them.

    Raises:
        ConfigurationError: the window, the cursor or its lag do not suit the columns.
    """
    if request.window is not None:
        check_window(stream, request.window)
        column = columns[stream.event_time or ""]
        if column.kind not in _TIMES or (column.type == "text" and not column.times_are_texts):
            raise _unsuited(stream, f"The event_time {column.name}", column, "a date or a timestamp")
        compared = _compared(column)
        start = _bound(column, request.window.start, up=True)
        end = _bound(column, request.window.end, up=True)
        return sa.and_(compared >= start, compared < end)
    if stream.cursor is None:
        return None
    column = columns[stream.cursor.field]
    if column.kind not in _ORDERED or (
        column.type == "text" and not (column.times_are_texts and column.kind in _TIMES)
    ):
        raise _unsuited(stream, f"The cursor {column.name}", column, "a number, a date or a timestamp")
    if stream.cursor.lag and column.kind not in _TIMES:
        raise ConfigurationError(
            f"The cursor {column.name} is of type {column.kind}, and has a lag, which is a span of time.",
            remedy="Leave the lag out, or take a cursor that is a time.",
            stream=stream.name,
        )
    since = request.watermark if request.watermark is not None else stream.cursor.initial
    if since is None:
        return None
    position = parsed(column.kind, since, stream)
    if stream.cursor.lag and request.watermark is not None:
        position = _before(position, stream.cursor.lag)
    bound = _bound(column, position)
    compared = _compared(column)
    # A row without a cursor value never comes after a watermark: it is read each time, to be loaded or refused.
    return sa.or_(compared >= bound, compared.is_(None))


def parsed(kind: str, text: str, stream: Stream) -> Position:
    """A position as PostgreSQL prints it (or as a definition says it), as a value.

    Raises:
        ConfigurationError: it is none of the type.
    """
    try:
        if kind in INTEGERS:
            return int(text)
        if kind == "numeric":
            return Decimal(text)
        if kind in ("real", "double precision"):
            return float(text)
        instant = datetime.fromisoformat(text)
    except (ValueError, InvalidOperation):
        raise ConfigurationError(
            f"The cursor is of type {kind}, and is to start at `{text}`.",
            remedy="Correct the cursor's initial value, or run the stream once with full_refresh.",
            stream=stream.name,
        ) from None
    if kind == "date":
        return instant.date()
    if kind == TIMESTAMPTZ:
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    return instant if instant.tzinfo is None else instant.astimezone(UTC).replace(tzinfo=None)


def _before(position: Position, lag: timedelta) -> Position:
    assert isinstance(position, date)  # noqa: S101 - a lag is refused for all else
    try:
        days = timedelta(days=math.ceil(lag / timedelta(days=1)))
        return position - (lag if isinstance(position, datetime) else days)
    except OverflowError:  # before the year 1
        return datetime.min.replace(tzinfo=position.tzinfo) if isinstance(position, datetime) else date.min


def _compared(column: SqlColumn) -> sa.ColumnElement[Any]:
    """What of a column is compared.

    SQLite's times are texts, written in several ways that do not sort alike; its function knows them all, to the
    second. What it does not know is null, and so read each time.
    """
    return sa.func.datetime(column.column) if column.times_are_texts and column.kind in _TIMES else column.column


def _bound(column: SqlColumn, position: Position, *, up: bool = False) -> Any:
    """A position as the database's driver takes it.

    Args:
        up: whether what lies between two values that the column can have is rounded up, as for a window's bounds;
            else down.
    """
    if isinstance(position, Decimal):
        return float(position) if column.times_are_texts else position
    if isinstance(position, float):
        return as_single(position) if column.is_single else position
    if not isinstance(position, date):
        return position
    if column.kind == "date":
        day = _day(position, up=up)
        return f"{day} 00:00:00" if column.times_are_texts else day
    assert isinstance(position, datetime)  # noqa: S101 - dates are of type date
    if column.has_zone:
        return position if position.tzinfo else position.replace(tzinfo=UTC)
    plain = position.astimezone(UTC).replace(tzinfo=None) if position.tzinfo else position
    if column.times_are_texts:
        if up and plain.microsecond:
            plain += timedelta(seconds=1)
        return plain.isoformat(" ", "seconds")
    return plain


def _day(position: date, *, up: bool) -> date:
    if not isinstance(position, datetime):
        return position
    plain = position.astimezone(UTC) if position.tzinfo else position
    return plain.date() + timedelta(days=1) if up and plain.time() != datetime.min.time() else plain.date()


def _unsuited(stream: Stream, what: str, column: SqlColumn, needed: str) -> ConfigurationError:
    said = column.type if column.kind in (column.type, "text") else f"{column.type}, declared as {column.kind}"
    return ConfigurationError(
        f"{what} is of type {said}: databases do not agree on its order, and rows would be missed.",
        remedy=f"Take {needed}, or none.",
        stream=stream.name,
    )
