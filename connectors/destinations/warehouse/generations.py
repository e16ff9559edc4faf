"""The generations of a group that can be taken back, and for how long that is so."""

from __future__ import annotations

import psycopg

from connectors.destinations.warehouse.copies import drop_undo

LOCK = "select pg_advisory_lock(hashtextextended('headwater.publish', 0))"
"""What publishes and rollbacks take turns by; it goes with the session."""

KEPT_GENERATIONS = 24
"""How many generations of a group can be taken back. Fewer, if what they replaced has more rows than the group."""


def forget_old_generations(connection: psycopg.Connection, group: str) -> None:
    """Drop what old generations of a group have replaced: those beyond the number that is kept, and those with which it
    would be more rows than are served. Of the number, the latest one that changed anything is kept whatever its size.
    """
    forget_generations(
        connection,
        group,
        """
        generation in (
            select generation from (
                select generation, undo_rows, row_number() over newest as number, sum(undo_rows) over newest as rows
                from (
                    select g.generation, coalesce(sum(m.undo_rows), 0) as undo_rows
                    from ops.published_groups g
                    left join ops.published_marts m on m.generation = g.generation and m.mart_group = g.mart_group
                    where g.mart_group = %(group)s and g.is_undoable
                    group by g.generation
                ) of_each
                window newest as (order by generation desc)
            ) counted
            where number > %(kept)s
               or rows > undo_rows and rows > (select sum(rows) from ops.serving_marts where mart_group = %(group)s)
        )
        """,
    )


def forget_generations(connection: psycopg.Connection, group: str, condition: str = "true") -> None:
    """Drop what generations of a group have replaced: all, or those of a condition on `ops.published_groups`."""
    parameters = {"group": group, "kept": KEPT_GENERATIONS}
    generations = [
        generation
        for (generation,) in connection.execute(
            "update ops.published_groups set is_undoable = false"  # noqa: S608 - conditions of our own
            f" where mart_group = %(group)s and is_undoable and {condition} returning generation".encode(),
            parameters,
        )
    ]
    of_them = {"group": group, "generations": generations}
    tables = connection.execute(
        "select undo_table from ops.published_marts where mart_group = %(group)s"
        " and generation = any(%(generations)s) and undo_table is not null",
        of_them,
    ).fetchall()
    drop_undo(connection, [name for (name,) in tables])
    connection.execute(
        "update ops.published_marts set undo_table = null, undo_rows = 0 where mart_group = %(group)s"
        " and generation = any(%(generations)s)",
        of_them,
    )
