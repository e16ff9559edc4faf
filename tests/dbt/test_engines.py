"""Other engines: whatever is written for PostgreSQL alone stands in a macro that has a variant for Spark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deployments.local.layout import PROJECT_ROOT

DBT = PROJECT_ROOT / "dbt"
PACKAGE = DBT / "packages/headwater_tests"
POSTGRESQL_ALONE = {
    "snapshot_get_time": "Snapshots are PostgreSQL's alone.",
}
SAME_EVERYWHERE = {"load_id_column", "rows_breaking"}
OF_POSTGRESQL = re.compile(
    r"at time zone|make_interval|num_n|generate_series|\bpg_|to_char|distinct on|extract\(epoch|\bilike\b"
    r"|::text|::numeric(?!\()|::timestamptz|::double precision|::time\b"
)


def macros(folder: Path) -> dict[str, set[str]]:
    """The names of dispatched macros, each with its variants."""
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*.sql"):
        for variant, name in re.findall(r"{% macro (postgres|default|spark)__(\w+)\(", path.read_text()):
            found.setdefault(name, set()).add(variant)
    return found


def test_every_macro_of_postgresql_has_one_of_spark() -> None:
    found = {name: variants for name, variants in macros(DBT / "macros").items() if "postgres" in variants}
    assert {name for name, variants in found.items() if "spark" not in variants} == set(POSTGRESQL_ALONE)
    of_package = macros(PACKAGE / "macros")
    assert {name for name, variants in of_package.items() if variants == {"default"}} == SAME_EVERYWHERE


def models() -> list[Path]:
    """What is built on every engine: models, singular tests, and the tests that yml files declare."""
    alone = ("pipeline", "ops")
    found = [path for suffix in ("sql", "yml") for path in (DBT / "models").rglob(f"*.{suffix}")]
    found = [path for path in found if path.parent.name not in alone]
    return [*found, *(DBT / "tests").glob("*.sql"), *(PACKAGE / "tests").rglob("*.sql")]


@pytest.mark.parametrize("path", models(), ids=lambda path: path.name)
def test_nothing_of_postgresql_alone_stands_outside_a_macro(path: Path) -> None:
    text = re.sub(r"{{.*?}}", "", path.read_text(), flags=re.DOTALL)
    text = re.sub(r"(?m)--.*$|^\s*#.*$|description: .*$", "", text)
    assert OF_POSTGRESQL.findall(text) == []
