"""A disk that is full, of the landing or of the warehouse: it is said, and once there is space again nothing is lost.

The disks are small ones in memory, so mounting has to be allowed here; otherwise these tests are skipped, and say so.
`make test` fills each once; `make chaos` fills the landing at every page of a load, and the disk of the server's log.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connectors.connections import StoreLocation
from connectors.destinations.landing import Landing
from connectors.errors import DestinationUnavailableError
from connectors.failpoints import FAILPOINTS
from connectors.ingest import Destination
from deployments.local.postgres import LocalPostgres
from tests.conftest import Server, Warehouse, create_warehouse
from tests.connectors.examples import Prepare
from tests.connectors.scene import UNAVAILABLE, Scene, ending

PAGE = 4096


class Disk:
    """A small disk, and the ballast that fills it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, *, leave: int = 0) -> None:
        """Take all space but so many bytes."""
        state = os.statvfs(self.folder)
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, state.f_bavail * state.f_frsize - leave)

    def free(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk() -> Iterator[Callable[[int], Disk]]:
    """Called with a size in MB, it mounts a disk of it."""
    mounted: list[Path] = []

    def mount(megabytes: int) -> Disk:
        # Not below pytest's own folders: the server's account could not get there.
        folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
        folder.chmod(0o755)
        outcome = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "headwater-test", str(folder)],  # noqa: S607
            capture_output=True,
            text=True,
        )
        if outcome.returncode != 0:
            folder.rmdir()
            pytest.skip(f"no small disk can be mounted here: {outcome.stderr.strip()}")
        mounted.append(folder)
        return Disk(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607
        folder.rmdir()


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    local = LocalPostgres(tmp_path_factory.mktemp("full"))
    try:
        yield local
    finally:
        local.destroy()


def add_noise(scene: Scene, rows: int) -> None:
    """New rows of 6.4 kB that hardly compress."""
    scene.connection.execute(
        "insert into t select (select max(id) from t) + n, noise, '2024-01-01Z', now() from generate_series(1, %s) n,"
        " lateral (select string_agg(md5(random()::text), '') as noise from generate_series(1, 200 + 0 * n))",
        [rows],
    )


# The landing's disk


def landing_on(disk: Disk, warehouse: Warehouse, connection: Prepare) -> Scene:
    folder = disk.folder / "landing"
    landing = Landing(StoreLocation(folder.as_uri()))
    return Scene(connection("select"), warehouse, Destination(warehouse.url("loader"), landing), folder, "merge")


def said_to_be_full(scene: Scene) -> bool:
    """Whether a load failed; if so, that it said why and left nothing."""
    try:
        scene.load()
    except DestinationUnavailableError as error:
        message = str(error)
    else:
        return False
    assert "The landing's disk is full" in message
    assert "Free space there" in message
    assert scene.raw() == scene.before
    assert not scene.is_ahead()
    return True


@pytest.mark.parametrize("leave", [0, 2 * PAGE])
def test_a_landing_that_is_full_is_said_to_be_and_loses_nothing(
    disk: Callable[[int], Disk], warehouse: Warehouse, source_database: Prepare, leave: int
) -> None:
    small = disk(16)
    scene = landing_on(small, warehouse, source_database)
    small.fill(leave=leave)
    for _ in range(2):
        assert said_to_be_full(scene)
    small.free()
    scene.check_after_rerun()


@pytest.mark.chaos
def test_a_landing_that_fills_at_any_page_of_a_load_loses_nothing(
    disk: Callable[[int], Disk], warehouse: Warehouse, source_database: Prepare
) -> None:
    small = disk(16)
    scene = landing_on(small, warehouse, source_database)
    failures = 0
    for pages in range(48):
        add_noise(scene, 20)
        scene.before = scene.raw()
        small.fill(leave=pages * PAGE)
        failed = said_to_be_full(scene)
        failures += failed
        small.free()
        scene.check_after_rerun()
    assert 24 < failures < 48, "it was to fill in the middle of a load, and not always"


# The warehouse's disk


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("table-made", "commit-begun") else pytest.mark.chaos)
     for name in FAILPOINTS[: FAILPOINTS.index("rows-written")]],
)  # fmt: skip
def test_a_warehouse_that_is_full_is_said_to_be_and_loses_nothing(
    disk: Callable[[int], Disk],
    own_server: LocalPostgres,
    source_database: Prepare,
    landing_folder: Path,
    name: str,
) -> None:
    small = disk(64)
    started = own_server.start()
    owner = started.data.stat()
    os.chown(small.folder, owner.st_uid, owner.st_gid)
    server = Server.of(started)
    with server.connect() as connection:
        connection.execute(f"create tablespace small location '{small.folder}'".encode())
    warehouse = create_warehouse(server, "small", tablespace="small")
    destination = Destination(warehouse.url("loader"), Landing(StoreLocation(landing_folder.as_uri())))
    scene = Scene(source_database("select"), warehouse, destination, landing_folder, "merge")
    process = scene.sleeper(name)
    try:
        small.fill()
        process.send(signal.SIGCONT)
        code = process.wait()
    finally:
        process.kill()
    assert ending(process.said).startswith(f"{UNAVAILABLE}The warehouse's disk is full"), process.said
    assert code == 1
    small.free()
    scene.check_after_kill(committed=False)
    scene.check_after_rerun()


@pytest.mark.chaos
def test_a_full_disk_of_the_server_s_log_loses_nothing(
    disk: Callable[[int], Disk], own_server: LocalPostgres, source_database: Prepare, landing_folder: Path
) -> None:
    """The server gives up then, and starts again once there is space."""
    small = disk(128)
    data = own_server.start().data
    owner = data.stat()
    own_server.stop()
    elsewhere = small.folder / "pg_wal"
    shutil.move(data / "pg_wal", elsewhere)
    (data / "pg_wal").symlink_to(elsewhere)
    for path in (small.folder, elsewhere, *elsewhere.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    warehouse = create_warehouse(Server.of(own_server.start()), "logged")
    destination = Destination(warehouse.url("loader"), Landing(StoreLocation(landing_folder.as_uri())))
    scene = Scene(source_database("select"), warehouse, destination, landing_folder, "merge")
    add_noise(scene, 5000)  # more than a segment of the log holds
    process = scene.sleeper("commit-begun")
    try:
        small.fill()
        process.send(signal.SIGCONT)
        process.wait(120)
    finally:
        process.kill()
    assert ending(process.said).startswith(UNAVAILABLE), process.said
    small.free()
    own_server.start()
    scene.check_after_kill(committed=False)
    scene.check_after_rerun()
