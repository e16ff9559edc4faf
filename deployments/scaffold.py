"""`headwater new-source`: all that a source consists of, each part in its place, working and tested at once.

What is written is an example: its owner changes the definition until it tells what the system is like, and the
stand-in until it looks like the system; the tests say whether the two fit. Nothing that exists is overwritten, and if
one part cannot be written, none is.
"""

from __future__ import annotations

import builtins
import keyword
import re
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from string import Template

from connectors.connections import Database, ObjectStore, Requirement, Secret, Setting
from connectors.errors import ConfigurationError
from connectors.ingest import LANDING, WAREHOUSE_LOADER, WAREHOUSE_OWNER
from connectors.registry import SOURCES
from deployments.local.files import write_atomically
from deployments.scaffold_edits import registered, scheduled, timetabled

_TEMPLATES = Path(__file__).parent / "templates" / "new_source"
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST_NAME = 28
"""Two of them and what stands between make a staging model's name, which PostgreSQL cuts at 63 bytes."""
_TAKEN_WORDS = {*keyword.kwlist, *dir(builtins), *sys.stdlib_module_names, "source", "source_named"}
"""What a module and a variable of the registry cannot be called."""


class Kind(StrEnum):
    """What there is a scaffold for."""

    REST = "rest"
    POSTGRES = "postgres"
    SQL = "sql"
    FILES = "files"


@dataclass(frozen=True, slots=True)
class NewSource:
    """A source that is to be.

    Raises:
        ConfigurationError: its name or its stream's cannot name one.
    """

    name: str
    kind: Kind
    stream: str = "records"

    def __post_init__(self) -> None:
        for what, name in (("source", self.name), ("stream", self.stream)):
            if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
                raise ConfigurationError(
                    f"`{name}` cannot name a new {what}.",
                    remedy="Use lower-case letters and digits, a letter first, single underscores between words, and "
                    f"at most {_LONGEST_NAME} of all.",
                )
        if self.name in _TAKEN_WORDS:
            raise ConfigurationError(
                f"`{self.name}` cannot name a new source: it means something in Python.",
                remedy=f"Say more, such as `{self.name}_api` or `{self.name}_db`.",
            )

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """What the source will need to be told."""
        match self.kind:
            case Kind.REST:
                return Setting(f"{self.name}_url"), Secret(f"{self.name}_key")
            case Kind.FILES:
                return (ObjectStore(self.name),)
        return (Database(self.name),)

    @property
    def words(self) -> dict[str, str]:
        """What stands in the templates."""
        return {
            "source": self.name,
            "SOURCE": self.name.upper(),
            "stream": self.stream,
            "deployment": self.name.replace("_", "-"),
        }


@dataclass(frozen=True, slots=True)
class Scaffold:
    """What was written, relative to the root of the repository."""

    created: tuple[str, ...]
    changed: tuple[str, ...]


def refuse_taken(new: NewSource) -> None:
    """Refuse a name that another source has, or that would read another's variables.

    Raises:
        ConfigurationError: it is taken.
    """
    if new.name in SOURCES:
        raise ConfigurationError(f"There is a source `{new.name}` already.", remedy="Choose another name.")
    taken = {WAREHOUSE_OWNER, WAREHOUSE_LOADER, LANDING}.union(*(each.requirements for each in SOURCES.values()))
    variables = {requirement.environment_variable for requirement in new.requirements}
    if both := sorted(variables & {requirement.environment_variable for requirement in taken}):
        raise ConfigurationError(
            f"`{new.name}` would be told where it is by {', '.join(both)}, which has another meaning already.",
            remedy="Choose another name.",
        )


def scaffold(root: Path, new: NewSource) -> Scaffold:
    """Write a new source into the repository at `root`.

    Raises:
        ConfigurationError: its name is taken, a file is there already, or a list cannot be added to. Nothing was
            written.
        OSError: a file could not be written. What had been was taken back.
    """
    refuse_taken(new)
    created = {root / path: filled(template, new) for path, template in _files(new).items()}
    if existing := [str(path.relative_to(root)) for path in created if path.exists()]:
        raise ConfigurationError(
            f"There is {', '.join(existing)} already; nothing was written.",
            remedy="Choose another name, or move it away.",
        )
    changed = {
        root / path: edit(_text(root / path), new.words)
        for path, edit in (
            ("docs/timetable.md", timetabled),
            ("prefect.yaml", scheduled),
            ("connectors/registry.py", registered),
        )
    }
    _write(created, changed)
    return Scaffold(
        tuple(str(path.relative_to(root)) for path in created), tuple(str(path.relative_to(root)) for path in changed)
    )


def filled(template: str, new: NewSource) -> str:
    """A template with the words of a new source in it."""
    return Template((_TEMPLATES / f"{template}.template").read_text()).substitute(new.words)


def _files(new: NewSource) -> dict[str, str]:
    """Template by path."""
    staging = f"dbt/models/staging/{new.name}"
    return {
        f"connectors/sources/{new.name}.py": f"{new.kind}/source.py",
        f"tests/sources/stand_ins/{new.name}.py": f"{new.kind}/stand_in.py",
        f"tests/sources/test_{new.name}.py": "test.py",
        f"{staging}/_{new.name}__sources.yml": "sources.yml",
        f"{staging}/_{new.name}__models.yml": "models.yml",
        f"{staging}/stg_{new.name}__{new.stream}.sql": "staging.sql",
    }


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        raise ConfigurationError(
            f"There is no {path}: this is no checkout of the project.",
            remedy="Run `headwater new-source` in one that was installed with `make install`.",
        ) from None


def _write(created: Mapping[Path, str], changed: Mapping[Path, str]) -> None:
    """All or nothing: on any error what was written is taken back."""
    with ExitStack() as taking_back:
        for path, text in created.items():
            _make_folder(path.parent, taking_back)
            with path.open("x") as file:
                taking_back.callback(path.unlink)
                file.write(text)
        for path, text in changed.items():
            before, mode = path.read_text(), path.stat().st_mode & 0o777
            write_atomically(path, text, mode=mode)
            taking_back.callback(write_atomically, path, before, mode=mode)
        taking_back.pop_all()


def _make_folder(folder: Path, taking_back: ExitStack) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent, taking_back)
        folder.mkdir()
        taking_back.callback(folder.rmdir)
