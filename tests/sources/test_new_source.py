"""`headwater new-source` in a copy of the repository: what it writes works at once, and it never does half of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from connectors.errors import ConfigurationError
from deployments.local.layout import PROJECT_ROOT
from deployments.scaffold import Kind, NewSource, refuse_taken, scaffold
from tests.conftest import ROLE_PASSWORD, Server, Warehouse
from tests.sources.conduct_checks import CONDUCT_CHECKS
from tests.sources.row_checks import ROW_CHECKS

PROGRAMS = Path(sys.executable).parent
# Names that no team gives its own sources: these tests hold in its repository too.
NEW = {"invented_api": "rest", "invented_db": "postgres", "invented_shop_db": "sql", "invented_files": "files"}
LISTS = ("connectors/registry.py", "docs/timetable.md", "prefect.yaml")
LOAD = """
import sys
from pathlib import Path
from sqlalchemy.engine import make_url
from connectors.connections import EnvironmentConnections, StoreLocation
from connectors.destinations.landing import Landing
from connectors.ingest import Destination, ingest
from connectors.registry import SOURCES
from tests.conftest import Server
from tests.sources.stand_in import start_of

server, loader, folder, *names = sys.argv[1:]
for name in names:
    below = Path(folder) / name
    below.mkdir()
    with start_of(name)(Server(make_url(server)), below) as stand_in:
        destination = Destination(make_url(loader), Landing(StoreLocation(f"file://{folder}/landing")))
        ingest(SOURCES[name], SOURCES[name].streams[0], EnvironmentConnections(stand_in.variables), destination)
