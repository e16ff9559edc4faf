"""Whether each role gets into the warehouse, what it finds there, and how the way there is guarded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
from sqlalchemy.engine import URL

from connectors.connections import Database
from connectors.database import address
from connectors.destinations.warehouse.connection import connect
from connectors.destinations.warehouse.role_check import deviations, strangers
from connectors.destinations.warehouse.roles import ROLES
from connectors.destinations.warehouse.shape import REVISION, revision_of
from connectors.errors import HeadwaterError
from connectors.http.addresses import is_loopback
from deployments.doctor.examination import Check, Result, State
from deployments.doctor.settings import Anywhere

_FOR_SOME = {
    "owner": "only `headwater migrate` and `headwater forget` need it",
    "reader": "only who reads what is served needs it",
}
"""Roles whose passwords need not be on every machine."""
_SHOWN = 8
_SKEW, _TOO_MUCH_SKEW = timedelta(seconds=2), timedelta(seconds=30)


def checks(connections: Anywhere) -> list[Check]:
    """All about the warehouse."""
    names = [role.removeprefix("headwater_") for role in ROLES]
    return [
        *(Check(f"warehouse as {name}", lambda name=name: _entry(connections, name)) for name in names),  # type: ignore[misc]
        Check("migrations", lambda: _migrations(connections)),
        Check("roles", lambda: _roles(connections)),
        Check("warehouse TLS", lambda: _tls(connections)),
        Check("clock", lambda: _clock(connections)),
    ]


def _database(role: str) -> Database:
    return Database(f"warehouse_{role}")


def _entry(connections: Anywhere, role: str) -> Iterator[Result]:
    name = f"warehouse as {role}"
    if not connections.has(_database(role)):
        why = _FOR_SOME.get(role, "see settings")
        yield Result(name, State.SKIPPED, f"{_database(role).environment_variable} is not set: {why}.")
        return
    url = connections.database(_database(role))
    begun = time.monotonic()
    with closing(connect(url, "doctor", autocommit=True)) as connection:
        seconds = time.monotonic() - begun
        row = connection.execute(
            "select session_user, rolsuper, current_setting('server_version'),"
            " current_setting('server_version_num')::int from pg_catalog.pg_roles where rolname = session_user"
        ).fetchone()
    assert row is not None  # noqa: S101 - who is logged in exists
    user, is_superuser, version, number = row
    variable = _database(role).environment_variable
    if is_superuser:
        remedy = f"Let {variable} name headwater_{role} (docs/roles.md). Nothing here needs a superuser."
        yield Result(name, State.WRONG, f"{variable} logs in as {user}, a superuser.", remedy)
    elif user != f"headwater_{role}":
        remedy = f"Let {variable} name headwater_{role} (docs/roles.md)."
        yield Result(name, State.WRONG, f"{variable} logs in as {user}.", remedy)
    elif number < 160000:
        yield Result(name, State.WRONG, f"PostgreSQL {version} is too old.", "Upgrade it to 16 or later.")
    else:
        yield Result(name, State.OK, f"{address(url)}, PostgreSQL {version}, in {seconds * 1000:.0f} ms.")


def _migrations(connections: Anywhere) -> Iterator[Result]:
    if not _has_any(connections):
        yield Result("migrations", State.SKIPPED, "No role's URL is set: see settings.")
        return
    with _any_connection(connections) as connection:
        found = revision_of(connection)
    if found == REVISION:
        yield Result("migrations", State.OK, f"The warehouse is at {found}, the newest.")
    elif found is not None and found > REVISION:
        remedy = "Install the same Headwater here as there."
        said = f"The warehouse is at {found}; this Headwater knows {REVISION}."
        yield Result("migrations", State.WRONG, said, remedy)
    else:
        said = f"The warehouse is at {found}, not at {REVISION}." if found else "The warehouse was never migrated."
        yield Result("migrations", State.WRONG, said, "headwater migrate")


def _roles(connections: Anywhere) -> Iterator[Result]:
    if not _has_any(connections):
        yield Result("roles", State.SKIPPED, "No role's URL is set: see settings.")
        return
    with _any_connection(connections) as connection:
        found, others = deviations(connection), strangers(connection)
    for each in found[:_SHOWN]:
        yield Result("roles", State.WRONG, each.what, f"As an administrator, in psql: {each.remedy};")
    if len(found) > _SHOWN:
        yield Result("roles", State.WRONG, f"{len(found) - _SHOWN} more deviate.", "Mend those above, and look again.")
    for role, schema in others:
        yield Result(
            "roles",
            State.WARNING,
            f"{role}, which is none of Headwater's roles, was granted something in the schema {schema}.",
            f"If it is to read what is served: grant headwater_reader to {role}; and revoke what it has in {schema}.",
        )
    if not found:
        yield Result("roles", State.OK, "Each role may do what docs/roles.md says, and nothing else; PUBLIC nothing.")


def _has_any(connections: Anywhere) -> bool:
    return any(connections.has(_database(role.removeprefix("headwater_"))) for role in ROLES)


def _any_connection(connections: Anywhere) -> closing[psycopg.Connection]:
    """As whichever role gets in: catalogs are open to all."""
    trouble: HeadwaterError | None = None
    for role in ("watcher", "loader", "transformer", "publisher", "owner", "reader"):
        try:
            return closing(connect(connections.database(_database(role)), "doctor", autocommit=True))
        except HeadwaterError as error:
            trouble = trouble or error
    assert trouble is not None  # noqa: S101 - there are roles
    raise trouble


def _tls(connections: Anywhere) -> Iterator[Result]:
    urls: dict[str, URL] = {}
    for role in (role.removeprefix("headwater_") for role in ROLES):
        try:
            urls[role] = connections.database(_database(role))
        except HeadwaterError:
            continue
    away = {role: url for role, url in urls.items() if not is_loopback(url.host or "localhost")}
    judged = {role: _tls_of(url) for role, url in away.items()}
    for state in (State.WRONG, State.WARNING):
        variables = [_database(role).environment_variable for role, found in judged.items() if found is state]
        if variables:
            said = {
                State.WRONG: "may go in clear: sslmode is not set, or lets the server choose",
                State.WARNING: "is encrypted, and whoever stands between could pretend to be the server",
            }[state]
            remedy = "add ?sslmode=verify-full&sslrootcert=/path/to/ca.pem to the URL, then: headwater register"
            yield Result("warehouse TLS", state, f"What is sent by {', '.join(variables)} {said}.", remedy)
    if not urls:
        yield Result("warehouse TLS", State.SKIPPED, "No role's URL is set: see settings.")
    elif not away:
        yield Result("warehouse TLS", State.OK, "The warehouse is on this machine: nothing goes over a network.")
    elif not set(judged.values()) & {State.WRONG, State.WARNING}:
        yield Result("warehouse TLS", State.OK, "Encrypted, and the server shows a certificate that is checked.")


def _tls_of(url: URL) -> State:
    mode = url.query.get("sslmode", "prefer")
    if mode in ("verify-full", "verify-ca"):
        return State.OK
    return State.WARNING if mode == "require" else State.WRONG


def _clock(connections: Anywhere, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Iterator[Result]:
    if not _has_any(connections):
        yield Result("clock", State.SKIPPED, "No role's URL is set: see settings.")
        return
    with _any_connection(connections) as connection:
        before = now()
        row = connection.execute("select clock_timestamp()").fetchone()
        after = now()
    assert row is not None  # noqa: S101 - it has one row
    skew = abs(row[0] - (before + (after - before) / 2))
    said = f"This machine's clock and the warehouse's are {skew.total_seconds():.1f} s apart."
    if skew <= _SKEW:
        yield Result("clock", State.OK, said)
        return
    remedy = "timedatectl set-ntp true (on both machines)"
    yield Result("clock", State.WRONG if skew > _TOO_MUCH_SKEW else State.WARNING, said, remedy)
