"""Secrets in AWS Secrets Manager: read where a variable names one, in every form, and never told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from connectors.connections import Database, EnvironmentConnections, Secret
from connectors.errors import ConfigurationError, SecretsUnavailableError
from connectors.stored_secrets import forget_secrets
from tests.telling import heard

KEY, LOADER = Secret("shop_key"), Database("warehouse_loader")
CANARY = "canary-in-the-store-9"
PARTS = {"engine": "postgres", "host": "db.example.com", "port": 5433, "dbname": "headwater", "username": "loader"}


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def secrets(store: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the store, which this process finds by the usual variables."""
    for name, value in {
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": store,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    forget_secrets()
    return boto3.client("secretsmanager", endpoint_url=store, region_name="eu-central-1")


def kept(client: Any, name: str, value: str) -> str:
    arn: str = client.create_secret(Name=name, SecretString=value)["ARN"]
    return arn


def found(variable: str, text: str) -> Any:
    environment = EnvironmentConnections({variable: text})
    return environment.secret(KEY) if variable == KEY.environment_variable else environment.database(LOADER)


def test_a_variable_may_name_a_secret_a_value_of_one_or_its_arn(secrets: Any) -> None:
    arn = kept(secrets, "prod/shop", CANARY)
    kept(secrets, "prod/all", json.dumps({"shop": CANARY, "number": 12345678}))
    for text in ("prod/shop", "prod/all#shop", arn):
        assert found("HEADWATER_SHOP_KEY", f"aws-secretsmanager://{text}") == CANARY
    assert found("HEADWATER_SHOP_KEY", "aws-secretsmanager://prod/all#number") == "12345678"
    assert found("HEADWATER_SHOP_KEY", "a key of its own") == "a key of its own"


def test_a_database_is_a_url_or_the_parts_that_aws_rotates(secrets: Any) -> None:
    kept(secrets, "db/url", f"postgresql+psycopg://loader:{CANARY}@db.example.com:5433/headwater")
    kept(secrets, "db/parts", json.dumps({**PARTS, "password": f"{CANARY}@/", "sslmode": "verify-full"}))
    url = found("HEADWATER_WAREHOUSE_LOADER_URL", "aws-secretsmanager://db/url")
    parts = found("HEADWATER_WAREHOUSE_LOADER_URL", "aws-secretsmanager://db/parts")
    assert (url.host, url.port, url.database, url.username, url.password) == (
        "db.example.com", 5433, "headwater", "loader", CANARY)  # fmt: skip
    assert parts == url.set(password=f"{CANARY}@/", query={"sslmode": "verify-full"})


def test_a_rotation_reaches_a_process_within_a_minute(secrets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(secrets, "rotating", "the first value")
    assert found("HEADWATER_SHOP_KEY", "aws-secretsmanager://rotating") == "the first value"
    secrets.put_secret_value(SecretId="rotating", SecretString="the second value")
    assert found("HEADWATER_SHOP_KEY", "aws-secretsmanager://rotating") == "the first value", "it is remembered"
    monkeypatch.setattr("connectors.stored_secrets._REMEMBERED_SECONDS", 0.0)
    forget_secrets()
    assert found("HEADWATER_SHOP_KEY", "aws-secretsmanager://rotating") == "the second value"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "missing",
            "`missing` of AWS Secrets Manager, which HEADWATER_SHOP_KEY names, cannot be read: there is none",
        ),
        ("text#key", "is no JSON object"),
        ("object#absent", "There is no value `absent` of the secret `object`"),
        ("object#nested", "There is no value `nested`"),
        ("binary", "is binary"),
        ("", "HEADWATER_SHOP_KEY does not say which secret is meant"),
        ("object#", "HEADWATER_SHOP_KEY does not say which secret is meant"),
    ],
)
def test_what_is_not_there_is_named_and_nothing_of_what_is(secrets: Any, name: str, says: str) -> None:
    for each, value in {"text": CANARY, "object": json.dumps({"known": CANARY, "nested": {"a": CANARY}})}.items():
        if not secrets.list_secrets(Filters=[{"Key": "name", "Values": [each]}])["SecretList"]:
            kept(secrets, each, value)
    if not secrets.list_secrets(Filters=[{"Key": "name", "Values": ["binary"]}])["SecretList"]:
        secrets.create_secret(Name="binary", SecretBinary=CANARY.encode())
    with pytest.raises(ConfigurationError) as caught, heard() as said:
        found("HEADWATER_SHOP_KEY", f"aws-secretsmanager://{name}")
    assert says.lower() in str(caught.value).lower()
    assert CANARY not in str(caught.value) + str(caught.value.__context__) + "".join(said)


@pytest.mark.parametrize("value", ["not a url canary-x", '{"engine": "postgres", "password": "canary-x-long"}', "{"])
def test_a_secret_that_is_no_database_is_refused_and_not_told(secrets: Any, value: str) -> None:
    name = f"no-db-{len(value)}"
    kept(secrets, name, value)
    with pytest.raises(ConfigurationError, match="The secret that HEADWATER_WAREHOUSE_LOADER_URL names is") as caught:
        found("HEADWATER_WAREHOUSE_LOADER_URL", f"aws-secretsmanager://{name}")
    assert "canary-x" not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "kind"), [("http://127.0.0.1:1", SecretsUnavailableError), ("http://[::1", ConfigurationError)]
)
def test_a_store_that_does_not_answer_is_worth_another_try(
    endpoint: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", endpoint)
    monkeypatch.setattr("connectors.stored_secrets._ATTEMPTS", 1)
    with pytest.raises(kind):
        found("HEADWATER_SHOP_KEY", "aws-secretsmanager://any")
