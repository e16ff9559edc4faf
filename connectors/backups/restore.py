"""From a backup and the landing to a warehouse that goes on: nothing lost that has landed, nobody back who was erased.

1. The backup is read to its end and compared with its manifest, before the database is touched.
2. It is put into an empty database (`copying`), and brought to the newest shape.
3. What was forgotten after the backup is known again, from the list beside the landing.
4. Raw is filled from the landing, if the backup has no rows of it.
5. Requests to forget that the backup did not know are repeated: its rows of them go.
6. Loads that landed after the backup are taken over (`connectors.adopt`), the watermarks with them.
7. The database is opened.

A restore that was killed is run again: until 2 is done it begins anew, afterwards it goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from psycopg import sql

from connectors.adopt import AdoptReport, adopt
from connectors.backups.copying import Progress, Target, check_fits
from connectors.backups.parts import Part
from connectors.backups.store import Backup, BackupStore
from connectors.connections import Connections
from connectors.destinations.warehouse.connection import translated_errors
from connectors.destinations.warehouse.forget_requests import Request, open_requests
from connectors.destinations.warehouse.migrations import upgrade
from connectors.errors import ConfigurationError, LandingCorruptError, StreamBusyError
from connectors.failpoints import reach
from connectors.forget.derived import Lineage
from connectors.forget.kept_list import know_list
from connectors.forget.run import Roles, resume
from connectors.ingest import Destination, Logger
from connectors.model import Source, Stream
from connectors.rebuild import rebuild

Lineages = Callable[[Iterable[str]], Mapping[str, Lineage]]
"""What was made of streams, by their names."""


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore has done."""

    backup: Backup
    rebuilt: Mapping[str, int]
    """Rows of raw that came from the landing in place of the backup, by stream."""
    from_source: tuple[str, ...]
    """Streams whose raw is empty, because the landing lacks some of it: their next ingest reads all of them."""
    requests: int
    """Requests to forget that were repeated."""
    adopted: tuple[AdoptReport, ...]
    to_be_built: bool
    """Whether tables have rows that were forgotten until the next build: then `headwater forget --resume`."""

    @property
    def loads(self) -> int:
        """How many loads of after the backup were taken over."""
        return sum(len(each.loads) for each in self.adopted)


def restore(
    backup: Backup,
    store: BackupStore,
    connections: Connections,
    destination: Destination,
    sources: Iterable[Source],
    lineages: Lineages,
    *,
    by: str,
    from_source: Iterable[str] = (),
    log: Logger | None = None,
) -> RestoreReport:
    """Make a warehouse of an empty database.

    Args:
        connections: of the four roles, naming the database.
        destination: the same warehouse, and the landing.
        sources: the registered ones.
        lineages: asked for streams of which something is to be forgotten again.
        by: who does it, for the ledger.
        from_source: streams (`crm_db.people`) that may be read from their source if the landing lacks some of them.

    Raises:
        BackupCorruptError: the backup is not what its manifest says; the database was not touched.
        ConfigurationError: the database is not empty, or does not fit.
        LandingCorruptError: the landing lacks what raw is to be filled from; named. Put it right and run it again.
        HeadwaterError: others by kind, see `connectors.errors`. Run it again: nobody can read the database meanwhile.
    """
    log = log or logging.getLogger("headwater")
    target = Target({part: connections.database(part.owner) for part in Part})
    with translated_errors(), target.connect() as lock:
        if lock.execute("select pg_try_advisory_lock(hashtextextended('headwater.restore', 0))").fetchone() != (True,):
            raise StreamBusyError("Another restore is at work here.", remedy="Let it finish.")
        progress = target.progress()
        check_fits(backup, target)
        is_there = progress is not None and progress.phase == "copied" and progress.backup_id == backup.backup_id
        if not is_there:
            for dump in backup.dumps:
                store.verify(dump)
            target.begin(backup)
            reach("restore-begun")
            target.copy(backup, store, log)
            target.note_copied(backup)
            progress = target.progress()
        assert progress is not None  # noqa: S101 - it has begun
        upgrade(target.owner)
        restoring = _Restoring(
            backup, target, connections, destination, list(sources), lineages, set(from_source), by, progress, log
        )
        return restoring.run()


