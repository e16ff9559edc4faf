"""The doctor, as a command."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer
from rich.text import Text

from connectors.connections import EnvironmentConnections
from connectors.unsaid import UNSAID
from deployments.commands.terminal import SETTING_UP, console
from deployments.local.layout import default_home

app = typer.Typer()
_COLOURS = {"ok": "green", "warning": "yellow", "wrong": "bold red", "skipped": "dim"}


@app.command("doctor", rich_help_panel=SETTING_UP)
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    with_dbt: Annotated[bool, typer.Option("--dbt", help="Have dbt parse its project too; some ten seconds.")] = False,
) -> None:
    """Look whether all is set, reachable and safe, and say what to type where it is not; exit code 1 if it is wrong.

    A line a check: ok, warning, wrong, or skipped with the reason. It takes what flows take, from this environment or
    from Prefect; nothing is changed.
    """
    api_url = os.environ.get("PREFECT_API_URL")
    auth, key = os.environ.get("PREFECT_API_AUTH_STRING"), os.environ.get("PREFECT_API_KEY")
    UNSAID.add(auth, auth and auth.partition(":")[2], key)
    # A server that is away is found out by one attempt.
    os.environ["PREFECT_CLIENT_MAX_RETRIES"] = "0"
    from deployments.doctor import landing, prefect_server, secrecy, settings, warehouse
    from deployments.doctor.examination import Check, State, examine

    environment = EnvironmentConnections()
    has_server = bool(api_url) and prefect_server.answers(str(api_url), auth=auth, key=key)
    anywhere = settings.Anywhere(environment, has_server=has_server)
    checks = [
        Check("Prefect server", lambda: prefect_server.prefect_server(api_url, auth=auth, key=key), seconds=45.0),
        Check("settings", lambda: settings.settings(anywhere, default_home(), has_server=has_server), seconds=45.0),
        *warehouse.checks(anywhere),
        Check("landing", lambda: landing.landing(anywhere), seconds=30.0),
        Check("files", lambda: secrecy.files(anywhere, default_home()), seconds=30.0),
        Check("passwords", lambda: secrecy.passwords(anywhere)),
        Check("alerts", lambda: settings.alerts(environment, has_server=has_server)),
    ]
    if with_dbt:
        from deployments.doctor.project import project

        checks.append(Check("dbt project", lambda: project(anywhere), seconds=120.0))
    results = examine(checks)
    is_bad = any(each.state is State.WRONG for each in results)
    if as_json:
        found = [{"check": e.check, "state": e.state, "found": e.found, "remedy": e.remedy} for e in results]
        typer.echo(json.dumps({"ok": not is_bad, "checks": found}, indent=1, ensure_ascii=False))
        raise typer.Exit(1 if is_bad else 0)
    width = max(len(each.check) for each in results)
    for each in results:
        line = Text.assemble((f"{each.state:<8}", _COLOURS[each.state]), f"{each.check:<{width}}  ", each.found)
        if each.remedy:
            line.append(f"  → {each.remedy}", "bold")
        console.print(line)
    counts = {state: sum(each.state is state for each in results) for state in State}
    said = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    console.print(f"\n{said}.", markup=False)
    raise typer.Exit(1 if is_bad else 0)
