"""A warehouse that was lost is made anew from its backup and the landing: nothing lost that has landed, and nobody back
who was erased. `make test` does the usual, `make chaos` what is rarer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psycopg
import pytest

from connectors.backups.store import Backup
from connectors.deletions import find_deleted
from connectors.errors import BackupCorruptError, ConfigurationError, LandingCorruptError
from connectors.forget.derived import Lineage
from connectors.forget.keys import subject_of
from connectors.forget.run import let_come_again
from connectors.ingest import ingest
from connectors.model import Cursor, Deletes, Window
from connectors.replay import replay
from tests.conftest import Api, Warehouse
from tests.connectors.backups.drill import Drill, lineages
from tests.connectors.examples import Prepare, Shop, drop, erp, order, shop_source, weather
from tests.connectors.forget.forgetting import (
    MODELS,
    build_again,
    build_models,
    change_models,
    check_gone,
    forgotten,
    resumed,
)

WHEN = ("_loaded_at", "loaded_at", "raw_loaded_at", "committed_at", "started_at", "landed_at", "run_id", "attempt")
WHEN += ("changed_at", "read_at", "quarantined_at", "id", "requests")
"""What is not the same of a load that was taken over: when, and by whom."""


def raw_and_positions(drill: Drill, *tables: str) -> list[object]:
    """What a load can change, but for when it did."""
    rows = "select to_jsonb(t) - %s::text[] from {} t order by 1"
    ledger = ("ops.watermarks", "ops.files", "ops.windows", "ops.window_changes", "ops.quarantine", "ops.loads")
    return [drill.warehouse.query(rows.format(table), [list(WHEN)]) for table in (*tables, *ledger)]


def test_all_that_a_backup_has_comes_back_as_it_was(drill: Drill, shop: Shop) -> None:
    shop.orders.append(order(20, at="noon"))
    drill.load()
    build_models(drill.warehouse)
    change_models(drill.warehouse)
    before = drill.state()
    drill.back_up()
    drill.lose()
    report = drill.restore()
    after = drill.state()
    assert after.keys() == before.keys()
    for name, rows in before.items():
        assert after[name] == rows, name
    assert (report.loads, report.requests) == (0, 0)
    # The next load goes on from the watermark, and the next publish moves what is served.
    shop.orders.append(order(9, changed="2024-02-01T00:00:00Z"))
    [load] = drill.load()
    assert load.inserted == 1
    change_models(drill.warehouse)
    assert drill.warehouse.query("select max(generation) from serving.data_status") == [(3,)]


def test_loads_after_the_backup_are_taken_over_from_the_landing(drill: Drill, shop: Shop, api: Api) -> None:
    drill.load()
    drill.back_up()
    shop.orders[0] = order(1, total=1.5, note="a new column", changed="2024-02-01T00:00:00Z")
    shop.orders.append(order(20, at="noon", changed="2024-02-02T00:00:00Z"))
    drill.load()
    shop.orders[1] = order(2, total=-1)  # changed without its cursor
    drill.load(window=Window.parse("2024-01-01", "2024-01-02"))
    shop.orders[2] = order(3, total=-2)
    drill.load(full_refresh=True)
    shop.orders.append(order(30, changed="2024-03-01T00:00:00Z"))
    drill.load()
    before = raw_and_positions(drill, "raw_shop.orders")
    asked = len(api.requests)
    drill.lose()
    report = drill.restore()
    assert report.loads == 4
    assert raw_and_positions(drill, "raw_shop.orders") == before
    assert len(api.requests) == asked, "the source was not asked"
    [load] = drill.load()
    assert (load.extracted, load.unchanged) == (1, 1), "the next load starts from the watermark"


@pytest.mark.chaos
def test_tables_files_and_deletions_are_taken_over_too(
    drill: Drill, source_database: Prepare, warehouse: Warehouse, tmp_path: Path
) -> None:
    connection = source_database(
        "create table t (id int primary key, v text, changed timestamptz);"
        "insert into t select n, n, '2024-01-01Z' from generate_series(1, 50) n"
    )
    table = erp(name="t", primary_key=("id",), cursor=Cursor("changed"), deletes=Deletes())
    files, _ = weather(tmp_path / "files")
    drop(tmp_path / "files", {"weather-2013-01-01.csv": "station,hour,temp\nEWR,2013-01-01T00:00Z,1\n"})
    url = warehouse.server.url.set(database=connection.info.dbname).render_as_string(hide_password=False)
    drill.sources = (table, files)
    drill.environment |= {"HEADWATER_ERP_URL": url, "HEADWATER_MET_URL": (tmp_path / "files").as_uri()}
    drill.load()
    drill.back_up(with_raw=False)
    connection.execute("update t set v = 'new', changed = '2024-02-01Z' where id = 7; delete from t where id in (1, 2)")
    drop(tmp_path / "files", {"weather-2013-01-01.csv": "station,hour,temp\nEWR,2013-01-01T00:00Z,2\n"})
    drill.load()
    find_deleted(table, table.streams[0], drill.connections, drill.destination)
    tables = ("raw_erp.t", "raw_met.weather")
    before = raw_and_positions(drill, *tables)
    deleted = "select id from raw_erp.t where _deleted_at is not null order by 1"
    assert warehouse.query(deleted) == [(1,), (2,)]
    connection.execute("drop table t")
    drill.lose()
    report = drill.restore()
    assert (report.loads, report.rebuilt) == (3, {"erp.t": 50, "met.weather": 1})
    after = raw_and_positions(drill, *tables)
    assert warehouse.query(deleted) == [(1,), (2,)]
    without_marks = [
        [{name: value for name, value in row.items() if name != "_deleted_at"} for (row,) in rows]
        for rows in (before[0], after[0])  # type: ignore[attr-defined]
    ]
    assert without_marks[0] == without_marks[1]
    assert after[1:] == before[1:]


@pytest.mark.chaos
def test_a_load_that_landed_and_could_not_be_accepted_is_left_and_the_next_one_taken_over(
    drill: Drill, shop: Shop
) -> None:
    drill.sources = (shop_source(reject_limit=0.1),)
    drill.load()
    drill.back_up()
    shop.orders.append(order(20, at="noon", changed="2024-02-01T00:00:00Z"))
    with pytest.raises(Exception, match="break the contract"):
        drill.load()
    shop.orders[-1] = order(20, changed="2024-02-01T00:00:00Z")
    drill.load()
    before = drill.warehouse.query("select id from raw_shop.orders order by 1")
    drill.lose()
    report = drill.restore()
    [adopted] = report.adopted
    assert len(adopted.loads) == 1
    assert [said.partition(": ")[2][:30] for said in adopted.left] == ["1 of 8 rows break the contract"]
    assert drill.warehouse.query("select id from raw_shop.orders order by 1") == before


@pytest.mark.parametrize("what", ["manifest.json", pytest.param("a1-00001.jsonl.zst", marks=pytest.mark.chaos)])
def test_behind_a_hole_in_the_landing_nothing_is_taken_over_and_the_next_load_fills_it(
    drill: Drill, shop: Shop, what: str
) -> None:
    drill.load()
    drill.back_up()
    before_these = set(drill.landing.rglob(what))
    for number in (20, 21):
        shop.orders.append(order(number, changed=f"2024-02-{number}T00:00:00Z"))
        drill.load()
    [lost, _] = sorted(set(drill.landing.rglob(what)) - before_these)
    lost.unlink()
    drill.lose()
    report = drill.restore()
    [adopted] = report.adopted
    assert adopted.loads == ()
    assert any("starts behind what raw has" in said for said in adopted.left)
    drill.load()
    assert drill.warehouse.query("select count(*) from raw_shop.orders") == [(9,)]


@pytest.mark.chaos
def test_raw_that_the_landing_has_lost_is_named_and_read_from_its_source_if_told(drill: Drill, shop: Shop) -> None:
    drill.load()
    drill.back_up(with_raw=False)
    lost = next(drill.landing.rglob("a1-00001*"))
    lost.rename(lost.with_suffix(".away"))
    drill.lose()
    with pytest.raises(LandingCorruptError, match=r"is missing.*run the same command again; or add --from-source"):
        drill.restore()
    assert drill.warehouse.query("select phase from restoring.progress") == [("copied",)]
    report = drill.restore(from_source=["shop.orders"])
    assert report.from_source == ("shop.orders",)
    assert drill.warehouse.query("select count(*) from raw_shop.orders") == [(0,)]
    [load] = drill.load()
    assert load.inserted == 7


@pytest.mark.chaos
def test_what_the_landing_has_lost_beside_a_full_backup_is_counted(drill: Drill, shop: Shop) -> None:
    drill.load()
    drill.back_up()
    next(drill.landing.rglob("manifest.json")).unlink()
    drill.lose()
    report = drill.restore()
    assert [each.lost for each in report.adopted] == [1]
    assert drill.warehouse.query("select count(*) from raw_shop.orders") == [(7,)]


@pytest.mark.parametrize("with_raw", [False, pytest.param(True, marks=pytest.mark.chaos)])
def test_who_was_forgotten_after_the_backup_does_not_come_back(
    drill: Drill, shop: Shop, api: Api, with_raw: bool
) -> None:
    shop.orders.append(order(20, at="noon", email="20@birds.test"))
    drill.load()
    build_models(drill.warehouse)
    change_models(drill.warehouse)
    source = drill.sources[0]
    for number in (3, 4):
        forgotten(source, drill.warehouse, drill.destination, str(number), lineage=MODELS)
    drill.back_up(with_raw=with_raw)
    subject = subject_of(source, source.streams[0], ["4"], drill.connections)
    let_come_again(subject, drill.destination, drill.warehouse.url("owner"), by="a test")
    for number in (5, 20):
        forgotten(source, drill.warehouse, drill.destination, str(number), lineage=MODELS)
    gone = ("3@birds.test", "5@birds.test", "20@birds.test")
    drill.lose()

    def looked(names: Iterable[str]) -> Mapping[str, Lineage]:
        with drill.warehouse.connect("reader") as reader, pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("select * from serving.fct_people")
        return lineages(names)

    report = drill.restore(lineages=looked)
    with drill.warehouse.connect("reader") as reader:
        people = reader.execute("select person_id from serving.fct_people where person_id in ('5', '6')").fetchall()
    assert people == [("6",)]
    assert report.requests == 2
    assert report.to_be_built, "models that are made anew have it until the next build"
    build_again(drill.warehouse)
    resumed(source, drill.warehouse, drill.destination, MODELS)
    check_gone(drill.warehouse, drill.landing, *gone)
    [load] = drill.load(full_refresh=True)
    assert (load.forgotten, load.inserted) == (3, 1), "4 may come again"
    check_gone(drill.warehouse, drill.landing, *gone)


def test_a_database_that_is_not_empty_is_refused(drill: Drill, shop: Shop) -> None:
    drill.load()
    drill.back_up()
    before = drill.state()
    with pytest.raises(ConfigurationError, match=r"is not empty: it has .*Nothing was done"):
        drill.restore()
    assert drill.state() == before


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    "damage", [_flip, *(pytest.param(each, marks=pytest.mark.chaos) for each in (_cut, Path.unlink))]
)
def test_a_backup_that_is_damaged_is_refused_before_the_database_is_touched(
    drill: Drill, shop: Shop, damage: Callable[[Path], None]
) -> None:
    drill.load()
    drill.back_up()
    damage(next(drill.backups.rglob("raw.dump.zst")))
    drill.lose()
    with pytest.raises(BackupCorruptError, match=r"raw\.dump\.zst is (missing|not what its manifest says)"):
        drill.restore()
    assert drill.warehouse.query("select nspname from pg_namespace where nspname !~ '^(pg_|inf)'") == [("public",)]


@pytest.mark.chaos
def test_quarantine_comes_back_and_can_be_replayed(drill: Drill, shop: Shop) -> None:
    shop.orders.append(order(20, at="noon"))
    drill.load()
    drill.back_up(with_raw=False)
    drill.lose()
    drill.restore()
    mended = shop_source(columns={"changed": "timestamptz"}, event_time=None, window_parameters=None)
    assert drill.warehouse.query("select count(*) from ops.quarantine where replayed_by is null") == [(1,)]
    [report] = replay(mended, mended.streams[0], drill.destination)
    assert report.extracted == 1


@pytest.mark.chaos
def test_a_backup_of_an_older_shape_is_restored_and_brought_to_the_newest(
    drill: Drill, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drill.load()
    backup: Backup = drill.back_up()
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "9999_later.py").write_text(
        f"from alembic import op\nrevision = '9999'\ndown_revision = '{backup.revision}'\n"
        "def upgrade():\n    op.execute('alter table ops.loads add column later text not null default $$x$$')\n"
    )
    migrations = "connectors.destinations.warehouse.migrations"
    monkeypatch.setattr(f"{migrations}.VERSIONS", [*__import__(migrations, fromlist=["VERSIONS"]).VERSIONS, newer])
    for module in ("connectors.destinations.warehouse.shape", "connectors.backups.copying"):
        monkeypatch.setattr(f"{module}.REVISION", "9999")
    drill.lose()
    drill.restore()
    assert drill.warehouse.query("select distinct later from ops.loads") == [("x",)]
    assert ingest(shop_source(), shop_source().streams[0], drill.connections, drill.destination)
    monkeypatch.undo()
    with pytest.raises(ConfigurationError, match=r"newer than this Headwater: it has migration 9999"):
        drill.load()


@pytest.mark.chaos
def test_a_backup_of_a_newer_headwater_is_refused(drill: Drill, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    drill.load()
    drill.back_up()
    drill.lose()
    monkeypatch.setattr("connectors.backups.copying.REVISION", "0001")
    with pytest.raises(ConfigurationError, match=r"made of migration \d+, and this Headwater knows those up to 0001"):
        drill.restore()
