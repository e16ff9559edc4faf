"""A scene for trouble: a table, raw one change behind it, processes that load, a reader that watches."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from sqlalchemy.engine import URL, make_url

from connectors.connections import EnvironmentConnections
from connectors.failpoints import FAILPOINTS
from connectors.ingest import Destination, ingest
from connectors.model import Cursor, Window, WriteDisposition
from connectors.postgres import PostgresSource
from tests.conftest import Warehouse
from tests.connectors.examples import erp
from tests.victims import Victim, sleeper

COMMITTED = FAILPOINTS.index("committed")
WRITES = [write.value for write in WriteDisposition]
UNAVAILABLE = "connectors.errors.DestinationUnavailableError: "

State = tuple[int, int]
"""How many rows, and a sum over them that changes when any row does."""
_STATE = "count(*), coalesce(sum(hashtextextended(id || ' ' || changed, 0)::numeric), 0)::numeric"
_SNAPSHOT = f"""
select {_STATE},
       (select value::timestamptz from ops.watermarks) > max(changed),
       (select sum(rows_inserted - rows_deleted) from ops.loads where status = 'loaded')
from raw_erp.t
"""
_EMPTY: State = (0, 0)


def source_of(write: str) -> PostgresSource:
    """A table of some megabytes, so that a load has several chunks."""
    is_replaced = write == "replace"
    return erp(
        name="t",
        primary_key=("id",),
        write=WriteDisposition(write),
        cursor=None if is_replaced else Cursor("changed"),
        event_time=None if is_replaced else "at",
    )


class Scene:
    """A table, a raw table that is one change behind it, and processes that load.

    Args:
        write: the stream's write disposition; `first` is a merge stream that was never loaded.
    """

    def __init__(
        self, connection: psycopg.Connection, warehouse: Warehouse, destination: Destination, landing: Path, write: str
    ) -> None:
        self.connection = connection
        self.warehouse = warehouse
        self.destination = destination
        self.landing = landing
        self.write = "merge" if write == "first" else write
        self._source = source_of(self.write)
        self.states = [_EMPTY]
        """What the source has been, oldest first: all that raw may ever be."""
        connection.execute("create table t (id int primary key, v text, at timestamptz, changed timestamptz)")
        self.change()
        if write != "first":
            self.load()
            self.change()
        self.before = self.raw()

    def change(self, rows: int = 400) -> None:
        """New rows of 6.4 kB, and what else the write disposition can follow."""
        self.connection.execute(
            "insert into t select coalesce((select max(id) from t), 0) + n, repeat(md5(random()::text), 200),"
            " '2024-01-01Z'::timestamptz + n %% 4 * interval '1 day', now() from generate_series(1, %s) n",
            [rows],
        )
        if self.write != "append":
            self.connection.execute("update t set v = v || 'x', changed = now() where id % 10 = 0")
        if self.write == "replace":
            self.connection.execute("delete from t where id % 11 = 0")
        self.states.append(self._state())

    def load(self) -> None:
        ingest(self._source, self._source.streams[0], self._connections(), self.destination)

    def process(
        self, window: Window | None = None, *, lease: float = 60, url: str | None = None, **environment: str
    ) -> Victim:
        """A process that loads."""
        return Victim(self._loading(window, lease, url), **environment)

    def sleeper(self, name: str, *, lease: float = 60) -> Victim:
        """A process that loads and has stopped at a named instant."""
        return sleeper(name, self._loading(None, lease))

    def seconds(self) -> float:
        """How long a load takes that nobody disturbs."""
        process = self.process()
        begun = time.monotonic()
        assert process.wait() == 0, process.said
        return time.monotonic() - begun

    def raw(self) -> list[tuple[object, ...]]:
        if self.warehouse.query("select to_regclass('raw_erp.t')") == [(None,)]:
            return []
        return self.warehouse.query("select id, v, at, changed from raw_erp.t order by id, v")

    def there(self) -> list[tuple[object, ...]]:
        return self.connection.execute("select id, v, at, changed from t order by id, v").fetchall()

    def is_ahead(self) -> bool:
        """Whether the watermark is higher than anything in raw."""
        if not self.raw():
            return bool(self.warehouse.query("select from ops.watermarks where value is not null"))
        ahead = "select value::timestamptz > (select max(changed) from raw_erp.t) from ops.watermarks"
        return (True,) in self.warehouse.query(ahead)

    def check_after_kill(self, *, committed: bool) -> None:
        """All of it or none of it, and no position ahead of the rows."""
        assert self.raw() == (self.there() if committed else self.before)
        assert not self.is_ahead()

    def check_after_rerun(self) -> None:
        self.load()
        assert self.raw() == self.there()
        assert self.warehouse.query("select count(*) from pg_tables where schemaname = 'loading'") == [(0,)]
        assert self.warehouse.query("select distinct status from ops.loads") == [("loaded",)]
        if self.write != "replace":
            top = "select value::timestamptz = (select max(changed) from raw_erp.t) from ops.watermarks"
            assert self.warehouse.query(top) == [(True,)]

    def _loading(self, window: Window | None, lease: float, url: str | None = None) -> Callable[[], object]:
        destination = replace(self.destination, warehouse=make_url(url)) if url else self.destination
        options = {"window": window, "run": "the victim", "lease_seconds": lease}
        return partial(ingest, self._source, self._source.streams[0], self._connections(), destination, **options)

    def _connections(self) -> EnvironmentConnections:
        """The source may be on another server than the warehouse."""
        info = self.connection.info
        url = URL.create("postgresql+psycopg", info.user, info.password, info.host, info.port, info.dbname)
        return EnvironmentConnections({"HEADWATER_ERP_URL": url.render_as_string(hide_password=False)})

    def _state(self) -> State:
        row = self.connection.execute(f"select {_STATE} from t".encode()).fetchone()
        assert row is not None
        return row[0], row[1]


class Watcher:
    """A reader that looks a hundred times a second. Use as a context manager; leaving it says what it must not see.

    Each look is one statement, so one snapshot: rows, watermark and ledger.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._seen: list[tuple[State, bool, int]] = []
        self._trouble: BaseException | None = None
        self.looks = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is None:
            self._judge()

    def _watch(self) -> None:
        try:
            with self._scene.warehouse.server.connect(self._scene.warehouse.database) as connection:
                due = time.monotonic()
                while not self._stop.is_set():
                    seen = self._look(connection)
                    if not self._seen or self._seen[-1] != seen:
                        self._seen.append(seen)
                    self.looks += 1
                    due = max(due + 0.01, time.monotonic())
                    self._stop.wait(due - time.monotonic())
        except BaseException as error:  # noqa: BLE001 - said where the test can hear it
            self._trouble = error

    def _look(self, connection: psycopg.Connection) -> tuple[State, bool, int]:
        try:
            row = connection.execute(_SNAPSHOT.encode()).fetchone()
        except psycopg.errors.UndefinedTable:  # no load has been committed yet
            return _EMPTY, False, 0
        assert row is not None
        rows, hashes, is_ahead, counted = row
        return (rows, hashes), bool(is_ahead), int(counted or 0)

    def _judge(self) -> None:
        if self._trouble is not None:
            raise self._trouble
        assert self.looks > 10, "the reader hardly looked"
        assert not [seen for seen in self._seen if seen[1]], "a watermark ahead of the rows"
        assert not [seen for seen in self._seen if seen[0][0] != seen[2]], "rows and ledger disagree"
        foreign = [state for state, _, _ in self._seen if state not in self._scene.states]
        assert not foreign, "raw was something that the source never was"
        ages = [self._scene.states.index(state) for state, _, _ in self._seen]
        assert ages == sorted(ages), "raw went back to an older state"


def ending(errors: str) -> str:
    """The error that ended a process, of what it said: of a chain of exceptions, the last."""
    return ([line for line in errors.splitlines() if re.match(r"[a-z_]+\.[\w.]+: |\w+Error\b", line)] or [""])[-1]
