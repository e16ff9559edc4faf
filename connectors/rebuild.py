"""Rebuild raw from the landing alone: for a table that was dropped or damaged, or to prove that the landing suffices.

Every load of the stream that the ledger has as loaded is repeated in its order, each with the `_load_id` and
`_loaded_at` that it had, so the rows come out as they were, those marked as deleted too. What went to quarantine or was
discarded then is left out again; a replay that brought it later is repeated in its turn. The source is not asked.
Readers see the old rows until all are there. Columns get the types that the definition gives them by now.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from connectors.destinations.landing import Landing
from connectors.destinations.manifest import Manifest
from connectors.destinations.warehouse.attempt import AttemptTable
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.forgotten import ForgottenKeys, forgotten_keys, key_kinds
from connectors.destinations.warehouse.key_comparison import KeyComparison
from connectors.destinations.warehouse.ledger import Lease, LoadKind, take_turn
from connectors.destinations.warehouse.merge import Merge, Past
from connectors.destinations.warehouse.raw_table import LoadContext, RawTable, Replay, raw_columns
from connectors.destinations.warehouse.windows import WindowBook, WindowColumn, counted
from connectors.errors import HeadwaterError, LandingCorruptError
from connectors.ingest import Destination, Logger
from connectors.model import Source, Stream, Window


@dataclass(frozen=True, slots=True)
class _PastLoad:
    load_id: UUID
    kind: str
    manifest_key: str
    window_start: datetime | None
    window_end: datetime | None
    full_refresh: bool
    started_at: datetime
    raw_loaded_at: datetime
    rows_extracted: int
    rows_quarantined: int
    replay_of: UUID | None
    original_loaded_at: datetime | None
    """When the load was loaded that this one replays."""

    @property
    def window(self) -> Window | None:
        return Window(self.window_start, self.window_end) if self.window_start and self.window_end else None


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild repeated, and what raw holds now."""

    loads: int
    rows: int


def rebuild(
    source: Source,
    stream: Stream,
    destination: Destination,
    *,
    run: str = "rebuild",
    wait_seconds: float = 300.0,
    log: Logger | None = None,
) -> RebuildReport:
    """Empty a stream's raw table and fill it from the landing, in one transaction.

    Raises:
        LandingCorruptError: a manifest or an object is missing or altered; raw is as it was.
        ContractViolationError: rows that were loaded do not fit the definition any more; raw is as it was.
        HeadwaterError: see `connectors.ingest.ingest`.
    """
    log = log or logging.getLogger("headwater")
    try:
        with (
            translated_errors(),
            Lease(destination.warehouse, source.name, stream.name, run, wait_seconds=wait_seconds) as lease,
            connect(destination.warehouse, f"rebuild {source.name}.{stream.name}", autocommit=True) as connection,
            connection.transaction(),
        ):
            lease.check(connection)
            when = take_turn(connection, source.name, stream.name)
            loads = _past_loads(connection, source.name, stream.name)
            forgotten = forgotten_keys(connection, source.name, stream.name, destination.forget_secret)
            if loads:
                _empty(connection, LoadContext(source.name, stream, loads[0].load_id, None, is_rebuild=True), log)
            for number, load in enumerate(loads, 1):
                if destination.landing.manifest(load.manifest_key) is None and _was_read_again(connection, load):
                    log.warning("The landing has lost load %s; its windows were all read again since.", load.load_id)
                    continue
                manifest = _manifest(destination.landing, load)
                replayed = _replay(connection, load, manifest)
                context = LoadContext(
                    source.name,
                    stream,
                    load.load_id,
                    load.window,
                    load.full_refresh,
                    is_rebuild=True,
                    replay=replayed,
                )
                _repeat(connection, destination.landing, context, load, manifest, forgotten)
                log.info("Repeated load %s (%s of %s).", load.load_id, number, len(loads))
            _recount_windows(connection, source.name, stream, when)
            return RebuildReport(len(loads), _rows(connection, source.name, stream.name))
    except HeadwaterError as error:
        raise error.at(source=source.name, stream=stream.name) from error.__cause__


def _empty(connection: psycopg.Connection, context: LoadContext, log: Logger) -> None:
    """Empty raw. If the definition types columns otherwise by now the table goes, and the loads make it anew; dbt's
    views on it fall with it, and the next build creates them again."""
    table = RawTable(connection, context)
    if not table.columns:
        return
    retyped = table.retyped()
    if not retyped:
        connection.execute(sql.SQL("delete from {}").format(table.name))
        return
    for name, (kind, declared) in retyped.items():
        log.info("`%s` becomes %s; it was %s.", name, declared, kind)
    if views := _views_on(connection, context):
        log.warning(
            "The views on raw_%s.%s fall with the old table; run transform, which makes dbt's anew: %s.",
            context.source,
            context.stream.name,
            ", ".join(views),
        )
    connection.execute(sql.SQL("drop table {} cascade").format(table.name))


def _views_on(connection: psycopg.Connection, context: LoadContext) -> list[str]:
    """The views that read raw, and those that read them, whoever made them."""
    rows = connection.execute(
        """
        with recursive views (oid) as (
            select to_regclass(format('%%I.%%I', 'raw_' || %s::text, %s::text))::oid
            union
            select r.ev_class
            from views v
            join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = v.oid
                and d.classid = 'pg_rewrite'::regclass
            join pg_rewrite r on r.oid = d.objid
        )
        select format('%%I.%%I', n.nspname, c.relname)
        from views join pg_class c using (oid) join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('v', 'm') order by 1
        """,
        [context.source, context.stream.name],
    )
    return [name for (name,) in rows]


