"""Going back: serving as an earlier generation had it, from what later ones have replaced, in one transaction.

A group that was rolled back is on hold: no build moves it until somebody releases it, or the next hourly run would
bring back what was just taken away. A release moves nothing by itself; the next publish does, from the marts as they
are then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import class_row
from sqlalchemy.engine import URL

from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.copies import PUBLISHED, bring_back, take_back
from connectors.destinations.warehouse.generations import LOCK
from connectors.errors import ConfigurationError, UnknownNameError
from connectors.failpoints import reach


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What became of a group."""

    group: str
    before: int
    """The generation that was served."""
    generation: int
    """The one that is served now."""


def roll_back(
    publisher: URL, *, group: str | None = None, to: int | None = None, by: str, why: str = "rolled back"
) -> list[RolledBack]:
    """Serve an earlier generation again, and hold it there.

    Args:
        group: only this one; all groups without it.
        to: the generation whose data is to be served, of each group the last one up to it. Without it the last
            generation that changed anything is taken back.
        by: who wants it; the trust record says so.
        why: likewise.

    Returns:
        The groups that moved; those that were as they should be already are left alone.

    Raises:
        UnknownNameError: there is no such group.
        ConfigurationError: there is nothing to go back to, or what is needed for it is no longer kept.
        DestinationUnavailableError: the warehouse does not answer.
    """
    with _turn(publisher, "rollback") as connection:
        standing = _standing(connection, group)
        chains = {name: _chain(connection, name, generation) for name, generation in standing.items()}
        is_told = to is not None
        if to is None:
            changed = [step.generation for chain in chains.values() for step in chain if step.has_changes]
            if not changed:
                raise ConfigurationError(
                    "Nothing that was published can be taken back: no generation that is kept has changed anything.",
                    remedy="Correct the data instead; the next publish brings it.",
                )
            to = max(changed) - 1
        moved = [
            RolledBack(name, generation, _undo(connection, name, chains[name], to, by))
            for name, generation in standing.items()
            if generation is not None and generation > to and (chains[name] or is_told)
        ]
        if not moved:
            raise ConfigurationError(
                f"Nothing is served that is newer than generation {to}.",
                remedy="`select * from serving.data_status` shows what is.",
            )
        for each in moved:
            connection.execute(
                "update ops.serving_groups set generation = %s, hold_since = now(), hold_by = %s, hold_why = %s"
                " where mart_group = %s",
                [each.generation, by, f"{why.rstrip('.')} (generation {each.before} to {each.generation})", each.group],
            )
        reach("generation-recorded")
    reach("generation-served")
    return moved


def release(publisher: URL, *, group: str | None = None) -> list[str]:
    """Let the next publish move groups that are on hold: one, or all. Returns those that were.

    Raises:
        UnknownNameError: there is no such group.
        DestinationUnavailableError: the warehouse does not answer.
    """
    with _turn(publisher, "release") as connection:
        _standing(connection, group)
        rows = connection.execute(
            "update ops.serving_groups set hold_since = null, hold_by = null, hold_why = null"
            " where hold_since is not null and mart_group = coalesce(%s, mart_group) returning mart_group",
            [group],
        ).fetchall()
    return sorted(name for (name,) in rows)


@contextmanager
def _turn(publisher: URL, purpose: str) -> Iterator[psycopg.Connection]:
    """A transaction that no publish is beside."""
    with translated_errors(), connect(publisher, purpose, autocommit=True) as connection:
        connection.execute(LOCK)
        with connection.transaction():
            yield connection


@dataclass(frozen=True, slots=True)
class _Step:
    """A generation of a group that can be taken back."""

    generation: int
    base: int
    has_changes: bool


def _standing(connection: psycopg.Connection, group: str | None) -> dict[str, int | None]:
    """The generation that is served of each group, or of one."""
    standing: dict[str, int | None] = dict(
        connection.execute("select mart_group, generation from ops.serving_groups order by mart_group").fetchall()
    )
    if group is None:
        return standing
    if group not in standing:
        raise UnknownNameError("group of marts", group, list(standing))
    return {group: standing[group]}