@dataclass(frozen=True, slots=True)
class _Restoring:
    backup: Backup
    target: Target
    connections: Connections
    destination: Destination
    sources: list[Source]
    lineages: Lineages
    from_source: set[str]
    by: str
    progress: Progress
    log: Logger

    def run(self) -> RestoreReport:
        with self.target.connect() as owner:
            streams = [(source, stream) for source in self.sources for stream in source.streams]
            for source, stream in streams:
                know_list(owner, self.destination.landing, source.name, stream.name)
            reach("forgotten-known")
            rebuilt, read_again = self._fill_raw(streams)
            reach("raw-rebuilt")
            to_be_built = self._forget_again(open_requests(owner))
            row = owner.execute(
                "select count(*) from ops.forget_requests where kind = 'forget' and requested_at > %s",
                [self.backup.as_of],
            ).fetchone()
            reach("forgotten-repeated")
            adopted = tuple(
                adopt(source, stream, self.connections, self.destination, log=self.log) for source, stream in streams
            )
            owner.execute("analyze")
            report = RestoreReport(self.backup, rebuilt, tuple(read_again), row[0] if row else 0, adopted, to_be_built)
            owner.execute(
                "insert into ops.restores (backup_id, as_of, began_at, loads_adopted, requests_repeated, restored_by)"
                " values (%s, %s, %s, %s, %s, %s)",
                [
                    self.backup.backup_id,
                    self.backup.as_of,
                    self.progress.began_at,
                    report.loads,
                    report.requests,
                    self.by,
                ],
            )
        self.target.open(self.backup)
        reach("restored")
        return report

    def _fill_raw(self, streams: list[tuple[Source, Stream]]) -> tuple[dict[str, int], list[str]]:
        """Raw from the landing, where the backup has no rows of it."""
        rebuilt: dict[str, int] = {}
        read_again: list[str] = []
        if self.backup.kind == "full":
            return rebuilt, read_again
        for source, stream in streams:
            name = f"{source.name}.{stream.name}"
            try:
                rebuilt[name] = rebuild(source, stream, self.destination, run="restore", log=self.log).rows
            except LandingCorruptError as error:
                if name not in self.from_source:
                    error.remedy = (
                        f"Restore it, and run the same command again; or add --from-source {name}, and all of it is "
                        "read from its source by the next ingest."
                    )
                    raise
                self._begin_anew(source.name, stream.name)
                read_again.append(name)
        return rebuilt, read_again

    def _begin_anew(self, source: str, stream: str) -> None:
        """Nothing of a stream was ever read, as far as the next load goes; its history stays in the ledger."""
        with self.target.connect() as owner, owner.transaction():
            for table in ("watermarks", "files", "windows"):
                owner.execute(
                    sql.SQL("delete from ops.{} where source = %s and stream = %s").format(sql.Identifier(table)),
                    [source, stream],
                )
            owner.execute(
                "update ops.loads set status = 'failed', error = 'The landing had lost it when raw was restored.'"
                " where source = %s and stream = %s and status = 'loaded'",
                [source, stream],
            )

    def _forget_again(self, requests: list[Request]) -> bool:
        """Go on with requests that are not done; whether some wait for a build."""
        known = {(source.name, stream.name): (source, stream) for source in self.sources for stream in source.streams}
        if strangers := [each for each in requests if (each.source, each.stream) not in known]:
            raise ConfigurationError(
                f"Rows of {strangers[0].source}.{strangers[0].stream} were forgotten, which no registered source has.",
                remedy="Register it again, as it was, and run the same command again.",
            )
        lineages = self.lineages(sorted({f"{each.source}.{each.stream}" for each in requests})) if requests else {}
        roles = Roles(*(self.target.urls[part] for part in (Part.LEDGER, Part.MODELS, Part.SERVING)))
        is_waiting = False
        for request in requests:
            source, stream = known[request.source, request.stream]
            report = resume(
                request, source, stream, self.destination, roles, lineages[f"{source.name}.{stream.name}"], log=self.log
            )
            is_waiting |= bool(report.to_be_built)
        return is_waiting
