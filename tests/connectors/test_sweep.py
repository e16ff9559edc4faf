"""What killed runs left in the landing goes after its time; data, and what may be data, never."""

from __future__ import annotations

import base64
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from moto.backends import get_backend

from connectors.connections import StoreLocation
from connectors.destinations.landing import Landing
from connectors.destinations.manifest import LoadPlace, Manifest
from connectors.destinations.warehouse.ledger import Lease
from connectors.errors import ConfigurationError
from connectors.ingest import Destination, ingest
from connectors.model import Chunk, FileVersion, LandingFormat, Window
from connectors.rebuild import rebuild
from connectors.sweep import SweepReport, sweep
from tests.conftest import Api, Warehouse
from tests.connectors.examples import Shop, drop, load, order, raw, shop_source, weather
from tests.victims import kill_at, sleeper
from tests.waiting import until

EIGHT_DAYS = timedelta(days=8)
STARTED = datetime(2024, 2, 3, 23, tzinfo=UTC)


class Store:
    """A landing whose objects can be made older."""

    def __init__(self, landing: Landing, folder: Path | None) -> None:
        self.landing = landing
        self.folder = folder

    def listed(self) -> set[str]:
        """What is stored of the stream."""
        return {each.key for each in self.landing.stored("shop", "orders")}

    def age(self, part: str = "", by: timedelta = EIGHT_DAYS) -> None:
        if self.folder is not None:
            age(self.folder, part, by)
            return
        for key in get_backend("s3")["123456789012"]["aws"].buckets["landing"].keys.values():
            if part in key.name:
                key.last_modified = datetime.now(UTC) - by


def age(folder: Path, part: str = "", by: timedelta = EIGHT_DAYS) -> None:
    then = time.time() - by.total_seconds()
    for path in folder.rglob("*"):
        if part in str(path):
            os.utime(path, (then, then), follow_symlinks=False)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, landing_folder: Path) -> Store:
    if request.param == "folder":
        return Store(Landing(StoreLocation(landing_folder.as_uri())), landing_folder)
    location: StoreLocation = request.getfixturevalue("s3")
    return Store(Landing(StoreLocation(f"s3://landing/{uuid4()}", location.options)), None)


@pytest.fixture
def place() -> LoadPlace:
    return LoadPlace("shop", "orders", uuid4(), STARTED)


def write(landing: Landing, place: LoadPlace, attempt: int, *, finish: bool) -> Manifest | None:
    """Two objects of an attempt; without a manifest, the second is not even begun."""
    with landing.writer(place, attempt, LandingFormat.CSV) as writer:
        for number in (1, 2):
            writer.write(Chunk(b"a\n1\n", 1, FileVersion(f"{number}.csv", "v", 4)))
        if not finish:
            return None
        return writer.finish(columns=[], window=None, cursor_from=None, cursor_to=None)


def run(warehouse: Warehouse, landing: Landing, older_than: timedelta = timedelta(days=7)) -> SweepReport:
    [report, *_] = sweep([shop_source()], Destination(warehouse.url("loader"), landing), older_than=older_than)
    return report


def names(keys: set[str]) -> list[str]:
    return sorted(key.rpartition("/")[2] for key in keys)


def test_an_orphan_goes_after_its_time_and_not_before(warehouse: Warehouse, store: Store, place: LoadPlace) -> None:
    write(store.landing, place, 1, finish=False)
    write(store.landing, place, 2, finish=True)
    before = store.listed()
    assert run(warehouse, store.landing).objects == 0
    store.age(by=timedelta(days=6))
    assert run(warehouse, store.landing).objects == 0
    assert store.listed() == before
    store.age()
    report = run(warehouse, store.landing)
    swept = before - store.listed()
    assert (report.objects, report.doubts) == (1, ())
    assert names(swept) == ["a1-00001.csv.zst"]
    assert names(store.listed()) == ["a2-00001.csv.zst", "a2-00002.csv.zst", "manifest.json"]
    manifest = store.landing.manifest(place.manifest_key)
    assert manifest is not None
    assert sum(chunk.rows + len(chunk.data) for chunk in store.landing.read(manifest)) > 0
    assert report.bytes > 0
    assert run(warehouse, store.landing) == SweepReport("shop", "orders")


