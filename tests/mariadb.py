"""A MariaDB server for the tests: from the path, or unpacked into `.venv/mariadb` by `make test`; on loopback, for as
long as the tests run."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pymysql
from sqlalchemy.engine import URL

UNPACKED = Path(sys.prefix) / "mariadb"
_PASSWORD = "test-only"
_START_SECONDS = 60
_TABLES = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")


@dataclass(frozen=True, slots=True)
class _Programs:
    server: Path
    base: Path
    libraries: str

    @property
    def share(self) -> Path:
        return self.base / "share/mysql"


def found() -> _Programs | None:
    """The server's programs, if they are on this machine."""
    unpacked = UNPACKED / "usr/sbin/mariadbd"
    if unpacked.exists():
        return _Programs(unpacked, UNPACKED / "usr", ":".join(str(path) for path in (UNPACKED / "usr/lib").glob("*-*")))
    on_path = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if on_path is None:
        return None
    server = Path(on_path).resolve()
    return _Programs(server, server.parent.parent, "")


class MariaDb:
    """One server, in a folder of its own; a server that runs as root gives up what root may do."""

    def __init__(self, programs: _Programs) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="headwater-mariadb-"))
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None
        self.url = URL.create("mysql+pymysql", "root", _PASSWORD, "127.0.0.1", _free_port())

    def start(self) -> None:
        data = self._folder / "data"
        data.mkdir()
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            for folder in (self._folder, data):
                os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        lines = ["create database mysql;", "use mysql;"]
        lines += [(self._programs.share / name).read_text() for name in _TABLES]
        lines += ["flush privileges;", f"alter user root@localhost identified by '{_PASSWORD}';"]
        lines += ["delete from global_priv where user = 'root' and host <> 'localhost';"]
        subprocess.run(
            self._command("--bootstrap"),
            input="\n".join(lines).encode(),
            env=self._environment,
            capture_output=True,
            check=True,
            timeout=_START_SECONDS,
        )
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command("--bind-address=127.0.0.1", f"--port={self.url.port}"),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.connect().close()
            except pymysql.err.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self._folder / "log").read_text()) from None
                time.sleep(0.1)
            else:
                return

    def connect(self, database: str | None = None) -> pymysql.Connection:  # type: ignore[type-arg]
        return pymysql.connect(
            host=self.url.host,
            port=self.url.port or 0,
            user=self.url.username,
            password=str(self.url.password),
            database=database,
            autocommit=True,
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "TZ": "America/New_York", "LD_LIBRARY_PATH": self._programs.libraries}

    def _command(self, *options: str) -> list[str]:
        share = self._programs.share
        return [
            str(self._programs.server),
            "--no-defaults",
            f"--basedir={self._programs.base}",
            f"--datadir={self._folder / 'data'}",
            f"--lc-messages-dir={share}",
            f"--character-sets-dir={share / 'charsets'}",
            f"--socket={self._folder / 'socket'}",
            f"--pid-file={self._folder / 'data/pid'}",
            "--innodb-log-file-size=16M",
            "--innodb-flush-log-at-trx-commit=0",
            *(["--user=nobody"] if os.geteuid() == 0 else []),
            *options,
        ]


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
