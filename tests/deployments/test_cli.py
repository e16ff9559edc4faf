"""The command `headwater` as a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import typer

from deployments.cli import app


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
