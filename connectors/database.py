"""A database URL as psycopg takes it."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import URL

CONNECT_TIMEOUT_SECONDS = 10
_KEEPALIVE_SECONDS = 30
_SILENCE_MILLISECONDS = 120_000
"""How long what was sent may wait to be taken, or a probe for its answer, before the link counts as broken. Without a
bound a peer that vanished in the middle of a COPY is waited for a quarter of an hour, and one that stalls for ever."""


def address(url: URL) -> str:
    """Host, port and database: what a message may show of a URL."""
    return f"{url.host}:{url.port or 5432}/{url.database}"


def psycopg_arguments(url: URL, settings: dict[str, str]) -> dict[str, Any]:
    """Arguments for `psycopg.connect`: the URL's parts and query (sslmode and the like), and server settings."""
    return {
        "host": url.host,
        "port": url.port,
        "dbname": url.database,
        "user": url.username,
        "password": str(url.password) if url.password is not None else None,
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "keepalives_idle": _KEEPALIVE_SECONDS,
        "keepalives_interval": _KEEPALIVE_SECONDS // 3,
        "tcp_user_timeout": _SILENCE_MILLISECONDS,
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        **{name: value if isinstance(value, str) else value[-1] for name, value in url.query.items()},
    }