def test_a_load_that_never_got_a_manifest_goes_whole(warehouse: Warehouse, store: Store, place: LoadPlace) -> None:
    write(store.landing, place, 1, finish=False)
    write(store.landing, LoadPlace("shop", "orders", uuid4(), STARTED), 1, finish=True)
    kept = {key for key in store.listed() if str(place.load_id) not in key}
    store.age()
    assert run(warehouse, store.landing).objects >= 1
    assert store.listed() == kept


def test_nothing_of_a_load_goes_whose_manifest_cannot_be_read(
    warehouse: Warehouse, landing_folder: Path, place: LoadPlace
) -> None:
    store = Store(Landing(StoreLocation(landing_folder.as_uri())), landing_folder)
    other = LoadPlace("shop", "orders", uuid4(), STARTED)
    for each in (place, other):
        write(store.landing, each, 1, finish=False)
        write(store.landing, each, 2, finish=True)
    path = landing_folder / place.manifest_key
    path.write_bytes(path.read_bytes()[:-20])
    store.age()
    kept = {key for key in store.listed() if str(place.load_id) in key}
    report = run(warehouse, store.landing)
    assert report.objects == 1
    assert kept < store.listed()
    [doubt] = report.doubts
    assert place.manifest_key in doubt
    assert "Nothing of this load was deleted." in doubt


