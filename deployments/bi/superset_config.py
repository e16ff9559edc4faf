"""Superset's settings, read by Superset itself (SUPERSET_CONFIG_PATH). Everything secret comes from the environment.

Promises: the warehouse is reached with the login of the environment, read-only, and its password is stored nowhere in
Superset; pages load nothing from other hosts.
"""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy.engine import URL, make_url

SECRET_KEY = os.environ["HEADWATER_BI_SECRET_KEY"]
SQLALCHEMY_DATABASE_URI = os.environ["HEADWATER_BI_METADATA_URL"]

_READER = make_url(os.environ["HEADWATER_WAREHOUSE_READER_URL"]).set(drivername="postgresql+psycopg2")
# The host that assets/databases/ names: it stands for wherever the warehouse of this environment is.
_PLACEHOLDER = "headwater-warehouse"
_LONGEST_QUERY_SECONDS = 60


def DB_CONNECTION_MUTATOR(  # noqa: N802 (Superset's name)
    url: URL, parameters: dict[str, Any], *_unused: object
) -> tuple[URL, dict[str, Any]]:
    """Put the reader's login in the place of the placeholder, and leave other databases alone."""
    if url.host != _PLACEHOLDER:
        return url, parameters
    arguments = {
        **parameters.get("connect_args", {}),
        "application_name": "superset",
        "connect_timeout": 10,
        "options": f"-c default_transaction_read_only=on -c statement_timeout={_LONGEST_QUERY_SECONDS}s",
    }
    return _READER, {**parameters, "connect_args": arguments}


# The browser is told to load nothing from elsewhere: neither Superset's usage pixel nor map tiles, fonts or logos.
TALISMAN_ENABLED = True
TALISMAN_CONFIG = {
    "content_security_policy": {
        "base-uri": ["'self'"],
        "default-src": ["'self'"],
        "img-src": ["'self'", "blob:", "data:"],
        "worker-src": ["'self'", "blob:"],
        "connect-src": ["'self'"],
        "object-src": "'none'",
        "style-src": ["'self'", "'unsafe-inline'"],
        "font-src": ["'self'", "data:"],
        "script-src": ["'self'", "'strict-dynamic'"],
    },
    "content_security_policy_nonce_in": ["script-src"],
    # It listens on loopback, without TLS.
    "force_https": False,
    "session_cookie_secure": False,
}

APP_NAME = "Headwater"
# Results are not kept: after a publish a chart shows what is served now. The queries are answered in under a second.
CACHE_CONFIG = {"CACHE_TYPE": "NullCache"}
DATA_CACHE_CONFIG = {"CACHE_TYPE": "NullCache"}
# One process counts the attempts to log in.
RATELIMIT_STORAGE_URI = "memory://"
