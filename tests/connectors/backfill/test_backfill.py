"""Backfills: what is planned is done, each window once, whoever dies; raw is as one full load would have made it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from connectors.backfill.books import BackfillState, backfills, begin, failures, progress, set_state
from connectors.backfill.plan import BackfillPlan, Mode, plan_backfill
from connectors.backfill.run import load, work
from connectors.backfill.worker import Worker
from connectors.errors import ConfigurationError, WindowError
from connectors.ingest import Destination
from connectors.model import Windows, WriteDisposition
from connectors.rebuild import rebuild
from connectors.rest import RestSource
from connectors.windows import WindowState, ledger_windows, windows_of
from tests.conftest import Answer, Api, Warehouse
from tests.connectors.examples import Prepare, Shop, connections, database, erp, raw, shop_source
from tests.connectors.examples import load as load_new
from tests.victims import Victim, kill_at, sleeper
from tests.waiting import until

FIRST = datetime(2024, 3, 1, tzinfo=UTC)
DAYS = 30
PER_DAY = 8
ROWS = "id, at, changed, total, _deleted_at is null"


def orders(days: int = DAYS, per_day: int = PER_DAY) -> list[dict[str, Any]]:
    """Some a day, each changed some hours after it happened, a few days or weeks later in part."""
    found = []
    for number in range(days * per_day):
        at = FIRST + timedelta(days=number // per_day, hours=number % per_day * 3)
        changed = at + timedelta(hours=1 + number % 5 * 60)
        found.append({"id": number, "at": iso(at), "changed": iso(changed), "total": number * 7})
    return found


def iso(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def day(number: int) -> datetime:
    return FIRST + timedelta(days=number)


def days(statuses: Any) -> list[int]:
    """Which days windows are of, by number."""
    return [(status.window.start - FIRST).days for status in statuses]


def source(**changes: Any) -> RestSource:
    return shop_source(windows=Windows(first="2024-03-01", until=iso(day(DAYS))), **changes)


class Scene:
    """The shop, and a warehouse that is filled by windows."""

    def __init__(self, api: Api, warehouse: Warehouse, destination: Destination) -> None:
        self.shop = Shop(api, orders(), page=1000)
        self.api, self.warehouse, self.destination = api, warehouse, destination
        self.source = source()

    def plan(
        self, mode: Mode = Mode.MISSING, first: int | None = None, last: int | None = None, *, replay: bool = False
    ) -> BackfillPlan:
        return plan_backfill(
            self.source,
            self.source.streams[0],
            self.destination,
            start=None if first is None else day(first),
            end=None if last is None else day(last),
            mode=mode,
            replay=replay,
        )

    def backfill(
        self, mode: Mode = Mode.MISSING, *, first: int | None = None, last: int | None = None, **how: Any
    ) -> UUID:
        backfill_id = begin(self.plan(mode, first, last), self.destination.warehouse, **how)
        work(backfill_id, self.source, self.source.streams[0], connections(self.api), self.destination)
        return backfill_id

    def states(self) -> dict[int, WindowState]:
        statuses = windows_of(self.source, self.source.streams[0], self.destination)
        return dict(zip(days(statuses), (status.state for status in statuses), strict=True))

    def states_by_ledger(self) -> dict[int, WindowState]:
        """As who may read nothing but the ledger sees them."""
        with self.warehouse.connect("watcher") as connection:
            statuses = ledger_windows(connection, self.source, self.source.streams[0], days=DAYS)
        return dict(zip(days(statuses), (status.state for status in statuses), strict=True))

    def reads(self) -> list[tuple[int, int]]:
        """The spans that the source was asked for, by the numbers of their days."""
        spans = []
        for request in self.api.requests:
            if "from" in request.parameters:
                bounds = [datetime.fromisoformat(request.parameters[name]) for name in ("from", "to")]
                spans.append(tuple((bound - FIRST).days for bound in bounds))
        return spans

    def break_days(self, *numbers: int) -> None:
        """The source sends values that are none on these days, until `mend`."""
        for order in self.shop.orders:
            if order["id"] // PER_DAY in numbers:
                order["changed"] = "soon"

    def mend(self) -> None:
        self.shop.orders = orders()


@pytest.fixture
def scene(api: Api, warehouse: Warehouse, destination: Destination) -> Scene:
    return Scene(api, warehouse, destination)


@pytest.fixture
def whole(api: Api, warehouse: Warehouse, destination: Destination) -> list[tuple[Any, ...]]:
    """What raw is after one full load; the warehouse is empty again."""
    Shop(api, orders(), page=1000)
    load_new(source(), api, destination)
    rows = raw(warehouse, ROWS)
    api.requests.clear()
    warehouse.execute(
        "drop schema raw_shop cascade; truncate ops.loads, ops.watermarks, ops.windows, ops.window_changes,"
        " ops.quarantine, ops.schema_changes, ops.files, ops.streams cascade"
    )
    return rows


def test_an_empty_warehouse_is_filled_by_windows_as_by_one_full_load(
    whole: list[tuple[Any, ...]], scene: Scene
) -> None:
    plan = scene.plan()
    assert days(plan.chosen) == list(range(DAYS))
    assert {status.why for status in plan.chosen} == {"never read"}
    assert plan.rows is None, "nobody knows yet"
    backfill_id = scene.backfill()
    assert raw(scene.warehouse, ROWS) == whole
    assert set(scene.states().values()) == {WindowState.LOADED}
    found = progress(scene.destination.warehouse, backfill_id)
    assert (found.loaded, found.failed, found.waiting, found.rows) == (DAYS, 0, 0, DAYS * PER_DAY)
    assert found.state is BackfillState.ENDED
    assert scene.reads() == [(0, 1), (1, 30)], "the first tells how many rows a window has; the others fit one batch"
    again = scene.plan(Mode.ALL)
    assert (again.rows, again.requests) == (DAYS * PER_DAY, 2), "one for each page of a thousand"
    assert not scene.plan().chosen
    with pytest.raises(WindowError, match="The end is exclusive"):
        windows_of(scene.source, scene.source.streams[0], scene.destination, start=FIRST, end=FIRST)
    with pytest.raises(ConfigurationError, match="no windows"):
        begin(scene.plan(), scene.destination.warehouse)


def test_a_database_tells_about_how_many_rows_there_are_before_any_is_read(
    source_database: Prepare, warehouse: Warehouse, destination: Destination
) -> None:
    connection = source_database(
        """
        create table events (id bigint primary key, at timestamptz not null);
        insert into events
        select n, timestamptz '2024-03-01Z' + n * interval '1 minute' from generate_series(0, 30 * 1440 - 1) n;
        analyze events;
        """
    )
    windows = Windows(first="2024-03-01", until=iso(day(DAYS)))
    events = erp(name="events", primary_key=("id",), event_time="at", windows=windows)
    there = database(connection, warehouse)
    plan = plan_backfill(events, events.streams[0], destination, connections=there)
    assert plan.rows is not None
    assert 0.9 < plan.rows / (DAYS * 1440) < 1.1
    assert plan.requests is None, "one query is none"
    assert plan_backfill(events, events.streams[0], destination).rows is None
    work(begin(plan, destination.warehouse), events, events.streams[0], there, destination)
    assert warehouse.query("select count(*), count(distinct load_id) from ops.windows w, ops.loads") == [(DAYS, 1)]
    connection.execute("alter table events rename to lost")
    warehouse.execute("truncate ops.windows, ops.window_changes; delete from ops.loads")
    assert plan_backfill(events, events.streams[0], destination, connections=there).rows is None


def test_batches_have_as_many_rows_as_they_should_and_go_either_way(whole: list[tuple[Any, ...]], scene: Scene) -> None:
    scene.backfill(rows_at_once=4 * PER_DAY, backward=True)
    assert scene.reads() == [(29, 30), *((max(29 - 4 * n - 4, 0), 29 - 4 * n) for n in range(8))]
    assert raw(scene.warehouse, ROWS) == whole


def test_windows_that_cannot_be_loaded_are_found_and_the_others_loaded(
    whole: list[tuple[Any, ...]], scene: Scene
) -> None:
    scene.break_days(3, 17, 18)
    backfill_id = scene.backfill()
    failed = failures(scene.destination.warehouse, backfill_id)
    assert [(window.start - FIRST).days for window, _ in failed] == [3, 17, 18]
    assert all("column changed" in why for _, why in failed)
    assert {number for number, state in scene.states().items() if state is not WindowState.LOADED} == {3, 17, 18}
    assert scene.states()[3] is WindowState.FAILED
    assert scene.states_by_ledger() == scene.states()
    scene.mend()
    scene.api.requests.clear()
    assert days(scene.plan(Mode.FAILED).chosen) == [3, 17, 18]
    scene.warehouse.execute("delete from raw_shop.orders where at::date - date '2024-03-01' in (20, 25)")
    assert scene.states_by_ledger()[20] is WindowState.LOADED, "what raw has lost the ledger cannot know"
    assert days(scene.plan().at_most(3).chosen) == [3, 20, 25], "what fails again and again holds nothing up"
    assert days(scene.plan().at_most(3, backward=True).chosen) == [18, 20, 25]
    scene.backfill()
    assert sorted(scene.reads()) in ([(3, 4), (17, 18), (18, 19)], [(3, 4), (17, 19)])
    assert raw(scene.warehouse, ROWS) == whole


def working(scene: Scene, backfill_id: UUID) -> Callable[[], object]:
    """What another process does, which works on a backfill."""
    return partial(
        work,
        backfill_id,
        scene.source,
        scene.source.streams[0],
        connections(scene.api),
        scene.destination,
        run="the other",
    )


def test_after_three_failures_and_a_kill_exactly_the_rest_is_done(
    whole: list[tuple[Any, ...]], scene: Scene, landing_folder: Path
) -> None:
    """Loads have brought what is new before and in between: the watermark is theirs alone."""
    load_new(scene.source, scene.api, scene.destination)
    scene.warehouse.execute("delete from raw_shop.orders; truncate ops.windows, ops.window_changes")
    scene.warehouse.execute("update ops.loads set cursor_from = 'an earlier position'")
    watermark = scene.warehouse.query("select * from ops.watermarks")
    scene.break_days(7, 8, 21)
    backfill_id = begin(scene.plan(), scene.destination.warehouse, rows_at_once=PER_DAY)
    kill_at("rows-written:25", working(scene, backfill_id))
    left = {number for number, state in scene.states().items() if state is not WindowState.LOADED}
    assert {7, 8, 21} < left
    assert len(left) < 10
    scene.mend()
    scene.api.requests.clear()
    assert set(days(scene.plan().chosen)) == left
    scene.backfill(rows_at_once=PER_DAY)
    asked = {first for first, last in scene.reads() if last == first + 1}
    assert {7, 8, 21} <= asked <= left, "what had landed is not asked for again"
    assert raw(scene.warehouse, ROWS) == whole
    assert scene.warehouse.query("select * from ops.watermarks") == watermark


def test_a_batch_of_a_worker_that_died_is_taken_by_another(
    whole: list[tuple[Any, ...]], scene: Scene, landing_folder: Path
) -> None:
    backfill_id = begin(scene.plan(), scene.destination.warehouse, rows_at_once=PER_DAY)
    kill_at("all-copied:4", working(scene, backfill_id))
    work(backfill_id, scene.source, scene.source.streams[0], connections(scene.api), scene.destination)
    assert progress(scene.destination.warehouse, backfill_id).loaded == DAYS
    assert raw(scene.warehouse, ROWS) == whole
    tried = scene.warehouse.query("select attempts from ops.backfill_windows where attempts > 1")
    assert tried == [(2,)], "only the one that it had"


def test_workers_share_a_backfill_beside_loads_of_what_is_new(
    whole: list[tuple[Any, ...]], scene: Scene, landing_folder: Path
) -> None:
    backfill_id = begin(scene.plan(), scene.destination.warehouse, rows_at_once=PER_DAY, at_once=3)
    others = [Victim(working(scene, backfill_id)) for _ in range(2)]
    stop = threading.Event()
    errors: list[Exception] = []

    def schedule() -> None:
        try:
            while not stop.wait(0.2):
                load_new(scene.source, scene.api, scene.destination)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    thread = threading.Thread(target=schedule)
    thread.start()
    try:
        work(backfill_id, scene.source, scene.source.streams[0], connections(scene.api), scene.destination)
        for other in others:
            assert other.wait(120) == 0, other.said
    finally:
        stop.set()
        thread.join()
    assert not errors
    assert raw(scene.warehouse, ROWS) == whole
    holders = scene.warehouse.query(
        "select count(distinct holder), count(*) filter (where attempts = 1) from ops.backfill_windows"
    )
    assert holders[0][0] > 1
    assert holders[0][1] == DAYS, "each window once"
    live = scene.warehouse.query("select count(*) from ops.loads where window_start is null and status = 'loaded'")
    assert live[0][0] > 2, "what is new was loaded meanwhile"


def test_commits_of_one_stream_take_turns(whole: list[tuple[Any, ...]], scene: Scene, landing_folder: Path) -> None:
    """One stops within its commit: another window is read meanwhile, and committed after it, by a later instant."""
    scene.backfill(first=0, last=10)
    first = begin(scene.plan(first=10, last=20), scene.destination.warehouse)
    second = begin(scene.plan(first=20, last=30), scene.destination.warehouse)
    with sleeper("rows-written", working(scene, first)) as stopped:
        other = Victim(working(scene, second))
        landed = "select from ops.loads where status = 'landed' and window_start = %s"
        until(lambda: scene.warehouse.query(landed, [day(20)]), "the other has landed")
        time.sleep(1)
        assert scene.warehouse.query(landed, [day(20)]), "and waits"
        stopped.send(signal.SIGCONT)
        assert (stopped.wait(), other.wait()) == (0, 0)
    order = "select window_start from ops.loads where window_start >= %s and status = 'loaded' order by raw_loaded_at"
    assert [start for (start,) in scene.warehouse.query(order, [day(10)])] == [day(10), day(20)]
    assert raw(scene.warehouse, ROWS) == whole


def test_any_order_and_any_number_of_times_gives_the_same_rows(whole: list[tuple[Any, ...]], scene: Scene) -> None:
    scene.backfill(first=20, last=30)
    scene.backfill(first=10, last=25, mode=Mode.ALL, backward=True)
    scene.backfill(first=0, last=30, mode=Mode.ALL, rows_at_once=3 * PER_DAY)
    scene.backfill(first=0, last=30, mode=Mode.ALL)
    assert raw(scene.warehouse, ROWS) == whole
    before = raw(scene.warehouse, f"{ROWS}, _load_id, _loaded_at")
    scene.backfill(mode=Mode.ALL, backward=True)
    assert raw(scene.warehouse, f"{ROWS}, _load_id, _loaded_at") == before, "what is the same is not written again"


def test_what_raw_lost_comes_from_the_landing_and_what_the_landing_lost_from_the_source(
    whole: list[tuple[Any, ...]], scene: Scene, landing_folder: Path
) -> None:
    scene.backfill(rows_at_once=PER_DAY)
    scene.warehouse.execute("delete from raw_shop.orders where at::date - date '2024-03-01' in (4, 5, 11, 19, 29)")
    for number in (8, 24):
        ((key,),) = scene.warehouse.query(
            "select manifest_key from ops.loads where window_start = %s and status = 'loaded'", [day(number)]
        )
        (landing_folder / key).unlink()
    plan = scene.plan()
    assert days(plan.chosen) == [4, 5, 8, 11, 19, 24, 29]
    assert days(status for status in plan.chosen if status.from_landing) == [4, 5, 11, 19, 29]
    assert {status.why for status in plan.chosen if status.from_landing} == {"raw has 0 of 8 rows"}
    assert plan.rows == 7 * PER_DAY
    assert [count for _, count in plan.spans] == [2, 1, 1, 1, 1, 1]
    scene.api.requests.clear()
    scene.backfill()
    assert scene.reads() == [(8, 9), (24, 25)]
    assert raw(scene.warehouse, ROWS) == whole
    assert not scene.plan().chosen
    scene.warehouse.execute("drop table raw_shop.orders")
    rebuild(scene.source, scene.source.streams[0], scene.destination)
    assert raw(scene.warehouse, ROWS) == whole, "the landing has all of it again"


def test_windows_are_replayed_from_the_landing_alone(
    whole: list[tuple[Any, ...]], scene: Scene, landing_folder: Path
) -> None:
    scene.backfill(rows_at_once=PER_DAY)
    scene.warehouse.execute("update raw_shop.orders set total = -1 where at < '2024-03-11'")
    ((key,),) = scene.warehouse.query("select manifest_key from ops.loads where window_start = %s", [day(3)])
    (landing_folder / key).unlink()
    scene.api.requests.clear()
    plan = scene.plan(Mode.ALL, 0, 10, replay=True)
    assert days(plan.chosen) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert plan.not_landed == 1
    work(begin(plan, scene.destination.warehouse), scene.source, scene.source.streams[0], connections(scene.api),
         scene.destination)  # fmt: skip
    assert not scene.api.requests
    changed = scene.warehouse.query("select distinct at::date - date '2024-03-01' from raw_shop.orders where total < 0")
    assert changed == [(3,)], "the landing has lost it"
    scene.backfill()
    assert raw(scene.warehouse, ROWS) == whole


def test_rows_come_back_from_a_later_read_if_the_landing_has_lost_the_load_that_brought_them(
    whole: list[tuple[Any, ...]], scene: Scene, landing_folder: Path
) -> None:
    scene.backfill(rows_at_once=PER_DAY)
    ((key,),) = scene.warehouse.query("select manifest_key from ops.loads where window_start = %s", [day(3)])
    scene.backfill(mode=Mode.ALL, first=3, last=4)
    (landing_folder / key).unlink()
    assert not scene.plan().chosen, "the second read has all of it"
    scene.warehouse.execute("delete from raw_shop.orders where at::date = '2024-03-04'")
    scene.api.requests.clear()
    scene.backfill()
    assert not scene.api.requests
    assert raw(scene.warehouse, ROWS) == whole


def test_rows_that_a_full_load_brought_come_back_from_its_landing(whole: list[tuple[Any, ...]], scene: Scene) -> None:
    load_new(scene.source, scene.api, scene.destination)
    scene.warehouse.execute("delete from raw_shop.orders where at < '2024-03-03' or id = 100")
    plan = scene.plan()
    assert days(plan.chosen) == [0, 1, 12]
    assert plan.chosen[-1].why == "raw has 7 of 8 rows"
    scene.api.requests.clear()
    scene.backfill()
    assert not scene.api.requests
    assert raw(scene.warehouse, ROWS) == whole
    assert not scene.plan().chosen


def test_a_full_load_covers_all_windows_and_late_rows_make_theirs_stale(scene: Scene) -> None:
    load_new(scene.source, scene.api, scene.destination)
    assert set(scene.states().values()) == {WindowState.LOADED}
    scene.warehouse.execute(
        "insert into ops.publishes (generation, invocation_id) values (1, 'x'); update ops.windows set built_by = 1"
    )
    late = {"id": 9999, "at": iso(day(4) + timedelta(hours=5)), "changed": iso(day(60)), "total": 1}
    moved = {**scene.shop.orders[PER_DAY * 9], "at": iso(day(11)), "changed": iso(day(61))}
    scene.shop.orders = [*(order for order in scene.shop.orders if order["id"] != moved["id"]), moved, late]
    load_new(scene.source, scene.api, scene.destination)
    stale = {number for number, state in scene.states().items() if state is WindowState.STALE}
    assert stale == {4, 9, 11}, "also the window that a row has left"
    assert scene.states_by_ledger() == scene.states()
    assert days(scene.plan(Mode.STALE).chosen) == [4, 9, 11]
    rows = dict(scene.warehouse.query("select window_start, rows from ops.windows"))
    assert (rows[day(4)], rows[day(9)], rows[day(11)]) == (PER_DAY + 1, PER_DAY - 1, PER_DAY + 1)


def test_an_older_version_does_not_overwrite_a_newer_one(scene: Scene) -> None:
    old = orders()
    scene.shop.orders = [{**order, "total": -1, "changed": iso(day(90))} for order in old]
    load_new(scene.source, scene.api, scene.destination)
    scene.shop.orders = old
    scene.backfill(mode=Mode.ALL)
    assert {total for (total,) in raw(scene.warehouse, "total")} == {-1}


def test_events_without_a_key_are_replaced_by_window(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    events = source(write=WriteDisposition.APPEND, primary_key=(), cursor=None, since_parameter=None)
    scene = Scene(api, warehouse, destination)
    scene.source = events
    scene.backfill(rows_at_once=9 * PER_DAY)
    scene.backfill(mode=Mode.ALL, first=3, last=9)
    assert warehouse.query("select count(*), count(distinct id) from raw_shop.orders") == [(240, 240)]
    assert not scene.plan().chosen
    warehouse.execute("delete from raw_shop.orders where id = 33")
    assert [(status.window.start, status.from_landing) for status in scene.plan().chosen] == [(day(4), ())]
    scene.backfill()
    assert warehouse.query("select count(*), count(distinct id) from raw_shop.orders") == [(240, 240)]
    rebuild(events, events.streams[0], destination)
    assert warehouse.query("select count(*), count(distinct id) from raw_shop.orders") == [(240, 240)]


def test_a_source_that_is_not_there_stops_a_backfill_soon(scene: Scene) -> None:
    scene.api.answer = lambda _: Answer({}, 503)
    backfill_id = begin(scene.plan(), scene.destination.warehouse, rows_at_once=1)
    found = work(backfill_id, scene.source, scene.source.streams[0], connections(scene.api), scene.destination)
    assert (found.failed, found.waiting) == (3, DAYS - 3)
    scene.mend()
    assert days(scene.plan().chosen) == list(range(DAYS))


def test_a_backfill_is_paused_and_goes_on_or_is_cancelled(whole: list[tuple[Any, ...]], scene: Scene) -> None:
    warehouse = scene.destination.warehouse
    backfill_id = begin(scene.plan(), warehouse, rows_at_once=PER_DAY)
    stream = scene.source.streams[0]

    def some(most: int) -> int:
        done = 0
        with Worker(warehouse, backfill_id, "some") as worker:
            for batch in worker.batches(wait=False):
                load(batch, scene.source, stream, connections(scene.api), scene.destination)
                worker.done(batch)
                done += 1
                if done == most:
                    break
        return done

    assert some(4) == 4
    set_state(warehouse, backfill_id, BackfillState.PAUSED)
    assert some(4) == 0
    paused = threading.Thread(
        target=work, args=[backfill_id, scene.source, stream, connections(scene.api), scene.destination]
    )
    paused.start()
    set_state(warehouse, backfill_id, BackfillState.RUNNING)
    paused.join(timeout=120)
    assert raw(scene.warehouse, ROWS) == whole
    with pytest.raises(ConfigurationError, match="is ended"):
        set_state(warehouse, backfill_id, BackfillState.CANCELLED)
    second = begin(scene.plan(Mode.ALL), warehouse, rows_at_once=PER_DAY)
    set_state(warehouse, second, BackfillState.CANCELLED)
    assert work(second, scene.source, stream, connections(scene.api), scene.destination).waiting == DAYS
    assert [found.backfill_id for found in backfills(warehouse)] == [second, backfill_id]


def test_a_stream_without_windows_is_refused(api: Api, destination: Destination) -> None:
    without = shop_source(event_time=None, window_parameters=None)
    with pytest.raises(WindowError, match="no event time"):
        plan_backfill(without, without.streams[0], destination)


def test_an_event_time_that_is_no_instant_is_refused(api: Api, warehouse: Warehouse, destination: Destination) -> None:
    untyped = source(columns={"changed": "timestamptz"})
    Shop(api, orders(2), page=1000)
    load_new(untyped, api, destination)
    with pytest.raises(WindowError, match="holds no instants"):
        plan_backfill(untyped, untyped.streams[0], destination)
