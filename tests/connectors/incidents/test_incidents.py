"""One trouble is one incident: from its first sign to its recovery, told once."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from functools import partial

import psycopg
import pytest

from connectors.errors import ConfigurationError, DestinationUnavailableError, UnknownNameError
from connectors.incidents import desk
from connectors.incidents.observe import observation, observe
from connectors.incidents.record import Announcement
from connectors.incidents.rules import Rules, span
from connectors.incidents.signs import Severity
from tests.conftest import Warehouse
from tests.connectors.incidents.watching import (
    MART,
    STREAM,
    draw,
    events,
    incidents,
    messages,
    outbox,
    see,
    shift,
    shop,
    sign,
)
from tests.victims import Victim
from tests.waiting import until


def test_a_failing_source_with_twenty_models_behind_it_is_one_incident_however_often_it_reruns(
    warehouse: Warehouse,
) -> None:
    models = shop(warehouse)
    broken = [sign(f"dbt {name}", name) for name in models]
    for _ in range(5):
        see(warehouse, sign("load shop.orders", STREAM), scope="loads")
        see(warehouse, *broken, scope="builds")
    [(title, root, marts, dashboards, owner, times)] = incidents(
        warehouse, "title, root, affected_marts, affected_dashboards, owner, times_seen"
    )
    assert (title, root) == ("load shop.orders is wrong", STREAM)
    assert (marts, dashboards, owner, times) == (["fct_orders"], ["board"], "platform", 10)
    assert messages(warehouse) == [(1, "opened", 1)]

    assert see(warehouse, scope="loads").closed == ()
    assert see(warehouse, scope="builds").closed == (1,)
    assert messages(warehouse) == [(1, "opened", 1), (1, "closed", 1)]
    told = events(warehouse)
    assert (told[0], told[-1]) == ("opened", "closed")
    assert sorted(set(told[1:-1])) == ["sign", "sign gone"]
    assert (told.count("sign"), told.count("sign gone")) == (20, 21)


def test_the_models_first_and_then_their_source_are_one_incident_that_goes_by_the_source(warehouse: Warehouse) -> None:
    models = shop(warehouse)
    see(warehouse, sign(f"dbt {MART}", MART, title="The mart is not built", owner="nobody asked"), scope="builds")
    see(warehouse, sign(f"dbt {models[3]}", models[3]), sign(f"dbt {MART}", MART), scope="builds")
    see(warehouse, sign("load shop.orders", STREAM, next_command="headwater sources"), scope="loads")
    assert incidents(warehouse, "incident_id, title, root, next_command, owner") == [
        (1, "load shop.orders is wrong", STREAM, "headwater sources", "platform")
    ]
    assert messages(warehouse) == [(1, "opened", 1)]


def test_a_failed_test_of_one_mart_and_an_unrelated_source_are_two_incidents(warehouse: Warehouse) -> None:
    shop(warehouse)
    see(warehouse, sign("orphans", "model.shop.dim_staff"), scope="builds")
    see(warehouse, sign("load shop.orders", STREAM), scope="loads")
    assert incidents(warehouse, "root, owner") == [("model.shop.dim_staff", "people"), (STREAM, "platform")]
    assert see(warehouse, scope="loads").closed == (2,)
    assert incidents(warehouse) == [1]


def test_two_incidents_that_turn_out_to_be_one_go_on_as_the_older_and_only_that_one_recovers(
    warehouse: Warehouse,
) -> None:
    draw(
        warehouse,
        {"stream.shop.a": {"kind": "stream"}, "model.p.one": {}, "model.p.two": {}},
        [("stream.shop.a", "model.p.one"), ("stream.shop.a", "model.p.two")],
    )
    both = [sign("one", "model.p.one"), sign("two", "model.p.two", Severity.CRITICAL)]
    assert see(warehouse, *both, scope="builds").opened == (1, 2)
    found = see(warehouse, sign("a", "stream.shop.a"), scope="loads")
    assert (found.opened, found.closed, found.open) == ((), (2,), (1,))
    assert incidents(warehouse, "closed_why, part_of", "closed_at is not null") == [("part of #1", 1)]
    assert incidents(warehouse, "root, severity") == [("stream.shop.a", "critical")]
    assert (events(warehouse, 2)[-2:], events(warehouse, 1)[1:]) == (["sign gone", "closed"], ["sign", "sign", "worse"])
    see(warehouse, scope="loads")
    assert see(warehouse, scope="builds").closed == (1,)
    kinds = [(1, "opened", 1), (2, "opened", 1), (1, "worse", 1), (1, "closed", 1)]
    assert messages(warehouse) == kinds


def test_what_is_left_of_a_trouble_that_is_over_joins_the_one_that_explains_it(warehouse: Warehouse) -> None:
    draw(
        warehouse,
        {"stream.shop.a": {"kind": "stream"}, "stream.shop.b": {"kind": "stream"}, "model.p.both": {}},
        [("stream.shop.a", "model.p.both"), ("stream.shop.b", "model.p.both")],
    )
    a, b = sign("a", "stream.shop.a"), sign("b", "stream.shop.b")
    assert see(warehouse, a, b, scope="loads").opened == (1, 2)
    see(warehouse, sign("both", "model.p.both"), scope="builds")
    assert see(warehouse, b, scope="loads").closed == (1,)
    assert incidents(warehouse, "closed_as", "incident_id = 1") == ["recovered"]
    assert warehouse.query("select key, incident_id from ops.signs order by key") == [("b", 2), ("both", 2)]


def test_a_failed_run_and_what_it_met_are_one_incident_whichever_is_seen_first(warehouse: Warehouse) -> None:
    shop(warehouse)
    uuid = "0189d6f2-0000-7000-8000-000000000001"
    run = sign("run ingest/shop", run_id=uuid)
    load = sign("load shop.orders", STREAM, run_id=f"flow run ingest shop ({uuid})")
    elsewhere = sign("load crm.staff", "stream.crm.staff", run_id=f"flow run ingest shop ({uuid})")
    see(warehouse, run, scope="runs")
    assert see(warehouse, load, elsewhere, scope="loads").opened == (2,)
    # The run may have met two troubles: it stands for the one, and does not make them one.
    assert warehouse.query("select key, incident_id from ops.signs order by key") == [
        ("load crm.staff", 1),
        ("load shop.orders", 2),
        ("run ingest/shop", 1),
    ]
    see(warehouse, scope="runs")
    see(warehouse, scope="loads")
    assert see(warehouse, load, scope="loads").reopened == (2,)
    assert see(warehouse, run, scope="runs").opened == ()
    assert incidents(warehouse, "root") == [STREAM]


def test_a_sign_that_returns_soon_opens_the_same_incident_and_takes_its_recovery_back(warehouse: Warehouse) -> None:
    shop(warehouse)
    failing = sign("load shop.orders", STREAM)
    for _ in range(3):
        see(warehouse, failing)
        assert see(warehouse).closed == (1,)
    assert see(warehouse, failing).reopened == (1,)
    assert messages(warehouse) == [(1, "opened", 1)]
    assert messages(warehouse, withdrawn=True) == [(1, "closed", number) for number in (1, 2, 3)]
    see(warehouse)
    [(seconds,)] = warehouse.query("select extract(epoch from due_at - now()) from ops.alerts where number = 4")
    assert 1100 < seconds <= 1200

    shift(warehouse, hours=1)
    assert see(warehouse, failing).opened == (2,)
    assert messages(warehouse) == [(1, "opened", 1), (1, "closed", 4), (2, "opened", 1)]


def test_one_that_lasts_is_told_again_by_its_severity_and_one_that_is_snoozed_is_not(warehouse: Warehouse) -> None:
    shop(warehouse)
    signs = [
        sign("slow", "stream.crm.staff", Severity.WARNING),
        sign("load shop.orders", STREAM, Severity.CRITICAL),
    ]
    see(warehouse, *signs)
    watcher = warehouse.url("watcher")
    by_title = {each.title: each.incident_id for each in desk.incidents(watcher)}
    late, slow = by_title["load shop.orders is wrong"], by_title["slow is wrong"]
    shift(warehouse, hours=3.9)
    assert see(warehouse, *signs).reminded == ()
    shift(warehouse, hours=0.2)
    assert see(warehouse, *signs).reminded == (late,)
    assert see(warehouse, *signs).reminded == ()
    desk.snooze(watcher, late, span=span("6h"), by="ann", why="their database is being moved")
    shift(warehouse, hours=5)
    assert see(warehouse, *signs).reminded == ()
    shift(warehouse, hours=1.1)
    assert see(warehouse, *signs).reminded == (late,)
    assert incidents(warehouse, "snoozed_until") == [None, None]
    assert events(warehouse, late) == ["opened", "reminded", "snoozed", "woken", "reminded"]
    shift(warehouse, hours=1000)
    assert see(warehouse, *signs).reminded == (late,)
    assert [message for message in messages(warehouse) if message[0] == late] == [
        (late, "opened", 1),
        (late, "reminder", 1),
        (late, "reminder", 2),
        (late, "reminder", 3),
    ]
    assert [message for message in messages(warehouse) if message[0] == slow] == [(slow, "opened", 1)]


def test_a_snoozed_incident_that_gets_worse_wakes_up_and_one_that_gets_better_stays_as_bad_as_it_was(
    warehouse: Warehouse,
) -> None:
    shop(warehouse)
    watcher = warehouse.url("watcher")
    see(warehouse, sign("late", STREAM, Severity.WARNING))
    desk.snooze(watcher, 1, span=timedelta(hours=2), by="ann", why="known")
    assert see(warehouse, sign("late", STREAM, Severity.CRITICAL)).worse == (1,)
    assert see(warehouse, sign("late", STREAM, Severity.WARNING)).worse == ()
    assert see(warehouse, sign("late", STREAM, Severity.CRITICAL)).worse == ()
    assert events(warehouse) == ["opened", "snoozed", "woken", "worse"]
    assert incidents(warehouse, "severity, snoozed_until") == [("critical", None)]
    assert not desk.wake(watcher, 1, by="ann")


def test_one_that_is_closed_by_hand_recovers_at_once_and_opens_as_another_if_it_is_still_seen(
    warehouse: Warehouse,
) -> None:
    shop(warehouse)
    watcher = warehouse.url("watcher")
    see(warehouse, sign("late", STREAM))
    desk.close(watcher, 1, by="ann", why="the stream is gone", announce=outbox)
    assert messages(warehouse) == [(1, "opened", 1), (1, "closed", 1)]
    assert warehouse.query("select count(*) from ops.alerts where due_at <= now()") == [(2,)]
    assert incidents(warehouse, "closed_why", "true") == ["Closed by ann: the stream is gone"]
    assert see(warehouse, sign("late", STREAM)).opened == (2,)
    with pytest.raises(ConfigurationError, match="Incident 1 was closed .*the stream is gone"):
        desk.close(watcher, 1, by="ann", why="again")
    with pytest.raises(UnknownNameError, match="no incident `9`. Use one of those registered: `2`"):
        desk.snooze(watcher, 9, span=timedelta(hours=1), by="ann", why="?")


def test_two_observers_at_once_open_one_incident(warehouse: Warehouse) -> None:
    shop(warehouse)
    ready, found = threading.Barrier(6), []

    def look(number: int) -> None:
        ready.wait()
        scope = f"scope {number % 2}"
        found.append(see(warehouse, sign(f"{scope} sign", (STREAM, MART)[number % 2]), scope=scope))

    threads = [threading.Thread(target=look, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.opened for each in found) == [()] * 5 + [(1,)]
    assert incidents(warehouse, "incident_id, root, times_seen") == [(1, STREAM, 6)]
    assert messages(warehouse) == [(1, "opened", 1)]


def _write_and_wait(connection: psycopg.Connection, announcement: Announcement) -> None:
    outbox(connection, announcement)
    print("written")  # noqa: T201 - for the test
    time.sleep(60)


def test_an_observer_that_is_killed_has_written_nothing_and_the_next_one_does_it_all(warehouse: Warehouse) -> None:
    with Victim(partial(observe, warehouse.url("watcher"), "test", [sign("late")], announce=_write_and_wait)) as victim:
        until(lambda: victim.said, "it has written")
    assert see(warehouse, sign("late")).opened != ()
    assert len(incidents(warehouse, where="true")) == 1
    assert [kind for _, kind, _ in messages(warehouse)] == ["opened"]


def test_a_message_that_cannot_be_written_leaves_no_incident_without_one(warehouse: Warehouse) -> None:
    def full(connection: psycopg.Connection, announcement: Announcement) -> None:
        connection.execute("insert into ops.alerts (subject) values (null)")

    with pytest.raises(psycopg.errors.NotNullViolation):
        observe(warehouse.url("watcher"), "test", [sign("late")], announce=full)
    assert incidents(warehouse, where="true") == []


def test_an_observer_whose_turn_does_not_come_says_so_in_time(warehouse: Warehouse) -> None:
    watcher = warehouse.url("watcher")
    with (
        observation(watcher),
        pytest.raises(DestinationUnavailableError, match="did not give a lock in time"),
        observation(watcher, wait_seconds=0.2),
    ):
        pass


def test_the_rules_come_from_the_environment() -> None:
    found = Rules.of(
        {
            "HEADWATER_INCIDENT_REMIND_CRITICAL": "30m",
            "HEADWATER_INCIDENT_REMIND_ERROR": "never",
            "HEADWATER_INCIDENT_SETTLE": "1h",
            "HEADWATER_INCIDENT_OWNER": "on-call@example.org",
        }
    )
    assert found.remind_after[Severity.CRITICAL] == timedelta(minutes=30)
    assert found.remind_after[Severity.ERROR] is None
    assert (found.settle, found.owner) == (timedelta(hours=1), "on-call@example.org")
    assert Rules.of({}) == Rules()
    with pytest.raises(ConfigurationError, match="HEADWATER_INCIDENT_SETTLE: `soon` is no time span. Write minutes"):
        Rules.of({"HEADWATER_INCIDENT_SETTLE": "soon"})


def test_what_nobody_owns_goes_to_who_is_named_for_it(warehouse: Warehouse) -> None:
    rules = Rules(owner="on-call")
    see(warehouse, sign("a"), sign("b", owner="board"), rules=rules)
    assert incidents(warehouse, "title, owner") == [("a is wrong", "on-call"), ("b is wrong", "board")]