def _past_loads(connection: psycopg.Connection, source: str, stream: str) -> list[_PastLoad]:
    with connection.cursor(row_factory=class_row(_PastLoad)) as cursor:
        return cursor.execute(
            "select l.load_id, l.kind, l.manifest_key, l.window_start, l.window_end, l.full_refresh, l.started_at,"
            " l.raw_loaded_at, l.rows_extracted, l.rows_quarantined,"
            " l.replay_of, o.raw_loaded_at as original_loaded_at"
            " from ops.loads l left join ops.loads o on o.load_id = l.replay_of"
            " where l.source = %s and l.stream = %s and l.status = 'loaded' and l.manifest_key is not null"
            " order by l.raw_loaded_at, l.loaded_at",
            [source, stream],
        ).fetchall()


def _manifest(landing: Landing, load: _PastLoad) -> Manifest:
    try:
        return landing.manifest_of_loaded(load.manifest_key)
    except LandingCorruptError as error:
        raise error.at(load_id=load.load_id) from error.__cause__


def _was_read_again(connection: psycopg.Connection, load: _PastLoad) -> bool:
    """Whether later loads have read all windows that a load brought rows of, so that its rows are among theirs."""
    row = connection.execute(
        """
        select l.rows_inserted + l.rows_updated = coalesce(sum(c.rows_inserted + c.rows_updated), 0)
           and coalesce(bool_and(exists (
               select from ops.loads r
               where r.source = l.source and r.stream = l.stream and r.kind = 'rows' and r.status = 'loaded'
                 and r.window_start <= c.window_start and r.window_end >= w.window_end
                 and r.raw_loaded_at > l.raw_loaded_at
           )), true)
        from ops.loads l
        left join ops.window_changes c using (load_id)
        left join ops.windows w
            on w.source = c.source and w.stream = c.stream and w.window_start = c.window_start
        where l.load_id = %s group by l.load_id
        """,
        [load.load_id],
    ).fetchone()
    return bool(row and row[0])


def _replay(connection: psycopg.Connection, load: _PastLoad, manifest: Manifest) -> Replay | None:
    """Which rows a replay brought: those that it took out of quarantine, or all of its load."""
    if load.replay_of is None or load.original_loaded_at is None:
        return None
    if load.rows_extracted == manifest.rows + len(manifest.forgotten):
        return Replay(load.replay_of, load.original_loaded_at, None)
    rows = connection.execute(
        "select row_in_load from ops.quarantine where source = %s and stream = %s and replayed_by = %s",
        [manifest.source, manifest.stream, load.load_id],
    ).fetchall()
    return Replay(load.replay_of, load.original_loaded_at, tuple(row for (row,) in rows))


def _past(connection: psycopg.Connection, context: LoadContext) -> Past:
    of_load = [context.source, context.stream.name, context.load_id]
    quarantined = connection.execute(
        "select row_in_load from ops.quarantine where source = %s and stream = %s and load_id = %s", of_load
    ).fetchall()
    discarded = connection.execute(
        "select column_name, from_type from ops.schema_changes"
        " where source = %s and stream = %s and load_id = %s and change = 'discarded'",
        of_load,
    ).fetchall()
    return Past(tuple(row for (row,) in quarantined), dict(discarded))


def _repeat(
    connection: psycopg.Connection,
    landing: Landing,
    context: LoadContext,
    load: _PastLoad,
    manifest: Manifest,
    forgotten: ForgottenKeys | None,
) -> None:
    with AttemptTable(
        connection,
        context.source,
        context.stream,
        load.load_id,
        manifest.attempt,
        manifest.record_format,
        manifest.source_columns,
    ) as attempt:
        attempt.fill_from(landing, manifest)
        if forgotten is not None:  # a run that forgets may have been killed before it came to this load
            condition = forgotten.condition(attempt.columns, key_kinds(connection, context.source, context.stream))
            if condition is not None:
                attempt.leave_out(condition)
        if load.kind == LoadKind.KEYS:
            KeyComparison(connection, attempt, context, began_at=load.started_at, marked_at=load.raw_loaded_at).mark()
            return
        past = _past(connection, context)
        merge = Merge(connection, attempt, context, loaded_at=load.raw_loaded_at, past=past)
        merge.judge()
        rejected, reason = merge.rejected()
        if rejected > load.rows_quarantined:
            raise context.violation(
                f"{rejected - load.rows_quarantined:,} rows that were loaded do not fit the stream's definition any "
                f"more; the first: {reason}.",
                "Raw is as it was. Correct the stream's columns: give a type that holds all values, or text.",
            )
        merge.write()


def _recount_windows(connection: psycopg.Connection, source: str, stream: Stream, when: datetime) -> None:
    """Raw has of each window what its history says."""
    column = WindowColumn.of(stream, raw_columns(connection, source, stream.name))
    if column is not None:
        raw = sql.Identifier(f"raw_{source}", stream.name)
        WindowBook(connection, source, stream, None, when).recount(counted(connection, raw, column))


def _rows(connection: psycopg.Connection, source: str, stream: str) -> int:
    name = sql.Identifier(f"raw_{source}", stream)
    if connection.execute("select to_regclass(%s)", [name.as_string(connection)]).fetchone() == (None,):
        return 0
    row = connection.execute(sql.SQL("select count(*) from {}").format(name)).fetchone()
    return int(row[0]) if row else 0