"""


class Copy:
    """A copy of the repository, worked on with the programs of this environment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        listed = self.text("git", "-C", str(PROJECT_ROOT), "ls-files", "--cached", "--others", "--exclude-standard")
        for path in listed.splitlines():
            if (source := PROJECT_ROOT / path).is_file():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, root / path)
        self.text("git", "init", "--quiet")

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "HEADWATER_", "DBT_"))
        }
        program = PROGRAMS / command[0]
        return subprocess.run(
            [str(program) if program.exists() else command[0], *command[1:]],
            cwd=self.root,
            # Before what is installed here, which is the original.
            env={**inherited, "PYTHONPATH": str(self.root), "COLUMNS": "160", **variables},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def text(self, *command: str, **variables: str) -> str:
        """What a command says that has to succeed."""
        outcome = self.run(*command, **variables)
        assert outcome.returncode == 0, outcome.stdout[-4000:] + outcome.stderr[-4000:]
        return outcome.stdout

    def files(self) -> dict[str, bytes]:
        """Every file but git's and Python's own."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file() and ".git" not in path.parts and "__pycache__" not in path.parts
        }

    def folders(self) -> set[Path]:
        return {path for path in self.root.rglob("*") if path.is_dir() and ".git" not in path.parts}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy with a new source of each kind."""
    copy = Copy(tmp_path_factory.mktemp("copy"))
    for name, kind in NEW.items():
        copy.text("headwater", "new-source", name, "--kind", kind, "--stream", "orders")
    copy.text("git", "add", "--all")
    return copy


def test_it_says_what_it_wrote_and_what_to_set(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    before = copy.files()
    said = copy.text("headwater", "new-source", "invented_api", "--kind", "rest")
    after = copy.files()
    for path in after.keys() - before.keys():
        assert f"wrote    {path}\n" in said
    assert {path for path in before if after[path] != before[path]} == set(LISTS)
    assert all(f"changed  {path}\n" in said for path in LISTS)
    assert "HEADWATER_INVENTED_API_URL (setting)" in said
    assert "HEADWATER_INVENTED_API_KEY (secret)" in said
    assert "HEADWATER_INVENTED_API_KEY (secret)" in copy.text("headwater", "sources")


def test_the_words_of_the_readme_can_be_typed_as_they_stand(tmp_path: Path) -> None:
    readme = (PROJECT_ROOT / "README.md").read_text()
    found = re.search(r"`\.venv/bin/(headwater new-source \w+ [^`]*)`.*?`\.venv/bin/(pytest [^`]*)`", readme, re.DOTALL)
    assert found is not None
    new_source, tests = (words.split() for words in found.groups())
    copy = Copy(tmp_path)
    if not (copy.root / f"connectors/sources/{new_source[2]}.py").exists():
        copy.text(*new_source)
    assert f"/test_{new_source[2]}.py" in copy.text(*tests, "--collect-only", "-q")


def test_what_it_writes_passes_the_linters(copy: Copy) -> None:
    copy.text("ruff", "check", ".")
    copy.text("ruff", "format", "--check", ".")
    copy.text("lint-imports", "--no-cache")
    copy.text("sqlfluff", "lint", "--disable-progress-bar", *(f"dbt/models/staging/{name}" for name in NEW))


@pytest.mark.chaos
def test_what_it_writes_has_the_right_types(copy: Copy) -> None:
    """Half a minute where mypy has nothing cached."""
    copy.text("mypy")


def test_what_it_writes_passes_its_tests_and_the_repositorys(copy: Copy, postgres: Server) -> None:
    said = copy.text(
        *("pytest", "-v", "-n", "0", "tests/sources/test_conformance.py", "tests/test_repository.py"),
        *(f"tests/sources/test_{name}.py" for name in NEW),
        *("-k", " or ".join([*NEW, "repository"]), "-m", "not chaos"),
        HEADWATER_TEST_POSTGRES=postgres.url.render_as_string(hide_password=False),
    )
    for name in NEW:
        passed = re.findall(rf"\[{name}\.orders.*\] PASSED", said)
        assert len(passed) == len([*ROW_CHECKS, *CONDUCT_CHECKS]) + 1, "each check, and the source's own test"


def test_what_it_writes_is_built_by_dbt(copy: Copy, warehouse: Warehouse, tmp_path: Path) -> None:
    server, loader = warehouse.server.url, warehouse.url("loader")
    urls = [url.render_as_string(hide_password=False) for url in (server, loader)]
    copy.text("python", "-c", LOAD, *urls, str(tmp_path), *NEW)
    copy.text(
        *("dbt", "build", "--project-dir", "dbt", "--profiles-dir", "dbt"),
        *("--select", *(f"{method}{name}" for name in NEW for method in ("staging.", "source:"))),
        HEADWATER_WAREHOUSE_HOST=str(server.host),
        HEADWATER_WAREHOUSE_PORT=str(server.port),
        HEADWATER_WAREHOUSE_DATABASE=warehouse.database,
        DBT_ENV_SECRET_HEADWATER_TRANSFORMER_PASSWORD=ROLE_PASSWORD,
        DBT_TARGET_PATH=str(tmp_path / "target"),
        DBT_LOG_PATH=str(tmp_path / "log"),
        DO_NOT_TRACK="1",
    )
    results = json.loads((tmp_path / "target/run_results.json").read_text())["results"]
    passed = [result["unique_id"] for result in results if result["status"] in ("success", "pass")]
    assert len(passed) == len(results)
    for name in NEW:
        assert warehouse.query(f"select count(*), count(distinct orders_id) from staging.stg_{name}__orders") == [
            (20, 20)
        ]
        assert sum(name in each for each in passed) == 7, "a view, two tests of raw's key, four of the model"


def test_a_source_without_a_stand_in_fails_one_test_that_says_what_to_write(copy: Copy, postgres: Server) -> None:
    with without(copy.root / "tests/sources/stand_ins/invented_db.py"):
        outcome = copy.run(
            *("pytest", "-q", "-n", "0", "tests/sources/test_conformance.py", "-k", "invented_db"),
            HEADWATER_TEST_POSTGRES=postgres.url.render_as_string(hide_password=False),
        )
    assert outcome.stdout.count("FAILED") == 1
    assert "Write tests/sources/stand_ins/invented_db.py with" in outcome.stdout


@contextmanager
def without(file: Path) -> Iterator[None]:
    content = file.read_bytes()
    file.unlink()
    try:
        yield
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Tickets", "`Tickets` cannot name a new source. Use lower-case letters and digits"),
        ("tickets__api", "`tickets__api` cannot name a new source. Use lower-case letters and digits"),
        ("../tickets", "`../tickets` cannot name a new source. Use lower-case letters and digits"),
        ("a" * 29, "cannot name a new source. Use lower-case letters and digits"),
        ("import", "`import` cannot name a new source: it means something in Python. Say more, such as `import_api`"),
        ("list", "`list` cannot name a new source: it means something in Python. Say more, such as `list_api`"),
        ("flights_api", "There is a source `flights_api` already. Choose another name."),
        ("landing", "`landing` would be told where it is by HEADWATER_LANDING_URL, which has another meaning already."),
    ],
)
def test_a_name_that_cannot_be_is_refused_in_one_sentence(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        refuse_taken(NewSource(name, Kind.FILES))


def test_a_stream_that_cannot_be_is_refused_too() -> None:
    with pytest.raises(ConfigurationError, match="`all tickets` cannot name a new stream"):
        NewSource("tickets", Kind.FILES, "all tickets")


def test_nothing_is_overwritten(copy: Copy) -> None:
    before = copy.files()
    outcome = copy.run("headwater", "new-source", "invented_api", "--kind", "files")
    assert (outcome.returncode, outcome.stderr) == (
        1,
        "error: There is a source `invented_api` already. Choose another name.\n",
    )
    assert copy.files() == before


def test_the_longest_and_the_shortest_names_fit_into_their_lines(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    for kind in Kind:
        scaffold(copy.root, NewSource(f"{kind.value}_".ljust(28, "x"), kind, "s" * 28))
        scaffold(copy.root, NewSource(kind.value[0], kind, "s"))
    copy.text("ruff", "check", ".")
    copy.text("ruff", "format", "--check", ".")


def unreadable_list(name: str, old: str, new: str) -> Callable[[Path], str]:
    def spoil(root: Path) -> str:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))
        return name

    return spoil