def test_nothing_of_a_load_goes_that_had_landed_and_lost_its_manifest(
    api: Api, warehouse: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    Shop(api, [order(1)])
    load(shop_source(), api, destination)
    [manifest] = landing_folder.rglob("manifest.json")
    kept = manifest.read_bytes()
    manifest.unlink()
    age(landing_folder)
    report = run(warehouse, destination.landing)
    assert report.objects == 0
    assert "is missing, and the load had landed" in report.doubts[0]
    before = raw(warehouse)
    manifest.write_bytes(kept)
    rebuild(shop_source(), shop_source().streams[0], destination)
    assert raw(warehouse) == before


def test_a_stream_that_is_being_loaded_is_left_to_the_next_sweep(
    warehouse: Warehouse, destination: Destination, landing_folder: Path, place: LoadPlace
) -> None:
    write(destination.landing, place, 1, finish=False)
    age(landing_folder)
    with Lease(warehouse.url("loader"), "shop", "orders", "a long load"):
        [report] = sweep([shop_source()], destination, wait_seconds=0.2)
    assert report.objects == 0
    assert "a long load" in report.doubts[0]
    window = Window.parse("2024-01-01", "2024-01-02")
    with Lease(warehouse.url("loader"), "shop", "orders", "a backfill", window=window):
        [report] = sweep([shop_source()], destination, wait_seconds=0.2)
    assert report.objects == 0
    assert "2024-01-01 00:00:00+00 2024-01-02 00:00:00+00" in report.doubts[0]
    assert run(warehouse, destination.landing).objects == 1


def test_only_what_lies_and_is_named_as_a_load_does_is_touched(
    warehouse: Warehouse, destination: Destination, landing_folder: Path, tmp_path: Path, place: LoadPlace
) -> None:
    write(destination.landing, place, 1, finish=False)
    folder = landing_folder / place.prefix
    (folder / ".manifest-x1y2").write_text("half")
    (folder / "a1-00002.csv.zst#7").write_text("half")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a1-00001.csv.zst").write_text("precious")
    strangers = [
        "notes.txt",
        "shop/orders/notes.txt",
        "shop/orders/dt=2024-02-03/a1-00001.csv.zst",
        "shop/orders/dt=2024-02-03/load_id=7/a1-00001.csv.zst",
        f"shop/orders/dt=today/load_id={uuid4()}/a1-00001.csv.zst",
        f"{place.prefix}/deeper/a1-00001.csv.zst",
        f"{place.prefix}/README",
        f"{place.prefix}/a1-00001.orc",
        f"shop/orders_old/dt=2024-02-03/load_id={uuid4()}/a1-00001.csv.zst",
        f"shop/refunds/dt=2024-02-03/load_id={uuid4()}/a1-00001.csv.zst",
    ]
    for name in strangers:
        (landing_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (landing_folder / name).write_text("x")
    (folder / "a3-00001.csv.zst").symlink_to(elsewhere / "a1-00001.csv.zst")
    (folder.parent / f"load_id={uuid4()}").symlink_to(elsewhere)
    age(landing_folder)
    age(elsewhere)
    report, *others = sweep([shop_source()], destination)
    assert (report.objects, report.doubts) == (3, ())
    left = [path.name for path in folder.iterdir() if path.is_file() and not path.is_symlink()]
    assert sorted(left) == ["README", "a1-00001.orc"]
    assert all((landing_folder / name).exists() for name in strangers)
    assert (elsewhere / "a1-00001.csv.zst").read_text() == "precious"
    assert sorted((each.source, each.stream, each.objects) for each in others) == [
        ("shop", "orders_old", 0),
        ("shop", "refunds", 0),
    ]
    assert all("No registered source has this stream" in each.doubts[0] for each in others)


def test_an_age_of_less_than_a_day_is_refused(warehouse: Warehouse, destination: Destination) -> None:
    with pytest.raises(ConfigurationError, match=r"Orphans of 0.5 days cannot be swept. Give a day at least"):
        run(warehouse, destination.landing, timedelta(hours=12))


def files_load(folder: Path, destination: Destination) -> Callable[[], object]:
    source, where = weather(folder)
    return partial(ingest, source, source.streams[0], where, destination, run="the victim", lease_seconds=1)


def files(folder: Path) -> None:
    """Two small files and one of some 16 MB that compress badly, so that its object is begun before it is whole."""
    notes = base64.b64encode(os.urandom(12 << 20)).decode()
    lines = {n: f"EWR,2013-01-0{n}T00:00Z,{n},x\n" for n in (1, 2)}
    lines[3] = "".join(
        f"EWR,2013-01-03T{n // 60:02}:{n % 60:02}Z,3,{notes[n << 16 : (n + 1) << 16]}\n" for n in range(256)
    )
    drop(folder, {f"weather-2013-01-0{n}.csv": f"station,hour,temp,note\n{text}" for n, text in lines.items()})


def test_after_a_kill_a_rerun_and_a_sweep_raw_is_rebuilt_from_what_is_left(
    tmp_path: Path, warehouse: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    files(tmp_path / "files")
    source, where = weather(tmp_path / "files")
    kill_at("chunk-landed:17", files_load(tmp_path / "files", destination))
    left = {path.name: path.stat().st_size for path in landing_folder.rglob("a1-*")}
    assert sorted(left) == ["a1-00001.csv.zst", "a1-00002.csv.zst", "a1-00003.csv.zst#1"]
    assert all(left.values())
    assert ingest(source, source.streams[0], where, destination)[-1].inserted == 258
    before = raw(warehouse, table="raw_met.weather")
    age(landing_folder)
    [report] = sweep([source], destination)
    assert (report.objects, report.doubts) == (3, ())
    assert report.bytes == sum(left.values())
    names = sorted(path.name for path in landing_folder.rglob("*") if path.is_file())
    assert names == ["a2-00001.csv.zst", "a2-00002.csv.zst", "a2-00003.csv.zst", "manifest.json"]
    warehouse.execute("drop table raw_met.weather")
    rebuild(source, source.streams[0], destination)
    assert raw(warehouse, table="raw_met.weather") == before


def test_a_sleeper_whose_objects_were_swept_is_fenced_and_its_load_is_read_anew(
    tmp_path: Path, warehouse: Warehouse, destination: Destination, landing_folder: Path
) -> None:
    folder = tmp_path / "files"
    days = range(1, 4)
    drop(
        folder,
        {f"weather-2013-01-0{n}.csv": f"station,hour,temp\nEWR,2013-01-0{n}T00:00Z,{n}\n" for n in days},
    )
    source, where = weather(folder)
    with sleeper("chunk-landed:3", files_load(folder, destination)) as victim:
        lease_over = "select from ops.streams where lease_until < now() and holder = 'the victim'"
        until(lambda: warehouse.query(lease_over), "its lease ends")
        age(landing_folder, "a1-00001.csv.zst")
        [report] = sweep([source], destination)
        assert report.objects == 1
        victim.send(signal.SIGCONT)
        victim.wait()
    assert "FencedError: This run lost the stream" in victim.said
    assert warehouse.query("select status, rows_extracted from ops.loads") == [("extracting", None)]
    assert len(list(landing_folder.rglob("manifest.json"))) == 1, "it landed, though it could not say so any more"
    assert ingest(source, source.streams[0], where, destination)[-1].inserted == 3
    statuses = "select status, error like '%a1-00001.csv.zst is missing%' from ops.loads order by started_at"
    assert warehouse.query(statuses) == [("failed", True), ("loaded", None)]
    assert raw(warehouse, "temp::int", "raw_met.weather") == [(n,) for n in days]
    rebuild(source, source.streams[0], destination)
    assert raw(warehouse, "temp::int", "raw_met.weather") == [(n,) for n in days]
