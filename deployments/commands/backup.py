"""Backups of the warehouse, and the way back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from getpass import getuser
from typing import Annotated

import typer
from rich.table import Table

from connectors.backups.backup import KEPT, back_up, keep
from connectors.backups.check import check
from connectors.backups.parts import Part
from connectors.backups.restore import restore
from connectors.backups.store import BACKUPS, BackupStore
from connectors.connections import EnvironmentConnections
from connectors.forget.derived import Lineage
from connectors.ingest import Destination
from connectors.registry import SOURCES
from deployments.commands.terminal import GOING_BACK, console, step

app = typer.Typer(help="Back the warehouse up, list backups, prove them.", no_args_is_help=True)
restore_app = typer.Typer()

Named = Annotated[str | None, typer.Argument(help="Its id, or how it begins; the latest without it.")]


@app.command("run")
def run_command(
    raw: Annotated[bool, typer.Option(help="With the rows of raw; without them the landing is needed.")] = True,
    keep_days: Annotated[float, typer.Option(help="How old the others may be; three are always kept.")] = (
        KEPT.total_seconds() / 86400
    ),
) -> None:
    """Make a backup, and delete those that are too old."""
    connections = EnvironmentConnections()
    store = BackupStore(connections.object_store(BACKUPS))
    with step("Backup"):
        backup = back_up(connections, store, with_raw=raw, run="headwater backup")
    place = f"{store.url.rstrip('/')}/{backup.folder}"
    console.print(f"{backup.backup_id}: {backup.bytes:,} bytes in {place}", markup=False)
    for stranger in backup.left_out:
        console.print(f"Not in it, for it is not Headwater's: {stranger}", markup=False)
    for folder in keep(connections, store, kept=timedelta(days=keep_days)):
        console.print(f"Deleted {folder}", markup=False)


@app.command("list")
def list_command() -> None:
    """The backups that there are."""
    table = Table("id", "as of (UTC)", "kind", "rows", "bytes", "migration", "PostgreSQL", box=None, pad_edge=False)
    for each in BackupStore(EnvironmentConnections().object_store(BACKUPS)).all():
        rows = sum(found.rows for found in each.fingerprints)
        facts = (each.kind, f"{rows:,}", f"{each.bytes:,}", each.revision, str(each.postgres))
        table.add_row(str(each.backup_id), f"{each.as_of:%Y-%m-%d %H:%M:%S}", *facts)
    console.print(table if table.row_count else "There is none; `headwater backup run` makes one.")


@app.command("check")
def check_command(
    backup: Named = None,
    database: Annotated[str, typer.Option(help="An empty one on the warehouse's server.")] = "headwater_check",
) -> None:
    """Restore a backup into a scratch database, compare every table with what was backed up, and empty it again."""
    connections = EnvironmentConnections()
    store = BackupStore(connections.object_store(BACKUPS))
    found = store.named(backup)
    urls = {part: connections.database(part.owner).set(database=database) for part in Part}
    with step(f"Check of {found.backup_id}"):
        check(found, store, urls, connections.database(Part.LEDGER.reader))
    rows = sum(each.rows for each in found.fingerprints)
    console.print(f"It came back as it was: {len(found.fingerprints)} tables, {rows:,} rows.")


@restore_app.command("restore", rich_help_panel=GOING_BACK)
def restore_command(
    backup: Named = None,
    from_source: Annotated[
        list[str] | None,
        typer.Option(help="A stream to read from its source if the landing lacks some of it."),
    ] = None,
) -> None:
    """Make a warehouse of an empty database, from a backup and the landing. If it is killed, run it again."""
    connections = EnvironmentConnections()
    store = BackupStore(connections.object_store(BACKUPS))
    found = store.named(backup)
    console.print(f"Backup {found.backup_id}, as of {found.as_of:%Y-%m-%d %H:%M:%S} UTC.")
    with step("Restore"):
        report = restore(
            found,
            store,
            connections,
            Destination.of(connections),
            SOURCES.values(),
            _lineages,
            by=getuser(),
            from_source=from_source or (),
        )
    for name, rows in report.rebuilt.items():
        console.print(f"raw_{name} has {rows:,} rows, from the landing.")
    for each in report.adopted:
        name = f"{each.source}.{each.stream}"
        if each.loads:
            console.print(f"{name}: {len(each.loads)} loads of after the backup were taken over from the landing.")
        for said in each.left:
            console.print(f"{name}: not taken over: {said}.", markup=False)
        if each.lost:
            console.print(f"{name}: the landing lacks {each.lost} loads that raw has: it cannot be rebuilt from there.")
    for name in report.from_source:
        console.print(f"{name}: raw is empty; its next ingest reads all of it from the source.")
    if report.requests:
        console.print(f"{report.requests} requests to forget of after the backup were repeated.")
    again = ", then `headwater forget --resume`" if report.to_be_built else ""
    console.print(f"Start the workers, and run transform/nyc{again}.")


def _lineages(names: Iterable[str]) -> Mapping[str, Lineage]:
    from tasks.forget_lineage import lineage_of
    from tasks.transform import parsed

    manifest = parsed(EnvironmentConnections().database(Part.MODELS.owner))
    return {name: lineage_of(manifest, *name.split(".")) for name in names}
