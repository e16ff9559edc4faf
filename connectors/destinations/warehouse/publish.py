"""Publishing: what dbt built and tested becomes what BI reads, in one transaction.

dbt builds in `marts`, where nobody reads. `published` holds a copy of each mart, brought up to date row by row: only
rows that differ are written, and readers, who see `serving` (views over `published`), are never blocked and never see
half of it. dbt dropping and rebuilding its tables cannot touch either.

Marts move by group: all of a group, or none if one of them must not be published. A generation is one number for the
whole of `serving`, so that one number names what readers saw at an instant; a group that is held back stays at the
generation that moved it last. What a generation has replaced is kept for a while: see `rollback`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from connectors.destinations.warehouse.changes import Notes
from connectors.destinations.warehouse.connection import column_types, connect, translated_errors
from connectors.destinations.warehouse.copies import (
    PUBLISHED,
    Difference,
    create_copy,
    create_view,
    drop_undo,
    keep_indexes,
    published_key,
    set_aside,
    synchronise,
)
from connectors.destinations.warehouse.generations import LOCK, forget_generations, forget_old_generations
from connectors.destinations.warehouse.ledger import Fence
from connectors.destinations.warehouse.marts import Mart, MartReport, PublishReport, Verdict
from connectors.destinations.warehouse.positions import Position
from connectors.errors import ConfigurationError, DataError, HeadwaterError
from connectors.failpoints import reach

DATA_STATUS = "data_status"
"""The view in `serving` that says how far each mart can be trusted."""


def publish(
    publisher: URL,
    marts: Sequence[Mart],
    *,
    invocation_id: str,
    run: str | None = None,
    verdicts: Mapping[str, Verdict] | None = None,
    positions: Sequence[Position] = (),
    fence: Fence | None = None,
) -> PublishReport:
    """Show readers the marts as they are now, the groups all together; marts that are no longer given are taken away.

    Args:
        marts: all of the project.
        invocation_id: the dbt invocation that built and tested them.
        verdicts: what it said, by mart; a mart without one may be published.
        positions: how far each stream was when the build began.
        fence: of the lease under which it was built.

    Raises:
        FencedError: a successor has the lease, and may have built since.
        DestinationUnavailableError: the warehouse does not answer.
    """
    with translated_errors(), connect(publisher, "publish", autocommit=True) as connection:
        # Before the transaction, whose snapshot would otherwise be older than what the one before has published.
        connection.execute(LOCK)
        there = [mart for mart in marts if column_types(connection, mart.schema, mart.name)]
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.transaction():
            if there:
                # Also before the snapshot: a table that dbt puts in a mart's place afterwards would look empty in it.
                connection.execute(
                    sql.SQL("lock table {} in access share mode").format(
                        sql.SQL(", ").join(sql.Identifier(mart.schema, mart.name) for mart in there)
                    )
                )
            if fence is not None:
                # Of what a successor builds nothing is in the snapshot, if its epoch is not.
                fence.check(connection, is_snapshot_enough=True)
            publication = _Publication(connection, marts, verdicts or {}, positions, invocation_id, run)
            report = publication.publish()
        reach("generation-served")
    return report


@dataclass(frozen=True, slots=True)
class _Served:
    """A mart as `ops.serving_marts` has it."""

    group: str
    rows: int | None
    followed: str | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a mart is to be published."""

    mart: Mart
    columns: Mapping[str, str]
    notes: Notes
    is_anew: bool
    by_notes: bool
    """Whether only the rows whose keys were noted are compared."""