def _chain(connection: psycopg.Connection, group: str, generation: int | None) -> list[_Step]:
    """The generations of a group that can be taken back one after the other, the latest first."""
    with connection.cursor(row_factory=class_row(_Step)) as cursor:
        steps = cursor.execute(
            """
            select generation, base, exists (
                select from ops.published_marts m
                where m.generation = g.generation and m.mart_group = g.mart_group
                  and (m.undo_table is not null or m.how <> 'rows')
            ) as has_changes
            from ops.published_groups g
            where mart_group = %s and is_undoable and base is not null order by generation desc
            """,
            [group],
        ).fetchall()
    chain: list[_Step] = []
    for step in steps:
        if step.generation != (chain[-1].base if chain else generation):
            break
        chain.append(step)
    return chain


def _undo(connection: psycopg.Connection, group: str, chain: list[_Step], to: int, by: str) -> int:
    """Take generations back until the group is of one that is not later. Returns which that is."""
    taken = [step for step in chain if step.generation > to]
    if not taken or taken[-1].base > to:
        kept = ", ".join(str(step.base) for step in chain) or "none"
        raise ConfigurationError(
            f"The group `{group}` cannot go back to generation {to}: what it has replaced since is no longer kept.",
            remedy=f"Generations that it can go back to: {kept}.",
        )
    for step in taken:
        _undo_generation(connection, group, step.generation)
        connection.execute(
            "update ops.published_groups set is_undoable = false, undone_at = now(), undone_by = %s"
            " where generation = %s and mart_group = %s",
            [by, step.generation, group],
        )
    base = taken[-1].base
    connection.execute(
        "update ops.serving_marts s set generation = m.generation, rows = m.rows_total, followed = null"
        " from ops.published_marts m where m.generation = %s and m.mart = s.mart and s.mart_group = %s"
        " and m.mart_group = s.mart_group and m.how <> 'gone'",
        [base, group],
    )
    _recount(connection, group)
    return base


def _recount(connection: psycopg.Connection, group: str) -> None:
    """Rows that were forgotten since do not come back: a mart may have fewer than it had then."""
    marts = connection.execute(
        "select s.mart from ops.serving_marts s where s.mart_group = %s and s.rows is not null and exists"
        " (select from ops.forget_places p"
        " where p.place in ('published.' || s.mart, 'undo.' || s.mart) and p.rows > 0)",
        [group],
    ).fetchall()
    for (mart,) in marts:
        connection.execute(
            sql.SQL("update ops.serving_marts set rows = (select count(*) from {}) where mart = %s").format(
                sql.Identifier(PUBLISHED, mart)
            ),
            [mart],
        )


def _undo_generation(connection: psycopg.Connection, group: str, generation: int) -> None:
    marts = connection.execute(
        """
        select m.mart, m.how, m.undo_table, s.mart_group
        from ops.published_marts m left join ops.serving_marts s using (mart)
        where m.generation = %s and m.mart_group = %s order by m.mart
        """,
        [generation, group],
    ).fetchall()
    for mart, how, undo_table, group_now in marts:
        if group_now not in (group, None):
            raise ConfigurationError(
                f"Generation {generation} of `{group}` cannot be taken back: the mart `{mart}` has gone to the group"
                f" `{group_now}` since.",
                remedy="Correct the data instead; the next publish brings it.",
            )
        if how == "rows":
            if undo_table is not None:
                take_back(connection, mart, undo_table)
        else:
            bring_back(connection, mart, undo_table)
        if how == "gone" and undo_table is not None:
            connection.execute(
                "insert into ops.serving_marts (mart, mart_group) values (%s, %s) on conflict (mart) do nothing",
                [mart, group],
            )
        if how == "anew" and undo_table is None:
            connection.execute(
                "update ops.serving_marts set generation = null, rows = null, followed = null where mart = %s", [mart]
            )
        reach("mart-written")
    connection.execute(
        "update ops.published_marts set undo_table = null, undo_rows = 0 where generation = %s and mart_group = %s",
        [generation, group],
    )
