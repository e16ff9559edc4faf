"""Where the local stack keeps its state: one folder, `.headwater/` at the project root unless HEADWATER_HOME says else.

postgres/data      the database cluster (elsewhere when the server's account cannot reach it: see placement.py)
secrets.json       passwords and keys, mode 0600
state.json         ports and processes, mode 0600
env                the environment of a shell that works with the stack, mode 0600
logs/              one log per service
landing/           the object store
prefect/           PREFECT_HOME
superset/          SUPERSET_HOME, where `make bi` was run
dbt/               what dbt leaves: manifest, results, docs
page/              the status page
tmp/               temporary files of flow runs
demo/              the demo's source systems
backups/           backups of the warehouse, which outlive it (`headwater backup run`)
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from deployments.local.errors import LocalStackError

PROJECT_ROOT = Path(__file__).resolve().parents[2]
STACK_LOCK = "stack.lock"
BACKUPS = "backups"
_FOLDERS = ("dbt", "demo", "landing", "logs", "page", "postgres", "prefect", "superset", "tmp")
_FILES = ("env", "secrets.json", "secrets.lock", "state.json", "state.lock", STACK_LOCK, ".gitignore")


def default_home() -> Path:
    """The state folder: HEADWATER_HOME if set, else `.headwater` at the project root."""
    configured = os.environ.get("HEADWATER_HOME")
    return Path(configured).expanduser().absolute() if configured else PROJECT_ROOT / ".headwater"


def prepare(home: Path) -> None:
    """Create the state folder and its parts; raise when it belongs to somebody else.

    An existing folder keeps its permissions. A new one is private; root's lets others pass through (not list), since
    root's PostgreSQL runs as another user and reaches its data through it.
    """
    passable = 0o711 if os.geteuid() == 0 else 0o700
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        if _make(home, passable):
            (home / ".gitignore").write_text("*\n")
        _make(home / "postgres", passable)
        for name in ("landing", "logs", "prefect", "tmp"):
            _make(home / name, 0o700)
    except OSError as error:
        raise LocalStackError(
            f"The state folder cannot be made or written: {error.strerror}.",
            where=str(home),
            remedy="Run as the user who created it, or point HEADWATER_HOME at a folder of your own.",
        ) from error


def remove(home: Path) -> None:
    """Delete what the local stack keeps in its folder, and the folder if nothing else is in it.

    By name, because HEADWATER_HOME may point at a folder that holds other things as well.
    """
    for name in _FOLDERS:
        if (home / name).exists():
            shutil.rmtree(home / name)
    for name in _FILES:
        (home / name).unlink(missing_ok=True)
    if not any(home.iterdir()):
        home.rmdir()


def log_file(home: Path, service: str) -> Path:
    """The log of one service."""
    return home / "logs" / f"{service}.log"


def _make(folder: Path, mode: int) -> bool:
    """Make the folder unless it is there; True if it was made."""
    if folder.is_dir():
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "it belongs to another user", str(folder))
        return False
    folder.mkdir(exist_ok=True)
    folder.chmod(mode)
    return True
