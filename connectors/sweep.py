"""Delete what killed runs have left in the landing: objects that no manifest lists, and files that were half written.

Only what is certainly no data goes: it lies where loads lie, has the name of a load's object, is older than the age,
and the load's manifest, asked for at that moment, does not list it or does not exist. The stream's lease is held
meanwhile, so that no attempt of it is at work. When in doubt (a manifest that cannot be read, one that the ledger knows
and the landing has not), nothing of the load is touched, and it is named.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

import psycopg

from connectors.destinations.landing import Landing, Stored
from connectors.destinations.manifest import MANIFEST
from connectors.destinations.warehouse.connection import connect, translated_errors
from connectors.destinations.warehouse.ledger import Lease
from connectors.errors import ConfigurationError, HeadwaterError, LandingCorruptError, StreamBusyError
from connectors.ingest import Destination, Logger
from connectors.model import LandingFormat, Source, Stream

OLDER_THAN = timedelta(days=7)
_LEAST_AGE = timedelta(days=1)
"""Much more than a run may sleep, and than clocks differ by."""
_DELETED_AT_ONCE = 1000

_LOAD = re.compile(
    r"[a-z][a-z0-9_]*/[a-z][a-z0-9_]*/dt=\d{4}-\d\d-\d\d/load_id=(?P<load_id>[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})"
)
_PART = re.compile(
    rf"a(?P<attempt>\d+(f[0-9a-f]+)?)-\d{{5,}}\.({'|'.join(LandingFormat)})(\.zst)?(?P<unfinished>#\d+)?"
)
"""An object of an attempt, or written anew without rows that were forgotten; in a local folder, what is being written
has a number behind its name."""
_UNFINISHED_MANIFEST = re.compile(r"\.manifest-[^/]+")


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What was deleted of one stream."""

    source: str
    stream: str
    objects: int = 0
    bytes: int = 0
    doubts: tuple[str, ...] = ()
    """What was left alone, and why: one sentence a load, or one for the stream."""


def check_age(older_than: timedelta) -> None:
    """Refuse an age at which what a run that only sleeps has written could go.

    Raises:
        ConfigurationError: it is less than a day.
    """
    if older_than < _LEAST_AGE:
        raise ConfigurationError(
            f"Orphans of {older_than.total_seconds() / 86400:g} days cannot be swept.",
            remedy="Give a day at least: what a run that sleeps has written must outlast its sleep.",
        )


def sweep(
    sources: Iterable[Source],
    destination: Destination,
    *,
    older_than: timedelta = OLDER_THAN,
    run: str = "sweep",
    wait_seconds: float = 60.0,
    log: Logger | None = None,
) -> list[SweepReport]:
    """Sweep the streams of these sources, one after another.

    Folders of streams that are none of theirs (any more) are reported and left: nobody could hold their lease.

    Args:
        older_than: how long ago an object must have been written; a day at least.
        wait_seconds: how long to wait for a run of a stream. One that is busy for longer is left to the next sweep.

    Raises:
        ConfigurationError: the age is too low.
        DestinationUnavailableError: the warehouse or the landing does not answer; what was deleted until then is gone,
            and was no data.
    """
    log = log or logging.getLogger("headwater")
    check_age(older_than)
    reports = []
    known = [(source, stream) for source in sources for stream in source.streams]
    for source, stream in known:
        try:
            with Lease(destination.warehouse, source.name, stream.name, run, wait_seconds=wait_seconds):
                report = _sweep_stream(source, stream, destination, datetime.now(UTC) - older_than)
        except StreamBusyError as error:
            report = SweepReport(source.name, stream.name, doubts=(str(error),))
        except HeadwaterError as error:
            raise error.at(source=source.name, stream=stream.name) from error.__cause__
        reports.append(report)
        _tell(report, log)
    names = {(source.name, stream.name) for source, stream in known}
    for name in destination.landing.streams():
        if name not in names:
            doubt = "No registered source has this stream. If it is needed no more, delete its folder by hand."
            reports.append(SweepReport(*name, doubts=(doubt,)))
            _tell(reports[-1], log)
    return reports


