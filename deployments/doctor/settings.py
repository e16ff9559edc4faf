"""Whether all that is needed is set: in the environment of this process, or in Prefect's blocks and variables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sqlalchemy.engine import URL

from connectors.alerts.routing import read_routing, routing_file
from connectors.connections import (
    Connections,
    Database,
    EnvironmentConnections,
    ObjectStore,
    Requirement,
    Secret,
    Setting,
    StoreLocation,
)
from connectors.errors import ConfigurationError
from deployments.doctor.examination import Result, State
from tasks.alerts import block_lookup
from tasks.credentials import PrefectConnections, requirements

Value = TypeVar("Value")


class Anywhere:
    """Connections as this process has them: from its environment, else from Prefect, as on a worker's machine."""

    def __init__(self, environment: EnvironmentConnections, *, has_server: bool) -> None:
        self._environment = environment
        self._prefect = PrefectConnections() if has_server else None

    def setting(self, requirement: Setting) -> str:
        return self._first(requirement, lambda each: each.setting(requirement))

    def secret(self, requirement: Secret) -> str:
        return self._first(requirement, lambda each: each.secret(requirement))

    def database(self, requirement: Database) -> URL:
        return self._first(requirement, lambda each: each.database(requirement))

    def object_store(self, requirement: ObjectStore) -> StoreLocation:
        return self._first(requirement, lambda each: each.object_store(requirement))

    def _first(self, requirement: Requirement, read: Callable[[Connections], Value]) -> Value:
        if self.is_here(requirement) or self._prefect is None:
            return read(self._environment)
        return read(self._prefect)

    def has(self, requirement: Requirement) -> bool:
        """Whether it is set anywhere, right or wrong; that it is not is what `settings` says."""
        if self.is_here(requirement):
            return True
        try:
            read(self, requirement)
        except ConfigurationError:
            return False
        return True

    def is_here(self, requirement: Requirement) -> bool:
        """Whether the environment has it, right or wrong."""
        try:
            self._environment.raw(requirement)
        except ConfigurationError:
            return False
        return True


def read(connections: Connections, requirement: Requirement) -> object:
    """The value of a requirement, whatever its kind.

    Raises:
        ConfigurationError: it is not set, or malformed.
        SecretsUnavailableError: it is kept where nobody answers.
    """
    match requirement:
        case Setting():
            return connections.setting(requirement)
        case Secret():
            return connections.secret(requirement)
        case Database():
            return connections.database(requirement)
        case ObjectStore():
            return connections.object_store(requirement)
    raise TypeError(f"nobody knows how to read a {requirement.kind}")


def settings(connections: Anywhere, home: Path, *, has_server: bool) -> Iterator[Result]:
    """What the destinations and each registered source need."""
    needed = requirements()
    if not has_server and not any(map(connections.is_here, needed)) and (home / "env").is_file():
        said = f"None of the {len(needed)} variables that flows need is set in this shell."
        yield Result("settings", State.WRONG, said, f"For the local stack: . {home / 'env'}")
        return
    prefect = PrefectConnections()
    here = missing = 0
    for requirement in needed:
        name = requirement.environment_variable
        is_here = connections.is_here(requirement)
        here += is_here
        try:
            read(connections, requirement)
        except ConfigurationError as error:
            missing += 1
            found = error.what if is_here else f"{name} ({requirement.kind}) is not set."
            if has_server and not is_here:
                found = f"{name} ({requirement.kind}) is neither set here nor registered with Prefect."
            remedy = error.remedy if is_here else f"export {name}=…, then: headwater register"
            yield Result("settings", State.WRONG, found, remedy)
            continue
        if is_here and has_server and not _is_registered(prefect, requirement):
            missing += 1
            yield Result(
                "settings",
                State.WARNING,
                f"{name} is set here, and flows do not have it: Prefect knows nothing of `{requirement.name}`.",
                "headwater register",
            )
    if not missing:
        where = f"{here} set in this environment, {len(needed) - here} registered with Prefect alone"
        yield Result("settings", State.OK, f"All {len(needed)} that flows need are there: {where}.")


def _is_registered(prefect: PrefectConnections, requirement: Requirement) -> bool:
    try:
        read(prefect, requirement)
    except ConfigurationError:
        return False
    return True


def alerts(environment: EnvironmentConnections, *, has_server: bool) -> Iterator[Result]:
    """Whether anybody hears of trouble: channels, with secrets here (the watcher's) and at Prefect (the runs')."""
    routing = read_routing()
    if not routing.channels:
        yield Result(
            "alerts",
            State.WARNING,
            "No channel is configured: nobody hears of trouble.",
            f"Name one in {routing_file()} (docs/alerts.md), then: headwater alerts test",
        )
        return
    lookup = block_lookup(routing)
    is_well = True
    for name, definition in routing.channels.items():
        for secret in definition.secrets(name):
            known = {"this environment": _has(environment.secret, secret)}
            if has_server:
                known["Prefect"] = _has(lookup, secret)
            variable = secret.environment_variable
            if not any(known.values()):
                is_well = False
                place = "nowhere" if has_server else "not here, and nobody can ask Prefect"
                yield Result(
                    "alerts",
                    State.WRONG,
                    f"The channel `{name}` cannot send: {variable} is set {place}.",
                    f"export {variable}=…; headwater register; headwater alerts test",
                )
            elif has_server and not known["Prefect"]:
                is_well = False
                yield Result(
                    "alerts",
                    State.WARNING,
                    f"Runs cannot send to the channel `{name}`: Prefect does not have its secret.",
                    "headwater register",
                )
    if is_well:
        said = f"Channels: {', '.join(routing.channels)}. Whether they arrive: headwater alerts test"
        yield Result("alerts", State.OK, said)


def _has(lookup: Callable[[Secret], str], secret: Secret) -> bool:
    try:
        lookup(secret)
    except ConfigurationError:
        return False
    return True
