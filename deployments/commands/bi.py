"""The commands `headwater bi …`: Superset beside the local stack."""

from __future__ import annotations

import typer

from deployments.bi import service
from deployments.commands.terminal import console, step
from deployments.local.layout import default_home
from deployments.local.stack import LocalStack

app = typer.Typer(help="Superset on the serving schema (make bi installs it).", no_args_is_help=True)


@app.command()
def up() -> None:
    """Start Superset on the local stack, with its dashboards as the files have them."""
    stack = LocalStack(default_home())
    with step("Superset"):
        address = service.start(stack)
    name, password = service.administrator(stack)
    for label, value in (
        ("Flight operations", f"{address}/superset/dashboard/{service.DASHBOARD}/"),
        ("Log in", f"{name}, {password}"),
    ):
        console.print(f"{label:<24}{value}", markup=False)


@app.command()
def down() -> None:
    """Stop Superset, and nothing else. What is in it stays."""
    stopped = LocalStack(default_home()).stop_service(service.SUPERSET)
    console.print("Stopped superset." if stopped else "Superset was not running.")


@app.command()
def export() -> None:
    """Write the dashboards, as they are in Superset now, over the files that they came from."""
    service.provision(LocalStack(default_home()), "export", service.ASSETS)
    console.print(f"Written to {service.ASSETS}; `git diff` shows what has changed.")
