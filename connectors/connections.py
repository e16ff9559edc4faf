"""How a source gets what it needs to connect: by name, from whoever runs it.

A definition says `Setting("flights_api_url")` or `Secret("flights_api_key")`; the value comes from a `Connections`.
In a flow that is Prefect's blocks and variables (`tasks.credentials`); `EnvironmentConnections` reads the environment
and is what fills those blocks, so that the two can never disagree about a name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import msgspec
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from connectors.errors import ConfigurationError
from connectors.stored_secrets import is_reference, parse_reference, read_secret
from connectors.unsaid import UNSAID

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

    def require(self, needed: Iterable[Requirement]) -> None:
        """See that all of them are set.

        Raises:
            ConfigurationError: some are not; it names each, so that nobody meets them one by one.
        """
        unset = [each for each in needed if not self._given(each)]
        if unset:
            names = ", ".join(f"the {each.kind} `{each.name}`" for each in unset)
            raise ConfigurationError(
                f"{names[0].upper()}{names[1:]} {'is' if len(unset) == 1 else 'are'} not set.",
                remedy=f"Set {', '.join(each.environment_variable for each in unset)} in the environment.",
            )

    def raw(self, requirement: Requirement) -> str:
        """What the variable holds, also where that only names a secret that is kept elsewhere.

        Raises:
            ConfigurationError: it is not set.
        """
        self.require([requirement])
        return self._given(requirement)

    def _given(self, requirement: Requirement) -> str:
        return self._environment.get(requirement.environment_variable, "").strip()

    def setting(self, requirement: Setting) -> str:
        return self.raw(requirement)

    def secret(self, requirement: Secret) -> str:
        return resolved_secret(self.raw(requirement), requirement.environment_variable)

    def database(self, requirement: Database) -> URL:
        return resolved_database(self.raw(requirement), requirement.environment_variable)

    def object_store(self, requirement: ObjectStore) -> StoreLocation:
        """S3 credentials are the standard AWS variables; without any, the machine's own role is used."""
        url = self.raw(requirement)
        options = {
            name: self._environment[variable]
            for name, variable in AWS_VARIABLES.items()
            if url.startswith("s3://") and self._environment.get(variable)
        }
        UNSAID.add(options.get("secret_access_key"), options.get("session_token"))
        return StoreLocation(url, options)


def resolved_secret(text: str, where: str) -> str:
    """A secret, or what is kept where the text says.

    Raises:
        ConfigurationError, SecretsUnavailableError: as `connectors.stored_secrets.read_secret`.
    """
    value = read_secret(parse_reference(text, where)) if is_reference(text) else text
    UNSAID.add(value)
    return value


def resolved_database(text: str, where: str) -> URL:
    """A database's URL, or what is kept where the text says: a URL, or the parts of one as a JSON object, in the words
    of AWS's own rotation (engine, host, port, dbname, username, password; and sslmode).

    Raises:
        ConfigurationError: it is none; or as `connectors.stored_secrets.read_secret`, like SecretsUnavailableError.
    """
    if not is_reference(text):
        return parse_database_url(text, where)
    kept = read_secret(parse_reference(text, where))
    named = f"The secret that {where} names"
    if not kept.lstrip().startswith("{"):
        return parse_database_url(kept, named)
    try:
        parts = msgspec.json.decode(kept, type=_KeptDatabase)
    except msgspec.DecodeError as error:
        UNSAID.add(kept)
        raise ConfigurationError(
            f"{named} is no database: {error}.", remedy="It needs engine, host, dbname, username and password."
        ) from None
    UNSAID.add(parts.password)
    if parts.engine not in _DRIVERS:
        raise ConfigurationError(
            f"{named} is of the engine `{parts.engine}`.", remedy=f"Known are: {', '.join(_DRIVERS)}."
        )
    query = {"sslmode": parts.sslmode} if parts.sslmode else {}
    return URL.create(
        _DRIVERS[parts.engine], parts.username, parts.password, parts.host, parts.port or None, parts.dbname, query
    )


_DRIVERS = {"postgres": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mysql+pymysql"}
"""How each engine is read, by AWS's name of it."""


class _KeptDatabase(msgspec.Struct):
    engine: str
    host: str
    dbname: str
    username: str
    password: str
    port: int = 0
    sslmode: str | None = None


def parse_database_url(text: str, where: str) -> URL:
    """A database URL, without ever printing it: it holds a password.

    Raises:
        ConfigurationError: it is none, or its password is not percent-encoded; `where` names the place it came from.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # the latter: what follows the last colon is no port
        raise _no_database_url(where) from None
    UNSAID.add(str(url.password) if url.password is not None else None)
    # An @ within the password ends it too early: the rest of it would be taken for host or database, and told.
    if url.get_backend_name() != "sqlite" and "@" in _USER_AND_PASSWORD.sub("", text, count=1):
        raise _no_database_url(where)
    return url


_USER_AND_PASSWORD = re.compile(r"[^/]*//[^:/]*(:[^@]*)?@")


def _no_database_url(where: str) -> ConfigurationError:
    return ConfigurationError(
        f"{where} is not a database URL.",
        remedy="Write it as postgresql+psycopg://user:password@host:5432/database, the password percent-encoded: "
        "python3 -c 'import getpass, urllib.parse as u; print(u.quote(getpass.getpass(), safe=\"\"))'",
    )