def _tell(report: SweepReport, log: Logger) -> None:
    name = f"{report.source}.{report.stream}"
    if report.objects:
        log.info("%s: %s objects deleted, %s bytes.", name, f"{report.objects:,}", f"{report.bytes:,}")
    for doubt in report.doubts:
        log.warning("%s: %s", name, doubt)


def _sweep_stream(source: Source, stream: Stream, destination: Destination, before: datetime) -> SweepReport:
    objects = size = 0
    doubts: list[str] = []
    with (
        translated_errors(),
        connect(destination.warehouse, f"sweep {source.name}.{stream.name}", autocommit=True) as connection,
    ):
        if windows := windows_being_read(connection, source.name, stream.name):
            # What one of them has written long ago may be listed by a manifest that is yet to come.
            return SweepReport(source.name, stream.name, doubts=(f"Being read: {', '.join(windows)}.",))
        stored = destination.landing.stored(source.name, stream.name)
        # The objects of a load follow each other. Where a store lists them apart, each part is judged by itself.
        for folder, group in groupby(stored, key=lambda each: each.key.rpartition("/")[0]):
            found = list(group)
            if _LOAD.fullmatch(folder) is None or not _may_have_orphans(found):
                continue
            try:
                orphans = list(orphans_of(connection, destination.landing, folder, found, before))
            except LandingCorruptError as error:
                doubts.append(f"{error} Nothing of this load was deleted.")
                continue
            for start in range(0, len(orphans), _DELETED_AT_ONCE):
                destination.landing.delete([each.key for each in orphans[start : start + _DELETED_AT_ONCE]])
            objects += len(orphans)
            size += sum(each.bytes for each in orphans)
    return SweepReport(source.name, stream.name, objects, size, tuple(doubts))


def windows_being_read(connection: psycopg.Connection, source: str, stream: str) -> list[str]:
    rows = connection.execute(
        "select s.scope from ops.streams s"
        " join pg_stat_activity a on a.pid = s.holder_pid and a.backend_start = s.holder_session_start"
        " where s.source = %s and s.stream = %s and s.scope <> '' and s.holder is not null order by s.scope",
        [source, stream],
    ).fetchall()
    return [scope for (scope,) in rows]


def _may_have_orphans(found: list[Stored]) -> bool:
    """Whether a load's manifest has to be looked at.

    The attempt that wrote it listed all that it had written. So a load with a manifest and the objects of one attempt
    is whole; nearly all are, and need no request of their own.
    """
    names = [each.key.rpartition("/")[2] for each in found]
    parts = [_PART.fullmatch(name) for name in names]
    attempts = {part["attempt"] for part in parts if part}
    unfinished = any(part["unfinished"] for part in parts if part)
    return MANIFEST not in names or len(attempts) > 1 or unfinished or any(map(_UNFINISHED_MANIFEST.fullmatch, names))


def orphans_of(
    connection: psycopg.Connection, landing: Landing, folder: str, found: list[Stored], before: datetime
) -> Iterator[Stored]:
    """Those of a load's objects that are old enough and no data.

    Raises:
        LandingCorruptError: the manifest cannot be read, or is missing although the load had landed.
    """
    candidates = [each for each in found if each.modified_at < before and _is_ours(each.key.rpartition("/")[2])]
    if not candidates:
        return
    # Asked for now: the list of the folder may be older than the manifest.
    manifest = landing.manifest(f"{folder}/{MANIFEST}")
    if manifest is None and _had_landed(connection, folder):
        raise LandingCorruptError(
            f"The manifest {folder}/{MANIFEST} is missing, and the load had landed.",
            remedy="Restore it from a backup of the landing.",
        )
    listed = {landed.key for landed in manifest.objects} if manifest is not None else set()
    yield from (each for each in candidates if each.key not in listed)


def _is_ours(name: str) -> bool:
    return (_PART.fullmatch(name) or _UNFINISHED_MANIFEST.fullmatch(name)) is not None


def _had_landed(connection: psycopg.Connection, folder: str) -> bool:
    load = _LOAD.fullmatch(folder)
    assert load is not None  # noqa: S101 - the caller has looked
    row = connection.execute(
        "select from ops.loads where load_id = %s and landed_at is not null", [load["load_id"]]
    ).fetchone()
    return row is not None
