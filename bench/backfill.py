"""Backfills: a year by daily windows against one full load of it, and two workers against one where the source is slow.

Each load and each worker is a process of its own; raw has to have the same rows after all of them.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

from bench.results import Result
from bench.scene import Scene

_DAYS = 365
_SLOW_SECONDS = 1.0
"""How long the slow source takes to begin an answer, whatever it is asked for."""
_SUM = "select count(*), coalesce(sum(hashtextextended((id, at, changed, body)::text, 0)::numeric), 0) from "


def run(scene: Scene, rows: int, rounds: int) -> Iterator[Result]:
    """The benchmarks, one after the other."""
    _fill(scene, rows)
    yield _compared(
        "backfill_365_windows", rows, rounds,
        partial(_timed, scene, "backfill"), partial(_timed, scene, "full"),
        "one full load of the same year",
    )  # fmt: skip
    yield _compared(
        "backfill_two_workers", rows, rounds,
        partial(_timed, scene, "slow", workers=2), partial(_timed, scene, "slow"),
        f"one worker; the source takes {_SLOW_SECONDS:.0f} s to begin each answer",
    )  # fmt: skip


def _compared(
    name: str,
    rows: int,
    rounds: int,
    ours: Callable[[], tuple[float, float]],
    limit: Callable[[], tuple[float, float]],
    what: str,
) -> Result:
    """Ours and the limit in turns, each as seconds and MiB."""
    limits, times, peaks = [], [], []
    for _ in range(rounds):
        limits.append(limit()[0])
        wall, peak = ours()
        times.append(wall)
        peaks.append(peak)
    ratio = median(mine / other for mine, other in zip(times, limits, strict=True))
    return Result(name, rows, median(times), median(limits), ratio, max(peaks), what)


def _timed(scene: Scene, what: str, *, workers: int = 1) -> tuple[float, float]:
    """Seconds from the first request until all is in raw, and the largest process in MiB. All is imported before."""
    scene.fresh_warehouse()
    scene.settle()
    first = _process(scene, what, str(workers))
    backfill = _line(first)
    others = [_process(scene, what, "help", backfill) for _ in range(workers - 1)]
    for other in others:
        _line(other)
    begun = time.monotonic()
    for process in (first, *others):
        assert process.stdin is not None  # noqa: S101 - asked for
        process.stdin.write("go\n")
        process.stdin.flush()
    peaks = [float(_line(process) or 0) for process in (first, *others)]
    wall = time.monotonic() - begun
    for process in (first, *others):
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, process.args)
    with scene.connect("source") as source, scene.connect("warehouse") as warehouse:
        expected = source.execute(f"{_SUM} events".encode()).fetchone()
        assert warehouse.execute(f"{_SUM} raw_bench.{_table(what)}".encode()).fetchone() == expected  # noqa: S101 - or there is nothing to compare
    return wall, max(peaks)


def _table(what: str) -> str:
    return "slow_events" if what == "slow" else "events"


def _process(scene: Scene, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.backfill", *arguments],
        env={**os.environ, **scene.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None  # noqa: S101 - asked for
    return process.stdout.readline().strip()


def _fill(scene: Scene, rows: int) -> None:
    with scene.connect("source") as connection:
        connection.execute(
            f"""
            create table events (id bigint, at timestamptz, changed timestamptz, body text);
            insert into events select n, timestamptz '2023-01-01Z' + n * (interval '{_DAYS} days' / {rows + 1}),
                timestamptz '2023-02-01Z' + n * (interval '{_DAYS} days' / {rows + 1}), repeat(md5(n::text), 6)
            from generate_series(1, {rows}) n;
            alter table events add primary key (id);
            create index on events (at);
            create view slow_events as
                select e.* from (select pg_sleep({_SLOW_SECONDS})) s, events e;
            """.encode()
        )
        connection.execute("vacuum (freeze, analyze) events")


def _work(what: str, workers: str, backfill: str = "") -> None:
    """One process: imported first, then it waits for a line, then it works."""
    from uuid import UUID

    from connectors.backfill.books import begin
    from connectors.backfill.plan import plan_backfill
    from connectors.backfill.run import work
    from connectors.connections import Database, EnvironmentConnections
    from connectors.ingest import Destination, ingest
    from connectors.model import Cursor, Windows
    from connectors.postgres import PostgresSource, TableStream

    stream = TableStream(
        name=_table(what),
        primary_key=("id",),
        cursor=Cursor("changed"),
        event_time="at",
        windows=Windows(first="2023-01-01", until="2024-01-01"),
    )
    source = PostgresSource(name="bench", database=Database("source"), streams=(stream,), settle_seconds=0)
    connections = EnvironmentConnections()
    destination = Destination.of(connections)
    backfill_id = None
    if workers != "help" and what == "slow":
        # The same batches for one worker and for two.
        backfill_id = begin(plan_backfill(source, stream, destination), destination.warehouse, at_once=2)
    sys.stdout.write(f"{backfill_id or ''}\n")
    sys.stdout.flush()
    sys.stdin.readline()
    if what == "full":
        ingest(source, stream, connections, destination)
    if what == "backfill":
        backfill_id = begin(plan_backfill(source, stream, destination, connections=connections), destination.warehouse)
    if what != "full":
        work(backfill_id or UUID(backfill), source, stream, connections, destination, run=workers)
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}\n")


if __name__ == "__main__":
    _work(*sys.argv[1:])
