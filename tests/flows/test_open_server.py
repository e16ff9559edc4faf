"""A Prefect server that would let everybody in does not start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_SERVER_API_AUTH_STRING, temporary_settings

from tasks.open_server import refuse_to_be_open

SERVER = ["prefect", "server", "start"]
UVICORN = ["uvicorn", "--factory", "prefect.server.api.server:create_app"]


@pytest.mark.parametrize("command", [SERVER, UVICORN])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "prefect.example.com"])  # noqa: S104 - it is refused
def test_an_address_that_others_reach_needs_a_password(command: list[str], host: str) -> None:
    for words in (["--host", host], [f"--host={host}"]):
        with pytest.raises(SystemExit, match="PREFECT_SERVER_API_AUTH_STRING"):
            refuse_to_be_open([*command, *words])
        with temporary_settings({PREFECT_SERVER_API_AUTH_STRING: "admin:a-long-password"}):
            refuse_to_be_open([*command, *words])


@pytest.mark.parametrize(
    "command",
    [
        [*SERVER, "--host", "127.0.0.1"],
        [*SERVER, "--host", "::1"],
        [*UVICORN, "--host", "localhost"],
        SERVER,  # Prefect's own choice is loopback
        ["prefect", "worker", "start", "--pool", "headwater"],
        ["pytest", "--host", "0.0.0.0"],  # noqa: S104 - no server
    ],
)
def test_others_start(command: list[str]) -> None:
    refuse_to_be_open(command)


@pytest.mark.chaos
def test_the_server_itself_ends_before_it_answers(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    ended = subprocess.run(
        [sys.executable, "-m", "prefect", "server", "start", "--host", "0.0.0.0", "--port", "14778"],  # noqa: S104
        env={**environment, "PREFECT_HOME": str(tmp_path), "DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ended.returncode != 0
    assert "would answer everybody who reaches 0.0.0.0" in ended.stdout + ended.stderr
