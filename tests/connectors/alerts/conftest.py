"""A desk at which alerts are written and sent."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Warehouse
from tests.connectors.alerts.catchers import Desk, receiver


@pytest.fixture
def desk(warehouse: Warehouse) -> Iterator[Desk]:
    with receiver() as slack, receiver() as hook:
        yield Desk(warehouse, slack, hook)


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    """What a server shows the certificate of loopback with; nobody trusts it until SSL_CERT_FILE names it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