class _Publication:
    """One publish, within its transaction."""

    def __init__(
        self,
        connection: psycopg.Connection,
        marts: Sequence[Mart],
        verdicts: Mapping[str, Verdict],
        positions: Sequence[Position],
        invocation_id: str,
        run: str | None,
    ) -> None:
        self._connection = connection
        self._marts = marts
        self._verdicts = verdicts
        self._positions = {(each.source, each.stream): each for each in positions}
        self._invocation_id = invocation_id
        self._run = run
        self._served = {
            name: _Served(*served)
            for name, *served in connection.execute("select mart, mart_group, rows, followed from ops.serving_marts")
        }
        self._tables = 0

    def publish(self) -> PublishReport:
        on_hold: dict[str, str] = dict(
            self._connection.execute(
                "select mart_group, hold_why from ops.serving_groups where hold_since is not null"
            ).fetchall()
        )
        plans, held_back = self._judge(on_hold)
        groups = sorted({mart.group for mart in self._marts} - held_back.keys() - on_hold.keys())
        self._note_verdicts(held_back)
        reach("publish-begun")
        generation: int | None = None
        reports: list[MartReport] = []
        gone = self._gone(groups, on_hold)
        if groups or gone:
            generation = self._new_generation()
            self._connection.execute(
                "insert into ops.published_groups (generation, mart_group, base)"
                " select %s, mart_group, generation from ops.serving_groups where mart_group = any(%s)",
                [generation, groups],
            )
            reports = [self._publish_mart(plan, generation) for plan in plans]
            self._take_away(gone, generation, groups)
            self._connection.execute(
                "update ops.serving_groups set generation = %s where mart_group = any(%s)", [generation, groups]
            )
            for group in groups:
                forget_old_generations(self._connection, group)
            reach("generation-recorded")
        return PublishReport(
            generation, tuple(groups), tuple(reports), held_back, {name: on_hold[name] for name in sorted(on_hold)}
        )

    def _judge(self, on_hold: Mapping[str, str]) -> tuple[list[_Plan], dict[str, str]]:
        """How to publish each mart that may be, and why groups must not be."""
        plans: list[_Plan] = []
        reasons: dict[str, list[str]] = {}
        refused: dict[str, str] = {}
        for mart in self._marts:
            verdict = self._verdicts.get(mart.name)
            if verdict is not None and verdict.why:
                reasons.setdefault(mart.group, []).append(verdict.why)
        for mart in self._marts:
            if mart.group in reasons or mart.group in on_hold:
                continue
            served = self._served.get(mart.name)
            if served is not None and served.group in on_hold:
                refused[mart.name] = f"The mart `{mart.name}` is of the group `{served.group}`, which is on hold."
                continue
            try:
                plans.append(self._plan(mart))
            except HeadwaterError as error:
                refused[mart.name] = str(error)
        for mart in self._marts:
            for name in sorted(refused.keys() & {mart.name, *mart.reads}):
                reasons.setdefault(mart.group, []).append(refused[name])
        held_back = {group: "; ".join(dict.fromkeys(found)).rstrip(".") for group, found in sorted(reasons.items())}
        return [plan for plan in plans if plan.mart.group not in held_back], held_back

    def _plan(self, mart: Mart) -> _Plan:
        """How to publish a mart.

        Raises:
            ConfigurationError: it has no key, a name that is taken, or is not there (as it should be).
            DataError: its key is not unique, or null.
        """
        if not mart.key:
            raise ConfigurationError(
                f"The mart `{mart.name}` has no primary key.",
                remedy="Give it a constraint `type: primary_key` with its columns in its yml.",
            )
        if mart.name == DATA_STATUS:
            raise ConfigurationError(
                f"A mart cannot be called `{DATA_STATUS}`, as the trust record is.", remedy="Give it another name."
            )
        columns = column_types(self._connection, mart.schema, mart.name)
        if not columns:
            raise ConfigurationError(
                f"There is no mart {mart.schema}.{mart.name} that the publisher may read.",
                remedy="Run the transform first: `prefect deployment run 'transform/nyc'`.",
            )
        if missing := [name for name in mart.key if name not in columns]:
            raise ConfigurationError(
                f"The mart `{mart.name}` has no column {', '.join(missing)}, which its primary key names.",
                remedy="Correct the constraint in its yml, or build it with --full-refresh.",
            )
        is_anew = (
            list(column_types(self._connection, PUBLISHED, mart.name).items()) != list(columns.items())
            or published_key(self._connection, mart.name) != mart.key
        )
        notes = Notes(self._connection, mart)
        served = self._served.get(mart.name)
        by_notes = (
            not is_anew
            and served is not None
            and served.rows is not None
            and served.followed is not None
            and served.followed == notes.fingerprint
            and notes.are_few(served.rows)
        )
        _check_key(self._connection, mart, notes.table if by_notes else None)
        return _Plan(mart, columns, notes, is_anew, by_notes)

    def _note_verdicts(self, held_back: Mapping[str, str]) -> None:
        """Write down what the build said of each mart, whether it is published or not."""
        for group in sorted({mart.group for mart in self._marts}):
            why = held_back.get(group)
            self._connection.execute(
                """
                insert into ops.serving_groups as g (mart_group, held_back_since, held_back_why)
                values (%(group)s, case when %(why)s::text is not null then now() end, %(why)s)
                on conflict (mart_group) do update set
                    held_back_since = case when %(why)s::text is not null then coalesce(g.held_back_since, now()) end,
                    held_back_why = %(why)s
                """,
                {"group": group, "why": why},
            )
        for mart in self._marts:
            verdict = self._verdicts.get(mart.name, Verdict())
            self._connection.execute(
                """
                insert into ops.serving_marts
                    (mart, mart_group, tests_passed, tests_failed, tests_warned, invocation_id)
                values (%s, %s, %s, %s, %s, %s)
                on conflict (mart) do update set
                    tests_passed = excluded.tests_passed, tests_failed = excluded.tests_failed,
                    tests_warned = excluded.tests_warned, invocation_id = excluded.invocation_id
                """,
                [mart.name, mart.group, verdict.passed, verdict.failed, verdict.warned, self._invocation_id],
            )

    def _new_generation(self) -> int:
        row = self._connection.execute(
            "insert into ops.publishes (generation, invocation_id, run_id)"
            " select coalesce(max(generation), 0) + 1, %s, %s from ops.publishes returning generation",
            [self._invocation_id, self._run],
        ).fetchone()
        assert row is not None  # noqa: S101 - an insert of one row returns it
        return int(row[0])

    def _publish_mart(self, plan: _Plan, generation: int) -> MartReport:
        connection, mart = self._connection, plan.mart
        served = self._served.get(mart.name)
        undo = self._undo_name(generation)
        if plan.is_anew:
            before = served.rows if served and served.rows is not None else 0
            was_there = set_aside(connection, mart.name, undo)
            difference = Difference(
                create_copy(connection, mart, plan.columns, undo), 0, 0, undo if was_there else None
            )
            how, total, kept = "anew", difference.inserted, before if was_there else 0
        else:
            difference = synchronise(connection, mart, undo, notes=plan.notes.table if plan.by_notes else None)
            how, kept = "rows", difference.inserted + difference.updated + difference.deleted
            total = (
                served.rows + difference.inserted - difference.deleted
                if served is not None and served.rows is not None
                else _count(connection, mart.name)
            )
        keep_indexes(connection, mart, undo)
        plan.notes.forget()
        reach("mart-written")
        create_view(connection, mart.name, description=mart.description, comments=mart.columns)
        report = MartReport(mart.name, difference.inserted, difference.updated, difference.deleted, total)
        self._record(generation, mart.group, report, how, difference.undo_table, kept)
        connection.execute(
            "update ops.serving_marts set mart_group = %s, generation = %s, rows = %s, followed = %s where mart = %s",
            [mart.group, generation, total, plan.notes.fingerprint, mart.name],
        )
        for feed in mart.feeds:
            position = self._positions.get((feed.source, feed.stream))
            seen_at = position.seen_at if position else None
            connection.execute(
                """
                insert into ops.published_sources (generation, mart, source, stream, as_of, late_at, stale_at)
                values (%(generation)s, %(mart)s, %(source)s, %(stream)s, %(as_of)s,
                    -- Of a stream that was never loaded: always.
                    case when %(warn)s::interval is not null
                        then coalesce(%(seen)s::timestamptz + %(warn)s::interval, '-infinity') end,
                    case when %(error)s::interval is not null
                        then coalesce(%(seen)s::timestamptz + %(error)s::interval, '-infinity') end)
                """,
                {
                    "generation": generation,
                    "mart": mart.name,
                    "source": feed.source,
                    "stream": feed.stream,
                    "as_of": position.as_of if position else None,
                    "warn": feed.warn_after,
                    "error": feed.error_after,
                    "seen": seen_at,
                },
            )
        return report

    def _gone(self, groups: Sequence[str], on_hold: Mapping[str, str]) -> list[tuple[str, str]]:
        """The marts that are served and that the project no longer has, with their groups: of groups that move, and of
        those that the project no longer has either."""
        names, known = {mart.name for mart in self._marts}, {mart.group for mart in self._marts}
        return [
            (name, served.group)
            for name, served in sorted(self._served.items())
            if name not in names and (served.group in groups or served.group not in {*known, *on_hold})
        ]

    def _take_away(self, gone: Sequence[tuple[str, str]], generation: int, groups: Sequence[str]) -> None:
        """Serve them no longer, so that nobody reads a table that nothing updates."""
        for name, group in gone:
            undo = self._undo_name(generation)
            rows = self._served[name].rows or 0
            was_there = set_aside(self._connection, name, undo)
            self._connection.execute("delete from ops.serving_marts where mart = %s", [name])
            if group in groups:
                report = MartReport(name, 0, 0, rows, 0)
                self._record(generation, group, report, "gone", undo if was_there else None, rows)
            elif was_there:
                drop_undo(self._connection, [undo])
        empty = self._connection.execute(
            "delete from ops.serving_groups g where hold_since is null"
            " and not exists (select from ops.serving_marts m where m.mart_group = g.mart_group) returning mart_group"
        ).fetchall()
        for (group,) in empty:
            forget_generations(self._connection, group)

    def _record(
        self, generation: int, group: str, report: MartReport, how: str, undo_table: str | None, undo_rows: int
    ) -> None:
        self._connection.execute(
            "insert into ops.published_marts (generation, mart, mart_group, rows_inserted, rows_updated, rows_deleted,"
            " rows_total, how, undo_table, undo_rows) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                generation,
                report.name,
                group,
                report.inserted,
                report.updated,
                report.deleted,
                report.total,
                how,
                undo_table,
                undo_rows,
            ],
        )

    def _undo_name(self, generation: int) -> str:
        self._tables += 1
        return f"{generation}_{self._tables}"


def _check_key(connection: psycopg.Connection, mart: Mart, notes: sql.Identifier | None) -> None:
    """Refuse a mart whose key does not tell its rows apart: a test of it may be missing in the project.

    Args:
        notes: the table with the keys that were written since it was last looked at; without it all are looked at.

    Raises:
        DataError: it is so.
    """
    key = sql.SQL(", ").join(map(sql.Identifier, mart.key))
    source: sql.Composable = sql.Identifier(mart.schema, mart.name)
    if notes is not None:
        source = sql.SQL("(select distinct {} from {}) n join {} s using ({})").format(key, notes, source, key)
    row = connection.execute(
        sql.SQL("select {key} from {source} group by {key} having count(*) > 1 or num_nulls({key}) > 0 limit 1").format(
            key=key, source=source
        )
    ).fetchone()
    if row is not None:
        raise DataError(
            f"The key ({', '.join(mart.key)}) of the mart `{mart.name}` is not unique, or null: see {row}.",
            remedy="Correct the model, and give it a test of its key.",
        )


def _count(connection: psycopg.Connection, mart: str) -> int:
    row = connection.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(PUBLISHED, mart))).fetchone()
    return int(row[0]) if row else 0
