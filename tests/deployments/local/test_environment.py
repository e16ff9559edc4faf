from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.local.environment import process_environment, stack_variables, write_environment_file
from deployments.local.secrets import Secrets


def test_a_shell_that_sources_the_file_has_the_values_as_they_are(tmp_path: Path) -> None:
    variables = {"PLAIN": "a", "AWKWARD": 'it\'s $HOME `id` "x" \\ \n end', "EMPTY": ""}
    path = tmp_path / "the env"
    write_environment_file(path, variables)
    script = '. "$1"; for name in PLAIN AWKWARD EMPTY PATH; do printenv "$name"; printf "\\0"; done'
    result = subprocess.run(
        ["/bin/sh", "-c", script, "sh", str(path)],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    *values, path_value, _ = (value.removesuffix("\n") for value in result.stdout.split("\0"))
    assert values == list(variables.values())
    programs, *machine, postgres = path_value.split(":")
    assert (programs, machine) == (str(Path(sys.executable).parent), ["/usr/bin", "/bin"])
    # PostgreSQL's own come last: a machine's psql is taken before ours.
    assert os.access(Path(postgres) / "psql", os.X_OK)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_variables_say_where_everything_is(home: Path) -> None:
    secrets = Secrets(home)
    secrets.set_variables({"HEADWATER_FLIGHTS_API_URL": "http://127.0.0.1:8711"})
    variables = stack_variables(home, postgres_port=5439, prefect_port=4200, secrets=secrets)
    password = secrets.password("headwater_loader")
    assert (
        variables.items()
        >= {
            "DO_NOT_TRACK": "1",
            "HEADWATER_FLIGHTS_API_URL": "http://127.0.0.1:8711",
            "HEADWATER_HOME": str(home),
            "HEADWATER_LANDING_URL": f"file://{home}/landing",
            "HEADWATER_WAREHOUSE_DATABASE": "headwater",
            "HEADWATER_WAREHOUSE_HOST": "127.0.0.1",
            "HEADWATER_WAREHOUSE_LOADER_URL": f"postgresql+psycopg://headwater_loader:{password}@127.0.0.1:5439/headwater",
            "HEADWATER_WAREHOUSE_PORT": "5439",
            "PREFECT_API_URL": "http://127.0.0.1:4200/api",
            "PREFECT_HOME": f"{home}/prefect",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }.items()
    )
    roles = {"OWNER", "LOADER", "TRANSFORMER", "PUBLISHER", "READER"}
    assert {f"HEADWATER_WAREHOUSE_{role}_URL" for role in roles} <= variables.keys()


def test_a_process_of_ours_never_logs_in_to_the_users_other_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "of the cloud")
    monkeypatch.setenv("PREFECT_API_URL", "https://elsewhere.example/api")
    monkeypatch.setenv("HEADWATER_SLACK_URL", "https://hooks.example/x")
    environment = process_environment({"PREFECT_API_URL": "http://127.0.0.1:4200/api"})
    assert "PREFECT_API_KEY" not in environment
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert environment["HEADWATER_SLACK_URL"] == "https://hooks.example/x"
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_loopback_is_kept_out_of_a_proxy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def variables() -> dict[str, str]:
        return stack_variables(home, postgres_port=1, prefect_port=2, secrets=Secrets(home))

    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert "NO_PROXY" not in variables()
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    assert variables()["no_proxy"] == "intranet.example,127.0.0.1,localhost"
