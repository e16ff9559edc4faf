"""The command `headwater` as a process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer

from connectors.connections import Database, Secret, Setting
from deployments.cli import app
from deployments.local.ports import choose_port
from tasks.credentials import requirements
from tests.conftest import Answer, Api


def test_the_command_does_not_load_prefect_before_it_knows_where_its_server_is() -> None:
    """Prefect takes its settings when it is imported: `headwater demo` would start a server of Prefect's own."""
    loaded = "import sys, deployments.cli; print('prefect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "False\n"


def test_every_command_is_in_a_panel_and_every_option_says_what_it_does() -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    assert [name for name, command in root.commands.items() if not getattr(command, "rich_help_panel", None)] == []
    assert [option for command in _all(root) for option in command.params if not getattr(option, "help", None)] == []


def _all(command: typer.core.TyperGroup | typer.core.TyperCommand) -> Iterator[typer.core.TyperCommand]:
    for each in command.commands.values() if isinstance(command, typer.core.TyperGroup) else ():
        assert isinstance(each, typer.core.TyperGroup | typer.core.TyperCommand)
        yield from _all(each)
    if isinstance(command, typer.core.TyperCommand):
        yield command


_VALUES = {Database: "postgresql://u:p@127.0.0.1:1/w", Secret: "sesame", Setting: "http://127.0.0.1:1"}
GIVEN = {each.environment_variable: _VALUES.get(type(each), "file:///nowhere") for each in requirements()}
"""What `headwater register` asks for."""


@pytest.mark.parametrize("status", [None, 401, 503])
def test_a_prefect_server_that_is_away_or_refuses_is_one_message(api: Api, status: int | None) -> None:
    api.answer = lambda _: Answer({"detail": "no"}, status=status or 200)
    url = api.url if status else f"http://127.0.0.1:{choose_port(1).number}"
    variables = {"PREFECT_API_URL": f"{url}/api", "PREFECT_CLIENT_MAX_RETRIES": "0", "COLUMNS": "1000"}
    done = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "register"],
        env={**os.environ, **GIVEN, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    says = {
        None: rf"error: The Prefect server {url}/api did not answer: .+ Start it \(`headwater up`",
        401: rf"error: The Prefect server {url}/api answered 401 to /api/\S+ Set PREFECT_API_AUTH_STRING",
        503: rf"error: The Prefect server {url}/api answered 503 to /api/\S+ See its log, then try again",
    }
    assert re.match(says[status], done.stderr), done.stderr


def test_it_says_which_version_it_is() -> None:
    command = [sys.executable, "-m", "deployments.cli", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert re.fullmatch(r"headwater \d+\.\d+\.\d+\S*\n", said)


DEPLOY = """
import os, sys
from types import SimpleNamespace
import deployments.cli as cli
_, before, after = sys.argv
os.environ["PREFECT_API_URL"] = before
import deployments.deploy  # and Prefect with it, as while the server starts
cli._deploy(SimpleNamespace(environment=lambda: {"PREFECT_API_URL": after}))
"""


def test_what_is_registered_goes_to_the_port_that_the_server_got_in_the_end(api: Api) -> None:
    """Another stack has the first one by then, and a server that answers there."""
    api.answer = lambda _: Answer({"detail": "no"}, status=503)
    first = f"http://127.0.0.1:{choose_port(1).number}/api"
    done = subprocess.run(
        [sys.executable, "-c", DEPLOY, first, f"{api.url}/api"],
        env={**os.environ, **GIVEN, "PREFECT_CLIENT_MAX_RETRIES": "0"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert api.requests, done.stderr
    assert "503" in done.stderr
