"""Prints a new `.env` for compose.yaml: every password and key that its services share, random.

    docker run --rm headwater:local python -m deployments.containers.secrets > deployments/containers/.env

Run once: PostgreSQL takes its passwords when its data are new, and does not look again.
"""

from __future__ import annotations

import secrets
import sys

NAMES = (
    "HEADWATER_POSTGRES_PASSWORD",
    "HEADWATER_OWNER_PASSWORD",
    "HEADWATER_LOADER_PASSWORD",
    "HEADWATER_TRANSFORMER_PASSWORD",
    "HEADWATER_PUBLISHER_PASSWORD",
    "HEADWATER_WATCHER_PASSWORD",
    "HEADWATER_READER_PASSWORD",
    "HEADWATER_PREFECT_DATABASE_PASSWORD",
    "HEADWATER_PREFECT_PASSWORD",
    "HEADWATER_S3_SECRET_KEY",
    "HEADWATER_FLIGHTS_API_KEY",
    "HEADWATER_OPERATIONS_OWNER_PASSWORD",
    "HEADWATER_OPERATIONS_APP_PASSWORD",
)
"""What compose.yaml and compose.demo.yaml refuse to start without."""


def lines() -> list[str]:
    """The lines of the file; values need no escaping in a URL, in a shell or in YAML."""
    return [
        "# Secrets of Headwater's containers. Keep this file: without it their databases cannot be entered.",
        *(f"{name}={secrets.token_hex(24)}" for name in NAMES),
    ]


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines()) + "\n")
