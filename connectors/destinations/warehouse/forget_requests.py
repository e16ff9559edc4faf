"""The ledger of requests to forget rows: what each is about, how far it has come, what it has reached. Never the keys.

As `headwater_owner`, who alone may begin one or end it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from uuid_utils.compat import uuid7

_COLUMNS = "request_id, source, stream, columns, keys, status, with_unreadable, derived_at"


class RequestStatus(StrEnum):
    """How far a request is."""

    RUNNING = "running"
    TO_BE_BUILT = "to be built"
    """All is erased but from tables that the next build makes anew."""
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Request:
    """A row of `ops.forget_requests`."""

    request_id: UUID
    source: str
    stream: str
    columns: Sequence[str]
    keys: int
    status: str
    with_unreadable: bool
    derived_at: datetime | None


def begin(
    connection: psycopg.Connection,
    source: str,
    stream: str,
    columns: Sequence[str],
    keys: int,
    *,
    by: str,
    why: str | None,
    with_unreadable: bool = False,
    allows_again: bool = False,
) -> Request:
    """Write a request down; one that allows keys again is done at once. Inside the transaction that notes the keys."""
    with connection.cursor(row_factory=class_row(Request)) as cursor:
        request = cursor.execute(
            f"""
            insert into ops.forget_requests
                (request_id, source, stream, kind, columns, keys, status, with_unreadable, requested_by, why, ended_at)
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, case when %s then clock_timestamp() end)
            returning {_COLUMNS}
            """.encode(),  # noqa: S608 - columns of our own
            [
                uuid7(),
                source,
                stream,
                "allow again" if allows_again else "forget",
                list(columns),
                keys,
                RequestStatus.DONE if allows_again else RequestStatus.RUNNING,
                with_unreadable,
                by,
                why,
                allows_again,
            ],
        ).fetchone()
    assert request is not None  # noqa: S101 - inserted just now
    return request


def open_requests(
    connection: psycopg.Connection, source: str | None = None, stream: str | None = None
) -> list[Request]:
    """Those that are not done, the oldest first: all, or of one stream."""
    with connection.cursor(row_factory=class_row(Request)) as cursor:
        return cursor.execute(
            f"select {_COLUMNS} from ops.forget_requests"  # noqa: S608 - columns of our own
            " where status <> 'done' and (%(source)s::text is null or source = %(source)s and stream = %(stream)s)"
            " order by requested_at".encode(),
            {"source": source, "stream": stream},
        ).fetchall()


def note_derived(connection: psycopg.Connection, request: UUID) -> None:
    """That no build was under way when the models were erased: one that is published later began later."""
    connection.execute("update ops.forget_requests set derived_at = clock_timestamp() where request_id = %s", [request])


def set_status(connection: psycopg.Connection, request: UUID, status: RequestStatus) -> None:
    """How far it is."""
    connection.execute(
        "update ops.forget_requests set status = %s, ended_at = case when %s = 'done' then clock_timestamp() end"
        " where request_id = %s",
        [status, status, request],
    )


def places(connection: psycopg.Connection, request: UUID) -> dict[str, int]:
    """How many rows it has erased, by where they were."""
    return dict(
        connection.execute(
            "select place, rows from ops.forget_places where request_id = %s order by place", [request]
        ).fetchall()
    )
