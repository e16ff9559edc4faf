"""Code and warehouse of one shape: code does nothing in a warehouse that is older or newer than it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from connectors.destinations.warehouse import migrations
from connectors.destinations.warehouse.ledger import Lease
from connectors.destinations.warehouse.shape import REVISION, note_revision, revision_of
from connectors.errors import ConfigurationError
from connectors.ingest import Destination, ingest
from connectors.rebuild import rebuild
from tests.conftest import Api, Warehouse
from tests.connectors.examples import Shop, connections, order, shop_source
from tests.connectors.scene import Scene


def test_the_revision_that_code_is_made_for_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


@pytest.mark.parametrize("role", ["owner", "loader", "transformer", "publisher", "watcher"])
def test_any_role_sees_what_shape_the_warehouse_has(warehouse: Warehouse, role: str) -> None:
    with warehouse.connect(role) as connection:
        assert revision_of(connection) == REVISION


@pytest.mark.parametrize(
    ("revision", "said"),
    [
        ("9999", r"newer than this Headwater: it has migration 9999.*Install the Headwater that upgraded it"),
        ("0001", r"older than this Headwater: it has migration 0001.*Run `headwater migrate`"),
    ],
)
def test_a_warehouse_of_another_shape_is_left_alone_with_one_clear_error(
    api: Api, warehouse: Warehouse, destination: Destination, revision: str, said: str
) -> None:
    Shop(api, [order(1)])
    with warehouse.connect("owner") as connection:
        connection.execute(note_revision(revision).encode())
    source = shop_source()
    doors: list[Callable[[], object]] = [
        lambda: ingest(source, source.streams[0], connections(api), destination),
        lambda: rebuild(source, source.streams[0], destination),
        lambda: Lease(warehouse.url("transformer"), "dbt", "transform", "a build").__enter__(),
    ]
    for door in doors:
        with pytest.raises(ConfigurationError, match=said):
            door()
    assert api.requests == []
    assert warehouse.query("select count(*) from ops.streams") == [(0,)]


@pytest.mark.parametrize("scene", ["merge"], indirect=True)
@pytest.mark.chaos
def test_a_load_under_way_ends_well_beside_an_upgrade_and_the_next_one_of_old_code_is_refused(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "9999_later.py").write_text(
        f"from alembic import op\nrevision = '9999'\ndown_revision = '{REVISION}'\n"
        "def upgrade():\n    op.execute('alter table ops.loads add column later text')\n"
    )
    sleeper = scene.sleeper("chunk-landed")
    monkeypatch.setattr(migrations, "VERSIONS", [*migrations.VERSIONS, tmp_path])
    migrations.upgrade(scene.warehouse.url("owner"))
    sleeper.send(signal.SIGCONT)
    assert sleeper.wait() == 0, sleeper.said
    assert scene.raw() == scene.there()
    with pytest.raises(ConfigurationError, match="newer than this Headwater"):
        scene.load()


def test_a_warehouse_without_any_shape_says_what_to_do(warehouse: Warehouse) -> None:
    with warehouse.connect("owner") as connection:
        connection.execute("comment on schema ops is null")
        assert revision_of(connection) is None
    with (
        pytest.raises(ConfigurationError, match="it has an older shape"),
        Lease(warehouse.url("loader"), "shop", "orders", "a load"),
    ):
        pass


def test_a_connection_that_is_not_to_the_warehouse_has_no_revision(
    source_database: Callable[[str], psycopg.Connection],
) -> None:
    assert revision_of(source_database("select")) is None
