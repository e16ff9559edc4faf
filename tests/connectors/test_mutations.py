"""The rules that everything rests on, taken away one at a time: the suite notices each.

A copy of the product is made, one rule is struck out of it, and tests that exist anyway are run there: they must fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("connectors", "tasks", "flows", "deployments", "tests")
COMMIT = "connectors/destinations/warehouse/commit.py"
LEDGER = "connectors/destinations/warehouse/ledger.py"
MERGE = "connectors/destinations/warehouse/merge.py"
LANDING = "connectors/destinations/landing.py"


@dataclass(frozen=True, slots=True)
class Mutation:
    """A rule, and how to take it away."""

    rule: str
    file: str
    old: str
    """Must be in the file exactly once."""
    new: str
    tests: tuple[str, ...]
    """What notices it: files, or expressions for `-k` behind a colon."""


INGEST = "tests/connectors/test_ingest.py"
RACES = "tests/connectors/test_races.py:wakes_up and (chunk-landed or all-copied)"
LANDED = "tests/connectors/destinations/test_landing.py"
MUTATIONS = [
    Mutation(
        "the fence holds nobody back",
        LEDGER,
        "if row is None or row[0] != self.epoch:",
        "if row is None:",
        ("tests/connectors/destinations/warehouse/test_ledger.py", RACES),
    ),
    Mutation(
        "the commit does not ask the fence",
        COMMIT,
        'lease.check(connection)\n        reach("commit-begun")\n        report = report_of(connection, request) or _C',
        'reach("commit-begun")\n        report = report_of(connection, request) or _C',
        (f"{INGEST}:lost_its_lease",),
    ),
    Mutation(
        "rows that share the watermark are not read again",
        "connectors/postgres.py",
        "({0} >= {1} or {0} is null)",
        "({0} > {1} or {0} is null)",
        ("tests/connectors/test_ingest_tables.py:incrementally or appended_event",),
    ),
    Mutation(
        "of rows that share a cursor, the first to come stays",
        MERGE,
        "coalesce(excluded.{c} >= t.{c}, t.{c} is null)",
        "coalesce(excluded.{c} > t.{c}, t.{c} is null)",
        (f"{INGEST}:within_its_instant",),
    ),
    Mutation(
        "an older version replaces a newer one",
        MERGE,
        "coalesce(excluded.{c} >= t.{c}, t.{c} is null)",
        "true or t.{c} is null",
        (f"{INGEST}:older or window or newer", "tests/connectors/test_ingest_documents.py"),
    ),
    Mutation(
        "a manifest is written before the load has landed",
        LANDING,
        "            current.write(chunk.data, chunk.rows)\n",
        "            current.write(chunk.data, chunk.rows)\n"
        "            self.finish(columns=(), window=None, cursor_from=None, cursor_to=None)\n",
        ("tests/connectors/test_kill.py:merge and (chunk-copied or chunk-landed)", LANDED),
    ),
    Mutation(
        "a later manifest replaces an earlier one in a folder",
        LANDING,
        "os.link(temporary, path)\n    finally:\n        os.unlink(temporary)",
        "os.replace(temporary, path)\n    finally:\n        pass",
        (f"{LANDED}:first_manifest",),
    ),
    Mutation(
        "a later manifest replaces an earlier one in S3",
        LANDING,
        'body, mode="create"',
        'body, mode="overwrite"',
        (f"{LANDED}:first_manifest",),
    ),
    Mutation(
        "objects are not flushed before the manifest",
        LANDING,
        "            _flush(path)\n            _flush(path.parent)\n",
        "",
        (f"{LANDED}:the_disk_holds",),
    ),
    Mutation(
        "the manifest is not flushed before it appears",
        LANDING,
        "            os.fsync(file.fileno())\n",
        "",
        (f"{LANDED}:the_disk_holds",),
    ),
    Mutation(
        "an open transaction does not hold the watermark back",
        "connectors/destinations/warehouse/watermark.py",
        "        if remaining:\n",
        "        if False:\n",
        ("tests/connectors/test_cursors.py:late or sequence or no_transaction",),
    ),
]
QUICK = {"objects are not flushed before the manifest"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def outcome(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests in the copy: a file, or a file and an expression."""
    file, _, expression = tests.partition(":")
    return run(
        folder,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-m",
        "not chaos",
        "-k",
        expression or "test",
        file,
    )


@pytest.mark.parametrize(
    "mutation",
    [pytest.param(each, id=each.rule, marks=() if each.rule in QUICK else pytest.mark.chaos) for each in MUTATIONS],
)
def test_the_suite_notices_a_rule_that_is_gone(copy: Path, mutation: Mutation) -> None:
    path = copy / mutation.file
    original = path.read_text()
    assert original.count(mutation.old) == 1, "the rule is written otherwise now: write this mutation anew"
    path.write_text(original.replace(mutation.old, mutation.new))
    try:
        outcomes = [outcome(copy, tests) for tests in mutation.tests]
    finally:
        path.write_text(original)
    said = [each.stdout[-2000:] for each in outcomes]
    assert any(each.returncode == 1 for each in outcomes), said
    assert all(each.returncode in (0, 1) for each in outcomes), said


def test_the_copy_is_what_is_tested_and_passes_as_it_is(copy: Path) -> None:
    said = run(copy, "-c", "import connectors, tests; print(connectors.__path__[0], tests.__path__[0])")
    assert said.stdout.split() == [str(copy / "connectors"), str(copy / "tests")]
    passed = outcome(copy, f"{LANDED}:the_disk_holds or first_manifest")
    assert passed.returncode == 0, passed.stdout


@pytest.mark.chaos
def test_without_a_mutation_the_tests_that_notice_them_pass(copy: Path) -> None:
    for tests in sorted({tests for mutation in MUTATIONS for tests in mutation.tests}):
        passed = outcome(copy, tests)
        assert passed.returncode == 0, passed.stdout[-3000:]
