"""Passwords and keys of the local stack: random, made once, kept in `secrets.json` with mode 0600."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from deployments.local.errors import LocalStackError
from deployments.local.files import locked, write_atomically


@dataclass(frozen=True, slots=True)
class _Content:
    passwords: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


class Secrets:
    """The secrets of one state folder. Safe to use from several processes at once."""

    def __init__(self, home: Path) -> None:
        self._path = home / "secrets.json"

    def password(self, name: str) -> str:
        """The secret of this name, made on first use: 32 characters that need no escaping in a URL or a shell."""
        known = self._read().passwords.get(name)
        if known is not None:
            return known
        with locked(self._lock, doing=f"making the secret `{name}`", timeout_seconds=10):
            content = self._read()
            if name not in content.passwords:
                passwords = {**content.passwords, name: secrets.token_urlsafe(24)}
                content = replace(content, passwords=passwords)
                self._write(content)
            return content.passwords[name]

    def variables(self) -> dict[str, str]:
        """Environment variables beyond the stack's own; kept here because they may hold keys."""
        return dict(self._read().variables)

    def set_variables(self, variables: Mapping[str, str]) -> None:
        """Replace those variables."""
        with locked(self._lock, doing="saving environment variables", timeout_seconds=10):
            self._write(replace(self._read(), variables=dict(variables)))

    @property
    def _lock(self) -> Path:
        return self._path.with_suffix(".lock")

    def _read(self) -> _Content:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Content)
        except FileNotFoundError:
            return _Content()
        except (msgspec.DecodeError, OSError) as error:
            raise LocalStackError(
                f"The secrets cannot be read: {error}",
                where=str(self._path),
                remedy="Restore the file from a copy; without it the databases' passwords are lost.",
            ) from error

    def _write(self, content: _Content) -> None:
        write_atomically(self._path, msgspec.json.format(msgspec.json.encode(content)), mode=0o600)
