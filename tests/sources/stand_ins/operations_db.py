"""The demo's operational database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from deployments.demo import dataset, operations_database
from deployments.local.secrets import Secrets
from deployments.local.server import PostgresServer
from tests.conftest import Server
from tests.sources.stand_in import NOBODY, StandIn

_VARIABLE = "HEADWATER_OPERATIONS_DB_URL"


@contextmanager
def stand_in(server: Server, folder: Path) -> Iterator[StandIn]:
    secrets = Secrets(folder)
    url = server.url
    administered = PostgresServer(
        host=str(url.host),
        port=url.port or 5432,
        superuser=str(url.username),
        password=str(url.password),
        data=folder,
        pid=0,
        started_at=datetime.now(UTC),
    )
    reader = operations_database.READER
    reachable = url.set(username=reader, password=secrets.password(reader), database=operations_database.DATABASE)
    try:
        operations_database.prepare(administered, secrets)
        yield StandIn(
            variables={_VARIABLE: reachable.render_as_string(hide_password=False)},
            rows={table: len(dataset.rows(table)) for table in ("planes", "airports", "airlines")},
            down={_VARIABLE: f"postgresql+psycopg://{reader}:not-tried@{NOBODY}/operations"},
            refused={_VARIABLE: reachable.set(password="wrong-password").render_as_string(hide_password=False)},
        )
    finally:
        server.drop_database(operations_database.DATABASE)
