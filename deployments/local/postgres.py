"""The local PostgreSQL: started on demand, found again, stopped.

Promises: `start` is idempotent and survives a killed predecessor; the server it returns has been connected to and
serves the cluster of this home, not somebody else's on that port; the port stays the same while it can.
"""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg

from deployments.local.cluster import SUPERUSER, Cluster, PortTakenError
from deployments.local.errors import LocalStackError
from deployments.local.files import locked, tail
from deployments.local.layout import log_file, prepare
from deployments.local.placement import place
from deployments.local.ports import LOOPBACK, choose_port, holder
from deployments.local.secrets import Secrets
from deployments.local.server import PostgresServer
from deployments.local.state import State, StateFile

PREFERRED_PORT = 5439
# Starting includes recovery after a crash: replaying up to `max_wal_size` of log on a slow disk.
_START_SECONDS = 180
_LOOKER = "headwater_local"
"""The role that may ask where the data are, and nothing else."""

logger = logging.getLogger(__name__)


class LocalPostgres:
    """The PostgreSQL of one home."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._state = StateFile(home)
        self._secrets = Secrets(home)
        self._log = log_file(home, "postgres")
        self._lock = home / "postgres" / "lock"

    def start(self) -> PostgresServer:
        """Return the running server, starting it, and creating its cluster, if need be."""
        prepare(self._home)
        with locked(self._lock, doing="starting PostgreSQL", timeout_seconds=_START_SECONDS + 60):
            cluster = Cluster(place(self._home, self._state.read().postgres_data), self._log)
            self._state.update(lambda state: replace(state, postgres_data=cluster.data))
            if not cluster.exists:
                logger.info("creating a PostgreSQL cluster in %s", cluster.data)
                cluster.create(self._secrets.password("postgres"))
            cluster.require_matching_version()
            if cluster.running() is None:
                self._start_on_some_port(cluster)
            server = self._verified(cluster, _START_SECONDS, SUPERUSER, "postgres")
            server.ensure_looker(_LOOKER, self._secrets.password(_LOOKER))
            return server

    def server(self, *, patience_seconds: float = _START_SECONDS) -> PostgresServer | None:
        """The running server, or None if there is none. Connects, to make sure that it is ours; not as the superuser,
        whom nobody is after `start`."""
        cluster = self._known_cluster()
        if cluster is None or cluster.running() is None:
            return None
        return self._verified(cluster, patience_seconds, _LOOKER, _LOOKER)

    def stop(self) -> bool:
        """Stop the server; True if it was running."""
        cluster = self._known_cluster()
        if cluster is None:
            return False
        with locked(self._lock, doing="stopping PostgreSQL", timeout_seconds=_START_SECONDS + 60):
            if cluster.running() is None:
                return False
            cluster.stop()
            return True

    def destroy(self) -> None:
        """Stop the server and delete its data, also when they had to live outside the home."""
        data = self._state.read().postgres_data
        if data is None:
            return
        self.stop()
        # Outside the home the folder around the data is ours as well, with or without data in it.
        folder = data if data.is_relative_to(self._home) else data.parent
        if folder.exists():
            shutil.rmtree(folder)
        self._state.update(lambda state: replace(state, postgres_data=None))

    def _known_cluster(self) -> Cluster | None:
        data = self._state.read().postgres_data
        return None if data is None or not data.exists() else Cluster(place(self._home, data), self._log)

    def _start_on_some_port(self, cluster: Cluster) -> None:
        for _attempt in range(3):
            state = self._state.read()
            others = frozenset(number for name, number in state.ports.items() if name != "postgres")
            choice = choose_port(PREFERRED_PORT, remembered=state.ports.get("postgres"), avoid=others)
            logger.info("starting PostgreSQL on %s", choice.reason)
            try:
                cluster.start(choice.number, timeout_seconds=_START_SECONDS)
            except PortTakenError:
                logger.info("port %d was taken in that moment", choice.number)
                continue
            self._state.update(partial(State.with_port, name="postgres", port=choice.number))
            return
        raise LocalStackError(
            "PostgreSQL could not get a port: each one tried was taken in the moment it started.",
            where=f"{LOOPBACK}:{choice.number}, which now belongs to {holder(choice.number)}",
            remedy="Run the same command again.",
        )

    def _verified(self, cluster: Cluster, patience_seconds: float, role: str, secret: str) -> PostgresServer:
        """Connect to the server of this cluster, waiting while it starts up, and check whom we reached."""
        deadline = time.monotonic() + patience_seconds
        while (running := cluster.running()) is not None:
            server = PostgresServer(
                host=LOOPBACK,
                port=running.port,
                superuser=SUPERUSER,
                password=self._secrets.password("postgres"),
                data=cluster.data,
                pid=running.pid,
                started_at=running.started_at,
            )
            try:
                with server.connect(role=role, password=self._secrets.password(secret)) as connection:
                    row = connection.execute("show data_directory").fetchone()
            except psycopg.OperationalError as error:
                if "password authentication failed" in str(error):
                    raise LocalStackError(
                        "PostgreSQL runs, but does not accept the password in secrets.json.",
                        where=f"{server.host}:{server.port}, data in {cluster.data}",
                        remedy="Bring the stack up again. If that fails too, restore the secrets.json that belongs to"
                        " these data. If it is lost and the data may go (the warehouse can be rebuilt from landing),"
                        " delete the data folder and start again.",
                    ) from error
                if time.monotonic() > deadline:
                    raise LocalStackError(
                        f"PostgreSQL runs, but accepts no connections: {error}",
                        where=f"{server.host}:{server.port}; log: {self._log}",
                        remedy="Read the log; if it hangs, stop the stack and start it again.",
                        log_tail=tail(self._log),
                    ) from error
                time.sleep(0.1)
                continue
            if row is None or not cluster.data.samefile(row[0]):
                raise LocalStackError(
                    f"Another PostgreSQL answers in place of ours: its data are in {row and row[0]}.",
                    where=f"{server.host}:{server.port}",
                    remedy=f"Stop that server, or ours (pid {running.pid}), and start the local stack again.",
                )
            return server
        raise LocalStackError(
            "PostgreSQL ended when it had barely started.",
            where=f"{cluster.data}; log: {self._log}",
            remedy="Mend what the log names, then run the same command again.",
            log_tail=tail(self._log),
        )
