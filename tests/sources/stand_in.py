"""Stand-ins: for each source of the registry, a system of its own that the conformance suite reads.

A module `tests/sources/stand_ins/<source>.py` has a context manager `stand_in(server, folder)` that starts the system
and yields a `StandIn`. The system is a real one (an HTTP server on loopback, a database, a folder), and what it serves
looks like what the source will meet: as many pages, files or days as it takes to tell right bounds from wrong ones.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from psycopg import sql

from tests.conftest import Server

NOBODY = "127.0.0.1:1"
"""Host and port where nothing answers."""


@dataclass(frozen=True, slots=True)
class StandIn:
    """A system that runs, and how to reach it."""

    variables: Mapping[str, str]
    """The environment variables of what the source requires, and AWS_* for a bucket."""
    rows: Mapping[str, int]
    """How many rows it has, by stream. Nothing changes there while tests run."""
    down: Mapping[str, str]
    """Variables in whose place the others point to a system that does not answer."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Likewise with credentials that are wrong; empty where there are none."""
    private: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By stream, values of its rows that are hashed or dropped, each so odd that it is found wherever it is."""


Start = Callable[[Server, Path], AbstractContextManager[StandIn]]
"""What starts a stand-in, from a PostgreSQL server to make a database on, and an empty folder."""


def has_stand_in(source: str) -> bool:
    return importlib.util.find_spec(_module(source)) is not None


def start_of(source: str) -> Start:
    """What starts the stand-in of a source.

    Raises:
        AssertionError: it has none, with what to write.
    """
    assert has_stand_in(source), (
        f"Nothing shows that {source} works. Write tests/sources/stand_ins/{source}.py with a context manager "
        "`stand_in(server, folder)` that starts a system like it and yields a StandIn (tests/sources/stand_in.py); "
        "copy the nearest of its folder. The conformance suite does the rest."
    )
    start: Start = importlib.import_module(_module(source)).stand_in
    return start


def _module(source: str) -> str:
    return f"tests.sources.stand_ins.{source}"


@contextmanager
def database_with_reader(server: Server, statements: str) -> Iterator[tuple[str, str]]:
    """A database of its own, filled by statements, and the URLs that a role reaches it by that may only read: one with
    its password, and one with a wrong one."""
    name = f"stand_in_{uuid4().hex[:12]}"
    password = uuid4().hex
    server.create_database(name)
    try:
        with server.connect(name) as connection:
            connection.execute(statements.encode())
            reader = sql.Identifier(name)
            connection.execute(sql.SQL("create role {} login password {}").format(reader, sql.Literal(password)))
            connection.execute(sql.SQL("grant select on all tables in schema public to {}").format(reader))
        url = server.url.set(username=name, password=password, database=name)
        wrong = url.set(password=uuid4().hex)
        yield url.render_as_string(hide_password=False), wrong.render_as_string(hide_password=False)
    finally:
        server.drop_database(name)
        with server.connect() as connection:
            connection.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(name)))
