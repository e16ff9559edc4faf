"""Secrets in AWS Secrets Manager, as flows have them: Prefect's blocks have their names, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from prefect.blocks.system import Secret as SecretBlock
from prefect_sqlalchemy import SqlAlchemyConnector

from connectors.connections import Database, EnvironmentConnections, Secret
from connectors.errors import ConfigurationError
from connectors.stored_secrets import forget_secrets
from tasks.credentials import PrefectConnections, find_block, register

KEY, SHOP = Secret("kept_key"), Database("kept_db")
URL = "postgresql+psycopg://reader:canary-kept-elsewhere@db.example.com/shop"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    forget_secrets()
    yield boto3.client("secretsmanager", endpoint_url=f"http://{host}:{port}", region_name="eu-central-1")
    server.stop()


@pytest.mark.usefixtures("prefect_server")
def test_a_block_has_the_name_of_a_secret_and_flows_what_is_kept_under_it(store: Any) -> None:
    store.create_secret(Name="shop", SecretString=URL)
    store.create_secret(Name="key", SecretString="canary-key-kept-elsewhere")
    register(EnvironmentConnections({"HEADWATER_KEPT_DB_URL": URL}), [SHOP])
    assert find_block(SqlAlchemyConnector, "kept-db") is not None
    names = {"HEADWATER_KEPT_DB_URL": "aws-secretsmanager://shop", "HEADWATER_KEPT_KEY": "aws-secretsmanager://key"}
    written = register(EnvironmentConnections(names), [SHOP, KEY])
    assert written == ["secret/kept-db", "secret/kept-key"]
    assert find_block(SqlAlchemyConnector, "kept-db") is None, "the password that was there is gone"
    block = find_block(SecretBlock, "kept-db")
    assert block is not None
    assert block.get() == "aws-secretsmanager://shop"
    prefect = PrefectConnections()
    assert prefect.database(SHOP).render_as_string(hide_password=False) == URL
    assert prefect.secret(KEY) == "canary-key-kept-elsewhere"

    store.delete_secret(SecretId="key", ForceDeleteWithoutRecovery=True)
    forget_secrets()
    with pytest.raises(ConfigurationError, match="`key` of AWS Secrets Manager, which the block secret/kept-key names"):
        prefect.secret(KEY)
    with pytest.raises(ConfigurationError, match="cannot be read: there is none"):
        register(EnvironmentConnections(names), [KEY])
    register(EnvironmentConnections({"HEADWATER_KEPT_DB_URL": URL}), [SHOP])
    assert prefect.database(SHOP).render_as_string(hide_password=False) == URL


def test_what_is_not_set_is_named_all_at_once_and_nothing_is_written() -> None:
    named = "database `kept_db`, the secret `kept_key` are not set.*HEADWATER_KEPT_DB_URL, HEADWATER_KEPT_KEY"
    with pytest.raises(ConfigurationError, match=named):
        register(EnvironmentConnections({}), [SHOP, KEY])
