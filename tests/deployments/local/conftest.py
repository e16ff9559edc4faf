"""What the tests of the local stack stand on: homes that a server's account cannot enter, and one real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.local import layout
from deployments.local.postgres import LocalPostgres


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty state folder. For root, pytest's folders are closed to every other user: the harder case."""
    folder = tmp_path / "home"
    layout.prepare(folder)
    return folder


@pytest.fixture(scope="session")
def running_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    """One server for tests that leave it running."""
    postgres = LocalPostgres(tmp_path_factory.mktemp("local") / "home")
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.destroy()


@pytest.fixture(scope="session")
def spare_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spare") / "home"


@pytest.fixture(scope="session")
def _spare(spare_home: Path) -> Iterator[LocalPostgres]:
    postgres = LocalPostgres(spare_home)
    try:
        yield postgres
    finally:
        postgres.destroy()


@pytest.fixture
def spare_postgres(_spare: LocalPostgres) -> Iterator[LocalPostgres]:
    """A server that a test may stop, kill and spoil, but has to mend again. Running."""
    _spare.start()
    yield _spare
    _spare.start()


@pytest.fixture
def own_postgres(home: Path) -> Iterator[LocalPostgres]:
    """A server of one test; not even created yet."""
    postgres = LocalPostgres(home)
    try:
        yield postgres
    finally:
        postgres.destroy()
