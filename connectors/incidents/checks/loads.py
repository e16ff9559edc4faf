"""Loads of what is new, and reads of keys: those that failed last, and those that were killed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from connectors import errors
from connectors.destinations.warehouse.ledger import LoadKind
from connectors.incidents.checks import commands
from connectors.incidents.kinds import Kind
from connectors.incidents.lineage import DESTINATION, Lineage, stream_node, system_node
from connectors.incidents.observe import Seen
from connectors.incidents.signs import Severity, Sign

IS_LIVE = """
exists (
    select from ops.streams s
    where s.source = l.source and s.stream = l.stream and s.holder is not null and s.lease_until > clock_timestamp()
      and s.scope = coalesce(l.window_start || ' ' || l.window_end, '')
      and exists (select from pg_stat_activity a where a.pid = s.holder_pid)
)
"""
"""Whether a run is working on the load `l`: it has the lease, and its session is there."""

CAUSES: dict[type[errors.HeadwaterError], str] = {
    errors.SourceUnavailableError: "The source is down, cannot be reached from here, or limits the rate. It passes by "
    "itself, or its owner knows more.",
    errors.DestinationUnavailableError: "The landing or the warehouse did not answer, is full, or gave no lock in "
    "time.",
    errors.StreamBusyError: "Another run held the stream for longer than this one waited.",
    errors.TransientError: "Something did not answer in time. It may pass by itself.",
    errors.NotFoundError: "The source has nothing at the address any more: it was moved, or renamed.",
    errors.UnknownNameError: "A name is used that nothing is registered under.",
    errors.ConfigurationError: "A definition, credential or setting is wrong, or has changed at the source. To run "
    "it again helps only once that is mended.",
    errors.SourceRewoundError: "The source was restored from a backup, truncated or loaded anew. If it is right as it "
    "is, all of it has to be read once.",
    errors.ContractViolationError: "The source sends columns or rows that the stream's contract refuses: agree on them "
    "with its owner, then change the definition or the source.",
    errors.MalformedResponseError: "The source answers with something that is not its data: an error page, half of a "
    "file, another format.",
    errors.LandingCorruptError: "Objects of the landing were deleted, cut or altered.",
    errors.DataError: "The source sent what cannot be accepted as it is.",
    errors.StoppedError: "The run was cancelled, or its worker was ended. The next run does the work.",
    errors.FencedError: "The run was stopped for so long that another one took its place.",
}
"""The likely cause by the class of the error; of a class that is not here, that of the one it belongs to."""
_UNKNOWN = "No error that Headwater knows by name: its run's log in the dashboard has all of it."
_WHERE = re.compile(r"\[[^\]]*\]|\bhttps?://\S+|\d+")


@dataclass(frozen=True, slots=True)
class _Load:
    """The latest load of a stream and kind."""

    source: str
    stream: str
    kind: LoadKind
    load_id: UUID
    status: str
    attempt: int
    error: str | None
    error_kind: str | None
    run_id: str | None
    is_live: bool

    @property
    def name(self) -> str:
        return f"{self.source}.{self.stream}"

    @property
    def key(self) -> str:
        return f"load {self.name}" if self.kind == LoadKind.ROWS else f"keys {self.name}"

    @property
    def error_class(self) -> type[errors.HeadwaterError] | None:
        found = getattr(errors, self.error_kind or "", None)
        return found if isinstance(found, type) and issubclass(found, errors.HeadwaterError) else None

    @property
    def failure(self) -> tuple[str | None, str]:
        """What went wrong, without what differs from stream to stream."""
        if self.error_class is not None and issubclass(self.error_class, errors.TransientError):
            return self.error_kind, ""
        said = _WHERE.sub("", self.error or "")
        return self.error_kind, re.sub(rf"\b{re.escape(self.stream)}\b", "", said)


def check_loads(connection: psycopg.Connection, lineage: Lineage) -> Seen:  # noqa: ARG001 - the shape of a check
    """Streams whose latest load failed or was killed; of one that is being tried again nothing is known yet.

    Streams of one source that fail for the same reason are the source's trouble, and if the reason is the landing or
    the warehouse, that of the destination.
    """
    loads = _latest(connection)
    failed = [each for each in loads if not each.is_live and each.error is not None and each.status != "loaded"]
    # One that was told to stop is no trouble: if the next one does not come, its stream is late.
    failed = [each for each in failed if each.error_kind != errors.StoppedError.__name__]
    killed = [
        each for each in loads if not each.is_live and each.error is None and each.status in ("extracting", "landed")
    ]
    signs = [_failed(each, failed) for each in failed] + [_killed(each) for each in killed]
    return Seen(tuple(signs), frozenset(each.key for each in loads if each.is_live))


def cause_of(error_class: type[errors.HeadwaterError] | None) -> str:
    """The likely cause of an error, by its class."""
    if error_class is None:
        return _UNKNOWN
    return next((CAUSES[each] for each in error_class.__mro__ if each in CAUSES), _UNKNOWN)


def _latest(connection: psycopg.Connection) -> list[_Load]:
    with connection.cursor(row_factory=class_row(_Load)) as cursor:
        return cursor.execute(
            f"""
            select l.source, l.stream, l.kind, l.load_id, l.status, l.attempt, l.error, l.error_kind, l.run_id,
                   l.status in ('extracting', 'landed') and {IS_LIVE} as is_live
            from (select distinct source, stream from ops.streams) streams
            cross join unnest(array['rows', 'keys']) kinds (kind)
            cross join lateral (
                select * from ops.loads
                where loads.source = streams.source and loads.stream = streams.stream and loads.kind = kinds.kind
                  and loads.window_start is null
                order by started_at desc limit 1
            ) l
            order by l.source, l.stream, l.kind
            """.encode()  # noqa: S608 - a constant
        ).fetchall()


def _failed(load: _Load, failed: Iterable[_Load]) -> Sign:
    node, what = _place(load, failed)
    command = commands.ingest(load.source, full_refresh=load.error_class is errors.SourceRewoundError)
    return Sign(
        key=load.key,
        kind=Kind.LOAD_FAILED,
        severity=Severity.ERROR,
        title=what,
        cause=f"{cause_of(load.error_class)} It said: {load.error}",
        next_command=command if load.kind == LoadKind.ROWS else commands.deletions(load.source),
        node=node,
        run_id=load.run_id,
    )


def _place(load: _Load, failed: Iterable[_Load]) -> tuple[str, str]:
    """Where a failed load's trouble begins, and what it is."""
    alike = {(each.source, each.stream) for each in failed if each.failure == load.failure}
    if len(alike) > 1 and load.error_class is errors.DestinationUnavailableError:
        return DESTINATION, f"{len(alike)} streams cannot be loaded: the landing or the warehouse does not take them"
    streams = {stream for source, stream in alike if source == load.source}
    if len(streams) > 1:
        return (
            system_node(load.source),
            f"Source {load.source} cannot be loaded: {len(streams)} of its streams fail for the same reason",
        )
    what = f"Stream {load.name} failed to load"
    if load.kind == LoadKind.KEYS:
        what = f"The keys of {load.name} could not be read: its deletions are not seen"
    return stream_node(load.source, load.stream), what


def _killed(load: _Load) -> Sign:
    return Sign(
        key=load.key,
        kind=Kind.LOAD_KILLED,
        severity=Severity.ERROR,
        title=f"The load of {load.name} was killed, and nobody has taken it up",
        cause="Its process or machine went away: out of memory, a restart, a lost network. Nothing is lost: the next "
        f"run takes load {load.load_id} up.",
        next_command=commands.ingest(load.source) if load.kind == LoadKind.ROWS else commands.deletions(load.source),
        node=stream_node(load.source, load.stream),
        run_id=load.run_id,
    )
