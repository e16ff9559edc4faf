"""How a source gets what it needs to connect: by name, from whoever runs it.

A definition says `Setting("flights_api_url")` or `Secret("flights_api_key")`; the value comes from a `Connections`.
In a flow that is Prefect's blocks and variables (`tasks.credentials`); `EnvironmentConnections` reads the environment
and is what fills those blocks, so that the two can never disagree about a name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from connectors.errors import ConfigurationError

AWS_VARIABLES = {
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
    "region": "AWS_REGION",
    "endpoint": "AWS_ENDPOINT_URL",
}
"""obstore's option by the standard variable that fills it."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """Something that a source or destination needs to be told, by name (lower case, underscores)."""

    name: str
    kind: ClassVar[str] = "requirement"

    @property
    def environment_variable(self) -> str:
        return f"HEADWATER_{self.name.upper()}"

    @property
    def block_name(self) -> str:
        """Prefect's block names take hyphens, no underscores."""
        return self.name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Setting(Requirement):
    """A value that may be seen by anyone: an address, a folder."""

    kind: ClassVar[str] = "setting"


@dataclass(frozen=True, slots=True)
class Secret(Requirement):
    """A value that nobody may see: a key, a token."""

    kind: ClassVar[str] = "secret"


@dataclass(frozen=True, slots=True)
class Database(Requirement):
    """A database to connect to, password included. Its environment variable ends in _URL."""

    kind: ClassVar[str] = "database"

    @property
    def environment_variable(self) -> str:
        return f"HEADWATER_{self.name.upper()}_URL"


@dataclass(frozen=True, slots=True)
class ObjectStore(Requirement):
    """A folder (file:///…) or a bucket (s3://bucket/prefix). Its environment variable ends in _URL."""

    kind: ClassVar[str] = "object store"

    @property
    def environment_variable(self) -> str:
        return f"HEADWATER_{self.name.upper()}_URL"


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """Where an object store is, and the options to open it with, which may hold secrets and are not printed."""

    url: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """obstore's own names: access_key_id, secret_access_key, session_token, region, endpoint."""


class Connections(Protocol):
    """Answers what a `Requirement` asks.

    Raises (each method):
        ConfigurationError: there is no such value, with the way to set it.
    """

    def setting(self, requirement: Setting) -> str: ...

    def secret(self, requirement: Secret) -> str: ...

    def database(self, requirement: Database) -> URL: ...

    def object_store(self, requirement: ObjectStore) -> StoreLocation: ...


class EnvironmentConnections:
    """Connections read from environment variables."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment

    def _value(self, requirement: Requirement) -> str:
        value = self._environment.get(requirement.environment_variable, "").strip()
        if not value:
            raise ConfigurationError(
                f"The {requirement.kind} `{requirement.name}` is not set.",
                remedy=f"Set {requirement.environment_variable} in the environment.",
            )
        return value

    def setting(self, requirement: Setting) -> str:
        return self._value(requirement)

    def secret(self, requirement: Secret) -> str:
        return self._value(requirement)

    def database(self, requirement: Database) -> URL:
        return parse_database_url(self._value(requirement), requirement.environment_variable)

    def object_store(self, requirement: ObjectStore) -> StoreLocation:
        """S3 credentials are the standard AWS variables; without any, the machine's own role is used."""
        url = self._value(requirement)
        options = {
            name: self._environment[variable]
            for name, variable in AWS_VARIABLES.items()
            if url.startswith("s3://") and self._environment.get(variable)
        }
        return StoreLocation(url, options)


def parse_database_url(text: str, where: str) -> URL:
    """A database URL, without ever printing it: it holds a password.

    Raises:
        ConfigurationError: it is none; `where` names the place it came from.
    """
    try:
        return make_url(text)
    except ArgumentError:
        raise ConfigurationError(
            f"{where} is not a database URL.",
            remedy="Write it as postgresql+psycopg://user:password@host:5432/database, the password percent-encoded.",
        ) from None
