"""Connections from Prefect: databases from `SqlAlchemyConnector` blocks, secrets from `Secret` blocks, buckets from
`S3Bucket` blocks, and what anyone may see (addresses, folders) from variables.

`register` fills them from the environment, so a block exists because code says so, and can be made anew anywhere. Where
a variable names a secret that is kept elsewhere (`connectors.stored_secrets`), the block has that name and no secret,
for a database too: then it is a `Secret` block.

What a run has asked for once it need not ask again: its loads go on while the server is away.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.system import Secret as SecretBlock
from prefect.context import FlowRunContext
from prefect.variables import Variable
from prefect_sqlalchemy import ConnectionComponents, SqlAlchemyConnector
from pydantic import SecretStr

from connectors.backups.store import BACKUPS
from connectors.connections import (
    Database,
    EnvironmentConnections,
    ObjectStore,
    Requirement,
    Secret,
    Setting,
    StoreLocation,
    resolved_database,
    resolved_secret,
)
from connectors.destinations.warehouse.forgotten import FORGET_KEY
from connectors.errors import ConfigurationError
from connectors.ingest import LANDING, WAREHOUSE_LOADER
from connectors.published_files import STATUS_PAGE
from connectors.registry import SOURCES
from connectors.stored_secrets import is_reference
from connectors.unsaid import UNSAID

if TYPE_CHECKING:
    from prefect_aws import S3Bucket
    from sqlalchemy.engine import URL

Kind = TypeVar("Kind", bound=Block)

WAREHOUSE_TRANSFORMER = Database("warehouse_transformer")
WAREHOUSE_PUBLISHER = Database("warehouse_publisher")
WAREHOUSE_WATCHER = Database("warehouse_watcher")


def requirements() -> list[Requirement]:
    """Everything that the flows connect to: the destinations and what each registered source needs."""
    needed: list[Requirement] = [
        WAREHOUSE_LOADER,
        WAREHOUSE_TRANSFORMER,
        WAREHOUSE_PUBLISHER,
        WAREHOUSE_WATCHER,
        LANDING,
    ]
    for source in SOURCES.values():
        needed += [requirement for requirement in source.requirements if requirement not in needed]
    return needed


DOCS_LINK = Setting("docs_link")
STATUS_PAGE_LINK = Setting("status_page_link")
OPTIONAL: tuple[Requirement, ...] = (STATUS_PAGE, DOCS_LINK, STATUS_PAGE_LINK, FORGET_KEY, BACKUPS)
"""What has a place of its own unless it is told another, makes runs tell more, is for who forgets, or for backups:
nothing else fails without."""


Ask = TypeVar("Ask", bound=Callable[..., Any])
_MOST_RUNS = 32
"""Whose connections a process remembers: more than run in one at the same time, a pipeline and its flows among them."""


def _once_a_run(ask: Ask) -> Ask:
    """Ask the server for a connection once in each flow run; outside of runs each time."""
    kept: OrderedDict[UUID, dict[Requirement, Any]] = OrderedDict()

    @wraps(ask)
    def answer(connections: PrefectConnections, requirement: Requirement) -> Any:
        context = FlowRunContext.get()
        if context is None or context.flow_run is None:
            return ask(connections, requirement)
        of_run = kept.setdefault(context.flow_run.id, {})
        kept.move_to_end(context.flow_run.id)
        if requirement not in of_run:
            of_run[requirement] = ask(connections, requirement)
        while len(kept) > _MOST_RUNS:  # a process that serves deployments has one run after the other
            kept.popitem(last=False)
        return of_run[requirement]

    return cast(Ask, answer)


class PrefectConnections:
    """`Connections` kept by the Prefect server."""

    @_once_a_run
    def setting(self, requirement: Setting) -> str:
        return self._variable(requirement)

    def optional_setting(self, requirement: Setting) -> str | None:
        """The value, or None if nobody has given it."""
        value = Variable.get(requirement.name)
        return str(value) if value else None

    @_once_a_run
    def secret(self, requirement: Secret) -> str:
        return resolved_secret(str(self._block(SecretBlock, requirement).get()), _secret_block(requirement))

    @_once_a_run
    def database(self, requirement: Database) -> URL:
        try:
            info = self._block(SqlAlchemyConnector, requirement).connection_info
        except ConfigurationError:
            kept = find_block(SecretBlock, requirement.block_name)
            if kept is None:
                raise
            return resolved_database(str(kept.get()), _secret_block(requirement))
        if not isinstance(info, ConnectionComponents):
            raise ConfigurationError(
                f"The block sqlalchemy-connector/{requirement.block_name} holds a URL, which Prefect prints in full.",
                remedy=f"Set {requirement.environment_variable} and run `headwater register`, which stores its parts.",
            )
        url = cast("URL", info.create_url())
        UNSAID.add(str(url.password) if url.password is not None else None)
        return url

    @_once_a_run
    def object_store(self, requirement: ObjectStore) -> StoreLocation:
        url = self._variable(requirement)
        if not url.startswith("s3://"):
            return StoreLocation(url)
        # 0.7 s of CPU in the process of every run, for those that have a bucket.
        from prefect_aws import AwsCredentials, S3Bucket

        credentials = self._block(S3Bucket, requirement).credentials
        if not isinstance(credentials, AwsCredentials):
            raise ConfigurationError(
                f"The block s3-bucket/{requirement.block_name} holds credentials that are not AWS's own kind.",
                remedy="Run `headwater register`, or give the block an AwsCredentials block.",
            )
        secret = credentials.aws_secret_access_key
        options = {
            "access_key_id": credentials.aws_access_key_id,
            "secret_access_key": secret.get_secret_value() if secret else None,
            "session_token": credentials.aws_session_token,
            "region": credentials.region_name,
            "endpoint": credentials.aws_client_parameters.endpoint_url,
        }
        UNSAID.add(options["secret_access_key"], options["session_token"])
        return StoreLocation(url, {name: value for name, value in options.items() if value})

    def _variable(self, requirement: Requirement) -> str:
        value = Variable.get(requirement.name)
        if not value:
            raise _missing(requirement, f"variable {requirement.name}")
        return str(value)

    def _block(self, kind: type[Kind], requirement: Requirement) -> Kind:
        return load_block(kind, requirement.block_name, requirement)


def load_block(kind: type[Kind], name: str, requirement: Requirement) -> Kind:
    """A block that `register` has written for a requirement.

    Raises:
        ConfigurationError: there is none.
    """
    found = find_block(kind, name)
    if found is None:
        raise _missing(requirement, f"block {kind.get_block_type_slug()}/{name}")
    return found


def find_block(kind: type[Kind], name: str) -> Kind | None:
    """A block, or None if there is none of that kind and name."""
    try:
        return cast(Kind, kind.load(name))
    except ValueError:
        return None


def _secret_block(requirement: Requirement) -> str:
    return f"the block secret/{requirement.block_name}"


def _missing(requirement: Requirement, where: str) -> ConfigurationError:
    return ConfigurationError(
        f"Prefect has no {where}.",
        remedy=f"Set {requirement.environment_variable} in the environment and run `headwater register`.",
    )


def register(environment: EnvironmentConnections, needed: Iterable[Requirement]) -> list[str]:
    """Write the blocks and variables for what is needed, from the environment. Safe to repeat.

    Returns:
        What was written, as Prefect names it.

    Raises:
        ConfigurationError: values are missing, and nothing has been written; or one is malformed, and what came before
            it has been.
    """
    needed = list(needed)
    environment.require(needed)
    return [_register(environment, requirement) for requirement in needed]


def _register(environment: EnvironmentConnections, requirement: Requirement) -> str:
    if isinstance(requirement, Setting):
        return _set_variable(requirement, environment.setting(requirement))
    if isinstance(requirement, Secret):
        environment.secret(requirement)  # fails here, if it cannot be had
        return _save_secret(requirement, environment.raw(requirement))
    if isinstance(requirement, Database):
        url = environment.database(requirement)
        if is_reference(kept := environment.raw(requirement)):
            with suppress(ValueError):  # there was none: the password that it had is no longer wanted
                SqlAlchemyConnector.delete(requirement.block_name)
            return _save_secret(requirement, kept)
        _connector(url).save(requirement.block_name, overwrite=True)
        return f"sqlalchemy-connector/{requirement.block_name}"
    if isinstance(requirement, ObjectStore):
        location = environment.object_store(requirement)
        if location.url.startswith("s3://"):
            _bucket(location).save(requirement.block_name, overwrite=True)
        return _set_variable(requirement, location.url)
    raise TypeError(f"no block is known for a {requirement.kind}")


def _save_secret(requirement: Requirement, value: str) -> str:
    SecretBlock(value=SecretStr(value)).save(requirement.block_name, overwrite=True)
    return f"secret/{requirement.block_name}"


def _set_variable(requirement: Requirement, value: str) -> str:
    Variable.set(requirement.name, value, overwrite=True)
    return f"variable/{requirement.name}"


def _connector(url: URL) -> SqlAlchemyConnector:
    return SqlAlchemyConnector(
        connection_info=ConnectionComponents(
            driver=url.drivername,
            username=url.username,
            password=SecretStr(str(url.password)) if url.password is not None else None,
            host=url.host,
            port=url.port,
            database=url.database,
            query={name: value if isinstance(value, str) else value[-1] for name, value in url.query.items()},
        )
    )


def _bucket(location: StoreLocation) -> S3Bucket:
    from prefect_aws import AwsCredentials, S3Bucket
    from prefect_aws.client_parameters import AwsClientParameters

    parts = urlsplit(location.url)
    secret = location.options.get("secret_access_key")
    return S3Bucket(
        bucket_name=parts.netloc,
        bucket_folder=parts.path.strip("/"),
        credentials=AwsCredentials(
            aws_access_key_id=location.options.get("access_key_id"),
            aws_secret_access_key=SecretStr(secret) if secret else None,
            aws_session_token=location.options.get("session_token"),
            region_name=location.options.get("region"),
            aws_client_parameters=AwsClientParameters(endpoint_url=location.options.get("endpoint")),
        ),
    )
