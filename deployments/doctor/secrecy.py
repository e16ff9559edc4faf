"""Whether secrets stand where others can read them, and whether they can be guessed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from connectors.alerts.known_secrets import known_secrets
from connectors.connections import Connections, Database, Secret
from connectors.errors import HeadwaterError
from deployments.doctor.examination import Result, State
from deployments.local.layout import PROJECT_ROOT
from tasks.credentials import requirements

_KINDS = {".cfg", ".conf", ".env", ".ini", ".json", ".py", ".sh", ".sql", ".toml", ".yaml", ".yml"}
_LARGEST = 1 << 20
_FOLDERS = ("", ".github/workflows", "connectors", "dbt", "deployments", "flows", "tasks")
_NOT_OURS = {".git", ".venv", "node_modules", "target", "__pycache__"}
_GUESSABLE = 12
"""Characters. What is shorter can be tried out."""


def files(connections: Connections, home: Path) -> Iterator[Result]:
    """Files that hold a secret: in the project, where they are shared, or elsewhere, where others may read them."""
    secrets = {each.encode() for each in known_secrets(connections) if len(each) >= _GUESSABLE}
    looked = bad = 0
    for path in _project_files():
        looked += 1
        if _holds(path, secrets):
            bad += 1
            name = path.relative_to(PROJECT_ROOT)
            said = f"A secret stands in {name}, which everybody has who has the project."
            remedy = f"Take it out of {name}, make another one (docs/security.md), and set that in the environment."
            yield Result("files", State.WRONG, said, remedy)
    for path in _private_files(home):
        looked += 1
        if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH) and _is_reachable(path):
            bad += 1
            yield Result("files", State.WRONG, f"Other users of this machine can read {path}.", f"chmod 600 {path}")
    if not bad:
        yield Result("files", State.OK, f"No secret stands where others can read it ({looked} files).")


def passwords(connections: Connections) -> Iterator[Result]:
    """Secrets that are too short to be any."""
    short, looked = [], 0
    for requirement in requirements():
        try:
            if isinstance(requirement, Secret):
                value: str | None = connections.secret(requirement)
            elif isinstance(requirement, Database):
                password = connections.database(requirement).password
                value = str(password) if password is not None else None
            else:
                continue
        except HeadwaterError:
            continue  # said by others
        looked += value is not None
        if value is not None and len(value) < _GUESSABLE:
            short.append(requirement.environment_variable)
    if short:
        said = f"Shorter than {_GUESSABLE} characters, and so to be guessed: {', '.join(short)}."
        yield Result("passwords", State.WARNING, said, "python3 -c 'import secrets; print(secrets.token_urlsafe(24))'")
    elif not looked:
        yield Result("passwords", State.SKIPPED, "None is set: see settings.")
    else:
        yield Result("passwords", State.OK, f"Of {looked}, none has less than {_GUESSABLE} characters.")


def _project_files() -> Iterator[Path]:
    for folder in _FOLDERS:
        root = PROJECT_ROOT / folder
        for parent, folders, names in os.walk(root):
            folders[:] = [] if not folder else [each for each in folders if each not in _NOT_OURS]
            for name in names:
                path = Path(parent, name)
                if path.suffix in _KINDS and not path.is_symlink() and path.stat().st_size < _LARGEST:
                    yield path


def _private_files(home: Path, environment: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """Files that are there to hold secrets."""
    user = Path.home()
    prefect = Path(environment.get("PREFECT_HOME") or user / ".prefect")
    candidates = [home / name for name in ("env", "secrets.json", "state.json")]
    candidates += [PROJECT_ROOT / ".env", prefect / "profiles.toml", user / ".pgpass", user / ".dbt/profiles.yml"]
    candidates += [user / ".aws/credentials"]
    return (path for path in candidates if path.is_file())


def _is_reachable(path: Path) -> bool:
    """Whether others may pass through the folders above."""
    return all(each.stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH) for each in path.resolve().parents)


def _holds(path: Path, secrets: set[bytes]) -> bool:
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return any(secret in content for secret in secrets)