def file_in_the_way(path: str, message: str) -> Callable[[Path], str]:
    def spoil(root: Path) -> str:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("mine")
        return message

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        unreadable_list("connectors/registry.py", "(\n        flights_api,", "(flights_api,"),
        unreadable_list("docs/timetable.md", "| `ingest/", "| `load/"),
        unreadable_list("prefect.yaml", "flows.ingest.ingest", "flows.load.load"),
        unreadable_list("prefect.yaml", "&one_at_a_time", "&one"),
        file_in_the_way("tests/sources/stand_ins/invented_api.py", "tests/sources/stand_ins/invented_api.py already"),
        # Found out only when the others have been written.
        file_in_the_way("dbt/models/staging/invented_api", "dbt/models/staging/invented_api"),
    ],
    ids=["registry", "timetable", "prefect", "anchors", "file", "folder"],
)
def test_if_one_part_cannot_be_written_none_is(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    copy = Copy(tmp_path)
    message = spoil(copy.root)
    before, folders = copy.files(), copy.folders()
    with pytest.raises((ConfigurationError, OSError), match=message):
        scaffold(copy.root, NewSource("invented_api", Kind.REST))
    assert copy.files() == before
    assert copy.folders() == folders


def test_what_others_wrote_into_prefect_yaml_stays_to_the_letter(copy: Copy) -> None:
    before = (PROJECT_ROOT / "prefect.yaml").read_text().splitlines()
    after = (copy.root / "prefect.yaml").read_text().splitlines()
    remaining = iter(after)
    assert all(line in remaining for line in before), "lines are gone, or in another order"
    assert len(after) - len(before) == 10 * len(NEW)
    deployments = yaml.safe_load((copy.root / "prefect.yaml").read_text())["deployments"]
    names = [each["name"] for each in deployments if each["entrypoint"] == "flows.ingest.ingest"]
    assert names[-len(NEW) :] == [name.replace("_", "-") for name in NEW]
