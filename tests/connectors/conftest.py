"""A scene for each test, by write disposition; a MySQL server and databases of it; a certificate of loopback."""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy.engine import URL, make_url

from connectors.ingest import Destination
from tests.conftest import Warehouse
from tests.connectors.examples import Prepare
from tests.connectors.scene import Scene
from tests.connectors.sql.sql_databases import MySql
from tests.mariadb import MariaDb, found


@pytest.fixture
def scene(
    request: pytest.FixtureRequest,
    source_database: Prepare,
    warehouse: Warehouse,
    destination: Destination,
    landing_folder: Path,
) -> Scene:
    return Scene(source_database("select"), warehouse, destination, landing_folder, request.param)


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[URL]:
    """A MariaDB server for the whole run. HEADWATER_TEST_MYSQL points the suite at another one, to throw away, as
    mysql+pymysql://root:password@host:port."""
    if configured := os.environ.get("HEADWATER_TEST_MYSQL"):
        yield make_url(configured)
        return
    programs = found()
    if programs is None:
        no_server = "there is no MariaDB server; `make test` gets one where apt-get does, or set HEADWATER_TEST_MYSQL"
        if os.environ.get("CI"):
            pytest.fail(no_server)
        pytest.skip(no_server)
    server = MariaDb(programs)
    try:
        server.start()
        yield server.url
    finally:
        server.stop()


@pytest.fixture
def mysql(mysql_server: URL) -> Iterator[MySql]:
    """An empty database of its own for each test."""
    database = MySql(mysql_server.set(database=f"source_{time.monotonic_ns()}"))
    database.create()
    try:
        yield database
    finally:
        database.drop()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of 127.0.0.1, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file
