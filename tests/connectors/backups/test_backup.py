"""Making backups: of one instant, beside what goes on, kept for a while, proven; and killed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from connectors.backups.backup import back_up, keep
from connectors.backups.check import check
from connectors.backups.parts import Part
from connectors.backups.programs import program
from connectors.backups.restore import restore
from connectors.backups.store import BackupStore
from connectors.connections import EnvironmentConnections, StoreLocation
from connectors.destinations.warehouse.ledger import Lease
from connectors.errors import BackupCorruptError, ConfigurationError, DestinationUnavailableError, StreamBusyError
from connectors.failpoints import BACKUP_FAILPOINTS, RESTORE_FAILPOINTS
from connectors.incidents.checks import take_stock
from tests.connectors.backups.drill import Drill, lineages, url_of
from tests.connectors.examples import Shop, order, shop_source
from tests.connectors.forget.forgetting import MODELS, build_models, forgotten
from tests.victims import kill_at


def restore_latest(drill: Drill) -> None:
    sources = [shop_source(reject_limit=0.5)]
    restore(
        drill.store.named(None),
        drill.store,
        drill.connections,
        drill.destination,
        sources,
        lineages,
        by="the victim",
    )


def statuses(drill: Drill) -> list[tuple[str, str | None]]:
    return drill.warehouse.query("select status, error from ops.backups order by started_at")


@pytest.mark.chaos
def test_a_backup_that_is_killed_is_none_and_the_next_one_is(drill: Drill, shop: Shop) -> None:
    drill.load()
    for instant in BACKUP_FAILPOINTS:
        there = len(drill.store.all())
        kill_at(instant, partial(back_up, drill.connections, drill.store))
        assert len(drill.store.all()) == there + (instant == "backup-finished")
        backup = drill.back_up()
        assert statuses(drill)[-2:] == [("failed", "It was killed."), ("done", None)]
        assert drill.store.named(None) == backup
    check(backup, drill.store, drill.scratch())


@pytest.mark.parametrize(
    "instants",
    [
        pytest.param(("part-restored:2",), id="one"),
        pytest.param(RESTORE_FAILPOINTS, id="all", marks=pytest.mark.chaos),
    ],
)
def test_a_restore_that_is_killed_is_run_again(drill: Drill, shop: Shop, instants: tuple[str, ...]) -> None:
    drill.load()
    build_models(drill.warehouse)
    drill.back_up(with_raw=False)
    forgotten(drill.sources[0], drill.warehouse, drill.destination, "5", lineage=MODELS)
    shop.orders.append(order(20, changed="2024-02-01T00:00:00Z"))
    drill.load()
    ids = drill.warehouse.query("select id from raw_shop.orders order by 1")
    drill.lose()
    for instant in instants:
        kill_at(instant, partial(restore_latest, drill))
    if instants[-1] != "restored":
        report = drill.restore()
        assert report.requests == 1
    assert drill.warehouse.query("select id from raw_shop.orders order by 1") == ids
    assert drill.warehouse.query("select to_regnamespace('restoring')") == [(None,)]
    assert drill.warehouse.query("select loads_adopted + requests_repeated > 0 from ops.restores") == [(True,)]
    assert drill.warehouse.query("select person_id from serving.fct_people where person_id = '5'") == []
    assert drill.load()[-1].inserted == 0


def test_a_backup_is_proven_and_one_that_lies_is_found_out(drill: Drill, shop: Shop) -> None:
    drill.load()
    build_models(drill.warehouse)
    backup = drill.back_up()
    scratch, watcher = drill.scratch(), drill.warehouse.url("watcher")
    check(backup, drill.store, scratch, watcher)
    checked = "select checked_at is not null, check_error from ops.backups"
    assert drill.warehouse.query(checked) == [(True, None)]
    manifest = drill.backups / backup.folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"rows": 7', '"rows": 8'))
    with pytest.raises(BackupCorruptError, match=r"did not come back as it was: raw_shop\.orders has 7 rows of 8"):
        check(drill.store.named(None), drill.store, scratch, watcher)
    [(_, error)] = drill.warehouse.query(checked)
    assert "raw_shop.orders has 7 rows of 8" in error
    take_stock(watcher, ["backups"])
    assert drill.warehouse.query("select kind from ops.signs") == [("backup damaged",)]
    check(backup, drill.store, scratch, watcher)  # the scratch database is empty again
    take_stock(watcher, ["backups"])
    assert drill.warehouse.query("select kind from ops.signs") == []


@pytest.mark.chaos
def test_a_backup_waits_for_a_build_and_lets_no_other_begin(drill: Drill, shop: Shop) -> None:
    drill.load()
    build = Lease(drill.warehouse.url("transformer"), "dbt", "transform", "a build")
    with build, pytest.raises(StreamBusyError, match="a build"):
        drill.back_up(wait_seconds=0.2)
    with drill.warehouse.connect("watcher") as other:
        other.execute("select pg_advisory_lock(hashtextextended('headwater.backup', 0))")
        with pytest.raises(StreamBusyError, match="Another backup is being made"):
            drill.back_up()
    [(status, error)] = statuses(drill)
    assert status == "failed"
    assert error is not None
    assert drill.store.all() == []


@pytest.mark.chaos
def test_what_a_backup_meets_is_said_and_no_password_with_it(
    drill: Drill, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    drill.load()
    drill.warehouse.execute("revoke select on ops.loads from headwater_watcher")
    with pytest.raises(DestinationUnavailableError, match=r"pg_dump did not get all of .*permission denied") as failed:
        drill.back_up()
    assert "test-only" not in str(failed.value)
    monkeypatch.setenv("HEADWATER_POSTGRES_PROGRAMS", "/usr/bin")
    with pytest.raises(ConfigurationError, match=r"There is no pg_dump of PostgreSQL \d+"):
        program("pg_dump", 99)


@pytest.mark.chaos
def test_what_is_not_headwaters_is_named(drill: Drill, shop: Shop) -> None:
    drill.load()
    drill.warehouse.execute("create schema analysts; create table analysts.t (); create table raw_shop.notes ()")
    backup = drill.back_up()
    assert backup.left_out == ["schema analysts of postgres", "raw_shop.notes of postgres"]
    check(backup, drill.store, drill.scratch())


@pytest.mark.chaos
def test_old_backups_go_but_never_the_last_three(drill: Drill, shop: Shop) -> None:
    drill.load()
    first = drill.back_up(with_raw=False)
    for _ in range(3):
        drill.back_up(with_raw=False)
    killed = f"{datetime.now(UTC) - timedelta(days=2):%Y-%m-%dT%H%M%SZ}_killed"
    (drill.backups / killed).mkdir()
    (drill.backups / killed / "ledger.dump.zst#1").write_bytes(b"half")
    (drill.backups / "notes").mkdir()
    assert keep(drill.connections, drill.store, kept=timedelta(days=1)) == [killed]
    assert keep(drill.connections, drill.store, kept=timedelta(0)) == [first.folder]
    assert len(drill.store.all()) == 3
    assert drill.warehouse.query("select place from ops.backups where deleted_at is not null") == [(first.folder,)]
    assert max(path.name for path in drill.backups.iterdir()) == "notes"


def test_a_backup_that_is_missing_for_long_is_an_incident(
    drill: Drill, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    drill.load()
    watcher = drill.warehouse.url("watcher")
    take_stock(watcher, ["backups"])
    assert drill.warehouse.query("select kind from ops.signs") == [], "where there never was one, nobody misses it"
    drill.back_up(with_raw=False)
    drill.warehouse.execute(
        "update ops.backups set started_at = now() - interval '2 days', as_of = now() - interval '2 d'"
    )
    monkeypatch.setenv("HEADWATER_POSTGRES_PROGRAMS", "/nowhere")
    with pytest.raises(ConfigurationError, match="There is no pg_dump"):
        drill.back_up()
    monkeypatch.undo()
    take_stock(watcher, ["backups"])
    [(kind, cause)] = drill.warehouse.query("select kind, cause from ops.signs")
    assert kind == "backup late"
    assert "There is no pg_dump" in cause
    drill.back_up(with_raw=False)
    take_stock(watcher, ["backups"])
    assert drill.warehouse.query("select kind from ops.signs") == []


@pytest.mark.chaos
def test_a_bucket_keeps_backups_as_a_folder_does(drill: Drill, shop: Shop, s3: StoreLocation) -> None:
    drill.load()
    drill.store = BackupStore(s3)
    first = drill.back_up()
    check(first, drill.store, drill.scratch())
    drill.lose()
    drill.restore()
    assert drill.warehouse.query("select count(*) from raw_shop.orders") == [(7,)]
    for _ in range(3):
        drill.back_up(with_raw=False)
    assert keep(drill.connections, drill.store, kept=timedelta(0)) == [first.folder]


@pytest.mark.chaos
def test_the_four_logins_are_to_name_one_database(drill: Drill, shop: Shop) -> None:
    drill.load()
    backup = drill.back_up(with_raw=False)
    drill.lose()
    wrong = url_of(drill.warehouse, "loader")
    drill.connections = EnvironmentConnections({**drill.environment, "HEADWATER_WAREHOUSE_PUBLISHER_URL": wrong})
    with pytest.raises(ConfigurationError, match="HEADWATER_WAREHOUSE_PUBLISHER_URL is to name headwater_publisher"):
        drill.restore(backup)
    assert Part.SERVING.owner_name == "headwater_publisher"
